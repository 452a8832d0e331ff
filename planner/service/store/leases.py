"""Leases, and the terms of those who led: what decides who may write."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from planner.domain.errors import NotLeaderError
from planner.service.election.lease import Lease
from planner.service.store import audit
from planner.service.store.database import translated
from planner.service.store.instants import instant, stamp
from planner.service.store.tables import LEADERS, LEASES


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Writes that carry this are refused once a newer term has begun."""

    name: str
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Leader:
    """Who led last, in which term, since when."""

    holder: str
    term: int
    since_at: datetime


class StoredLease:
    """One lease in the database, with the terms that have begun under it.

    Both are there once per name; the terms also count where the lease itself is kept elsewhere.
    """

    def __init__(self, engine: Engine, name: str, where: str) -> None:
        self._engine = engine
        self._name = name
        self._where = where

    @property
    def label(self) -> str:
        """The row."""
        return f"lease {self._name} in the database"

    def read(self) -> Lease | None:
        """The lease as it is. Raises StoreError."""
        query = select(LEASES).where(LEASES.c.name == self._name)
        with translated(self._where), self._engine.connect() as raw:
            connection = raw.execution_options(reads_only=True)
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        return Lease(
            holder=row["holder"],
            term=row["term"],
            duration_s=row["duration_s"],
            renewed_at=instant(row["renewed_at"]),
            version=str(row["version"]),
        )

    def replace(self, seen: Lease | None, wanted: Lease) -> Lease | None:
        """Write a lease over the one seen; None when it is another one by now."""
        version = int(seen.version) + 1 if seen else 1
        values = {
            "holder": wanted.holder,
            "term": wanted.term,
            "duration_s": wanted.duration_s,
            "renewed_at": stamp(wanted.renewed_at),
            "version": version,
        }
        with translated(self._where), self._engine.begin() as connection:
            if not self._write(connection, seen, values):
                return None
        return Lease(
            holder=wanted.holder,
            term=wanted.term,
            duration_s=wanted.duration_s,
            renewed_at=wanted.renewed_at,
            version=str(version),
        )

    def _write(self, connection: Connection, seen: Lease | None, values: dict[str, object]) -> bool:
        if seen is not None:
            same = (LEASES.c.name == self._name) & (LEASES.c.version == int(seen.version))
            return connection.execute(update(LEASES).where(same).values(values)).rowcount == 1
        try:
            with connection.begin_nested():
                connection.execute(insert(LEASES).values(name=self._name, **values))
        except IntegrityError:
            return False
        return True

    def leader(self) -> Leader | None:
        """Who led last; None before the first term. Raises StoreError."""
        query = select(LEADERS).where(LEADERS.c.name == self._name)
        with translated(self._where), self._engine.connect() as raw:
            connection = raw.execution_options(reads_only=True)
            row = connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        return Leader(holder=row["holder"], term=row["term"], since_at=instant(row["since_at"]))

    def newest_term(self) -> int:
        """The newest term that has begun, 0 before the first. Raises StoreError."""
        leader = self.leader()
        return leader.term if leader else 0

    def begin_term(self, term: int, holder: str, *, at: datetime) -> bool:
        """Refuse all writes of older terms from now on; False when this one is old itself."""
        values = {"term": term, "holder": holder, "since_at": stamp(at)}
        older = (LEADERS.c.name == self._name) & (LEADERS.c.term < term)
        with translated(self._where), self._engine.begin() as connection:
            begun = connection.execute(update(LEADERS).where(older).values(values)).rowcount == 1
            if not begun:
                try:
                    with connection.begin_nested():
                        connection.execute(insert(LEADERS).values(name=self._name, **values))
                    begun = True
                except IntegrityError:  # a newer term is there
                    return False
            audit.add(connection, at, holder, "leader.begin", self._name, detail=f"term {term}")
        return begun


def check(connection: Connection, fence: Fence) -> None:
    """Let a write pass only while no newer term has begun; holds until the transaction ends.

    Raises
    ------
    NotLeaderError
        When one has.
    """
    query = select(LEADERS.c.holder, LEADERS.c.term).where(LEADERS.c.name == fence.name)
    # Of use where writers do not queue up as in SQLite: the next term waits for this transaction.
    row = connection.execute(query.with_for_update(read=True)).one_or_none()
    if row is not None and row.term > fence.term:
        raise NotLeaderError(
            f"{row.holder} leads since term {row.term}; what was begun in term {fence.term} "
            "is not written any more"
        )
