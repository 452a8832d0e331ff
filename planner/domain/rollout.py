"""Getting from a fleet to a plan: steps, guards, approval."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import groupby

from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.hardware import PurchaseOption


class StepKind(StrEnum):
    """What one rollout step does."""

    START = "start"
    FLIP = "flip"
    ROUTE = "route"
    DRAIN = "drain"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step on one replica of a pool.

    Parameters
    ----------
    index : int
        Position in the diff, from 0; steps run in this order.
    shape : ReplicaShape
        The pool it acts on; for a flip, the pool that gives the replica up.
    to_shape : ReplicaShape or None
        For a flip, the pool that receives it.
    expected_s : float
        Expected duration, seconds.
    expected_usd : float
        What the step wastes: accelerator time without traffic, USD.
    reason : str
        One sentence.
    cell : str
        The topology cell whose replica it acts on; empty where the target has none.
    """

    index: int
    kind: StepKind
    shape: ReplicaShape
    to_shape: ReplicaShape | None = None
    purchase_option: PurchaseOption
    expected_s: float
    expected_usd: float
    reason: str
    cell: str = ""

    def __post_init__(self) -> None:
        if (self.kind is StepKind.FLIP) != (self.to_shape is not None):
            raise ValueError("to_shape belongs to a flip, and only to a flip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Diff:
    """Ordered steps from a fleet to a plan's first window; empty when nothing changes."""

    plan_id: str
    from_fleet: Fleet
    steps: tuple[Step, ...]

    @property
    def groups(self) -> tuple[tuple[Step, ...], ...]:
        """Steps that do not depend on each other, in order: they may run at the same time.

        Consecutive steps of one kind; of drains no more follow each other than the disruption
        budget allows. Every flip stands alone: its replica serves in neither role meanwhile.
        """
        by_kind = groupby(self.steps, key=lambda s: (s.kind, s.index if s.to_shape else 0))
        return tuple(tuple(group) for _, group in by_kind)

    @property
    def expected_s(self) -> float:
        """Expected duration, each group's steps at the same time, seconds."""
        return sum(max(s.expected_s for s in group) for group in self.groups)

    @property
    def expected_usd(self) -> float:
        """What all steps waste together, USD."""
        return sum(s.expected_usd for s in self.steps)


class Verdict(StrEnum):
    """What a guard says of a diff.

    note: it holds nothing back, but should be known. clamp: the diff is smaller for it.
    """

    ALLOW = "allow"
    NOTE = "note"
    CLAMP = "clamp"
    DELAY = "delay"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardFinding:
    """A guard's verdict and its reason, kept with the decision."""

    guard: str
    verdict: Verdict
    reason: str


class ApprovalState(StrEnum):
    """Where a plan is on its way to the fleet."""

    DRAFT = "draft"
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    APPLYING = "applying"
    APPLIED = "applied"
    FAILED = "failed"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"

    @property
    def moves(self) -> bool:
        """Whether the fleet is being moved: of a deployment no two plans are at once."""
        return self in (ApprovalState.APPLYING, ApprovalState.ROLLING_BACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Who decided what about a plan, and when.

    Parameters
    ----------
    fleet_version : str
        Of the fleet that the plan was made from; it is applied to no other one.
    requested_by : str
        Who asked for it; empty in plans of earlier versions.
    approvers : tuple of str
        Who has said yes so far, in order.
    needed : int
        How many different ones have to.
    """

    plan_id: str
    state: ApprovalState
    fleet_version: str
    changed_at: datetime
    changed_by: str
    reason: str = ""
    requested_by: str = ""
    approvers: tuple[str, ...] = ()
    needed: int = 1
