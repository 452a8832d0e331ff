"""`poolwise plan`: one plan, explained."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli import output
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

if TYPE_CHECKING:
    from planner.domain.forecast import Forecast
    from planner.domain.plan import Plan, PlannedPool
    from planner.domain.spec import Spec
    from planner.service.planning import Proposal

EPILOG = (
    "Examples:\n\n"
    "poolwise plan --spec spec.yaml --trace requests.jsonl\n\n"
    "poolwise plan --spec spec.yaml --trace requests.csv --fleet fleet.json --json\n\n"
    "poolwise forecast --spec spec.yaml --trace requests.csv --json > f.json; "
    "poolwise plan --spec spec.yaml --forecast f.json\n\n"
    "Exit status: 0 a plan; 1 no fleet keeps the objectives (says what to relax); 2 bad input."
)


def plan(
    *,
    spec: SpecOption,
    trace: TraceOption = None,
    forecast: Annotated[
        Path | None,
        typer.Option(
            "--forecast",
            help="A forecast in JSON, as `poolwise forecast --json` prints it; instead of --trace.",
            metavar="FILE",
        ),
    ] = None,
    fleet: FleetOption = None,
    start_at: StartOption = None,
    at: AtOption = None,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
    json: JsonOption = False,
) -> None:
    """Plan pools for the next windows: how many prefill and decode replicas of what, and why.

    Forecasts from a trace (or takes a forecast), finds the cheapest fleet that keeps the spec's
    objectives, and proves it in the digital twin. With --fleet it shows the steps to get there.
    Changes nothing.
    """
    if (trace is None) == (forecast is None):
        raise InputError(
            "plan needs to know what is coming: give --trace FILE (requests to forecast from) or "
            "--forecast FILE (from `poolwise forecast --json`), one of them"
        )
    from planner.service.documents.fleet import read_fleet
    from planner.service.planning import propose, sole_model
    from planner.service.spec_file import read_spec

    checked = read_spec(spec, allow_estimates=allow_estimates)
    model = sole_model(checked, model)
    moment = instant(at, option="--at")
    with output.working("forecasting"):
        expected = _forecast(
            checked,
            model,
            trace=trace,
            forecast=forecast,
            start_at=instant(start_at, option="--start-at"),
            at=moment,
        )
    now = expected.made_at
    running = None if fleet is None else read_fleet(fleet, spec=checked, read_at=now)
    with output.working("planning"):
        proposal = propose(checked, expected, running, model=model, now=now)
    _show(proposal, as_json=json)
    if proposal.plan.status == "infeasible":
        raise typer.Exit(1)


def _forecast(
    spec: "Spec",
    model: str,
    *,
    trace: Path | None,
    forecast: Path | None,
    start_at: datetime | None,
    at: datetime | None,
) -> "Forecast":
    from planner.service.documents.forecast import read_forecast
    from planner.service.planning import expected_demand, trace_history

    if trace is None:
        if forecast is None:
            raise InputError("give --trace or --forecast")
        return read_forecast(forecast)
    history = trace_history(trace, window_s=spec.forecast.window_s, start_at=start_at, at=at)
    output.note_skipped(trace, history.report.reasons)
    return expected_demand(
        spec,
        history.windows,
        model=model,
        made_at=at or history.ended_at,
        arrival_cv2=history.arrival_cv2,
    )


def _show(proposal: "Proposal", *, as_json: bool) -> None:
    if as_json:
        from planner.service.documents.answers import plan_answer

        output.print_json(plan_answer(proposal.plan, proposal.diff, proposal.findings))
        return
    show_plan(proposal.plan)
    if proposal.diff is not None:
        from actuators.dry_run import render_text

        out = output.console()
        out.print("[bold]Steps from the fleet to the first window[/bold]")
        out.print(render_text(proposal.diff), markup=False)
        objections = [f for f in proposal.findings if f.verdict != "allow"]
        output.print_lines("Guards", [f"{f.guard} ({f.verdict}): {f.reason}" for f in objections])


def show_plan(plan: "Plan") -> None:
    """A plan for people: windows, what bound it, what was rejected, how it was solved."""
    estimated = ", ESTIMATED profiles: rough" if plan.estimated else ""
    title = f"Plan {plan.plan_id}: {plan.status}, {plan.usd_per_hour:,.2f} USD/h{estimated}"
    rows = [
        [
            window.start_at.strftime("%m-%d %H:%M"),
            f"{window.request_rate_rps:.3g}/s",
            "\n".join(_pool_text(pool) for pool in window.pools if pool.replicas) or "none",
            output.percent(window.predicted.attainment_ratio),
            output.milliseconds(window.predicted.ttft_p95_s),
            output.milliseconds(window.predicted.tpot_p95_s),
            output.milliseconds(window.predicted.itl_p95_s),
            str(window.bottleneck),
            f"{window.usd_per_hour:,.2f}",
        ]
        for window in plan.windows
    ]
    columns = (
        "window (" + (plan.windows[0].start_at.tzname() or "UTC") + ")"
        if plan.windows
        else "window",
        "rate",
        "replicas (utilization)",
        "in SLO",
        "TTFT p95",
        "TPOT p95",
        "ITL p95",
        "bottleneck",
        "USD/h",
    )
    output.print_table(title, columns, rows, numbers_from=3, unbroken=columns[:3])
    output.print_lines("What bound it", [f"{row.sentence} [{row.row}]" for row in plan.binding])
    output.print_lines(
        "Considered and not chosen", [_rejected(plan, i) for i in range(len(plan.rejected))]
    )
    output.print_lines("What to relax", plan.relaxations)
    solver = plan.solver
    output.console().print(
        f"Solved by {solver.name} in {solver.wall_s:.2f} s, gap {solver.gap_ratio:.2%}.",
        markup=False,
    )


def _pool_text(pool: "PlannedPool") -> str:
    bought = "" if pool.purchase_option == "on_demand" else f" {pool.purchase_option}"
    return f"{pool.replicas} x {pool.shape.label}{bought} ({pool.utilization_ratio:.0%})"


def _rejected(plan: "Plan", index: int) -> str:
    other = plan.rejected[index]
    price = "" if other.usd_per_hour is None else f" ({other.usd_per_hour:,.2f} USD/h)"
    return f"{other.name}{price}: {other.reason}"
