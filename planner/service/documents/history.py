"""Observed windows as JSON: what arrived, and what it experienced where that was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from planner.domain.errors import EmptyHistoryError, HistoryError
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.wording import counted
from planner.domain.workload import LatencySummary, ObservedWindow
from planner.service.documents.document import (
    LAST_YEAR,
    Document,
    Instant,
    Number,
    Total,
    WindowSeconds,
    WrittenInstant,
    parse,
    read_json,
)
from planner.service.documents.fleet import FleetDocument
from planner.service.documents.prefix_cache import PrefixCacheDocument
from planner.service.documents.shapes import ShapeDocument

LONGEST_TOKENS = 10_000_000
"""Tokens of one prompt or answer; more is a wrong unit."""

MOST_APART = 1.5
"""Total tokens by shape over those counted, or the inverse: lengths may come from a sample of the
window's requests, but not of other ones."""

Made = TypeVar("Made")

_LATENCY = "observed, seconds; left out: not observed"
Latency = Annotated[float, Number, Field(ge=0)]
_LATENCIES = tuple(field.name for field in fields(LatencySummary))


_INSTANT: TypeAdapter[datetime] = TypeAdapter(WrittenInstant)
_WINDOW_SECONDS: TypeAdapter[float] = TypeAdapter(WindowSeconds)
_LAST_INSTANT = datetime(LAST_YEAR, 12, 31, tzinfo=UTC)


class WindowDocument(Document):
    """What arrived in [start_at, start_at + window_s), of one request class."""

    start_at: Instant = Field(description="ISO 8601 with a time zone")
    window_s: WindowSeconds = Field(description="length of the window, seconds")
    requests: Total = Field(description="arrivals, count")
    input_tokens: Total = Field(description="prompt tokens of the arrivals, total")
    output_tokens: Total = Field(description="answer tokens of the arrivals, total")
    cached_tokens: Total = Field(
        default=0, description="prompt tokens that a prefix cache had, total"
    )
    request_class: str = Field(default=DEFAULT_CLASS, min_length=1, max_length=200)
    shape: ShapeDocument | None = Field(default=None, description="joint lengths, where known")
    ttft_p50_s: Latency | None = Field(default=None, description=_LATENCY)
    ttft_p95_s: Latency | None = Field(default=None, description=_LATENCY)
    tpot_p50_s: Latency | None = Field(default=None, description=_LATENCY)
    tpot_p95_s: Latency | None = Field(default=None, description=_LATENCY)
    itl_p50_s: Latency | None = Field(default=None, description=_LATENCY)
    itl_p95_s: Latency | None = Field(default=None, description=_LATENCY)
    e2e_p95_s: Latency | None = Field(default=None, description=_LATENCY)
    attainment_ratio: Annotated[float, Number, Field(ge=0, le=1)] | None = Field(
        default=None, description="observed share, 0..1"
    )
    prefix_cache: PrefixCacheDocument | None = Field(
        default=None, description="the caches that cached_tokens were found in, where watched"
    )

    @property
    def end_at(self) -> datetime:
        """End of the half-open interval."""
        return self.start_at + timedelta(seconds=self.window_s)


class HistoryDocument(Document):
    """Observed windows, and the fleet that ran where it is handed in with them."""

    history: list[WindowDocument]
    fleet: FleetDocument | None = None


def window_document(window: ObservedWindow) -> WindowDocument:
    """The document of one window."""
    return WindowDocument(
        start_at=window.start_at,
        window_s=window.window_s,
        requests=window.requests,
        input_tokens=window.input_tokens,
        output_tokens=window.output_tokens,
        cached_tokens=window.cached_tokens,
        request_class=window.request_class,
        shape=None if window.shape is None else ShapeDocument.of(window.shape),
        prefix_cache=(
            None if window.prefix_cache is None else PrefixCacheDocument.of(window.prefix_cache)
        ),
        **({} if window.latency is None else asdict(window.latency)),
    )


def windows_of(
    documents: Sequence[WindowDocument], *, where: str, until: datetime | None = None
) -> tuple[ObservedWindow, ...]:
    """The windows that documents describe, in order of time.

    Parameters
    ----------
    until : datetime or None
        Windows that end later are left out before anything is said of them.

    Raises
    ------
    HistoryError
        When a window is impossible in itself, has a shape of other requests than its own, or
        overlaps another of its class; when none ended by `until`.
    """
    past = [(i, d) for i, d in enumerate(documents) if until is None or d.end_at <= until]
    if documents and not past and until is not None:
        first = min(document.end_at for document in documents)
        raise HistoryError(
            f"{where}: no window has ended by {until.isoformat()}: the first ends at "
            f"{first.isoformat()}; ask for a later instant"
        )
    windows = []
    for index, document in past:
        window = window_of(document, where=f"{where}: history[{index}]")
        _check_shape(window, f"{where}: history[{index}]")
        windows.append(window)
    ordered = sorted(windows, key=lambda w: (w.request_class, w.start_at))
    for earlier, later in pairwise(ordered):
        same = earlier.request_class == later.request_class
        if same and later.start_at < earlier.end_at:
            raise HistoryError(
                f"{where}: windows of class {later.request_class} overlap: "
                f"{earlier.start_at.isoformat()} + {earlier.window_s:g} s and "
                f"{later.start_at.isoformat()}; windows are [start_at, start_at + window_s)"
            )
    return tuple(sorted(windows, key=lambda w: (w.start_at, w.request_class)))


