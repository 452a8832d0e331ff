"""A plan as somebody has to see it who is to approve it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from planner.domain.guards import ApprovalPolicy
from planner.domain.plan import ClassAttainment, Plan, PlanStatus, PlanWindow, Prediction
from planner.domain.rollout import Approval, ApprovalState, StepKind, Verdict
from planner.service.documents.fleet import FleetDocument
from planner.service.documents.replica_shape import label_of
from planner.service.documents.rollout import DiffDocument, FindingDocument
from planner.service.reports.decision import binding_table, rejected_table
from planner.service.reports.quantities import (
    MISSING,
    counted,
    duration,
    rate,
    sentence,
    share,
    short_fleet,
    span,
    usd,
    usd_per_hour,
    words,
)
from planner.service.reports.table import (
    Cell,
    Fact,
    Table,
    cells,
    number_columns,
    text_columns,
)
from planner.service.security.access import Principal
from planner.service.store import BegunStep, PlanRecord

STATES = {
    ApprovalState.DRAFT: ("draft", "nobody is asked about it"),
    ApprovalState.PENDING: ("waits for approval", "nothing moves before somebody approves it"),
    ApprovalState.APPROVED: ("approved", "it is applied at the next tick, or now by a person"),
    ApprovalState.REJECTED: ("rejected", "nothing comes of it"),
    ApprovalState.EXPIRED: ("expired", "nobody decided in time"),
    ApprovalState.APPLYING: ("being applied", "the fleet is being moved"),
    ApprovalState.APPLIED: ("applied", "every step was carried out"),
    ApprovalState.FAILED: ("failed", "a step did not succeed"),
    ApprovalState.ROLLING_BACK: ("being rolled back", "the fleet is being put back"),
    ApprovalState.ROLLED_BACK: ("rolled back", "the fleet is as it was before"),
    ApprovalState.SUPERSEDED: ("superseded", "another plan took its place"),
}
TONES = {
    ApprovalState.PENDING: "waits",
    ApprovalState.APPROVED: "waits",
    ApprovalState.APPLYING: "waits",
    ApprovalState.ROLLING_BACK: "waits",
    ApprovalState.APPLIED: "good",
    ApprovalState.FAILED: "bad",
    ApprovalState.REJECTED: "bad",
}
_SEVERITY = (Verdict.REFUSE, Verdict.DELAY, Verdict.CLAMP, Verdict.NOTE, Verdict.ALLOW)
_DOES = {
    StepKind.START: "start",
    StepKind.FLIP: "change role",
    StepKind.ROUTE: "send traffic to",
    StepKind.DRAIN: "let finish",
    StepKind.STOP: "stop",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """A plan in a list."""

    plan_id: str
    deployment: str
    state: str
    tone: str
    made_at: datetime
    asked_by: str
    change: str
    cost: str
    attainment: str
    steps: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLine:
    """What a guard said."""

    guard: str
    verdict: str
    tone: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What may be done with a plan where it stands.

    Parameters
    ----------
    revision : int
        What was shown; a form that was made for another one is refused.
    withdraw : bool
        Whether an approval may be taken back: nothing was begun yet.
    told : str
        Why the person who asks may not approve it; empty: they may, as far as the policy goes.
    """

    revision: int
    approve: bool
    withdraw: bool
    apply: bool
    roll_back: bool
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanView:
    """All that a plan's page shows."""

    line: PlanLine
    state_note: str
    answer: str
    doubts: tuple[str, ...]
    choices: Choices
    facts: tuple[Fact, ...]
    steps: Table
    pools: Table
    effect: Table
    classes: Table
    replay: str
    guards: tuple[GuardLine, ...]
    allowed: int
    binding: Table
    rejected: Table
    relaxations: tuple[str, ...]
    history: Table
    begun: Table
    under_way: str
    moving: bool


def plan_line(record: PlanRecord) -> PlanLine:
    """A plan in a list."""
    plan, approval = record.plan, record.approval
    first = plan.windows[0] if plan.windows else None
    predicted = None if first is None else first.predicted.attainment_ratio
    return PlanLine(
        plan_id=plan.plan_id,
        deployment=record.deployment,
        state=STATES[approval.state][0],
        tone=TONES.get(approval.state, ""),
        made_at=record.created_at,
        asked_by=asker(approval),
        change=_change(record.diff.from_fleet, first),
        cost=usd_per_hour(plan.usd_per_hour),
        attainment=share(predicted),
        steps=counted(len(record.diff.steps), "step"),
    )


