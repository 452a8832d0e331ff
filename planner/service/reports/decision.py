"""The plan, what was rejected, the guards, the approval and the steps, as tables."""

from collections.abc import Sequence

from planner.domain.plan import Plan, PlanStatus, PlanWindow
from planner.service.demo.outcome import Outcome
from planner.service.reports.quantities import (
    MISSING,
    duration,
    rate,
    share,
    short_fleet,
    usd_per_hour,
    words,
)
from planner.service.reports.table import (
    Cell,
    Column,
    Fact,
    Table,
    cells,
    number_columns,
    text_columns,
)


def plan_facts(outcome: Outcome) -> tuple[Fact, ...]:
    """The plan's own figures, its solver and its approval."""
    plan, approval = outcome.plan, outcome.approval
    facts = [Fact(term="Status", value=plan.status.value)]
    if plan.windows:
        facts += [
            Fact(term="Bottleneck", value=words(plan.windows[0].bottleneck)),
            Fact(term="Cost", value=f"{usd_per_hour(plan.usd_per_hour)} over the horizon"),
        ]
    again = "the same seed gives the same plan" if plan.solver.replayable else "not replayable"
    facts += [
        Fact(
            term="Solver",
            value=f"{plan.solver.name}, gap {share(plan.solver.gap_ratio)}, "
            f"{duration(plan.solver.wall_s)}; {again}",
        ),
        Fact(
            term="Approval",
            value=f"{words(approval.state)} by {approval.changed_by}"
            + (f": {approval.reason}" if approval.reason else ""),
        ),
        Fact(term="Plan", value=plan.plan_id),
    ]
    return tuple(facts)


def windows_table(plan: Plan) -> Table:
    """One row per window of the plan."""
    rows = [
        cells(
            _when(plan, window),
            short_fleet(window),
            rate(window.request_rate_rps, "requests"),
            share(window.predicted.attainment_ratio),
            words(window.bottleneck),
            usd_per_hour(window.usd_per_hour),
        )
        for window in plan.windows
    ]
    return Table(
        caption="Windows",
        columns=(
            *text_columns("Window", "Fleet"),
            *number_columns("Planned for", "Predicted attainment"),
            *text_columns("Bottleneck"),
            *number_columns("Cost"),
        ),
        rows=tuple(rows),
        when_empty="The plan has no window: no fleet within the limits keeps the promise.",
    )


def _when(plan: Plan, window: PlanWindow) -> str:
    start_s = (window.start_at - plan.windows[0].start_at).total_seconds()
    return f"{start_s:,.0f} to {start_s + window.window_s:,.0f} s"


def pools_table(plan: Plan) -> Table:
    """Pools of the first window, which is the one that is applied."""
    pools = plan.windows[0].pools if plan.windows else ()
    rows = [
        (
            Cell(text=pool.shape.label, code=True),
            Cell(text=f"{pool.replicas:,}"),
            Cell(text=words(pool.purchase_option)),
            Cell(text=share(pool.utilization_ratio), bar_ratio=_clipped(pool.utilization_ratio)),
        )
        for pool in pools
    ]
    return Table(
        caption="Pools of the first window",
        columns=(
            *text_columns("Pool"),
            *number_columns("Replicas"),
            *text_columns("Bought as"),
            *number_columns("Utilization"),
        ),
        rows=tuple(rows),
        when_empty="The plan has no pool.",
    )


def _clipped(ratio: float) -> float:
    return min(max(ratio, 0.0), 1.0) if ratio == ratio else 0.0  # noqa: PLR0124  NaN: no bar


def binding_table(plan: Plan) -> Table:
    """Constraints without slack."""
    rows = [
        (Cell(text=b.row, code=True), Cell(text=b.sentence), Cell(text=b.equation, code=True))
        for b in plan.binding
    ]
    return Table(
        caption="What bound the plan",
        columns=text_columns("Row", "In words", "Equation"),
        rows=tuple(rows),
        when_empty="No constraint was binding.",
    )


def rejected_table(plan: Plan) -> Table:
    """Fleets that were considered and not chosen."""
    rows = [
        cells(r.name, r.reason, MISSING if r.usd_per_hour is None else usd_per_hour(r.usd_per_hour))
        for r in plan.rejected
    ]
    return Table(
        caption="Rejected alternatives",
        columns=(*text_columns("Alternative", "Reason"), *number_columns("Cost")),
        rows=tuple(rows),
        when_empty="No alternative was worth naming.",
    )


def guards_table(outcome: Outcome) -> Table:
    """What every guard said of the steps."""
    rows = [cells(words(f.guard), words(f.verdict), f.reason or MISSING) for f in outcome.findings]
    return Table(
        caption="Guards",
        columns=text_columns("Guard", "Verdict", "Reason"),
        rows=tuple(rows),
        when_empty="No guard had anything to say.",
    )


def steps_table(outcome: Outcome) -> Table:
    """Steps in order, with the seconds expected and taken."""
    taken: Sequence[float | None] = [r.took_s for r in outcome.applied]
    steps = outcome.diff.steps
    rows = []
    for i, step in enumerate(steps):
        to = f" → {step.to_shape.label}" if step.to_shape else ""
        took = duration(taken[i]) if i < len(taken) else "not applied"
        rows.append(
            (
                Cell(text=f"{i + 1}. {step.kind}"),
                Cell(text=f"{step.shape.label}{to}", code=True),
                Cell(text=step.reason),
                Cell(text=duration(step.expected_s)),
                Cell(text=took),
            )
        )
    return Table(
        caption="Steps",
        columns=(
            *text_columns("Step", "Pool", "Reason"),
            Column(heading="Expected", number=True),
            Column(heading="Taken", number=True),
        ),
        rows=tuple(rows),
        when_empty="There was no step to take: "
        + (
            "there is no feasible plan."
            if outcome.plan.status is PlanStatus.INFEASIBLE
            else "the fleet was as planned."
        ),
    )
