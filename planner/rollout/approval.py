"""The states of a plan on its way to the fleet, and who moved it there.

::

    draft -> pending -> approved -> applying -> applied -> rolled_back
    pending -> rejected
    applying -> failed -> applying (a second run completes it) or rolled_back
    draft, pending, approved -> expired, superseded

A failed plan may begin again because apply is idempotent.
"""

from dataclasses import replace
from datetime import datetime

from planner.domain.errors import PlanStateError
from planner.domain.rollout import Approval, ApprovalState, Diff, StepKind
from planner.domain.guards import ApprovalPolicy

_S = ApprovalState
_WAITING = frozenset({_S.DRAFT, _S.PENDING, _S.APPROVED})

_ALLOWED_FROM = {
    _S.PENDING: frozenset({_S.DRAFT}),
    _S.APPROVED: frozenset({_S.PENDING}),
    _S.REJECTED: frozenset({_S.PENDING}),
    _S.EXPIRED: _WAITING,
    _S.SUPERSEDED: _WAITING,
    _S.APPLYING: frozenset({_S.APPROVED, _S.FAILED}),
    _S.APPLIED: frozenset({_S.APPLYING}),
    _S.FAILED: frozenset({_S.APPLYING}),
    _S.ROLLED_BACK: frozenset({_S.APPLIED, _S.FAILED}),
}
"""State reached -> states it may be reached from."""


def draft(*, plan_id: str, fleet_version: str, by: str, at: datetime) -> Approval:
    """A plan that nobody was asked about yet, bound to the fleet it was made from."""
    return Approval(
        plan_id=plan_id,
        state=ApprovalState.DRAFT,
        fleet_version=fleet_version,
        changed_at=at,
        changed_by=by,
    )


def submit(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """Ask for approval: draft -> pending."""
    return _moved(approval, ApprovalState.PENDING, by=by, at=at, reason=reason)


def approve(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """Allow the change: pending -> approved."""
    return _moved(approval, ApprovalState.APPROVED, by=by, at=at, reason=reason)


def reject(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """Forbid the change: pending -> rejected."""
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


def finish(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """All steps done and seen to be done: applying -> applied."""
    return _moved(approval, ApprovalState.APPLIED, by=by, at=at, reason=reason)


def fail(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """A step failed: applying -> failed."""
    return _moved(approval, ApprovalState.FAILED, by=by, at=at, reason=reason)


def roll_back(approval: Approval, *, by: str, at: datetime, reason: str = "") -> Approval:
    """The fleet was put back: applied or failed -> rolled_back."""
    return _moved(approval, ApprovalState.ROLLED_BACK, by=by, at=at, reason=reason)


def replicas_touched(diff: Diff) -> int:
    """Replicas that the diff starts, flips or drains."""
    kinds = (StepKind.START, StepKind.FLIP, StepKind.DRAIN)
    return sum(step.kind in kinds for step in diff.steps)


def policy_approves(diff: Diff, policy: ApprovalPolicy) -> bool:
    """Whether the change is small enough to need no person."""
    return replicas_touched(diff) < policy.auto_below_replicas


def has_expired(approval: Approval, policy: ApprovalPolicy, *, now: datetime) -> bool:
    """Whether a pending plan has waited longer than the policy allows."""
    waited_s = (now - approval.changed_at).total_seconds()
    return approval.state is ApprovalState.PENDING and waited_s > policy.expires_s


def _moved(
    approval: Approval, state: ApprovalState, *, by: str, at: datetime, reason: str
) -> Approval:
    allowed = _ALLOWED_FROM[state]
    if approval.state not in allowed:
        wanted = " or ".join(sorted(allowed))
        raise PlanStateError(
            f"plan {approval.plan_id} is {approval.state} since "
            f"{approval.changed_at.isoformat()}; only a plan that is {wanted} can become {state}"
        )
    return replace(approval, state=state, changed_by=by, changed_at=at, reason=reason)
