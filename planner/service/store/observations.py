"""Observed windows: as they came in, and summed up to hours once they are old."""

from bisect import bisect_left
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from planner.domain.workload import ObservedWindow
from planner.service.documents.history import WindowDocument, window_document, window_of
from planner.service.store.instants import instant, stamp
from planner.service.store.records import StoredWindow
from planner.service.store.tables import OBSERVATIONS

PARSED_WINDOWS = 16_384
"""Kept in memory; with their texts some 100 MB at the most."""

AT_ONCE = 200
"""Windows in one statement."""
OVERLAP_TOLERANCE_S = 1e-3
"""Neighbours may share as much by rounding."""
LONGEST_WINDOW_S = 86_400.0
"""Windows that reach further into an interval are not looked for."""


def of_class(deployment: str, model: str, request_class: str) -> ColumnElement[bool]:
    """The windows of a class."""
    return (
        (OBSERVATIONS.c.deployment == deployment)
        & (OBSERVATIONS.c.model == model)
        & (OBSERVATIONS.c.request_class == request_class)
    )


def row_of(
    deployment: str, model: str, window: ObservedWindow, *, received_at: str, rolled_up: bool
) -> dict[str, object]:
    """A window as columns."""
    return {
        "deployment": deployment,
        "model": model,
        "request_class": window.request_class,
        "start_at": stamp(window.start_at),
        "window_s": window.window_s,
        "received_at": received_at,
        "window": window_document(window).model_dump_json(),
        "rolled_up": int(rolled_up),
    }


def add(
    connection: Connection,
    deployment: str,
    model: str,
    windows: Sequence[ObservedWindow],
    *,
    at: datetime,
) -> int:
    """Keep windows but those whose seconds are summed up already; how many.

    What is kept of the same class and the same seconds gives way: nothing may count twice. In a
    few statements, however many windows: nobody else writes meanwhile.
    """
    count = 0
    for name in {window.request_class for window in windows}:
        own = of_class(deployment, model, name)
        handed_in = [window for window in windows if window.request_class == name]
        summed_up = _summed_up(connection, own, handed_in)
        taken = [w for w in handed_in if not any(_overlap(w, *hour) for hour in summed_up)]
        older = _overlapped(connection, own, taken)
        for first in range(0, len(older), AT_ONCE):
            some = older[first : first + AT_ONCE]
            connection.execute(delete(OBSERVATIONS).where(OBSERVATIONS.c.seq.in_(some)))
        rows = {
            stamp(w.start_at): row_of(deployment, model, w, received_at=stamp(at), rolled_up=False)
            for w in taken
        }
        starts = list(rows)
        for first in range(0, len(starts), AT_ONCE):
            some_rows = [rows[start] for start in starts[first : first + AT_ONCE]]
            connection.execute(insert(OBSERVATIONS), some_rows)
        count += len(rows)
    return count


def _summed_up(
    connection: Connection, own: ColumnElement[bool], windows: Sequence[ObservedWindow]
) -> list[tuple[datetime, datetime]]:
    """Start and end of what is summed up and lies where these windows do."""
    first, last = min(w.start_at for w in windows), max(w.end_at for w in windows)
    query = select(OBSERVATIONS.c.start_at, OBSERVATIONS.c.window_s).where(
        own,
        OBSERVATIONS.c.rolled_up == 1,
        OBSERVATIONS.c.start_at >= stamp(first - timedelta(seconds=LONGEST_WINDOW_S)),
        OBSERVATIONS.c.start_at < stamp(last),
    )
    return [
        (begun, begun + timedelta(seconds=row.window_s))
        for row in connection.execute(query)
        for begun in [instant(row.start_at)]
    ]


def _overlapped(
    connection: Connection, own: ColumnElement[bool], windows: Sequence[ObservedWindow]
) -> list[int]:
    """Rows as they came in that share seconds with windows of their class."""
    if not windows:
        return []
    ordered = sorted(windows, key=lambda w: w.start_at)
    starts = [w.start_at for w in ordered]
    query = select(OBSERVATIONS.c.seq, OBSERVATIONS.c.start_at, OBSERVATIONS.c.window_s).where(
        own,
        OBSERVATIONS.c.rolled_up == 0,
        OBSERVATIONS.c.start_at >= stamp(starts[0] - timedelta(seconds=LONGEST_WINDOW_S)),
        OBSERVATIONS.c.start_at < stamp(max(w.end_at for w in ordered)),
    )
    found = []
    for row in connection.execute(query):
        start_at = instant(row.start_at)
        end_at = start_at + timedelta(seconds=row.window_s - OVERLAP_TOLERANCE_S)
        last = ordered[max(0, bisect_left(starts, end_at) - 1)]
        begins_in = last.end_at - timedelta(seconds=OVERLAP_TOLERANCE_S) > start_at
        if last.start_at == start_at or (begins_in and last.start_at < end_at):
            found.append(row.seq)
    return found


def _overlap(window: ObservedWindow, start_at: datetime, end_at: datetime) -> bool:
    return window.start_at < end_at and window.end_at > start_at


def newest(
    connection: Connection, deployment: str, model: str, *, limit: int
) -> tuple[StoredWindow, ...]:
    """The newest windows of a model, so many of each class, oldest first."""
    newest_first = func.row_number().over(
        partition_by=OBSERVATIONS.c.request_class, order_by=OBSERVATIONS.c.start_at.desc()
    )
    ranked = (
        select(
            OBSERVATIONS.c.window,
            OBSERVATIONS.c.received_at,
            OBSERVATIONS.c.start_at,
            newest_first.label("place"),
        )
        .where(OBSERVATIONS.c.deployment == deployment, OBSERVATIONS.c.model == model)
        .subquery()
    )
    query = (
        select(ranked.c.window, ranked.c.received_at)
        .where(ranked.c.place <= limit)
        .order_by(ranked.c.start_at)
    )
    rows = connection.execute(query).all()
    return tuple(
        StoredWindow(received_at=instant(received_at), window=parsed(text))
        for text, received_at in rows
    )


def overlapping(
    connection: Connection, deployment: str, model: str, *, start_at: datetime, end_at: datetime
) -> tuple[ObservedWindow, ...]:
    """The windows of a model that touch [start_at, end_at), oldest first."""
    query = (
        select(OBSERVATIONS.c.window)
        .where(
            OBSERVATIONS.c.deployment == deployment,
            OBSERVATIONS.c.model == model,
            OBSERVATIONS.c.start_at >= stamp(start_at - timedelta(seconds=LONGEST_WINDOW_S)),
            OBSERVATIONS.c.start_at < stamp(end_at),
        )
        .order_by(OBSERVATIONS.c.start_at)
    )
    windows = [parsed(text) for text in connection.execute(query).scalars()]
    return tuple(window for window in windows if window.end_at > start_at)


@lru_cache(maxsize=PARSED_WINDOWS)
def parsed(text: str) -> ObservedWindow:
    """The window in a stored text; a tick reads thousands of them, nearly all known before."""
    return window_of(WindowDocument.model_validate_json(text), where="store")
