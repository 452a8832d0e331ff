"""Which processes on this database live: each says so every few seconds."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import Connection, Select, delete, insert, select, update

from planner.service.store.instants import stamp
from planner.service.store.tables import PROCESSES

SILENT_S = 30.0
"""A process that was not heard of for so long is taken for dead, seconds."""


def say_alive(connection: Connection, identity: str, *, at: datetime) -> None:
    """Keep that a process lives; those long dead are forgotten."""
    here = PROCESSES.c.identity == identity
    values = {"seen_at": stamp(at)}
    if connection.execute(update(PROCESSES).where(here).values(values)).rowcount == 0:
        connection.execute(insert(PROCESSES).values(identity=identity, **values))
    long_ago = stamp(at - timedelta(seconds=100 * SILENT_S))
    connection.execute(delete(PROCESSES).where(PROCESSES.c.seen_at < long_ago))


def say_farewell(connection: Connection, identity: str) -> None:
    """Keep that a process is gone, so that nobody waits for it."""
    connection.execute(delete(PROCESSES).where(PROCESSES.c.identity == identity))


def identities(connection: Connection) -> Sequence[str]:
    """Everybody who said that they live, and not farewell."""
    return connection.execute(select(PROCESSES.c.identity)).scalars().all()


def living(*, at: datetime) -> Select[tuple[str]]:
    """The identities of those who live."""
    since = stamp(at - timedelta(seconds=SILENT_S))
    return select(PROCESSES.c.identity).where(PROCESSES.c.seen_at >= since)
