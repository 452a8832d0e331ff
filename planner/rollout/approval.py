"""The states of a plan on its way to the fleet, and who moved it there.

::

    draft -> pending -> approved -> applying -> applied -> rolling_back -> rolled_back
    pending -> pending (one of two persons has said yes)
    pending, approved -> rejected
    applying, rolling_back -> failed -> applying (a second run completes it) or rolling_back
    draft, pending, approved -> expired, superseded
    applying -> superseded (the fleet was another one after all, nothing was touched)

A failed plan may begin again because apply is idempotent.
"""

from dataclasses import replace
from datetime import datetime

from planner.domain.errors import PlanStateError
from planner.domain.guards import ApprovalPolicy
from planner.domain.rollout import Approval, ApprovalState, Diff, StepKind
from planner.domain.spec import Spec
from planner.rollout.durations import usd_per_hour
from planner.rollout.effects import PoolKey

_S = ApprovalState
_WAITING = frozenset({_S.DRAFT, _S.PENDING, _S.APPROVED})
_BEGUN = frozenset({_S.APPLYING, _S.APPLIED, _S.FAILED, _S.ROLLING_BACK})

_ALLOWED_FROM = {
    _S.PENDING: frozenset({_S.DRAFT}),
    _S.APPROVED: frozenset({_S.PENDING}),
    _S.REJECTED: frozenset({_S.PENDING, _S.APPROVED}),
    _S.EXPIRED: _WAITING,
    _S.SUPERSEDED: _WAITING | {_S.APPLYING},
    _S.APPLYING: frozenset({_S.APPROVED, _S.FAILED}),
    _S.APPLIED: frozenset({_S.APPLYING}),
    _S.FAILED: frozenset({_S.APPLYING, _S.ROLLING_BACK}),
    _S.ROLLING_BACK: frozenset({_S.APPLIED, _S.FAILED}),
    _S.ROLLED_BACK: frozenset({_S.ROLLING_BACK}),
}
"""State reached -> states it may be reached from."""


def draft(
    *,
    plan_id: str,
    fleet_version: str,
    by: str,
    at: datetime,
    needed: int = 1,
    reason: str = "",
) -> Approval:
    """A plan that nobody was asked about yet, bound to the fleet it was made from.

    Parameters
    ----------
    needed : int
        How many persons have to say yes (`persons_needed`).
    reason : str
        Why nobody was asked.
    """
    return Approval(
        plan_id=plan_id,
        state=ApprovalState.DRAFT,
        fleet_version=fleet_version,
        changed_at=at,
        changed_by=by,
        reason=reason,
        requested_by=by,
        needed=needed,
    )


