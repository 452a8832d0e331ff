"""What a plan changes: its steps, the replicas before and after, and how far it is."""

from collections import Counter
from collections.abc import Sequence

from planner.domain.plan import Plan
from planner.domain.rollout import StepKind
from planner.service.documents.fleet import FleetDocument
from planner.service.documents.replica_shape import label_of
from planner.service.documents.rollout import DiffDocument
from planner.service.reports.quantities import MISSING, duration, sentence, share, usd, words
from planner.service.reports.table import Cell, Table, cells, number_columns, text_columns
from planner.service.store import BegunStep

_DOES = {
    StepKind.START: "start",
    StepKind.FLIP: "change role",
    StepKind.ROUTE: "send traffic to",
    StepKind.DRAIN: "let finish",
    StepKind.STOP: "stop",
}


def steps_table(diff: DiffDocument) -> Table:
    """The steps in their order."""
    rows = []
    for step in diff.steps:
        to = f" → {label_of(step.to_shape)}" if step.to_shape else ""
        rows.append(
            (
                Cell(text=f"{step.index + 1}. {_DOES[step.kind]}"),
                Cell(text=f"{label_of(step.shape)}{to}", code=True),
                Cell(text=sentence(step.reason)),
                Cell(text=duration(step.expected_s) if step.expected_s else "at once"),
                Cell(text=usd(step.expected_usd) if step.expected_usd else MISSING),
            )
        )
    return Table(
        caption="Steps",
        columns=(
            *text_columns("Step", "Pool", "Why"),
            *number_columns("Expected", "Wasted"),
        ),
        rows=tuple(rows),
        when_empty="The fleet is as planned: there is nothing to do.",
    )


def pools_table(before: FleetDocument, plan: Plan) -> Table:
    """Every pool as it was when the plan was made, and as planned for its first window."""
    now: Counter[tuple[str, str]] = Counter()
    for pool in before.pools:
        now[label_of(pool), pool.purchase_option.value] += pool.ready + pool.starting
    planned = plan.windows[0].pools if plan.windows else ()
    wanted = {(p.shape.label, p.purchase_option.value): p for p in planned}
    rows = []
    for label, option in sorted({*now, *wanted}):
        one, count = wanted.get((label, option)), now[label, option]
        replicas = 0 if one is None else one.replicas
        if not count and not replicas:
            continue
        busy = None if one is None else min(max(one.utilization_ratio, 0.0), 1.0)
        rows.append(
            (
                Cell(text=label, code=True),
                Cell(text=words(option)),
                Cell(text=f"{count:,}"),
                Cell(text=f"{replicas:,}"),
                Cell(text=f"{replicas - count:+,}" if replicas != count else "as it is"),
                Cell(text=share(None if one is None else one.utilization_ratio), bar_ratio=busy),
            )
        )
    return Table(
        caption="Replicas",
        columns=(
            *text_columns("Pool", "Bought as"),
            *number_columns("Before", "Planned", "Change", "Busy, as planned"),
        ),
        rows=tuple(rows),
        when_empty="There is no pool.",
    )


def begun_table(steps: Sequence[BegunStep]) -> Table:
    """When each step was begun."""
    rows = [cells(f"{one.begun_at:%Y-%m-%d %H:%M:%S}", sentence(one.what)) for one in steps]
    return Table(
        caption="Steps as they were begun",
        columns=text_columns("When, UTC", "Step"),
        rows=tuple(rows),
        when_empty="None was begun yet.",
    )


def step_under_way(steps: Sequence[BegunStep]) -> str:
    """What is being done at this moment."""
    running = [one.what for one in steps if one.under_way]
    return (
        sentence(f"{running[-1]} is under way") if running else "The first step is about to begin."
    )
