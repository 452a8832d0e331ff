"""`poolwise plan`: one plan, explained."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import typer

from planner.domain.errors import InputError, PoolwiseError
from planner.service.cli import output
from planner.service.cli import plan_options as asked
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.options import (
    AtOption,
    EstimatesOption,
    FleetOption,
    JsonOption,
    ModelOption,
    SpecOption,
    StartOption,
    TraceOption,
    instant,
)
from planner.service.cli.plan_tables import show_frontier, show_plan, show_shares, show_what_if

if TYPE_CHECKING:
    from planner.domain.fleet import Fleet
    from planner.domain.forecast import Forecast
    from planner.domain.spec import Spec
    from planner.optimize import ParetoPoint
    from planner.service.answers.planning import Proposal
    from planner.service.documents.answers import Beside
    from planner.service.spec.what_if import WhatIf

EPILOG = (
    "Examples:\n\n"
    "poolwise plan --spec spec.yaml --trace requests.jsonl\n\n"
    "poolwise plan --spec spec.yaml --trace requests.csv --fleet fleet.json --json\n\n"
    "poolwise forecast --spec spec.yaml --trace requests.csv --json > f.json; "
    "poolwise plan --spec spec.yaml --forecast f.json\n\n"
    "poolwise plan --spec spec.yaml --trace requests.csv --what-if accelerators.h100.inventory=4 "
    "--what-if slos.0.ttft_s=x0.8,rate=x1.5\n\n"
    "poolwise plan --spec spec.yaml --trace requests.csv --explain --pareto\n\n"
    "poolwise plan --spec spec.yaml --model-trace chat=chat.csv --model-trace code=code.csv\n\n"
    "Exit status: 0 a plan; 1 no fleet keeps the objectives (says what to relax); 2 bad input, "
    "also where --what-if shows a plan beside it."
)


def plan(
    *,
    spec: SpecOption,
    trace: TraceOption = None,
    forecast: asked.ForecastOption = None,
    fleet: FleetOption = None,
    start_at: StartOption = None,
    at: AtOption = None,
    model: ModelOption = None,
    model_trace: asked.ModelTraceOption = None,
    objective: asked.ObjectiveOption = None,
    what_if: asked.WhatIfOption = None,
    explain: asked.ExplainOption = False,
    pareto: asked.ParetoOption = False,
    allow_estimates: EstimatesOption = False,
    json: JsonOption = False,
) -> None:
    """Plan pools for the next windows: how many prefill and decode replicas of what, and why.

    Forecasts from a trace (or takes a forecast), finds the cheapest fleet that keeps the spec's
    objectives, and proves it in the digital twin. With --fleet it shows the steps to get there.
    Changes nothing.
    """
    if model_trace:
        _plan_together(
            _Shared(spec, objective, allow_estimates, fleet, explain, json),
            _traces(model_trace, [trace, forecast, model, what_if, pareto or None]),
            start_at=instant(start_at, option="--start-at"),
            at=instant(at, option="--at"),
        )
        return
    if (trace is None) == (forecast is None):
        raise InputError(
            "plan needs to know what is coming: give --trace FILE (requests to forecast from) or "
            "--forecast FILE (from `poolwise forecast --json`), one of them"
        )
    from planner.service.answers.planning import UNPLANNABLE, propose, sole_model
    from planner.service.documents.fleet import read_fleet
    from planner.service.spec.file import read_spec
    from planner.service.spec.what_if import with_objective

    checked = with_objective(
        read_spec(spec, allow_estimates=allow_estimates, catalogue=known_accelerators()), objective
    )
    changes = [_changed(spec, text, objective, allow_estimates) for text in what_if or []]
    model = sole_model(checked, model)
    source = _Source(
        trace=trace,
        forecast=forecast,
        start_at=instant(start_at, option="--start-at"),
        at=instant(at, option="--at"),
    )
    with output.working("forecasting"):
        expected = _forecast(checked, model, source)
    now = expected.made_at
    running = None if fleet is None else read_fleet(fleet, spec=checked, read_at=now)
    refused: PoolwiseError | None = None
    proposal: Proposal | None = None
    with output.working("planning"):
        try:
            proposal = propose(checked, expected, running, model=model, now=now, explain=explain)
        except UNPLANNABLE as error:
            if not changes:
                raise
            refused = error
        beside = [_plan_beside(c, checked, source, expected, running) for c in changes]
    points = _frontier(checked, expected, running, now) if pareto else ()
    answered = str(refused) if proposal is None else proposal
    if json:
        _print_json(answered, beside, points)
    else:
        _show(answered, beside, points, explain=explain)
    if refused is not None:
        raise typer.Exit(2 if isinstance(refused, InputError) else 1)
    if proposal is not None and proposal.plan.status == "infeasible":
        raise typer.Exit(1)


class _Shared(NamedTuple):
    """What plans of several models have in common."""

    spec: Path
    objective: str | None
    allow_estimates: bool
    fleet: Path | None
    explain: bool
    json: bool


def _traces(named: Sequence[str], others: Sequence[object]) -> dict[str, Path]:
    if any(other is not None for other in others):
        raise InputError(
            "--model-trace plans several models together: it does not go with --trace, --forecast, "
            "--model, --what-if or --pareto"
        )
    traces: dict[str, Path] = {}
    for text in named:
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise InputError(f"--model-trace {text}: give MODEL=FILE, as in chat=requests.csv")
        if name in traces:
            raise InputError(f"--model-trace names {name} twice: give one trace a model")
        traces[name] = Path(path)
    return traces


def _plan_together(
    shared: _Shared, traces: dict[str, Path], *, start_at: datetime | None, at: datetime | None
) -> None:
    from planner.autoscale.in_cells import in_cells
    from planner.optimize import plan_together
    from planner.service.answers.planning import expected_together
    from planner.service.documents.answers import plans_answer
    from planner.service.documents.fleet import read_fleet
    from planner.service.spec.file import read_spec
    from planner.service.spec.what_if import with_objective

    spec = read_spec(
        shared.spec, allow_estimates=shared.allow_estimates, catalogue=known_accelerators()
    )
    spec = with_objective(spec, shared.objective)
    with output.working("forecasting"):
        forecasts = expected_together(
            spec, traces, start_at=start_at, at=at, told=output.note_report
        )
    now = forecasts[0].made_at
    running = None if shared.fleet is None else read_fleet(shared.fleet, spec=spec, read_at=now)
    with output.working("planning"):
        together = plan_together(spec, forecasts, running, made_at=now, explain=shared.explain)
        plans = tuple(
            in_cells(made, spec, ahead, running)
            for made, ahead in zip(together, forecasts, strict=True)
        )
    if shared.json:
        output.print_json(plans_answer(plans))
    else:
        for made in plans:
            output.console().print(f"[bold]{made.model}[/bold]")
            show_plan(made, explain=shared.explain)
        show_shares(spec, plans)
    if any(made.status == "infeasible" for made in plans):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where demand is known from, and up to when."""

    trace: Path | None
    forecast: Path | None
    start_at: datetime | None
    at: datetime | None


