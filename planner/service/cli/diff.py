"""`poolwise diff`: the steps from a fleet to a plan, for people, programs, a cluster or git."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from planner.domain.errors import InputError, OperationError
from planner.service.cli import output
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.cell_tables import show_cells
from planner.service.cli.options import (
    AtOption,
    EstimatesOption,
    ModelOption,
    SpecOption,
    StartOption,
    instant,
)

if TYPE_CHECKING:
    from planner.domain.rollout import Diff
    from planner.domain.target import CountTarget

EPILOG = (
    "For manifests and patches, target.objects of the spec says which object holds the count of "
    "which pool; docs/actuators.md has an example.\n\n"
    "Examples:\n\n"
    "poolwise diff --spec spec.yaml --trace requests.csv --fleet fleet.json\n\n"
    "poolwise diff --spec spec.yaml --trace requests.csv --fleet fleet.json --manifests deploy/ "
    "--format patch | git apply"
)


def diff(
    *,
    spec: SpecOption,
    trace: Annotated[
        Path, typer.Option("--trace", "-t", help="Requests to forecast from.", metavar="FILE")
    ],
    fleet: Annotated[
        Path,
        typer.Option("--fleet", help="The fleet that runs (JSON; - for stdin).", metavar="FILE"),
    ],
    format_: Annotated[
        Literal["text", "json", "manifests", "patch"],
        typer.Option("--format", "-f", help="Steps, JSON, what a cluster is sent, or for git."),
    ] = "text",
    manifests: Annotated[
        Path | None,
        typer.Option("--manifests", help="Folder of YAML in git, for patch.", metavar="DIR"),
    ] = None,
    start_at: StartOption = None,
    at: AtOption = None,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
    json: Annotated[bool, typer.Option("--json", help="As --format json.")] = False,
) -> None:
    """Plan, and show what it would change: steps, requests to a cluster, or a patch for git.

    Guards are not asked (`poolwise plan` shows them). Changes nothing.
    """
    if (format_ == "patch") != (manifests is not None):
        raise InputError("--manifests DIR goes with --format patch, which needs it")
    from planner.service.answers.planning import expected_demand, propose, sole_model, trace_history
    from planner.service.documents.answers import diff_answer
    from planner.service.documents.fleet import read_fleet
    from planner.service.spec.file import read_spec

    checked = read_spec(spec, allow_estimates=allow_estimates, catalogue=known_accelerators())
    if format_ in ("manifests", "patch") and not checked.cluster.objects:
        raise InputError(
            f"--format {format_} needs target.objects in {spec}: which object holds the count of "
            "which pool"
        )
    model = sole_model(checked, model)
    until = instant(at, option="--at")
    history = trace_history(
        trace,
        window_s=checked.forecast.window_s,
        start_at=instant(start_at, option="--start-at"),
        at=until,
    )
    output.note_report(trace, history.report)
    now = until or history.ended_at
    with output.working("planning"):
        expected = expected_demand(
            checked,
            history.windows,
            model=model,
            made_at=now,
            arrival_cv2=history.arrival_cv2,
        )
        running = read_fleet(fleet, spec=checked, read_at=now)
        proposal = propose(checked, expected, running, model=model, now=now)
    if proposal.diff is None or proposal.plan.status == "infeasible":
        raise OperationError(
            "no fleet keeps the objectives, so there is nothing to change to: `poolwise plan` "
            "says what to relax"
        )
    if json or format_ == "json":
        output.print_json(diff_answer(proposal.diff, proposal.plan))
        return
    _print(proposal.diff, format_, checked.cluster.located, manifests)
    if format_ == "text":
        show_cells(proposal.plan)


def _print(
    diff: "Diff", format_: str, objects: "tuple[CountTarget, ...]", manifests: Path | None
) -> None:
    from actuators import dry_run

    if format_ == "manifests":
        counts = dry_run.target_counts(diff, objects)
        typer.echo(dry_run.render_manifests(counts), nl=False)
    elif format_ == "patch" and manifests is not None:
        counts = dry_run.target_counts(diff, objects)
        typer.echo(dry_run.render_patch(counts, manifests), nl=False)
    else:
        typer.echo(dry_run.render_text(diff))
