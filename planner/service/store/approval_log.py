"""The states that a deployment's plans went through, one after the other, for whoever tells."""

from dataclasses import dataclass

from sqlalchemy import Engine, func, select

from planner.domain.rollout import Approval
from planner.service.store.approvals import approval_of
from planner.service.store.database import translated
from planner.service.store.tables import APPROVALS, PLANS


@dataclass(frozen=True, slots=True)
class ApprovalLog:
    """Read from a place on; nothing is written here."""

    engine: Engine
    deployment: str
    where: str

    def newest(self) -> int:
        """The place of the newest state; 0 without any."""
        query = (
            select(func.max(APPROVALS.c.seq))
            .join(PLANS, PLANS.c.plan_id == APPROVALS.c.plan_id)
            .where(PLANS.c.deployment == self.deployment)
        )
        with translated(self.where), self.engine.connect() as raw:
            connection = raw.execution_options(reads_only=True)
            with connection.begin():
                return connection.execute(query).scalar_one_or_none() or 0

    def after(self, place: int, *, limit: int = 200) -> tuple[tuple[int, Approval], ...]:
        """The states behind a place, oldest first, each with its own place."""
        query = (
            select(APPROVALS)
            .join(PLANS, PLANS.c.plan_id == APPROVALS.c.plan_id)
            .where(PLANS.c.deployment == self.deployment, APPROVALS.c.seq > place)
            .order_by(APPROVALS.c.seq)
            .limit(limit)
        )
        with translated(self.where), self.engine.connect() as raw:
            connection = raw.execution_options(reads_only=True)
            with connection.begin():
                rows = connection.execute(query).mappings().all()
        return tuple((row["seq"], approval_of(row)) for row in rows)
