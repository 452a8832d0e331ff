"""The audit log: who did what, only ever appended to, each line chained to the one before.

A line holds the hash of its own fields and of the line before it, so that none can be changed,
removed or put in between without all later hashes telling. The newest hash also stands in
`audit_head`: writers queue up for that row, and a log whose end was cut off no longer fits it.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, RowMapping, insert, select, update

from planner.domain.errors import StoreError
from planner.service.store.instants import instant, stamp
from planner.service.store.records import AuditEntry
from planner.service.store.tables import AUDIT, AUDIT_HEAD

NOTHING = "0" * 64
"""Stands before the first line."""
HASHED = ("prev_hash", "seq", "at", "actor", "action", "subject", "detail")
PAGE = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCheck:
    """What a look at the whole log came to.

    Parameters
    ----------
    rows : int
        Lines that were found in order.
    head : str
        Hash of the last of them; keep it elsewhere, and expect it later.
    broken_seq : int or None
        The first line that is not in order; None: all are, or the end is missing.
    broken : str
        What is wrong, as a sentence; empty: nothing.
    """

    rows: int
    head: str
    broken_seq: int | None = None
    broken: str = ""


def hash_of(fields: RowMapping | dict[str, object]) -> str:
    """SHA-256 of the JSON array of a line's fields (`HASHED`), without spaces, ASCII only."""
    # What is no text any more (a blob, in SQLite) was tampered with, and gets another hash.
    text = json.dumps([fields[name] for name in HASHED], separators=(",", ":"), default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


def add(
    connection: Connection, at: datetime, actor: str, action: str, subject: str, *, detail: str = ""
) -> None:
    """One line, in the transaction of what it tells of; the next writer waits for its end."""
    head = connection.execute(select(AUDIT_HEAD).with_for_update()).one()
    line: dict[str, object] = {
        "seq": head.seq + 1,
        "at": stamp(at),
        "actor": actor,
        "action": action,
        "subject": subject,
        "detail": detail,
        "prev_hash": head.hash,
    }
    line["hash"] = hash_of(line)
    connection.execute(insert(AUDIT).values(line))
    connection.execute(update(AUDIT_HEAD).values(seq=line["seq"], hash=line["hash"]))


def newest(
    connection: Connection, *, limit: int, before: int | None = None
) -> tuple[AuditEntry, ...]:
    """The newest lines, newest first; only those before a line, where one is named.

    Raises
    ------
    StoreError
        When one of them cannot be one that Poolwise wrote.
    """
    query = select(AUDIT).order_by(AUDIT.c.seq.desc()).limit(limit)
    if before is not None:
        query = query.where(AUDIT.c.seq < before)
    return tuple(_entry(row) for row in connection.execute(query).mappings())


def _entry(row: RowMapping) -> AuditEntry:
    try:
        at = instant(row["at"])
    except (TypeError, ValueError):
        at = None
    if at is None or not all(isinstance(row[name], str) for name in HASHED if name != "seq"):
        raise StoreError(
            f"line {row['seq']} of the audit log is none that Poolwise wrote: `poolwise audit "
            "verify` says what was done to it"
        )
    return AuditEntry(**{**row, "at": at})


def verify(connection: Connection, *, expect: str | None = None) -> AuditCheck:
    """Follow the chain from its first line to its last, and compare the end with the head.

    Parameters
    ----------
    expect : str or None
        A head that was noted earlier: some line still has to have it.
    """
    last: RowMapping | None = None
    rows, met = 0, expect in (None, NOTHING)
    for row in _oldest_first(connection):
        broken = _what_is_wrong(connection, last, row)
        if broken:
            head = last["hash"] if last else NOTHING
            return AuditCheck(rows=rows, head=head, broken_seq=row["seq"], broken=broken)
        met = met or row["hash"] == expect
        last, rows = row, rows + 1
    head = last["hash"] if last else NOTHING
    broken = _what_is_missing(connection, last)
    if not broken and not met:
        broken = (
            f"no line has the expected hash {expect}: lines were cut off, or the whole log was "
            "written anew"
        )
    return AuditCheck(rows=rows, head=head, broken=broken)


def _oldest_first(connection: Connection) -> Iterator[RowMapping]:
    seq: int | None = None
    while True:
        query = select(AUDIT).order_by(AUDIT.c.seq).limit(PAGE)
        if seq is not None:
            query = query.where(AUDIT.c.seq > seq)
        rows = connection.execute(query).mappings().all()
        yield from rows
        if len(rows) < PAGE:
            return
        seq = rows[-1]["seq"]


def _what_is_wrong(connection: Connection, last: RowMapping | None, row: RowMapping) -> str:
    """Why a line does not follow the one before it; empty: it does."""
    if hash_of(row) != row["hash"]:
        return f"line {row['seq']} was changed: its fields do not give its hash"
    before = last["hash"] if last else NOTHING
    if row["prev_hash"] == before:
        return ""
    known = select(AUDIT.c.seq).where(AUDIT.c.hash == row["prev_hash"], AUDIT.c.seq < row["seq"])
    earlier = connection.execute(known).scalar_one_or_none()
    first = 1 if earlier is None else earlier + 1
    if last is not None and (earlier is not None or row["prev_hash"] == NOTHING):
        return f"line {row['seq']} follows no more: lines {first} to {last['seq']} were inserted"
    named = f"line {last['seq']}" if last else "the beginning"
    if last is None or row["seq"] > last["seq"] + 1:
        return f"lines between {named} and line {row['seq']} were removed"
    return f"line {row['seq']} does not follow {named}, which was changed or replaced"


def _what_is_missing(connection: Connection, last: RowMapping | None) -> str:
    """Why the last line is not the last that was written; empty: it is."""
    head = connection.execute(select(AUDIT_HEAD)).one_or_none()
    if head is None:
        return "the head of the log was removed: whether lines were cut off cannot be told"
    seq, hash_ = (last["seq"], last["hash"]) if last else (0, NOTHING)
    if (head.seq, head.hash) == (seq, hash_):
        return ""
    if head.seq > seq:
        return f"the log ends at line {seq}, line {head.seq} was written last: the end was cut off"
    return f"lines after {head.seq} were not written by Poolwise: the head of the log is another"