def plan_view(
    record: PlanRecord,
    approvals: Sequence[Approval],
    begun: Sequence[BegunStep],
    *,
    policy: ApprovalPolicy,
    targets: dict[str, float],
    more_usd_per_hour: float | None,
    me: Principal | None,
) -> PlanView:
    """A plan's page.

    Parameters
    ----------
    policy : ApprovalPolicy
        Of the deployment's spec in force.
    targets : dict of str to float
        The share of requests that each class was promised, 0..1.
    more_usd_per_hour : float or None
        By which the steps make the fleet dearer; below 0: cheaper; None: not known any more.
    """
    plan, approval = record.plan, record.approval
    guards = _guards(record.findings)
    return PlanView(
        line=plan_line(record),
        state_note=STATES[approval.state][1],
        answer=_answer(record, targets, more_usd_per_hour),
        doubts=_doubts(plan),
        choices=choices(record, policy=policy, me=me),
        facts=_facts(record),
        steps=steps_table(record.diff),
        pools=_pools(record.diff.from_fleet, plan),
        effect=_effect(plan),
        classes=_classes(plan),
        replay=_replay(plan),
        guards=guards,
        allowed=sum(one.tone == "good" for one in guards),
        binding=binding_table(plan),
        rejected=rejected_table(plan),
        relaxations=tuple(sentence(one) for one in plan.relaxations),
        history=_history(approvals),
        begun=_begun(begun),
        under_way=_under_way(begun) if approval.state.moves else "",
        moving=approval.state.moves,
    )


def choices(record: PlanRecord, *, policy: ApprovalPolicy, me: Principal | None) -> Choices:
    """What may be done with a plan where it stands."""
    approval = record.approval
    pending = approval.state is ApprovalState.PENDING
    told = ""
    if pending and me is not None:
        asked = approval.requested_by
        if asked == me.name and not policy.requester_may_approve:
            told = "You asked for this plan: the spec's policy wants somebody else to approve it."
        elif me.name in approval.approvers:
            told = "You have approved it: another person has to as well."
    return Choices(
        revision=record.revision,
        approve=pending,
        withdraw=approval.state is ApprovalState.APPROVED,
        apply=approval.state in (ApprovalState.APPROVED, ApprovalState.FAILED),
        roll_back=approval.state in (ApprovalState.APPLIED, ApprovalState.FAILED),
        told=told,
    )


def asker(approval: Approval) -> str:
    """Who asked for a plan, as people say it."""
    name = approval.requested_by or approval.changed_by
    return "the loop" if name == "policy" else name


def _change(before: FleetDocument, after: PlanWindow | None) -> str:
    now = _short(before)
    return now if after is None else f"{now} → {short_fleet(after)}"


def _short(fleet: FleetDocument) -> str:
    letters = (("prefill", "P"), ("decode", "D"), ("aggregated", "A"))
    counts = {
        role: sum(p.ready + p.starting for p in fleet.pools if p.role == role)
        for role, _ in letters
    }
    return "".join(f"{counts[role]}{letter}" for role, letter in letters if counts[role]) or "empty"


def _answer(record: PlanRecord, targets: dict[str, float], more: float | None) -> str:
    plan = record.plan
    if plan.status is PlanStatus.INFEASIBLE or not plan.windows:
        return "No fleet within the spec's limits keeps the promises."
    first, diff = plan.windows[0], record.diff
    if not diff.steps:
        done = "Nothing has to change"
    else:
        done = (
            f"{counted(len(diff.steps), 'step').capitalize()}, about {span(diff.expected_s)}, "
            f"from {_short(diff.from_fleet)} to {short_fleet(first)}"
        )
    target = max(targets.values(), default=None)
    promised = "" if target is None else f" ({share(target)} promised)"
    cost = f"{usd_per_hour(first.usd_per_hour)}{_dearer(more)}"
    return (
        f"{done}, for {rate(first.request_rate_rps, 'requests')}. {_in_time(first.predicted)} of "
        f"requests will be in time{promised}, for {cost}."
    )


def _dearer(more: float | None) -> str:
    if more is None or abs(more) < 0.0005:
        return ""
    return f": {usd_per_hour(abs(more))} {'more' if more > 0 else 'less'} than before"


def _in_time(predicted: Prediction) -> str:
    low, high = predicted.attainment_low_ratio, predicted.attainment_high_ratio
    between = f" ({share(low)} to {share(high)})" if low is not None and high is not None else ""
    return f"{share(predicted.attainment_ratio)}{between}"


def _doubts(plan: Plan) -> tuple[str, ...]:
    doubts = [f"The twin did not confirm: {one}" for one in plan.unproven]
    if plan.estimated:
        doubts.append("It rests on an estimated profile: measure it before you trust the numbers")
    if plan.incomplete:
        doubts.append("It rests on a profile whose measuring broke off")
    return tuple(sentence(one) for one in (*doubts, *plan.inputs.assumptions))


