"""Requests that went through a gate: the store's part that grows fastest.

Old ones are summed up to hours of a class, a client and an outcome.
"""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta

from sqlalchemy import Connection, RowMapping, case, delete, func, insert, select, update

from planner.service.loop.rolling_up import hour_of
from planner.service.store.instants import instant, stamp
from planner.service.store.records import GateHour
from planner.service.store.tables import GATE_HOURS, GATE_REQUESTS
from serving.gate.records import RequestRecord

FIELDS = tuple(field.name for field in fields(RequestRecord))
SUMMED_UP = 1_000
"""Old requests that are summed up with each batch, at least; twice the batch where that is more."""
KEY = ("model", "request_class", "client", "outcome")
SUMS = (
    "requests",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "judged",
    "met",
    "cost_usd",
)


def add(
    connection: Connection,
    deployment: str,
    records: Sequence[RequestRecord],
    *,
    now: datetime,
    retention_s: float,
) -> None:
    """Keep requests; of those older than `retention_s` the hours stay only."""
    rows = [_row(record, deployment) for record in records]
    if rows:
        connection.execute(insert(GATE_REQUESTS), rows)
    most = max(SUMMED_UP, 2 * len(rows))
    _sum_up(connection, deployment, stamp(now - timedelta(seconds=retention_s)), most=most)


def _sum_up(connection: Connection, deployment: str, before: str, *, most: int) -> None:
    table = GATE_REQUESTS
    old = (table.c.deployment == deployment) & (table.c.started_at < before)
    # By the index: of a backlog the oldest, and never more than one transaction can do quickly.
    query = select(table.c.started_at).where(old).order_by(table.c.started_at).limit(most)
    found = connection.execute(query).scalars().all()
    if not found:
        return
    gone = (table.c.deployment == deployment) & (table.c.started_at <= found[-1])
    hour = func.substr(table.c.started_at, 1, 13)
    sums = (
        func.count(),
        func.sum(table.c.input_tokens),
        func.sum(func.coalesce(table.c.cached_tokens, 0)),
        func.sum(table.c.output_tokens),
        func.count(table.c.met),
        func.sum(case((table.c.met, 1), else_=0)),
        func.sum(func.coalesce(table.c.cost_usd, 0.0)),
    )
    key = [table.c[name] for name in KEY]
    named = [total.label(name) for name, total in zip(SUMS, sums, strict=True)]
    query_sums = select(hour.label("hour"), *key, *named).where(gone).group_by(hour, *key)
    for row in connection.execute(query_sums).mappings().all():
        _add_to_hour(connection, deployment, row)
    connection.execute(delete(table).where(gone))


def _add_to_hour(connection: Connection, deployment: str, row: RowMapping) -> None:
    table = GATE_HOURS
    hour_at = stamp(hour_of(instant(f"{row['hour']}:00:00+00:00")))
    values = {"deployment": deployment, "hour_at": hour_at, **{name: row[name] for name in KEY}}
    same = [table.c[name] == value for name, value in values.items()]
    more = {name: table.c[name] + row[name] for name in SUMS}
    if connection.execute(update(table).where(*same).values(more)).rowcount == 0:
        values |= {name: row[name] for name in SUMS}
        connection.execute(insert(table).values(values))


def hours(
    connection: Connection, deployment: str, *, start_at: datetime, limit: int
) -> tuple[GateHour, ...]:
    """What old requests are summed up to, from the hour of an instant on, oldest first."""
    columns = [GATE_HOURS.c[field.name] for field in fields(GateHour)]
    query = (
        select(*columns)
        .where(
            GATE_HOURS.c.deployment == deployment, GATE_HOURS.c.hour_at >= stamp(hour_of(start_at))
        )
        .order_by(GATE_HOURS.c.hour_at, GATE_HOURS.c.seq)
        .limit(limit)
    )
    return tuple(
        GateHour(**{**row, "hour_at": instant(row["hour_at"])})
        for row in connection.execute(query).mappings()
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
