"""How long what is kept, and the work of keeping it so: many short transactions, one after another.

Each of them takes a few milliseconds, and what to do is looked up outside of them, so that nobody
waits. They may stop anywhere: what is left is done the next time.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    delete,
    func,
    insert,
    select,
    update,
)

from planner.domain.rollout import ApprovalState
from planner.service.documents.history import WindowDocument, window_of
from planner.service.keeping import Keeping
from planner.service.loop.rolling_up import HOUR_S, hour_of, roll_up
from planner.service.store import audit
from planner.service.store.instants import instant, stamp
from planner.service.store.observations import of_class, row_of
from planner.service.store.tables import (
    APPROVALS,
    DECISIONS,
    GATE_HOURS,
    METADATA,
    OBSERVATIONS,
    ORDERS,
    PLANS,
    STEPS,
)

AT_ONCE = 200
"""Rows that one transaction deletes at most."""
PLANS_AT_ONCE = 20
"""A plan is large, and has states, steps and orders."""
LAST_DECISIONS = 1_000
"""Of a deployment these stay, however old: guards look back on them."""
LAST_ROLLOUTS = 50
_GIVEN_UP = (
    ApprovalState.DRAFT,
    ApprovalState.SUPERSEDED,
    ApprovalState.REJECTED,
    ApprovalState.EXPIRED,
)
_OVER = (ApprovalState.APPLIED, ApprovalState.FAILED, ApprovalState.ROLLED_BACK)

Begin = Callable[[], AbstractContextManager[Connection]]
"""Begins a transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What one transaction did: so many of what became fewer or none."""

    what: str
    before: int
    after: int = 0


class Upkeep:
    """The work for one deployment.

    Parameters
    ----------
    look, begin : callable
        Begin a transaction that reads, and one that writes.
    newest : int
        Windows of each class that a forecast looks at: they stay as they came in.
    """

    def __init__(
        self,
        look: Begin,
        begin: Begin,
        deployment: str,
        keeping: Keeping,
        *,
        newest: int,
        now: datetime,
    ) -> None:
        self._look = look
        self._begin = begin
        self._deployment = deployment
        self._keeping = keeping
        self._newest = newest
        self._now = now

    def run(self) -> Iterator[Done]:
        """Do one transaction each time that the next one is asked for, until all is done.

        Raises
        ------
        StoreError, NotLeaderError
            As any write of the store.
        """
        yield from self._roll_up()
        keeping = self._keeping
        old_windows = OBSERVATIONS.c.start_at < self._before(keeping.hours_s)
        yield from self._cut("hours", OBSERVATIONS.name, old_windows)
        old_hours = GATE_HOURS.c.hour_at < self._before(keeping.hours_s)
        yield from self._cut("gate hours", GATE_HOURS.name, old_hours)
        old_orders = (ORDERS.c.asked_at < self._before(keeping.plans_s)) & ORDERS.c.error.is_not(
            None
        )
        yield from self._cut("orders", ORDERS.name, old_orders)
        yield from self._cut("decisions", DECISIONS.name, self._old_decisions())
        yield from self._cut_plans("plans", self._given_up())
        yield from self._cut_plans("rollouts", self._rolled_out())

    def remember(self, done: dict[str, int], *, actor: str) -> None:
        """One line for the audit log: what went, and how much of it."""
        told = ", ".join(f"{count} {what}" for what, count in sorted(done.items()))
        with self._begin() as connection:
            audit.add(connection, self._now, actor, "store.tidy", self._deployment, detail=told)

    def _before(self, seconds: float) -> str:
        return stamp(self._now - timedelta(seconds=seconds))

    # Windows to hours ---------------------------------------------------------------------------

    def _roll_up(self) -> Iterator[Done]:
        with self._look() as connection:
            here = OBSERVATIONS.c.deployment == self._deployment
            columns = (OBSERVATIONS.c.model, OBSERVATIONS.c.request_class)
            groups = connection.execute(select(*columns).where(here).distinct()).all()
        for model, request_class in groups:
            while True:
                with self._begin() as connection:
                    done = self._roll_up_hour(connection, model, request_class)
                if done is None:
                    break
                yield done

    def _roll_up_hour(self, connection: Connection, model: str, request_class: str) -> Done | None:
        """Sum up the oldest hour of a class that is to be; None: there is none."""
        table = OBSERVATIONS
        own = of_class(self._deployment, model, request_class)
        raw = own & (table.c.rolled_up == 0)
        until = self._rolled_up_until(connection, own)
        oldest = connection.execute(select(func.min(table.c.start_at)).where(raw)).scalar()
        if oldest is None or until is None:
            return None
        begins_at = hour_of(instant(oldest))
        ends_at = begins_at + timedelta(seconds=HOUR_S)
        if stamp(ends_at) > until:
            return None
        query = select(table.c.seq, table.c.window, table.c.received_at).where(
            raw, table.c.start_at < stamp(ends_at)
        )
        rows = connection.execute(query.order_by(table.c.start_at)).all()
        windows = [
            window_of(WindowDocument.model_validate_json(row.window), where="store") for row in rows
        ]
        hours = roll_up(windows)
        known = dict(zip(windows, rows, strict=True))
        kept = [known[hour].seq for hour in hours if hour in known]
        if kept:
            connection.execute(update(table).where(table.c.seq.in_(kept)).values(rolled_up=1))
        gone = [row.seq for row in rows if row.seq not in kept]
        for first in range(0, len(gone), AT_ONCE):
            some = gone[first : first + AT_ONCE]
            connection.execute(delete(table).where(table.c.seq.in_(some)))
        received_at = max(row.received_at for row in rows)
        for hour in hours:
            if hour not in known:
                row = row_of(self._deployment, model, hour, received_at=received_at, rolled_up=True)
                connection.execute(insert(table).values(row))
        return Done(what="windows rolled up", before=len(gone), after=len(hours) - len(kept))

    def _rolled_up_until(self, connection: Connection, own: ColumnElement[bool]) -> str | None:
        """Windows of a class that start before are no forecast's any more; None: all are."""
        newest = (
            select(OBSERVATIONS.c.start_at)
            .where(own)
            .order_by(OBSERVATIONS.c.start_at.desc())
            .offset(self._newest - 1)
            .limit(1)
        )
        looked_at = connection.execute(newest).scalar()
        if looked_at is None:
            return None
        return min(str(looked_at), self._before(self._keeping.windows_s))

    # What is too old ----------------------------------------------------------------------------

    def _cut(self, what: str, name: str, old: ColumnElement[bool]) -> Iterator[Done]:
        """Delete the old rows of a table that has a `seq`, so many at once."""
        table = METADATA.tables[name]
        query = select(table.c.seq).where(table.c.deployment == self._deployment, old)
        while True:
            with self._look() as connection:
                seqs = connection.execute(query.limit(AT_ONCE)).scalars().all()
            if seqs:
                with self._begin() as connection:
                    _delete(connection, name, "seq", seqs)
                yield Done(what=what, before=len(seqs))
            if not seqs:
                return

    def _old_decisions(self) -> ColumnElement[bool]:
        stays = (
            select(DECISIONS.c.seq)
            .where(DECISIONS.c.deployment == self._deployment)
            .order_by(DECISIONS.c.seq.desc())
            .offset(LAST_DECISIONS - 1)
            .limit(1)
            .scalar_subquery()
        )
        old = DECISIONS.c.decided_at < self._before(self._keeping.decisions_s)
        return old & (DECISIONS.c.seq < stays)

    def _given_up(self) -> Select[tuple[str]]:
        """Plans that never moved the fleet and wait for nobody."""
        moved = select(STEPS.c.plan_id).where(STEPS.c.plan_id == PLANS.c.plan_id)
        old = PLANS.c.created_at < self._before(self._keeping.plans_s)
        return self._plans_in(_GIVEN_UP).where(old, ~moved.exists())

    def _rolled_out(self) -> Select[tuple[str]]:
        """Plans that moved the fleet, or failed to, long ago; the last ones stay."""
        last = self._plans_in(_OVER).order_by(PLANS.c.created_at.desc()).limit(LAST_ROLLOUTS)
        old = PLANS.c.created_at < self._before(self._keeping.rollouts_s)
        return self._plans_in(_OVER).where(old, PLANS.c.plan_id.not_in(last))

    def _plans_in(self, states: tuple[ApprovalState, ...]) -> Select[tuple[str]]:
        newest = (
            select(APPROVALS.c.state)
            .where(APPROVALS.c.plan_id == PLANS.c.plan_id)
            .order_by(APPROVALS.c.seq.desc())
            .limit(1)
            .scalar_subquery()
        )
        return select(PLANS.c.plan_id).where(
            PLANS.c.deployment == self._deployment, newest.in_([state.value for state in states])
        )

    def _cut_plans(self, what: str, old: Select[tuple[str]]) -> Iterator[Done]:
        while True:
            with self._look() as connection:
                ids = connection.execute(old.limit(PLANS_AT_ONCE)).scalars().all()
            if ids:
                with self._begin() as connection:
                    still = old.where(PLANS.c.plan_id.in_(ids))  # one may be taken up again
                    ids = connection.execute(still).scalars().all()
                    _delete(connection, PLANS.name, "plan_id", ids)
                yield Done(what=what, before=len(ids))
            if not ids:
                return


def _delete(connection: Connection, name: str, column: str, values: Sequence[object]) -> None:
    """Delete the rows with these values, and before them all rows that refer to them."""
    table = METADATA.tables[name]
    rows = table.c[column].in_(values)
    for child in METADATA.tables.values():
        for key in child.foreign_keys:
            if key.column.table is table:
                referred = connection.execute(select(key.column).where(rows)).scalars().all()
                if referred:
                    _delete(connection, child.name, key.parent.name, referred)
    connection.execute(delete(table).where(rows))