def _facts(record: PlanRecord) -> tuple[Fact, ...]:
    plan, approval = record.plan, record.approval
    level = plan.inputs.demand_level
    facts = [
        ("Deployment", record.deployment),
        ("Model", plan.model),
        ("Made", f"{record.created_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("Asked for by", asker(approval)),
        ("Approved by", _approvers(approval)),
        (
            "Planned for",
            MISSING if level is None else f"the {share(level)} quantile of the forecast",
        ),
        ("Mean cost", f"{usd_per_hour(plan.usd_per_hour)} over {_horizon(plan)}"),
        ("Steps waste", usd(sum(step.expected_usd for step in record.diff.steps))),
        (
            "Solved",
            f"{plan.status.value} by {plan.solver.name}, gap {share(plan.solver.gap_ratio)}",
        ),
    ]
    return tuple(Fact(term=term, value=value) for term, value in facts)


def _approvers(approval: Approval) -> str:
    names = ", ".join(approval.approvers)
    if approval.needed > 1:
        return f"{names or 'nobody'}, {approval.needed} persons are needed"
    return names or "nobody yet"


def _horizon(plan: Plan) -> str:
    seconds = sum(window.window_s for window in plan.windows)
    return f"{counted(len(plan.windows), 'window')}, {span(seconds)}"


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


def _pools(before: FleetDocument, plan: Plan) -> Table:
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
            *number_columns("Now", "Planned", "Change", "Busy, as planned"),
        ),
        rows=tuple(rows),
        when_empty="There is no pool.",
    )


def _effect(plan: Plan) -> Table:
    rows = [
        cells(
            f"{window.start_at:%H:%M:%S}",
            short_fleet(window),
            rate(window.request_rate_rps, "requests"),
            _in_time(window.predicted),
            duration(window.predicted.ttft_p95_s),
            duration(window.predicted.tpot_p95_s),
            duration(window.predicted.itl_p95_s),
            words(window.bottleneck),
            usd_per_hour(window.usd_per_hour),
        )
        for window in plan.windows
    ]
    return Table(
        caption="Predicted, window by window",
        columns=(
            *text_columns("From, UTC", "Fleet"),
            *number_columns("Requests", "In time", "TTFT p95", "TPOT p95", "ITL p95"),
            *text_columns("Misses first"),
            *number_columns("Cost"),
        ),
        rows=tuple(rows),
        when_empty="There is no window to predict.",
    )


def _classes(plan: Plan) -> Table:
    found: Sequence[ClassAttainment] = plan.windows[0].predicted.classes if plan.windows else ()
    rows = [
        cells(
            one.request_class,
            share(one.target_ratio),
            share(one.attainment_ratio),
            MISSING
            if one.low_ratio is None or one.high_ratio is None
            else f"{share(one.low_ratio)} to {share(one.high_ratio)}",
            MISSING if one.requests is None else f"{one.requests:,}",
        )
        for one in found
    ]
    return Table(
        caption="By class, in the first window",
        columns=(
            *text_columns("Class"),
            *number_columns("Promised", "In time", "95 % interval", "Requests replayed"),
        ),
        rows=tuple(rows),
        when_empty="No class is told apart.",
    )


def _replay(plan: Plan) -> str:
    sources = {window.predicted.source for window in plan.windows}
    if sources == {"twin"}:
        return (
            "The digital twin replayed this fleet, request by request, against what is forecast; "
            "what it saw stands below."
        )
    if "twin" in sources:
        return "The digital twin replayed the busiest windows; the others are from the model alone."
    return "This plan was not replayed in the twin: the figures are from the model alone."


def _guards(findings: Sequence[FindingDocument]) -> tuple[GuardLine, ...]:
    tones = {Verdict.ALLOW: "good", Verdict.NOTE: "waits"}
    ordered = sorted(findings, key=lambda one: _SEVERITY.index(one.verdict))
    return tuple(
        GuardLine(
            guard=words(one.guard),
            verdict=one.verdict.value,
            tone=tones.get(one.verdict, "bad"),
            reason=sentence(one.reason),
        )
        for one in ordered
    )


def _history(approvals: Sequence[Approval]) -> Table:
    rows = [
        cells(
            f"{one.changed_at:%Y-%m-%d %H:%M:%S}",
            STATES[one.state][0],
            one.changed_by,
            sentence(one.reason) or MISSING,
        )
        for one in approvals
    ]
    return Table(
        caption="What became of it",
        columns=text_columns("When, UTC", "What", "Who", "Why"),
        rows=tuple(rows),
        when_empty="Nothing yet.",
    )


def _begun(steps: Sequence[BegunStep]) -> Table:
    rows = [cells(f"{one.begun_at:%Y-%m-%d %H:%M:%S}", sentence(one.what)) for one in steps]
    return Table(
        caption="Steps as they were begun",
        columns=text_columns("When, UTC", "Step"),
        rows=tuple(rows),
        when_empty="None was begun yet.",
    )


def _under_way(steps: Sequence[BegunStep]) -> str:
    running = [one.what for one in steps if one.under_way]
    return (
        sentence(f"{running[-1]} is under way") if running else "The first step is about to begin."
    )
