"""A plan as somebody has to see it who is to approve it."""

from collections.abc import Sequence
from dataclasses import dataclass

from planner.domain.guards import ApprovalPolicy
from planner.domain.plan import Plan, PlanStatus
from planner.domain.rollout import Approval, ApprovalState, Verdict
from planner.service.dashboard.views.plan_change import (
    begun_table,
    pools_table,
    step_under_way,
    steps_table,
)
from planner.service.dashboard.views.plan_effect import (
    classes_table,
    effect_table,
    in_time,
    replay_sentence,
)
from planner.service.dashboard.views.plans import (
    STATES,
    PlanLine,
    asker,
    fleet_in_short,
    named,
    plan_line,
)
from planner.service.documents.rollout import FindingDocument
from planner.service.fleet.rollouts import DRY_RUN
from planner.service.reports.decision import binding_table, rejected_table
from planner.service.reports.quantities import (
    MISSING,
    counted,
    rate,
    sentence,
    share,
    short_fleet,
    span,
    usd,
    usd_per_hour,
    words,
)
from planner.service.reports.table import Fact, Table, cells, text_columns
from planner.service.security.access import Principal
from planner.service.store import BegunStep, PlanRecord

_SEVERITY = (Verdict.REFUSE, Verdict.DELAY, Verdict.CLAMP, Verdict.NOTE, Verdict.ALLOW)


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
        state_note=_state_note(approval),
        answer=_answer(record, targets, more_usd_per_hour),
        doubts=_doubts(plan),
        choices=choices(record, policy=policy, me=me),
        facts=_facts(record),
        steps=steps_table(record.diff),
        pools=pools_table(record.diff.from_fleet, plan),
        effect=effect_table(plan),
        classes=classes_table(plan),
        replay=replay_sentence(plan),
        guards=guards,
        allowed=sum(one.tone == "good" for one in guards),
        binding=binding_table(plan),
        rejected=rejected_table(plan),
        relaxations=tuple(sentence(one) for one in plan.relaxations),
        history=_history(approvals),
        begun=begun_table(begun),
        under_way=step_under_way(begun) if approval.state.moves else "",
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
            f"from {fleet_in_short(diff.from_fleet)} to {short_fleet(first)}"
        )
    target = max(targets.values(), default=None)
    promised = "" if target is None else f" ({share(target)} promised)"
    cost = f"{usd_per_hour(first.usd_per_hour)}{_dearer(more)}"
    return (
        f"{done}, for {rate(first.request_rate_rps, 'requests')}. {in_time(first.predicted)} of "
        f"requests will be in time{promised}, for {cost}."
    )


def _dearer(more: float | None) -> str:
    if more is None or abs(more) < 0.0005:
        return ""
    return f": {usd_per_hour(abs(more))} {'more' if more > 0 else 'less'} than before"


def _doubts(plan: Plan) -> tuple[str, ...]:
    doubts = [f"No pool keeps every promise: {one}" for one in plan.not_kept]
    doubts += [f"The twin did not confirm: {one}" for one in plan.unproven]
    doubts += [f"Predicted from when new replicas serve, {one}" for one in plan.waits_for_starts]
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


def _state_note(approval: Approval) -> str:
    """What a plan's state means; of a dry run that nothing was changed."""
    if approval.state is ApprovalState.APPLIED and approval.reason.startswith(DRY_RUN):
        return approval.reason
    return STATES[approval.state][1]


def _history(approvals: Sequence[Approval]) -> Table:
    rows = [
        cells(
            f"{one.changed_at:%Y-%m-%d %H:%M:%S}",
            STATES[one.state][0],
            named(one.changed_by),
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