def submit(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """Ask for approval: draft -> pending."""
    return _moved(approval, ApprovalState.PENDING, by=by, at=at, reason=reason)


def approve(
    approval: Approval,
    *,
    by: str,
    at: datetime,
    reason: str = "",
    policy: ApprovalPolicy | None = None,
) -> Approval:
    """Allow the change: pending -> approved, or pending still while a second person is needed.

    Parameters
    ----------
    policy : ApprovalPolicy or None
        Says whether who asked for the plan may approve it; None: yes.

    Raises
    ------
    PlanStateError
        When it is not pending, `by` has approved it already, or asked for it and must not.
    """
    if approval.state is ApprovalState.PENDING and by in approval.approvers:
        raise PlanStateError(
            f"plan {approval.plan_id} has the approval of {by} already; it needs "
            f"{approval.needed - len(approval.approvers)} more, by somebody else"
        )
    own = by == approval.requested_by
    if own and policy is not None and not policy.requester_may_approve:
        raise PlanStateError(
            f"plan {approval.plan_id} was asked for by {by}, who must not approve it "
            "(approval.requester_may_approve is false): somebody else has to"
        )
    approvers = (*approval.approvers, by)
    if len(approvers) >= approval.needed:
        moved = _moved(approval, ApprovalState.APPROVED, by=by, at=at, reason=reason)
        return replace(moved, approvers=approvers)
    _check_move(approval, ApprovalState.APPROVED)
    return replace(approval, changed_by=by, changed_at=at, reason=reason, approvers=approvers)


def reject(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """Forbid the change, or take back what was allowed: pending or approved -> rejected.

    Raises
    ------
    PlanStateError
        When its steps were begun, or nothing would come of it anyway.
    """
    if approval.state in _BEGUN:
        raise PlanStateError(
            f"plan {approval.plan_id} is {approval.state} since {approval.changed_at.isoformat()}: "
            "it is too late to reject it; once its steps are over it can be rolled back"
        )
    return _moved(approval, ApprovalState.REJECTED, by=by, at=at, reason=reason)


def expire(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """Nobody acted in time: draft, pending or approved -> expired."""
    return _moved(approval, ApprovalState.EXPIRED, by=by, at=at, reason=reason)


def supersede(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """A newer plan takes its place: draft, pending or approved -> superseded."""
    return _moved(approval, ApprovalState.SUPERSEDED, by=by, at=at, reason=reason)


def begin(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """Start applying: approved -> applying, or failed -> applying to complete it."""
    return _moved(approval, ApprovalState.APPLYING, by=by, at=at, reason=reason)


def begin_back(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """Start putting the fleet back: applied or failed -> rolling_back."""
    return _moved(approval, ApprovalState.ROLLING_BACK, by=by, at=at, reason=reason)


def finish(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """All steps done and seen to be done: applying -> applied."""
    return _moved(approval, ApprovalState.APPLIED, by=by, at=at, reason=reason)


def fail(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """A step failed: applying or rolling_back -> failed."""
    return _moved(approval, ApprovalState.FAILED, by=by, at=at, reason=reason)


def roll_back(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """The fleet was put back: rolling_back -> rolled_back."""
    return _moved(approval, ApprovalState.ROLLED_BACK, by=by, at=at, reason=reason)


def remark(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """More is known of why it is where it is; the state stays."""
    return replace(approval, changed_by=by, changed_at=at, reason=reason)


def replicas_touched(diff: Diff) -> int:
    """Replicas that the diff starts, flips or drains."""
    kinds = (StepKind.START, StepKind.FLIP, StepKind.DRAIN)
    return sum(step.kind in kinds for step in diff.steps)


def usd_per_hour_change(diff: Diff, spec: Spec) -> float:
    """By how much the diff changes the price of the fleet, USD/h; below 0: it gets cheaper."""
    change = 0.0
    for step in diff.steps:
        price = usd_per_hour(PoolKey(step.shape, step.purchase_option), spec)
        change += price if step.kind is StepKind.START else 0.0
        change -= price if step.kind is StepKind.DRAIN else 0.0
    return change


def policy_approves(diff: Diff, spec: Spec) -> bool:
    """Whether the change is small enough to need no person: in size, in cost, or in both.

    A limit that is not set is not looked at; where none is, nothing is small enough.
    """
    policy = spec.approval
    checks = []
    if policy.auto_below_replicas > 0:
        checks.append(replicas_touched(diff) < policy.auto_below_replicas)
    if policy.auto_below_usd_per_hour is not None:
        checks.append(abs(usd_per_hour_change(diff, spec)) < policy.auto_below_usd_per_hour)
    return bool(checks) and all(checks)


def persons_needed(diff: Diff, spec: Spec) -> int:
    """How many persons have to approve the change, where persons approve: 1 or 2."""
    policy = spec.approval
    size, usd = policy.two_persons_from_replicas, policy.two_persons_from_usd_per_hour
    large = size is not None and replicas_touched(diff) >= size
    dear = usd is not None and abs(usd_per_hour_change(diff, spec)) >= usd
    return 2 if large or dear else 1


def has_expired(approval: Approval, policy: ApprovalPolicy, *, now: datetime) -> bool:
    """Whether a pending or approved plan has waited longer than the policy allows."""
    waited_s = (now - approval.changed_at).total_seconds()
    if approval.state is ApprovalState.APPROVED:
        return policy.approved_expires_s is not None and waited_s > policy.approved_expires_s
    return approval.state is ApprovalState.PENDING and waited_s > policy.expires_s


def _moved(
    approval: Approval, state: ApprovalState, *, by: str, at: datetime, reason: str
) -> Approval:
    _check_move(approval, state)
    return replace(approval, state=state, changed_by=by, changed_at=at, reason=reason)


def _check_move(approval: Approval, state: ApprovalState) -> None:
    allowed = _ALLOWED_FROM[state]
    if approval.state not in allowed:
        wanted = " or ".join(sorted(allowed))
        why = f" ({approval.reason})" if approval.reason else ""
        raise PlanStateError(
            f"plan {approval.plan_id} is {approval.state} since "
            f"{approval.changed_at.isoformat()}{why}; only a plan that is {wanted} can become "
            f"{state}"
        )
