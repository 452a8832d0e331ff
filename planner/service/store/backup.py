"""The whole store as one file, and back: of SQLite or PostgreSQL, into either of them.

A backup is a SQLite database with the tables of the store at the version that they had, and a
table that says how many rows each has and what they hash to.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError

from planner.domain.errors import InputError, StoreError
from planner.domain.wording import counted
from planner.service.store import audit
from planner.service.store.database import (
    bare_engine,
    migrate,
    open_engine,
    queue_up,
    revision_of,
    shown,
    take_time,
    translated,
)
from planner.service.store.instants import instant
from planner.service.store.tables import AUDIT_HEAD, LEADERS, LEASES, METADATA
from planner.service.whole_file import whole_file

AT_ONCE = 200
"""Rows that are held in memory; a plan or a forecast has some ten thousand characters."""
SQLITE = b"SQLite format 3\x00"
CONTENTS = Table(
    "poolwise_backup",
    MetaData(),
    Column("name", String(80), primary_key=True),
    Column("count", Integer, nullable=False),
    Column("sha256", String(64), nullable=False),
)
LEFT_OUT = ("alembic_version", CONTENTS.name, LEASES.name)
"""Who leads just now is nothing to bring back; the terms are."""
IN_A_NEW_STORE = (AUDIT_HEAD.name,)
"""Tables that hold something before anybody has written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copied:
    """What was backed up or restored.

    Parameters
    ----------
    revision : str
        Version of the schema in the file.
    rows : mapping of str to int
        How many, by table.
    """

    revision: str
    rows: Mapping[str, int]


def back_up(url: str, path: Path) -> Copied:
    """Write everything that a store holds at one instant to a file; servers may go on meanwhile.

    The file is there whole or not at all, and only its owner may read it.

    Raises
    ------
    InputError
        When there is no store.
    StoreError
        When it cannot be read, or is of a newer Poolwise.
    """
    source = bare_engine(url)
    name = source.url.database
    if source.dialect.name == "sqlite" and not (name and Path(name).expanduser().is_file()):
        raise InputError(f"there is no store to back up at {shown(source)}")
    try:
        with _snapshot(source) as connection, whole_file(path) as unfinished:
            unfinished.chmod(0o600)
            revision = revision_of(connection)
            if revision is None:
                raise InputError(f"there is no store to back up at {shown(source)}")
            with _file(unfinished) as target:
                with translated(shown(source)):
                    migrate(target, revision)
                with translated(f"{shown(source)}, or {path}"):
                    rows = _fill(target, connection)
            _to_disk(unfinished)
        return Copied(revision=revision, rows=rows)
    finally:
        source.dispose()


@contextmanager
def _snapshot(engine: Engine) -> Iterator[Connection]:
    """A transaction that sees one state, whatever others write meanwhile."""
    with translated(shown(engine)), engine.connect() as raw:
        connection = raw.execution_options(reads_only=True)
        if engine.dialect.name == "postgresql":
            connection = raw.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        with connection.begin():
            take_time(connection)
            yield connection


@contextmanager
def _file(path: Path) -> Iterator[Connection]:
    """A SQLite file as one transaction; plain, without a log beside it."""
    engine = create_engine(URL.create("sqlite", database=str(path)))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _fill(target: Connection, source: Connection) -> dict[str, int]:
    theirs, ours = _schema(source), _schema(target)
    for table in reversed(ours.sorted_tables):  # a new store is not quite empty
        if table.name not in LEFT_OUT:
            target.execute(delete(table))
    CONTENTS.create(target)
    rows = {}
    for name in _names(ours):
        _copy(source, theirs, target, ours, name)
        rows[name], digest = _sum(target, ours, name)
        target.execute(insert(CONTENTS).values(name=name, count=rows[name], sha256=digest))
    return rows


def _schema(connection: Connection) -> MetaData:
    """The tables as they are in a database."""
    known = MetaData()
    known.reflect(connection)
    return known


def _names(schema: MetaData) -> list[str]:
    """Names of the store's tables, those that others refer to first."""
    return [table.name for table in schema.sorted_tables if table.name not in LEFT_OUT]


def _copy(
    source: Connection, theirs: MetaData, target: Connection, ours: MetaData, name: str
) -> None:
    for rows in _pieces(source, theirs, name):
        target.execute(insert(ours.tables[name]), rows)


def _pieces(
    connection: Connection, schema: MetaData, name: str
) -> Iterator[list[dict[str, object]]]:
    table = schema.tables[name]
    query = select(table).order_by(*table.primary_key.columns)
    found = connection.execute(query, execution_options={"yield_per": AT_ONCE}).mappings()
    for rows in found.partitions():
        yield [dict(row) for row in rows]


def _sum(connection: Connection, schema: MetaData, name: str) -> tuple[int, str]:
    """How many rows a table has, and what they hash to."""
    count, digest = 0, hashlib.sha256()
    for rows in _pieces(connection, schema, name):
        count += len(rows)
        for row in rows:
            digest.update(json.dumps(sorted(row.items()), default=bytes.hex).encode())
    return count, digest.hexdigest()


