"""The fleet that runs beside the one that is planned, pool by pool."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from planner.domain.fleet import Fleet, Pool
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import Plan, PlanWindow
from planner.domain.rollout import ApprovalState
from planner.service.dashboard.views.plans import STATES
from planner.service.reports.quantities import long_fleet, short_fleet, words
from planner.service.store import PlanRecord

ALIVE = (
    ApprovalState.PENDING,
    ApprovalState.APPROVED,
    ApprovalState.APPLYING,
    ApprovalState.APPLIED,
    ApprovalState.DRAFT,
)
"""Plans that say what is to be; of those in `DRAFT` nobody is asked."""
Key = tuple[str, PurchaseOption]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRow:
    """Replicas of one pool, by state; `planned` is None without a plan."""

    label: str
    purchase_option: str
    ready: int
    starting: int
    draining: int
    stuck: int
    planned: int | None

    @property
    def change(self) -> str:
        """What the plan makes of it: `+2`, `-1`, `as it is`; empty without a plan."""
        if self.planned is None:
            return ""
        more = self.planned - self.ready - self.starting
        return f"{more:+d}" if more else "as it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetView:
    """A fleet now and as planned.

    Parameters
    ----------
    reason : str
        Why the fleet is not known; empty: it is.
    plan_id, plan_state : str
        Of the newest plan that says what is to be; empty: there is none.
    """

    now_short: str
    now_long: str
    planned_short: str
    planned_long: str
    rows: tuple[PoolRow, ...]
    reason: str
    plan_id: str
    plan_state: str


def newest_alive(records: Sequence[PlanRecord]) -> PlanRecord | None:
    """The newest plan that says what is to be; `records` come newest first."""
    return next((r for r in records if r.approval.state in ALIVE and r.plan.windows), None)


def window_at(plan: Plan, now: datetime) -> PlanWindow | None:
    """The window that an instant lies in: the first before it, the last after it."""
    if not plan.windows:
        return None
    begun = [window for window in plan.windows if window.start_at <= now]
    return begun[-1] if begun else plan.windows[0]


def wanted_by(record: PlanRecord, now: datetime) -> PlanWindow | None:
    """What a plan wants: its first window until it is applied, then the one that it is in.

    The first one is what is applied, whenever somebody says yes.
    """
    plan = record.plan
    if record.approval.state is ApprovalState.APPLIED or not plan.windows:
        return window_at(plan, now)
    return plan.windows[0]


def fleet_view(
    fleet: Fleet | None, record: PlanRecord | None, *, now: datetime, reason: str = ""
) -> FleetView:
    """What runs beside what the plan wants (`wanted_by`)."""
    window = None if record is None else wanted_by(record, now)
    known: dict[Key, Pool] = {}
    if fleet is not None:
        known = {(pool.shape.label, pool.purchase_option): pool for pool in fleet.pools}
    wanted: dict[Key, int] = {}
    if window is not None:
        wanted = {(p.shape.label, p.purchase_option): p.replicas for p in window.pools}
    keys = sorted({*known, *(key for key, count in wanted.items() if count or key in known)})
    return FleetView(
        now_short="unknown" if fleet is None else short_fleet(fleet),
        now_long="" if fleet is None else long_fleet(fleet),
        planned_short="" if window is None else short_fleet(window),
        planned_long="" if window is None else long_fleet(window),
        rows=tuple(_row(key, known.get(key), wanted, planned=window is not None) for key in keys),
        reason=reason,
        plan_id="" if record is None else record.plan.plan_id,
        plan_state="" if record is None else STATES[record.approval.state][0],
    )


def _row(key: Key, pool: Pool | None, wanted: dict[Key, int], *, planned: bool) -> PoolRow:
    label, option = key
    return PoolRow(
        label=label,
        purchase_option=words(option),
        ready=0 if pool is None else pool.ready,
        starting=0 if pool is None else pool.starting,
        draining=0 if pool is None else pool.draining,
        stuck=0 if pool is None else pool.stuck,
        planned=wanted.get(key, 0) if planned else None,
    )
