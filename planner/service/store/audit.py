"""The audit log: who did what, only ever appended to."""

from datetime import datetime

from sqlalchemy import Connection, insert, select

from planner.service.store.instants import instant, stamp
from planner.service.store.records import AuditEntry
from planner.service.store.tables import AUDIT


def add(
    connection: Connection, at: datetime, actor: str, action: str, subject: str, *, detail: str = ""
) -> None:
    """One line, in the transaction of what it tells of."""
    connection.execute(
        insert(AUDIT).values(
            at=stamp(at), actor=actor, action=action, subject=subject, detail=detail
        )
    )


def newest(connection: Connection, *, limit: int) -> tuple[AuditEntry, ...]:
    """The newest lines, newest first."""
    query = select(AUDIT).order_by(AUDIT.c.seq.desc()).limit(limit)
    rows = connection.execute(query).mappings()
    return tuple(AuditEntry(**{**row, "at": instant(row["at"])}) for row in rows)