def _to_disk(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def restore(url: str, path: Path, *, now: datetime, force: bool = False) -> Copied:
    """Put a backup into a store, in one transaction: all of it or nothing.

    Parameters
    ----------
    url : str
        Of an empty store, or of none yet.
    force : bool
        Replace whatever the store holds.

    Raises
    ------
    InputError
        When the file is no whole backup, or of a newer Poolwise, or the store holds something.
    StoreError
        When the store cannot be written, or a server works on it.
    """
    with tempfile.TemporaryDirectory(prefix="poolwise-restore-") as folder:
        copy = Path(folder) / "backup"
        try:
            shutil.copyfile(path, copy)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error
        with _checked(copy, path) as (source, revision):
            target = open_engine(url)
            try:
                with translated(shown(target)), target.begin() as connection:
                    take_time(connection)
                    queue_up(connection)
                    rows = _replace(connection, source, shown(target), now=now, force=force)
                    detail = f"{counted(sum(rows.values()), 'row')} of {path.name}"
                    audit.add(connection, now, "restore", "store.restore", "store", detail=detail)
            finally:
                target.dispose()
    return Copied(revision=revision, rows=rows)


@contextmanager
def _checked(copy: Path, path: Path) -> Iterator[tuple[Connection, str]]:
    """A copy of a backup that was found whole, brought to the newest version."""
    with copy.open("rb") as opened:
        if opened.read(len(SQLITE)) != SQLITE:
            raise InputError(f"{path} is no backup of Poolwise (`poolwise backup` makes them)")
    try:
        with _file(copy) as connection:
            if not inspect(connection).has_table(CONTENTS.name):
                raise InputError(
                    f"{path} is a SQLite database but no backup of Poolwise (`poolwise backup` "
                    "makes them)"
                )
            revision = _check_whole(connection, path)
    except (DatabaseError, sqlite3.DatabaseError, ValueError, TypeError) as error:
        raise _damaged(path, str(getattr(error, "orig", error))) from error
    with _file(copy) as connection:
        try:
            with translated(str(path)):
                migrate(connection)
        except StoreError as error:
            raise InputError(
                f"{path} cannot be brought to this version of Poolwise: it has version {revision} "
                "of the tables; update Poolwise if that is a newer one"
            ) from error
        yield connection, revision


def _check_whole(connection: Connection, path: Path) -> str:
    found = connection.execute(text("PRAGMA integrity_check")).scalars().first()
    if found != "ok":
        raise _damaged(path, str(found))
    columns = (CONTENTS.c.name, CONTENTS.c["count"], CONTENTS.c.sha256)
    said = {name: (count, digest) for name, count, digest in connection.execute(select(*columns))}
    schema = _schema(connection)
    if said.keys() != set(_names(schema)):
        raise _damaged(path, "its tables are not those that were written")
    for name, signed in said.items():
        if _sum(connection, schema, name) != signed:
            raise _damaged(path, f"table {name} is not as it was written")
    revision = revision_of(connection)
    if revision is None:
        raise _damaged(path, "it says no version")
    return revision


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is damaged ({why}): nothing was restored; take another backup")


def _replace(
    target: Connection, source: Connection, where: str, *, now: datetime, force: bool
) -> dict[str, int]:
    _check_alone(target, where, now=now)
    held = {name: _count(target, name) for name in _names(METADATA) if name not in IN_A_NEW_STORE}
    if any(held.values()) and not force:
        told = ", ".join(f"{count} {name}" for name, count in held.items() if count)
        raise InputError(
            f"{where} is not empty ({told}): restore into another database, named by "
            "POOLWISE_DATABASE_URL, or replace everything in it with --force"
        )
    terms = {row.name: row.term for row in target.execute(select(LEADERS))}
    with _audit_log_open(target):
        for table in reversed(METADATA.sorted_tables):
            target.execute(delete(table))
    rows = {}
    for name in _names(METADATA):
        _copy(source, METADATA, target, METADATA, name)
        rows[name] = _count(target, name)
    for name, term in terms.items():  # terms never go back: what carries an old one stays refused
        older = (LEADERS.c.name == name) & (LEADERS.c.term < term)
        target.execute(update(LEADERS).where(older).values(term=term))
    if target.dialect.name == "postgresql":
        _go_on_counting(target)
    return rows


@contextmanager
def _audit_log_open(target: Connection) -> Iterator[None]:
    """Let the audit log go with all the rest, in this one transaction: else it only grows."""
    if target.dialect.name == "postgresql":
        target.execute(text("ALTER TABLE audit DISABLE TRIGGER USER"))
        yield
        target.execute(text("ALTER TABLE audit ENABLE TRIGGER USER"))
        return
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit'"
    triggers = target.execute(text(query)).all()
    for trigger in triggers:
        target.exec_driver_sql(f"DROP TRIGGER {trigger.name}")
    yield
    for trigger in triggers:
        target.exec_driver_sql(trigger.sql)


def _check_alone(target: Connection, where: str, *, now: datetime) -> None:
    for lease in target.execute(select(LEASES).where(LEASES.c.holder != "")):
        if instant(lease.renewed_at) + timedelta(seconds=lease.duration_s) > now:
            raise StoreError(
                f"{lease.holder} works on {where}: stop every `poolwise serve` first; one that was "
                f"killed counts as gone after {lease.duration_s:g} s"
            )


def _count(connection: Connection, name: str) -> int:
    table = METADATA.tables[name]
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _go_on_counting(target: Connection) -> None:
    """Numbers of new rows go on after those that were brought in."""
    for table in METADATA.sorted_tables:
        if "seq" in table.c:
            newest = select(func.coalesce(func.max(table.c.seq), 0) + 1).scalar_subquery()
            sequence = func.pg_get_serial_sequence(table.name, "seq")
            target.execute(select(func.setval(sequence, newest, False)))