def _forecast(spec: "Spec", model: str, source: _Source) -> "Forecast":
    from planner.service.answers.planning import expected_demand, trace_history
    from planner.service.documents.forecast import read_forecast

    trace = source.trace
    if trace is None:
        if source.forecast is None:
            raise InputError("give --trace or --forecast")
        return read_forecast(source.forecast)
    history = trace_history(
        trace, window_s=spec.forecast.window_s, start_at=source.start_at, at=source.at
    )
    output.note_report(trace, history.report)
    return expected_demand(
        spec,
        history.windows,
        model=model,
        made_at=source.at or history.ended_at,
        arrival_cv2=history.arrival_cv2,
    )


def _plan_beside(
    change: "WhatIf",
    spec: "Spec",
    source: _Source,
    expected: "Forecast",
    running: "Fleet | None",
) -> "Beside":
    """The plan of a changed spec, forecast anew where it asks for other windows."""
    from planner.service.answers.planning import plan_beside

    def again(other: "Spec") -> "Forecast":
        return _forecast(other, expected.model, replace(source, at=expected.made_at))

    again_from = None if source.trace is None else again
    return plan_beside(change, expected, running, spec=spec, forecast_again=again_from)


def _changed(path: Path, text: str, objective: str | None, allow_estimates: bool) -> "WhatIf":
    from planner.service.spec.what_if import what_if, with_objective

    change = what_if(path, text, allow_estimates=allow_estimates)
    return replace(change, spec=with_objective(change.spec, objective))


def _frontier(
    spec: "Spec", forecast: "Forecast", fleet: "Fleet | None", now: datetime
) -> "tuple[ParetoPoint, ...]":
    from planner.optimize import frontier
    from planner.service.cli.progress import counting

    with counting("planning other promises") as progress:
        return frontier(spec, forecast, fleet, made_at=now, progress=progress)


def _print_json(
    proposal: "Proposal | str",
    beside: "Sequence[Beside]",
    points: "Sequence[ParetoPoint]",
) -> None:
    from planner.service.documents.answers import plan_answer, refused_answer

    if isinstance(proposal, str):
        output.print_json(refused_answer(proposal, what_if=beside, pareto=points))
        return
    answer = plan_answer(
        proposal.plan, proposal.diff, proposal.findings, what_if=beside, pareto=points
    )
    output.print_json(answer)


def _show(
    proposal: "Proposal | str",
    beside: "Sequence[Beside]",
    points: "Sequence[ParetoPoint]",
    *,
    explain: bool,
) -> None:
    if isinstance(proposal, str):
        show_what_if(proposal, beside)
    else:
        _show_proposal(proposal, explain=explain)
        show_what_if(proposal.plan, beside)
    show_frontier(points)


def _show_proposal(proposal: "Proposal", *, explain: bool) -> None:
    show_plan(proposal.plan, explain=explain)
    if proposal.diff is not None:
        from actuators.dry_run import render_text

        out = output.console()
        out.print("[bold]Steps from the fleet to the first window[/bold]")
        if proposal.plan.status == "infeasible":
            out.print("none: no fleet keeps the objectives, so there is nothing to change to")
            return
        out.print(render_text(proposal.diff), markup=False)
        objections = [f for f in proposal.findings if f.verdict != "allow"]
        output.print_lines("Guards", [f"{f.guard} ({f.verdict}): {f.reason}" for f in objections])
