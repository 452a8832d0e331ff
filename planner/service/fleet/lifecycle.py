"""A plan's way to the fleet: proposed, approved or rejected, applied once."""

import itertools
from dataclasses import replace
from datetime import datetime

from planner import rollout
from planner.autoscale.slow import Decision
from planner.domain.errors import (
    ApplyError,
    DeadlineMissedError,
    GuardRefusedError,
    OvertakenError,
    PlanChangedError,
    PlanStateError,
    PoolwiseError,
    StalePlanError,
    UnknownPlanError,
)
from planner.domain.fleet import Fleet
from planner.domain.plan import PlanStatus
from planner.domain.rollout import Approval, ApprovalState, Diff, Verdict
from planner.rollout import GuardConditions
from planner.service.deployment import Deployment, guard_conditions
from planner.service.documents import diff_document, diff_of, finding_documents
from planner.service.fleet import known_fleet
from planner.service.fleet.held import describe, held_back
from planner.service.fleet.rollouts import (
    BACK,
    POLICY,
    THERE,
    Move,
    carry,
    settle_interrupted,
    touched,
)
from planner.service.loop.falling_back import is_fallback
from planner.service.store import PlanRecord
from planner.service.store.approvals import changed
from planner.service.store.in_force import WAITING

DEAD = (
    ApprovalState.REJECTED,
    ApprovalState.EXPIRED,
    ApprovalState.SUPERSEDED,
    ApprovalState.FAILED,
    ApprovalState.ROLLED_BACK,
)
"""Of these plans nothing comes any more, unless a person completes one that failed."""
FAST_PREFIX = "fast-"
"""What ids of fast ticks' plans begin with."""
_NOT_ASKED_ON_THE_WAY_BACK = ("plan_quality", "scale_down_stabilization")
"""Guards of the plan that is given up, and of capacity that never was in service for long."""
_NOT_ASKED_OF_PERSONS = ("stale_observation",)
"""Nor does a person who undoes a plan need fresh load to be let: an outage may have taken both."""


def propose(
    deployment: Deployment, decision: Decision, *, by: str, at: datetime, ask: bool = True
) -> PlanRecord:
    """Store a decision as a plan that waits for approval.

    Older waiting plans of the deployment are superseded, but a draft takes the place of drafts
    only. A plan that is known by its id is returned as it stands while it may still be applied, or
    has been; one that is dead is proposed anew, under an id that says so. One that guards leave no
    step of stays a draft, with their reasons: applied, it would claim a fleet that is not there.

    Parameters
    ----------
    ask : bool
        False: a draft, which nobody is asked about.
    """
    decision = _under_a_living_id(deployment, decision)
    plan_id, fleet = decision.plan.plan_id, decision.diff.from_fleet
    held = held_back(decision)
    approval = rollout.draft(
        plan_id=plan_id,
        fleet_version=fleet.version,
        by=by,
        at=at,
        needed=rollout.persons_needed(decision.diff, deployment.spec),
        reason=f"held: {held}" if held else "",
    )
    if ask and not held and decision.plan.status is not PlanStatus.INFEASIBLE:
        approval = rollout.submit(approval, by=by, at=at)
    record = PlanRecord(
        deployment=deployment.spec.name,
        created_at=at,
        plan=decision.plan,
        diff=diff_document(decision.diff),
        findings=tuple(finding_documents(decision.findings)),
        approval=approval,
    )
    stored = deployment.store.add_plan(record, actor=by)
    state = stored.approval.state
    for other in waiting(deployment, drafts=state is ApprovalState.DRAFT):
        if other.plan.plan_id != plan_id and state in WAITING:
            supersede(deployment, other.plan.plan_id, by=by, at=at, reason=f"by {plan_id}")
    return stored


def _under_a_living_id(deployment: Deployment, decision: Decision) -> Decision:
    """The decision with an id that no dead plan has: equal inputs give equal ids."""
    first = decision.plan.plan_id
    for number in itertools.count(1):
        plan_id = first if number == 1 else f"{first}-{number}"
        try:
            state = deployment.store.plan(plan_id).approval.state
        except UnknownPlanError:
            break
        if state not in DEAD:
            break
    return replace(
        decision,
        plan=replace(decision.plan, plan_id=plan_id),
        diff=replace(decision.diff, plan_id=plan_id),
    )


def waiting(deployment: Deployment, *, drafts: bool = False) -> tuple[PlanRecord, ...]:
    """Plans that nobody has decided about or applied, or drafts only; newest first."""
    states = (ApprovalState.DRAFT,) if drafts else WAITING
    return deployment.store.plans(deployment.spec.name, limit=100, states=states)


