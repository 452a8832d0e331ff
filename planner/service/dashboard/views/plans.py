"""Plans in a list: what each would change, and where it stands."""

from dataclasses import dataclass
from datetime import datetime

from planner.domain.plan import PlanWindow
from planner.domain.rollout import Approval, ApprovalState
from planner.service.documents.fleet import FleetDocument
from planner.service.reports.quantities import counted, share, short_fleet, usd_per_hour
from planner.service.store import PlanRecord

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


def asker(approval: Approval) -> str:
    """Who asked for a plan, as people say it."""
    return named(approval.requested_by or approval.changed_by)


def named(name: str) -> str:
    """Who did something to a plan, as people say it."""
    return "the loop" if name == "policy" else name


def _change(before: FleetDocument, after: PlanWindow | None) -> str:
    now = fleet_in_short(before)
    return now if after is None else f"{now} → {short_fleet(after)}"


def fleet_in_short(fleet: FleetDocument) -> str:
    """Replicas by role, as in `2P3D`; those that start count."""
    letters = (("prefill", "P"), ("decode", "D"), ("aggregated", "A"))
    counts = {
        role: sum(p.ready + p.starting for p in fleet.pools if p.role == role)
        for role, _ in letters
    }
    return "".join(f"{counts[role]}{letter}" for role, letter in letters if counts[role]) or "empty"
