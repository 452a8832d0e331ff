"""The database: whether it answers, has the schema, takes writes, and what its clock says."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine, func, inspect, select, update

from planner.domain.errors import StoreError
from planner.service.doctor.finding import Finding, failed, good, note, skipped
from planner.service.store.database import (
    bare_engine,
    newest_revision,
    revision_of,
    shown,
    translated,
)
from planner.service.store.tables import AUDIT_HEAD

CLOCK_NOTE, CLOCK_FAILED = timedelta(seconds=1), timedelta(seconds=5)
"""Leases are judged by clocks: half a second is nothing, a third of a lease is much."""


def look_at_store(url: str) -> list[Finding]:
    """Every check of the database at a URL; nothing is made, migrated or kept."""
    try:
        engine = bare_engine(url)
    except StoreError as error:
        return [failed("store", str(error), "correct POOLWISE_DATABASE_URL")]
    try:
        path = Path(str(engine.url.database)).expanduser()
        if engine.dialect.name == "sqlite" and not path.exists():
            where = f"{path} is not there yet: `poolwise serve` makes it"
            return [good("store", where), skipped("database clock", "it is this machine's own")]
        return _look(engine)
    except StoreError as error:
        return [failed("store", str(error), "see docs/operations.md, PoolwiseStoreDown")]
    finally:
        engine.dispose()


def _look(engine: Engine) -> list[Finding]:
    where = shown(engine)
    with translated(where), engine.connect() as connection:
        return [_schema(connection, where), _clock(connection)]


def _schema(connection: Connection, where: str) -> Finding:
    """Its version, and whether a write that is taken back is let through."""
    known, newest = revision_of(connection), newest_revision()
    has_log = inspect(connection).has_table(AUDIT_HEAD.name)
    if known is None and not has_log:
        return good("store", f"{where} is empty: `poolwise serve` makes its tables")
    connection.rollback()
    with connection.begin() as transaction:
        if has_log:
            connection.execute(update(AUDIT_HEAD).values(seq=AUDIT_HEAD.c.seq))
        transaction.rollback()
    if known == newest:
        return good("store", f"{where} takes writes, schema {known}")
    if known is not None and known < newest:
        todo = "`poolwise backup FILE`, then start `poolwise serve`: it migrates"
        return note("store", f"{where} takes writes; its schema is {known}, not {newest}", todo)
    todo = "update Poolwise, or name another database by POOLWISE_DATABASE_URL"
    return failed("store", f"{where} was written by a newer Poolwise (schema {known})", todo)


def _clock(connection: Connection) -> Finding:
    if connection.dialect.name == "sqlite":
        return skipped("database clock", "it is this machine's own")
    before = datetime.now(UTC)
    theirs: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
    after = datetime.now(UTC)
    return clock_finding("database clock", theirs - before if theirs < before else theirs - after)


def clock_finding(check: str, ahead: timedelta, *, sure: timedelta = timedelta(0)) -> Finding:
    """What a clock that is so much ahead of this machine's means.

    Parameters
    ----------
    sure : timedelta
        It is known to so much only.
    """
    off = max(abs(ahead) - sure, timedelta(0))
    side = "ahead of" if ahead > timedelta(0) else "behind"
    found = f"{off.total_seconds():.1f} s {side} this machine's"
    todo = "let both machines follow a time server (NTP): leases and windows are judged by clocks"
    if off > CLOCK_FAILED:
        return failed(check, found, todo)
    return (
        note(check, found, todo) if off > CLOCK_NOTE else good(check, "agrees with this machine's")
    )