def approve(
    deployment: Deployment,
    plan_id: str,
    *,
    by: str,
    at: datetime,
    reason: str = "",
    revision: int | None = None,
) -> PlanRecord:
    """Allow a pending plan; a plan that is approved already, or by this person, stays so.

    Parameters
    ----------
    revision : int or None
        `PlanRecord.revision` that was looked at; None: whichever it is.

    Raises
    ------
    PlanChangedError
        When the plan is in another state by now.
    PlanStateError
        When it is not pending, waited longer than the policy allows, or `by` asked for it and
        must not approve it.
    OvertakenError
        When it was made under a spec, or decided by the loop under orders, that are no longer in
        force: it is superseded.
    """
    expire_old(deployment, at=at)
    policy = deployment.spec.approval

    def change(approval: Approval) -> Approval:
        pending = approval.state is ApprovalState.PENDING
        if approval.state is ApprovalState.APPROVED or (pending and by in approval.approvers):
            return approval
        return rollout.approve(approval, by=by, at=at, reason=reason, policy=policy)

    orders = deployment.orders if by == POLICY else None
    try:
        deployment.store.change_approval(
            plan_id, change, action="plan.approve", revision=revision, orders=orders
        )
    except OvertakenError as late:
        supersede(deployment, plan_id, by=by, at=at, reason=str(late))
        raise
    return deployment.store.plan(plan_id)


def reject(
    deployment: Deployment,
    plan_id: str,
    *,
    by: str,
    at: datetime,
    reason: str = "",
    revision: int | None = None,
) -> PlanRecord:
    """Forbid a pending plan, or one that is approved and not begun; a rejected one stays so.

    Raises
    ------
    PlanChangedError
        When the plan is in another state by now.
    PlanStateError
        When it is being applied, or was; when nothing would come of it anyway.
    """
    return _change(
        deployment,
        plan_id,
        rollout.reject,
        by=by,
        at=at,
        reason=reason,
        settled=ApprovalState.REJECTED,
        revision=revision,
    )


def expire_old(deployment: Deployment, *, at: datetime) -> None:
    """Expire plans that waited longer than the policy allows: for a person, or to be applied."""
    policy = deployment.spec.approval

    def change(approval: Approval) -> Approval:
        if not rollout.has_expired(approval, policy, now=at):
            return approval
        reason = f"nobody decided within {policy.expires_s:g} s"
        if approval.state is ApprovalState.APPROVED:
            reason = f"it was not applied within {policy.approved_expires_s:g} s"
        return rollout.expire(approval, by=POLICY, at=at, reason=reason)

    for record in waiting(deployment):
        if rollout.has_expired(record.approval, policy, now=at):
            deployment.store.change_approval(record.plan.plan_id, change, action="plan.expire")


def apply(
    deployment: Deployment, plan_id: str, *, by: str, at: datetime, revision: int | None = None
) -> PlanRecord:
    """Carry out exactly the steps that were approved; once, however often it is asked.

    A plan that failed half-way is completed: by whatever steps lead from the fleet that it left
    to where the approved ones would have led, unless somebody else changed that meanwhile. One of
    which a step missed its progress deadline is rolled back, where the spec says so.

    Raises
    ------
    PlanChangedError
        When the plan is no longer in the state of the `revision` that was looked at.
    StalePlanError
        When the fleet is no longer the one that the diff was made from, or that it left; nothing
        was changed.
    PlanStateError
        When the plan is not approved, or its approval has expired; when it is being applied
        already, or another one moves the fleet.
    OvertakenError
        As `approve`.
    GuardRefusedError
        When a guard forbids it now.
    ApplyError
        When the target refuses it beforehand, or a step failed.
    """
    if deployment.orders is None:
        deployment = deployment.knowing_orders()
    settle_interrupted(deployment, at=at)
    expire_old(deployment, at=at)
    record = _as_seen(deployment, plan_id, revision)
    if record.approval.state is ApprovalState.APPLIED:
        return record
    _check_state(record)
    completing = touched(deployment, plan_id)
    fleet = known_fleet.look(deployment, at=at)
    if completing:
        _check_untouched(deployment, record, by=by, at=at)
    else:
        _check_fleet(deployment, record, fleet, by=by, at=at)
    conditions = _conditions(deployment, record, at=at, completing=completing)
    diff = _agreed_steps(deployment, record, fleet, conditions)
    _check_guards(deployment, record, diff, conditions)
    try:
        carry(deployment, plan_id, diff, THERE, by=by, at=at, revision=revision)
    except OvertakenError as late_plan:
        if late_plan.for_good or POLICY in record.approval.approvers:
            supersede(deployment, plan_id, by=by, at=at, reason=str(late_plan))
        raise
    except ApplyError as error:
        late = isinstance(error.__cause__, DeadlineMissedError)
        if not late or not deployment.spec.guards.roll_back_late_plans:
            raise
        raise ApplyError(f"{error}; {_return(deployment, plan_id, error)}") from error
    return deployment.store.plan(plan_id)


