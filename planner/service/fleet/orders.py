"""Moving the fleet by a person's wish, whichever process was asked: the leader does it."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from planner.domain import errors
from planner.domain.errors import NotLeaderError, OperationError, PoolwiseError
from planner.service.deployment import Deployment
from planner.service.election.leadership import Leadership
from planner.service.fleet import lifecycle
from planner.service.store import PlanRecord
from planner.service.store.database import Access
from planner.service.store.orders import Action, Answer, Order, ordered

LOG = logging.getLogger("poolwise.orders")
LOOK_S = 0.5
"""Between two looks at what was ordered, or answered, seconds."""
PATIENCE_S = 30.0
"""How long whoever asked is kept waiting; longer rollouts go on without them, seconds."""
GOOD_FOR_S = 60.0
"""Nobody expects an older order to be carried out, seconds."""


class Carry(Protocol):
    """`lifecycle.apply` or `lifecycle.roll_back`."""

    def __call__(
        self, deployment: Deployment, plan_id: str, *, by: str, at: datetime, revision: int | None
    ) -> PlanRecord:
        """The plan as it stands afterwards."""
        ...


ACTIONS: dict[Action, Carry] = {
    Action.APPLY: lifecycle.apply,
    Action.ROLL_BACK: lifecycle.roll_back,
}


def move(
    leadership: Leadership,
    plan_id: str,
    action: Action,
    *,
    by: str,
    revision: int | None = None,
    patience_s: float = PATIENCE_S,
) -> tuple[PlanRecord, bool]:
    """Apply a plan or roll it back, here or by the leader; the plan, and whether that is over.

    Raises
    ------
    PoolwiseError
        As `lifecycle.apply` and `lifecycle.roll_back`, whoever did it.
    NotLeaderError
        When there is no leader to leave it to.
    """
    deployment = leadership.deployment
    leading = leadership.leading()
    if leading is not None:
        at = leading.clock()
        return ACTIONS[action](leading, plan_id, by=by, at=at, revision=revision), True
    deployment.store.plan(plan_id)  # an unknown one is told at once
    if not leadership.somebody_leads():
        raise NotLeaderError(leadership.who_leads())
    orders = deployment.store.orders(deployment.spec.name)
    asked_at = deployment.store.access.shared_now(deployment.clock())
    order = orders.add(plan_id, action, by=by, at=asked_at, revision=revision)
    until_s = time.monotonic() + patience_s
    while time.monotonic() < until_s:
        answer = orders.answer_to(order)
        if answer is not None:
            if answer.error:
                raise _error(answer)
            return deployment.store.plan(plan_id), True
        time.sleep(LOOK_S)
    return deployment.store.plan(plan_id), False


def _error(answer: Answer) -> PoolwiseError:
    """The error that the leader met."""
    kind = getattr(errors, answer.error, None)
    if isinstance(kind, type) and issubclass(kind, PoolwiseError):
        return kind(answer.detail)
    return OperationError(answer.detail)


@dataclass(slots=True)
class OrderTaker:
    """Carries out what other processes were asked for, while this one leads.

    One look at the database is for all deployments; each has a thread of its own for as long as
    it has orders, so that a rollout of one keeps no other waiting.

    Parameters
    ----------
    leaderships : callable
        Of the deployments that are served now.
    """

    access: Access
    leaderships: Callable[[], Iterable[Leadership]]
    _busy: dict[str, threading.Thread] = field(default_factory=dict, init=False)

    def look(self) -> None:
        """Begin what waits. Raises StoreError."""
        waiting = ordered(self.access)
        self._busy = {name: busy for name, busy in self._busy.items() if busy.is_alive()}
        for leadership in self.leaderships():
            name = leadership.deployment.spec.name
            if name in waiting and name not in self._busy:
                thread = threading.Thread(
                    target=_take, args=(leadership,), name=f"orders-{name}", daemon=True
                )
                self._busy[name] = thread
                thread.start()

    def finish(self) -> None:
        """Wait for what was begun."""
        for thread in self._busy.values():
            thread.join()


@contextmanager
def taking_orders(taker: OrderTaker) -> Iterator[None]:
    """Look for orders in a thread."""
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(LOOK_S):
            try:
                taker.look()
            except PoolwiseError as error:
                LOG.warning("orders are not taken: %s", error)
            except Exception:
                LOG.exception("orders are not taken")

    thread = threading.Thread(target=run, name="orders", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        taker.finish()


def _take(leadership: Leadership) -> None:
    name = leadership.deployment.spec.name
    try:
        carry_out_orders(leadership)
    except PoolwiseError as error:
        LOG.warning("deployment=%s its orders are not taken: %s", name, error)
    except Exception:
        LOG.exception("deployment=%s its orders are not taken", name)


def carry_out_orders(leadership: Leadership) -> None:
    """Carry out the orders that wait, where this process leads; one after another.

    One that is broken off with the term is left to the next leader.
    """
    leading = leadership.leading()
    if leading is None:
        return
    orders = leading.store.orders(leading.spec.name)
    for order in orders.waiting():
        now = leading.store.access.shared_now(leading.clock())
        waited_s = (now - order.asked_at).total_seconds()
        answer = _carry_out(leading, order, waited_s=waited_s)
        if not leading.leads():
            return
        orders.answer(order, answer, at=leading.clock())


def _carry_out(deployment: Deployment, order: Order, *, waited_s: float) -> Answer:
    if waited_s > GOOD_FOR_S:
        detail = f"nobody led within {GOOD_FOR_S:g} s after this was asked; ask again"
        return Answer(error=NotLeaderError.__name__, detail=detail)
    try:
        carry, revision = ACTIONS[order.action], order.revision
        at = deployment.clock()
        carry(deployment, order.plan_id, by=order.asked_by, at=at, revision=revision)
    except PoolwiseError as error:
        return Answer(error=type(error).__name__, detail=str(error))
    return Answer()
