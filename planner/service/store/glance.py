"""Where a deployment stands, for a scrape: in two short statements, without reading any plan."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from planner.domain.rollout import ApprovalState
from planner.service.store.database import Access
from planner.service.store.instants import instant
from planner.service.store.plans import NEWEST_STATE
from planner.service.store.tables import APPROVALS, OBSERVATIONS, PLANS


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """None: nothing of the kind.

    Parameters
    ----------
    moving_since : datetime or None
        Since when a plan is applied or rolled back.
    waiting_since : datetime or None
        When the oldest plan that waits for a person was made.
    known_until : datetime or None
        Until when its load was observed.
    """

    moving_since: datetime | None
    waiting_since: datetime | None
    known_until: datetime | None


def glance(access: Access, deployment: str, model: str) -> Glance:
    """What waits and what moves now, and how far the load is known.

    Raises
    ------
    StoreError
        When the database does not answer.
    """
    with access.reading() as connection:
        moving, waiting = _open_plans(connection, deployment)
        return Glance(
            moving_since=max(moving, default=None),
            waiting_since=min(waiting, default=None),
            known_until=_known_until(connection, deployment, model),
        )


def _open_plans(connection: Connection, deployment: str) -> tuple[list[datetime], list[datetime]]:
    """Since when plans move the fleet; when those were made that wait for a person."""
    moving = [state.value for state in ApprovalState if state.moves]
    query = (
        select(APPROVALS.c.state, PLANS.c.created_at, APPROVALS.c.changed_at)
        .join(APPROVALS, APPROVALS.c.plan_id == PLANS.c.plan_id)
        .where(
            PLANS.c.deployment == deployment,
            APPROVALS.c.seq == NEWEST_STATE,
            APPROVALS.c.state.in_([*moving, ApprovalState.PENDING.value]),
        )
    )
    rows = connection.execute(query).all()
    return (
        [instant(row.changed_at) for row in rows if row.state in moving],
        [instant(row.created_at) for row in rows if row.state not in moving],
    )


def _known_until(connection: Connection, deployment: str, model: str) -> datetime | None:
    """The end of the window that began last."""
    query = (
        select(OBSERVATIONS.c.start_at, OBSERVATIONS.c.window_s)
        .where(OBSERVATIONS.c.deployment == deployment, OBSERVATIONS.c.model == model)
        .order_by(OBSERVATIONS.c.start_at.desc(), OBSERVATIONS.c.window_s.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else instant(row.start_at) + timedelta(seconds=row.window_s)
