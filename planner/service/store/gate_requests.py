"""Requests that went through a gate: the store's part that grows fastest, and is cut by age."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select

from planner.service.store.instants import instant, stamp
from planner.service.store.tables import GATE_REQUESTS
from serving.gate.records import RequestRecord

FIELDS = tuple(field.name for field in fields(RequestRecord))


def add(
    connection: Connection,
    deployment: str,
    records: Sequence[RequestRecord],
    *,
    now: datetime,
    retention_s: float,
) -> None:
    """Keep requests; those of the deployment that are older than `retention_s` go."""
    rows = [_row(record, deployment) for record in records]
    if rows:
        connection.execute(insert(GATE_REQUESTS), rows)
    oldest = stamp(now - timedelta(seconds=retention_s))
    connection.execute(
        delete(GATE_REQUESTS).where(
            GATE_REQUESTS.c.deployment == deployment, GATE_REQUESTS.c.started_at < oldest
        )
    )


def since(
    connection: Connection, deployment: str, *, start_at: datetime, limit: int
) -> tuple[RequestRecord, ...]:
    """The newest requests that arrived since an instant, oldest first."""
    columns = [GATE_REQUESTS.c[name] for name in FIELDS]
    query = (
        select(*columns)
        .where(
            GATE_REQUESTS.c.deployment == deployment,
            GATE_REQUESTS.c.started_at >= stamp(start_at),
        )
        .order_by(GATE_REQUESTS.c.started_at.desc(), GATE_REQUESTS.c.seq.desc())
        .limit(limit)
    )
    rows = connection.execute(query).mappings().all()
    return tuple(
        RequestRecord(**{**row, "started_at": instant(row["started_at"])}) for row in reversed(rows)
    )


def _row(record: RequestRecord, deployment: str) -> dict[str, object]:
    """A record as columns; `asdict` copies deeply and would take most of a gate's spare time."""
    row: dict[str, object] = {name: getattr(record, name) for name in FIELDS}
    row["started_at"], row["deployment"] = stamp(record.started_at), deployment
    return row
