"""Observed windows summed up to longer ones, without a second or a token lost or made up."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from forecaster.shapes import mix_shapes
from planner.domain.workload import LatencySummary, ObservedWindow, Shape

HOUR_S = 3600.0
"""Of the windows that are made; they begin at whole hours UTC."""
_TOLERANCE_S = 1e-3
"""As between windows of a history that a forecast takes as one after another."""


def hour_of(moment: datetime) -> datetime:
    """The whole hour, UTC, that an instant lies in."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def roll_up(windows: Sequence[ObservedWindow]) -> tuple[ObservedWindow, ...]:
    """The windows of one class and hour as the fewest that tell of the same seconds.

    Only windows that follow each other without a gap become one: what was not observed stays
    unknown, never zero. Totals and attainment are exact. Percentiles of latency cannot be summed
    up and are left out; a shape is kept where every busy window has one.

    Parameters
    ----------
    windows : sequence of ObservedWindow
        In order of time.
    """
    runs: list[list[ObservedWindow]] = []
    for window in windows:
        if runs and _goes_on(runs[-1][-1], window):
            runs[-1].append(window)
        else:
            runs.append([window])
    return tuple(_sum(run) if len(run) > 1 else run[0] for run in runs)


def _goes_on(earlier: ObservedWindow, later: ObservedWindow) -> bool:
    return abs((later.start_at - earlier.end_at).total_seconds()) <= _TOLERANCE_S


def _sum(run: Sequence[ObservedWindow]) -> ObservedWindow:
    first, last = run[0], run[-1]
    return ObservedWindow(
        start_at=first.start_at,
        window_s=(last.end_at - first.start_at) / timedelta(seconds=1),
        requests=sum(w.requests for w in run),
        input_tokens=sum(w.input_tokens for w in run),
        output_tokens=sum(w.output_tokens for w in run),
        cached_tokens=sum(w.cached_tokens for w in run),
        request_class=first.request_class,
        shape=_shape(run),
        latency=_latency(run),
    )


def _shape(run: Sequence[ObservedWindow]) -> Shape | None:
    busy = [w for w in run if w.requests > 0]
    shapes = [w.shape for w in busy if w.shape is not None]
    if not busy or len(shapes) < len(busy):
        return None
    return mix_shapes(shapes, [w.requests for w in busy])


def _latency(run: Sequence[ObservedWindow]) -> LatencySummary | None:
    told = [
        (w.requests, w.latency.attainment_ratio)
        for w in run
        if w.requests > 0 and w.latency is not None and w.latency.attainment_ratio is not None
    ]
    requests = sum(count for count, _ in told)
    if requests == 0 or len(told) < sum(w.requests > 0 for w in run):
        return None
    met = sum(count * ratio for count, ratio in told)
    return LatencySummary(attainment_ratio=min(met / requests, 1.0))