def history_end(windows: Sequence[ObservedWindow], *, where: str) -> datetime:
    """When the last window ends.

    Raises
    ------
    EmptyHistoryError
        When there is none: no data is not zero traffic.
    """
    if not windows:
        raise EmptyHistoryError(
            where=where,
            what="history is empty: no data is not zero traffic",
            remedy="give at least one window (with requests 0 if nothing arrived)",
        )
    return max(window.end_at for window in windows)


def read_history(path: Path, *, until: datetime | None = None) -> HistoryDocument:
    """The windows (and fleet) in a JSON file: an object with `history`, or a bare list.

    Parameters
    ----------
    until : datetime or None
        Nothing is said of windows that end later, whatever else is in them; see `windows_of`.

    Raises
    ------
    HistoryError
        When the file is missing or malformed.
    """
    data = read_json(path, what="a history of windows")
    if isinstance(data, list):
        data = {"history": data}
    if not isinstance(data, dict):
        raise HistoryError(f"{path}: give an object with `history`, or a list of windows")
    if until is not None:
        data = without_later(data, until=until)
    return parse(HistoryDocument, data, where=str(path))


def asked_until(data: object, *fields: str) -> object:
    """A raw request without what its `history` says of windows after the instant it asks for.

    Parameters
    ----------
    fields : str
        Where the instant stands, the first that is given.
    """
    if not isinstance(data, Mapping):
        return data
    asked = next((data[field] for field in fields if data.get(field) is not None), None)
    until = _valid(_INSTANT, asked)
    return data if until is None else without_later(data, until=until)


def without_later(data: Mapping[str, object], *, until: datetime) -> dict[str, object]:
    """Raw data of which windows that end after `until` keep their interval alone.

    They keep their place, too, so that what is said of others names the right one. A window whose
    `start_at` cannot be read is not known to be later.
    """
    history = data.get("history")
    if not isinstance(history, list):
        return dict(data)
    return {**data, "history": [_interval_if_later(window, until) for window in history]}


def _interval_if_later(window: object, until: datetime) -> object:
    start_at = _valid(_INSTANT, window.get("start_at")) if isinstance(window, dict) else None
    if not isinstance(window, dict) or start_at is None or until >= _LAST_INSTANT:
        return window
    window_s = _valid(_WINDOW_SECONDS, window.get("window_s"))
    room_s = (until - start_at).total_seconds()
    if room_s > 0 and (window_s is None or window_s <= room_s):
        return window
    nothing = dict.fromkeys(("requests", "input_tokens", "output_tokens"), 0)
    return {"start_at": min(start_at, _LAST_INSTANT), "window_s": window_s or 1.0, **nothing}


def _valid(kind: TypeAdapter[Made], value: object) -> Made | None:
    """The value where it is one of this kind."""
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None


def window_of(document: WindowDocument, *, where: str) -> ObservedWindow:
    """The window that a document describes, as it was kept or handed in.

    Raises
    ------
    HistoryError
        When it is impossible in itself.
    """
    for field in ("input_tokens", "output_tokens"):
        if getattr(document, field) > max(document.requests, 1) * LONGEST_TOKENS:
            raise HistoryError(
                f"{where}: {field} is more than {LONGEST_TOKENS:,} a request: give totals of the "
                "window's requests in tokens"
            )
    if document.requests and document.input_tokens < document.requests:
        raise HistoryError(
            f"{where}: {counted(document.requests, 'request')} with {document.input_tokens:,} "
            "input tokens: "
            "each prompt has at least 1; give totals of the window in tokens"
        )
    latency = LatencySummary(**{name: getattr(document, name) for name in _LATENCIES})
    try:
        return ObservedWindow(
            start_at=document.start_at,
            window_s=document.window_s,
            requests=document.requests,
            input_tokens=document.input_tokens,
            output_tokens=document.output_tokens,
            cached_tokens=document.cached_tokens,
            request_class=document.request_class,
            shape=None if document.shape is None else document.shape.shape(),
            latency=None if latency == LatencySummary() else latency,
            prefix_cache=(
                None if document.prefix_cache is None else document.prefix_cache.prefix_cache()
            ),
        )
    except ValueError as error:
        raise HistoryError(f"{where}: {error}") from error


def _check_shape(window: ObservedWindow, where: str) -> None:
    """Refuse a shape that is not one of the window's requests."""
    if window.shape is None or window.requests == 0:
        return
    means = {"input_tokens": window.shape.isl_mean}
    if window.has_answers_counted:  # others are remarked on, and count as unknown
        means["output_tokens"] = window.shape.osl_mean
    for field, mean in means.items():
        each = getattr(window, field) / window.requests
        if not _alike(mean, each):
            raise HistoryError(
                f"{where}: shape.{field} has a mean of {mean:,.4g} tokens a request, but {field} "
                f"is {getattr(window, field):,} for {counted(window.requests, 'request')}, "
                f"{each:,.4g} "
                "each: give lengths and totals of the same requests, or leave the shape out"
            )


def _alike(one: float, other: float) -> bool:
    return max(one, other) <= MOST_APART * min(one, other)
