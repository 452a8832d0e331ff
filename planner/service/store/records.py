"""What the store gives back."""

from dataclasses import dataclass
from datetime import datetime

from planner.domain.fleet import Fleet
from planner.domain.plan import Plan
from planner.domain.rollout import Approval
from planner.domain.workload import ObservedWindow
from planner.service.documents.rollout import DiffDocument, FindingDocument


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PlanRecord:
    """A stored plan and where it stands.

    Parameters
    ----------
    diff : DiffDocument
        From the fleet it was made for, as it was shown.
    approval : Approval
        The newest of its states.
    """

    deployment: str
    created_at: datetime
    plan: Plan
    diff: DiffDocument
    findings: tuple[FindingDocument, ...]
    approval: Approval


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredWindow:
    """An observed window, and when it came in."""

    received_at: datetime
    window: ObservedWindow


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredFleet:
    """A fleet that was handed in, and when."""

    received_at: datetime
    fleet: Fleet


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """What a tick did.

    Parameters
    ----------
    plan_id : str or None
        None when no plan was made.
    outcome : str
        Value of `loop.Outcome`.
    removes : bool
        Whether the plan would take capacity away; scale-down waits until it did for long enough.
    """

    deployment: str
    decided_at: datetime
    plan_id: str | None
    outcome: str
    reason: str
    removes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """A line of the append-only audit log."""

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: str