def _return(deployment: Deployment, plan_id: str, late: ApplyError) -> str:
    """Roll back a plan that missed a deadline; what came of it, which the plan keeps as well."""
    store, now = deployment.store, deployment.clock()
    failed = store.plan(plan_id)
    try:
        _go_back(deployment, failed, by=POLICY, at=now, because=f"{late}; ", automatic=True)
    except PoolwiseError as error:
        told = f"it was not rolled back: {error}"
        if store.plan(plan_id).approval == failed.approval:
            _change(
                deployment, plan_id, rollout.remark, by=POLICY, at=now, reason=f"{late}; {told}"
            )
        return told
    return "it was rolled back"


def roll_back(
    deployment: Deployment, plan_id: str, *, by: str, at: datetime, revision: int | None = None
) -> PlanRecord:
    """Put the fleet back to what it was before a plan that was applied, or failed on its way.

    Orders of people (pause, pins, freeze windows, hard limits) hold here too; delays do not, nor
    does the age of the load that was seen.

    Raises
    ------
    PlanStateError
        When the plan changed nothing, a later plan was applied since (that one has to go first),
        or another one moves the fleet.
    PlanChangedError, GuardRefusedError, ApplyError
        As `apply`.
    """
    settle_interrupted(deployment, at=at)
    record = _as_seen(deployment, plan_id, revision)
    if record.approval.state is ApprovalState.ROLLED_BACK:
        return record
    if record.approval.state not in (ApprovalState.APPLIED, ApprovalState.FAILED):
        raise PlanStateError(
            f"plan {plan_id} is {record.approval.state}; only a plan that was applied, or failed "
            "on its way, can be rolled back"
        )
    _go_back(deployment, record, by=by, at=at, revision=revision)
    return deployment.store.plan(plan_id)


def _go_back(
    deployment: Deployment,
    record: PlanRecord,
    *,
    by: str,
    at: datetime,
    because: str = "",
    automatic: bool = False,
    revision: int | None = None,
) -> None:
    """The way back, where no later plan and no guard is in it; see `carry`."""
    deployment = deployment.knowing_orders()
    _check_last(deployment, record)
    spec, plan, fleet = deployment.spec, record.plan, known_fleet.look(deployment, at=at)
    agreed = diff_of(record.diff, spec=spec, read_at=fleet.read_at)
    observation = deployment.observer.observe(now=at)
    conditions = replace(guard_conditions(deployment, observation, now=at), completing=True)
    wanted = rollout.led_from(agreed, model=plan.model)
    if automatic:
        wanted = rollout.last_good(agreed, fleet, model=plan.model)
    back = rollout.diff_to(fleet, wanted, spec, can_flip=conditions.can_flip)
    findings = rollout.guard(back, spec, conditions, plan=plan, automatic=automatic)
    forbidding = {Verdict.REFUSE, Verdict.DELAY} if automatic else {Verdict.REFUSE}
    not_asked = (*_NOT_ASKED_ON_THE_WAY_BACK, *(() if automatic else _NOT_ASKED_OF_PERSONS))
    reasons = [
        describe(finding)
        for finding in findings
        if finding.verdict in forbidding and finding.guard not in not_asked
    ]
    if reasons:
        raise GuardRefusedError(
            f"plan {plan.plan_id} must not be rolled back now: {'; '.join(reasons)}"
        )
    carry(deployment, plan.plan_id, back, BACK, by=by, at=at, because=because, revision=revision)


def _as_seen(deployment: Deployment, plan_id: str, revision: int | None) -> PlanRecord:
    """The plan, while it is where somebody saw it."""
    record = deployment.store.plan(plan_id)
    if revision is not None and record.revision != revision:
        raise PlanChangedError(changed(record.approval))
    return record


def _check_last(deployment: Deployment, record: PlanRecord) -> None:
    moved = deployment.store.plans(
        deployment.spec.name, limit=100, states=(ApprovalState.APPLIED, ApprovalState.FAILED)
    )
    later = [
        r
        for r in moved
        if r.revision > record.revision  # by the order of their writing: clocks may be set back
        and (r.approval.state is ApprovalState.APPLIED or touched(deployment, r.plan.plan_id))
    ]
    if later:
        raise PlanStateError(
            f"plan {later[0].plan.plan_id} was applied after {record.plan.plan_id}: roll that one "
            "back first"
        )


