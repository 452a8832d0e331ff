"""States of plans, appended one after another; of a deployment one plan at a time moves."""

import json

from sqlalchemy import Connection, RowMapping, Select, func, insert, select

from planner.domain.errors import PlanChangedError, PlanStateError
from planner.domain.rollout import Approval, ApprovalState
from planner.service.store.instants import instant, stamp
from planner.service.store.records import BegunStep
from planner.service.store.tables import APPROVALS, PLANS, STEPS


def begin_step(connection: Connection, run: Approval, step: BegunStep) -> None:
    """Keep that a step is begun, while its plan is where the run left it.

    Raises
    ------
    PlanStateError
        When it is not: another process has taken over.
    """
    now = newest(connection, run.plan_id)
    if now != run:
        raise PlanStateError(
            f"plan {run.plan_id} was taken over by {now.changed_by}: it is {now.state} "
            f"({now.reason})"
        )
    connection.execute(
        insert(STEPS).values(
            plan_id=run.plan_id,
            run=_newest_seq(run.plan_id).scalar_subquery(),
            number=step.number,
            begun_at=stamp(step.begun_at),
            what=step.what,
        )
    )


def steps(connection: Connection, plan_id: str) -> tuple[BegunStep, ...]:
    """Every step of a plan that was ever begun, oldest first."""
    newest_seq = connection.execute(_newest_seq(plan_id)).scalar_one_or_none()
    query = select(STEPS).where(STEPS.c.plan_id == plan_id).order_by(STEPS.c.seq)
    return tuple(
        BegunStep(
            number=row["number"],
            begun_at=instant(row["begun_at"]),
            what=row["what"],
            under_way=row["run"] == newest_seq,
        )
        for row in connection.execute(query).mappings()
    )


def revision(connection: Connection, plan_id: str) -> int:
    """The number of a plan's newest state."""
    query = select(func.max(APPROVALS.c.seq)).where(APPROVALS.c.plan_id == plan_id)
    number: int = connection.execute(query).scalar_one()
    return number


def check_revision(connection: Connection, now: Approval, expected: int | None) -> None:
    """Refuse what was asked for another state of the plan than the newest.

    Raises
    ------
    PlanChangedError
    """
    if expected is None or expected == revision(connection, now.plan_id):
        return
    raise PlanChangedError(changed(now))


def changed(now: Approval) -> str:
    """That a plan is no longer what somebody saw, as a sentence."""
    reason = f" ({now.reason})" if now.reason else ""
    return (
        f"plan {now.plan_id} has changed since you looked: it is {now.state} since "
        f"{now.changed_at.isoformat()} by {now.changed_by}{reason}; look at it again, then decide"
    )


def _newest_seq(plan_id: str) -> Select[tuple[int]]:
    return select(func.max(APPROVALS.c.seq)).where(APPROVALS.c.plan_id == plan_id)


def newest(connection: Connection, plan_id: str) -> Approval:
    """Where a plan stands."""
    query = (
        select(APPROVALS)
        .where(APPROVALS.c.plan_id == plan_id)
        .order_by(APPROVALS.c.seq.desc())
        .limit(1)
    )
    return approval_of(connection.execute(query).mappings().one())


def states(connection: Connection, plan_id: str) -> tuple[Approval, ...]:
    """Every state that a plan was in, oldest first."""
    query = select(APPROVALS).where(APPROVALS.c.plan_id == plan_id).order_by(APPROVALS.c.seq)
    return tuple(approval_of(row) for row in connection.execute(query).mappings())


def approval_of(row: RowMapping) -> Approval:
    """The state in a row."""
    return Approval(
        plan_id=row["plan_id"],
        state=ApprovalState(row["state"]),
        fleet_version=row["fleet_version"],
        changed_at=instant(row["changed_at"]),
        changed_by=row["changed_by"],
        reason=row["reason"],
        requested_by=row["requested_by"],
        approvers=tuple(json.loads(row["approvers"])),
        needed=row["needed"],
    )


def append(connection: Connection, approval: Approval) -> None:
    """Keep one state more."""
    connection.execute(
        insert(APPROVALS).values(
            plan_id=approval.plan_id,
            state=approval.state.value,
            fleet_version=approval.fleet_version,
            changed_at=stamp(approval.changed_at),
            changed_by=approval.changed_by,
            reason=approval.reason,
            requested_by=approval.requested_by,
            approvers=json.dumps(approval.approvers),
            needed=approval.needed,
        )
    )


def check_alone(connection: Connection, deployment: str) -> None:
    """Refuse to begin while a plan of the deployment is applied or rolled back.

    Raises
    ------
    PlanStateError
    """
    seqs = select(func.max(APPROVALS.c.seq)).group_by(APPROVALS.c.plan_id)
    query = (
        select(APPROVALS)
        .join(PLANS, APPROVALS.c.plan_id == PLANS.c.plan_id)
        .where(PLANS.c.deployment == deployment, APPROVALS.c.seq.in_(seqs))
        .where(APPROVALS.c.state.in_([state.value for state in ApprovalState if state.moves]))
    )
    for row in connection.execute(query).mappings():
        other = approval_of(row)
        begun = [step.what for step in steps(connection, other.plan_id) if step.under_way]
        raise PlanStateError(
            f"plan {other.plan_id} is {other.state} since {other.changed_at.isoformat()} "
            f"({begun[-1] if begun else other.reason}): one plan at a time moves the fleet, wait "
            "for it"
        )
