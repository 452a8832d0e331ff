"""`poolwise simulate`: a plan or a fleet against requests, in the twin."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from planner.domain.errors import InputError
from planner.service.cli import output
from planner.service.cli.options import (
    EstimatesOption,
    FleetOption,
    JsonOption,
    ModelOption,
    SpecOption,
    StartOption,
    instant,
    seconds,
)

if TYPE_CHECKING:
    from planner.domain.spec import Spec
    from planner.service.documents.simulation import SimulationDocument
    from planner.service.simulation import Replicas

EPILOG = (
    "Examples:\n\n"
    "poolwise simulate --spec spec.yaml --trace requests.jsonl --fleet fleet.json\n\n"
    "poolwise plan --spec spec.yaml --trace requests.jsonl --json > p.json; "
    "poolwise simulate --spec spec.yaml --trace requests.jsonl --plan p.json --window 2"
)


def simulate(
    *,
    spec: SpecOption,
    trace: Annotated[
        Path,
        typer.Option(
            "--trace", "-t", help="Requests: Mooncake JSONL or Azure CSV.", metavar="FILE"
        ),
    ],
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", help="A plan in JSON, as `poolwise plan --json` prints it.", metavar="FILE"
        ),
    ] = None,
    window: Annotated[
        int, typer.Option("--window", help="Which window of the plan, from 0.", min=0)
    ] = 0,
    fleet: FleetOption = None,
    start_at: StartOption = None,
    from_s: Annotated[
        float,
        typer.Option(
            "--from-s", help="Skip this much of the trace, seconds.", min=0, callback=seconds
        ),
    ] = 0.0,
    duration_s: Annotated[
        float | None,
        typer.Option(
            "--duration-s",
            help="Replay so much (default: to the end), s.",
            min=0.001,
            callback=seconds,
        ),
    ] = None,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
    json: JsonOption = False,
) -> None:
    """Replay a trace on a plan's or a fleet's replicas in the digital twin. Changes nothing."""
    if (plan is None) == (fleet is None):
        raise InputError(
            "simulate needs replicas: give --plan FILE (from `poolwise plan --json`) or --fleet "
            "FILE, one of them"
        )
    from forecaster.readers import read_trace
    from planner.service.planning import sole_model
    from planner.service.simulation import replay
    from planner.service.spec_file import read_spec

    checked = read_spec(spec, allow_estimates=allow_estimates)
    model = sole_model(checked, model)
    workload = read_trace(trace, start_at=instant(start_at, option="--start-at")).workload
    if from_s or duration_s:
        end_s = workload.duration_s if duration_s is None else from_s + duration_s
        workload = workload.between(from_s, min(end_s, workload.duration_s))
    if len(workload) == 0:
        raise InputError(f"{trace} has no request in the part that was asked for")
    groups = _groups(checked, model, plan=plan, window=window, fleet=fleet, at=workload.start_at)
    with output.working("simulating"):
        result = replay(checked, groups, workload, model=model)
    if json:
        output.print_json(result)
        return
    _show(result)


def _groups(
    spec: "Spec", model: str, *, plan: Path | None, window: int, fleet: Path | None, at: datetime
) -> "tuple[Replicas, ...]":
    from planner.service.documents.fleet import read_fleet
    from planner.service.documents.plan import read_plan
    from planner.service.simulation import replicas_of_fleet, replicas_of_plan

    if plan is not None:
        return replicas_of_plan(read_plan(plan), window=window)
    if fleet is not None:
        return replicas_of_fleet(read_fleet(fleet, spec=spec, read_at=at), model=model)
    raise InputError("give --plan or --fleet")


def _show(result: "SimulationDocument") -> None:
    estimated = ", ESTIMATED profiles: rough" if result.estimated else ""
    output.print_table(
        f"{result.requests:,} requests in {result.duration_s:,.0f} s{estimated}",
        ("pool", "replicas", "busy"),
        [
            [f"{p.role}:{p.accelerator}:tp{p.tp}", str(p.replicas), f"{p.utilization_ratio:.0%}"]
            for p in result.pools
        ],
    )
    latency = result.latency
    output.print_table(
        "",
        ("", "p50", "p95"),
        [
            ["TTFT", *map(output.milliseconds, (latency.ttft_p50_s, latency.ttft_p95_s))],
            ["TPOT", *map(output.milliseconds, (latency.tpot_p50_s, latency.tpot_p95_s))],
            ["ITL", *map(output.milliseconds, (latency.itl_p50_s, latency.itl_p95_s))],
            ["end to end", "-", output.milliseconds(latency.e2e_p95_s)],
        ],
    )
    low, high = result.predicted.attainment_low_ratio, result.predicted.attainment_high_ratio
    output.console().print(
        f"Attainment {output.percent(latency.attainment_ratio)} "
        f"({output.percent(low)} to {output.percent(high)} with 95 % confidence)"
    )
    if result.extrapolated_requests:
        output.note(
            f"{result.extrapolated_requests} of {result.requests} requests lie outside what the "
            "profiles measured: their times are extrapolated"
        )
