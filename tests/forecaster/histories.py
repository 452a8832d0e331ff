"""Histories that the forecaster's tests share."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from planner.domain.workload import ObservedWindow

START = datetime(2026, 1, 1, tzinfo=UTC)


def window(
    index: float, requests: int, *, window_s: float = 60.0, request_class: str = "default", isl=100
) -> ObservedWindow:
    """A window that begins `index` minutes after `START`, answers of 20 tokens."""
    return ObservedWindow(
        start_at=START + timedelta(seconds=60.0 * index),
        window_s=window_s,
        requests=requests,
        input_tokens=requests * isl,
        output_tokens=requests * 20,
        cached_tokens=0,
        request_class=request_class,
    )


def history(counts: Sequence[int | None], **fields) -> list[ObservedWindow]:
    """One window a minute; None leaves a gap."""
    return [window(i, count, **fields) for i, count in enumerate(counts) if count is not None]


def minute(index: float) -> datetime:
    """The instant `index` minutes after `START`."""
    return START + timedelta(minutes=index)