def _check_state(record: PlanRecord) -> None:
    state, name = record.approval.state, f"plan {record.plan.plan_id}"
    if state.moves:
        raise PlanStateError(
            f"{name} is {state} already: its steps are under way (`poolwise plans "
            f"{record.plan.plan_id}` shows how far)"
        )
    if state not in (ApprovalState.APPROVED, ApprovalState.FAILED):
        raise PlanStateError(
            f"{name} is {state}; only an approved plan can be applied "
            f"(`POST /v1/plans/{record.plan.plan_id}/approve`)"
        )


def _check_fleet(
    deployment: Deployment, record: PlanRecord, fleet: Fleet, *, by: str, at: datetime
) -> None:
    """Refuse a plan for another fleet."""
    approval = record.approval
    if fleet.version == approval.fleet_version:
        return
    reason = f"the fleet is now {fleet.version}, the plan was made for {approval.fleet_version}"
    supersede(deployment, approval.plan_id, by=by, at=at, reason=reason)
    raise StalePlanError(
        f"plan {approval.plan_id} is stale: {reason}; nothing was changed, plan again"
    )


def _check_untouched(deployment: Deployment, record: PlanRecord, *, by: str, at: datetime) -> None:
    """Refuse to complete a plan whose fleet somebody else has changed since its last step."""
    plan_id, steps = record.plan.plan_id, deployment.store.steps(record.plan.plan_id)
    edited = known_fleet.edited_since(deployment, steps[-1].begun_at)
    if not edited:
        return
    stale = f"it is not completed: {edited}; nothing was changed, plan again"
    if stale not in record.approval.reason:
        reason = f"{record.approval.reason}; {stale}"
        _change(deployment, plan_id, rollout.remark, by=by, at=at, reason=reason)
    raise StalePlanError(f"plan {plan_id} is stale: {stale}")


def _conditions(
    deployment: Deployment, record: PlanRecord, *, at: datetime, completing: bool
) -> GuardConditions:
    observation = deployment.observer.observe(now=at)
    conditions = replace(
        guard_conditions(deployment, observation, now=at),
        completing=completing,
        falling_back=is_fallback(record.plan.plan_id),
    )
    # What waits was looked at, not how the load differs from the one that was planned for.
    fast = record.plan.plan_id.startswith(FAST_PREFIX)
    return replace(conditions, last_plan=None) if fast else conditions


def _agreed_steps(
    deployment: Deployment, record: PlanRecord, fleet: Fleet, conditions: GuardConditions
) -> Diff:
    """The steps that were shown and approved, or those that complete them."""
    spec = deployment.spec
    agreed = diff_of(record.diff, spec=spec, read_at=fleet.read_at)
    if not conditions.completing:
        return replace(agreed, from_fleet=fleet)
    wanted = rollout.led_to(agreed, model=record.plan.model)
    return rollout.diff_to(fleet, wanted, spec, can_flip=conditions.can_flip)


def _check_guards(
    deployment: Deployment, record: PlanRecord, diff: Diff, conditions: GuardConditions
) -> None:
    """A person's approval overrides delays, never refusals; the policy's overrides nothing."""
    approval = record.approval
    automatic = POLICY in (approval.approvers or (approval.changed_by,))
    findings = rollout.guard(
        diff, deployment.spec, conditions, plan=record.plan, automatic=automatic
    )
    forbidding = {Verdict.REFUSE, Verdict.DELAY} if automatic else {Verdict.REFUSE}
    reasons = [describe(finding) for finding in findings if finding.verdict in forbidding]
    if reasons:
        raise GuardRefusedError(
            f"plan {record.plan.plan_id} must not be applied now: {'; '.join(reasons)}"
        )


def supersede(deployment: Deployment, plan_id: str, *, by: str, at: datetime, reason: str) -> None:
    """Set a plan aside that waits; one that was decided or applied meanwhile stays."""

    def change(approval: Approval) -> Approval:
        if approval.state not in WAITING:
            return approval  # applied or decided meanwhile: nothing to take its place
        return rollout.supersede(approval, by=by, at=at, reason=reason)

    deployment.store.change_approval(plan_id, change, action="plan.supersede")


def _change(
    deployment: Deployment,
    plan_id: str,
    move: Move,
    *,
    by: str,
    at: datetime,
    reason: str,
    settled: ApprovalState | None = None,
    revision: int | None = None,
) -> PlanRecord:
    """Append the state that `move` leads to; nothing when the plan is `settled` already."""
    action = f"plan.{getattr(move, '__name__', 'change')}"

    def change(approval: Approval) -> Approval:
        if settled is not None and approval.state is settled:
            return approval
        return move(approval, by=by, at=at, reason=reason)

    deployment.store.change_approval(plan_id, change, action=action, revision=revision)
    return deployment.store.plan(plan_id)
