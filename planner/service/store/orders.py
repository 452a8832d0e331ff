"""Orders to move the fleet that came to a process which does not lead; the leader takes them."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Engine, insert, select, update

from planner.service.store import audit
from planner.service.store.database import Access, queue_up, translated
from planner.service.store.instants import instant, stamp
from planner.service.store.tables import ORDERS


class Action(StrEnum):
    """What moves the fleet by a person's wish."""

    APPLY = "apply"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Somebody's wish.

    Parameters
    ----------
    asked_at : datetime
        By the clock that all processes share (`Access.shared_now`).
    revision : int or None
        `PlanRecord.revision` that they looked at; None: they did not say.
    """

    seq: int
    plan_id: str
    action: Action
    asked_by: str
    asked_at: datetime
    revision: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of an order.

    Parameters
    ----------
    error : str
        Name of the PoolwiseError that it raised; empty: done.
    detail : str
        Its message.
    """

    error: str = ""
    detail: str = ""


def ordered(access: Access) -> frozenset[str]:
    """The deployments that have orders which nobody has answered. Raises StoreError."""
    query = select(ORDERS.c.deployment).where(ORDERS.c.error.is_(None)).distinct()
    with access.reading() as connection:
        return frozenset(connection.execute(query).scalars())


class StoredOrders:
    """The orders of one deployment."""

    def __init__(self, engine: Engine, deployment: str, where: str) -> None:
        self._engine = engine
        self._deployment = deployment
        self._where = where

    def add(
        self, plan_id: str, action: Action, *, by: str, at: datetime, revision: int | None = None
    ) -> Order:
        """Leave an order for the leader. Raises StoreError."""
        values = {
            "deployment": self._deployment,
            "plan_id": plan_id,
            "action": action.value,
            "asked_by": by,
            "asked_at": stamp(at),
            "revision": revision,
        }
        with translated(self._where), self._engine.begin() as connection:
            queue_up(connection)
            made = connection.execute(insert(ORDERS).values(values).returning(ORDERS.c.seq))
            seq = made.scalar_one()
            audit.add(connection, at, by, f"plan.order_{action}", plan_id)
        return Order(
            seq=seq,
            plan_id=plan_id,
            action=action,
            asked_by=by,
            asked_at=at,
            revision=revision,
        )

    def waiting(self) -> tuple[Order, ...]:
        """What nobody has answered, oldest first. Raises StoreError."""
        query = (
            select(ORDERS)
            .where(ORDERS.c.deployment == self._deployment, ORDERS.c.error.is_(None))
            .order_by(ORDERS.c.seq)
        )
        with translated(self._where), self._engine.connect() as raw:
            connection = raw.execution_options(reads_only=True)
            rows = connection.execute(query).mappings().all()
        return tuple(
            Order(
                seq=row["seq"],
                plan_id=row["plan_id"],
                action=Action(row["action"]),
                asked_by=row["asked_by"],
                asked_at=instant(row["asked_at"]),
                revision=row["revision"],
            )
            for row in rows
        )

    def answer(self, order: Order, answer: Answer, *, at: datetime) -> None:
        """Say what came of it, once; a refusal is in the audit log too. Raises StoreError."""
        unanswered = (ORDERS.c.seq == order.seq) & ORDERS.c.error.is_(None)
        values = {"error": answer.error, "detail": answer.detail}
        with translated(self._where), self._engine.begin() as connection:
            queue_up(connection)
            answered = connection.execute(update(ORDERS).where(unanswered).values(values)).rowcount
            if answered and answer.error:
                action, by = f"plan.order_{order.action}_refused", order.asked_by
                audit.add(connection, at, by, action, order.plan_id, detail=answer.detail)

    def answer_to(self, order: Order) -> Answer | None:
        """What came of it; None while nobody has said. Raises StoreError."""
        query = select(ORDERS.c.error, ORDERS.c.detail).where(ORDERS.c.seq == order.seq)
        with translated(self._where), self._engine.connect() as raw:
            connection = raw.execution_options(reads_only=True)
            row = connection.execute(query).one()
        return None if row.error is None else Answer(error=row.error, detail=row.detail)
