"""Observed windows as regular series of rates, with gaps masked."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median_low

import numpy as np

from planner.domain.errors import HistoryError
from planner.domain.workload import Floats, ObservedWindow

MOST_STEPS = 2016
"""Steps of history that a forecast looks at: a week of 5-minute windows."""

_OVERLAP_TOLERANCE_S = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RateSeries:
    """One quantity of one request class over time.

    Parameters
    ----------
    values : (steps,) float, per second
        Oldest first, the last step ends at `end_at`; NaN where nothing was observed.
    step_s : float
    """

    values: Floats
    step_s: float
    end_at: datetime

    @property
    def observed_s(self) -> float:
        """Seconds that were observed."""
        return float(np.count_nonzero(~np.isnan(self.values))) * self.step_s


def usable_history(
    history: Sequence[ObservedWindow], made_at: datetime
) -> dict[str, list[ObservedWindow]]:
    """Windows that had ended by `made_at`, per request class, in order of time.

    Later windows are left out, so that no forecast knows its future.

    Raises
    ------
    HistoryError
        When no window is left, or windows of one class overlap (they would count twice).
    """
    if not history:
        raise HistoryError("the history holds no window; a forecast needs at least one")
    past = sorted(
        (w for w in history if w.end_at <= made_at), key=lambda w: (w.request_class, w.start_at)
    )
    if not past:
        first = min(w.end_at for w in history)
        raise HistoryError(
            f"no window of the history has ended by {made_at.isoformat()}: the first ends at "
            f"{first.isoformat()}; give earlier windows, or make the forecast later"
        )
    by_class: dict[str, list[ObservedWindow]] = {}
    for window in past:
        windows = by_class.setdefault(window.request_class, [])
        if windows and _overlap_s(windows[-1], window) > _OVERLAP_TOLERANCE_S:
            raise HistoryError(
                f"windows of class {window.request_class!r} overlap: the one of "
                f"{windows[-1].start_at.isoformat()} ({windows[-1].window_s:g} s) and the one of "
                f"{window.start_at.isoformat()}; give each second once"
            )
        windows.append(window)
    return by_class


def _overlap_s(earlier: ObservedWindow, later: ObservedWindow) -> float:
    return (earlier.end_at - later.start_at).total_seconds()


def rate_series(
    windows: Sequence[ObservedWindow], total: Callable[[ObservedWindow], int]
) -> RateSeries:
    """The rate of `total` per step; the step is the median window.

    A window counts in the step that holds its middle. Steps without a window are NaN, never 0.
    """
    step_s = median_low([w.window_s for w in windows])
    end_at = max(w.end_at for w in windows)
    ages = [math.floor(_middle_age_s(w, end_at) / step_s) for w in windows]
    steps = min(max(ages) + 1, MOST_STEPS)
    amounts, seconds = np.zeros(steps), np.zeros(steps)
    for window, age in zip(windows, ages, strict=True):
        if age < steps:
            amounts[steps - 1 - age] += total(window)
            seconds[steps - 1 - age] += window.window_s
    values = np.full(steps, np.nan)
    np.divide(amounts, seconds, out=values, where=seconds > 0)
    return RateSeries(values=values, step_s=step_s, end_at=end_at)


def _middle_age_s(window: ObservedWindow, end_at: datetime) -> float:
    return (end_at - window.start_at - timedelta(seconds=window.window_s / 2)).total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Future steps that a forecast window covers, counted from the last step of a series (1: next).

    Parameters
    ----------
    first, last : int
        Both included.
    """

    first: int
    last: int


def span_of(series: RateSeries, start_at: datetime, window_s: float) -> Span:
    """The steps of `series` that [start_at, start_at + window_s) touches."""
    lead_s = (start_at - series.end_at).total_seconds()
    first = math.floor(lead_s / series.step_s + 1e-9) + 1
    last = math.ceil((lead_s + window_s) / series.step_s - 1e-9)
    return Span(first=max(first, 1), last=max(first, last, 1))


def mean_ahead(values: Floats, span: Span) -> Floats:
    """(steps,) mean over `span` after each step; NaN where half of it or more is not observed."""
    steps = len(values)
    ahead = np.full(steps, np.nan)
    if steps <= span.last:
        return ahead
    observed = ~np.isnan(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(observed, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(observed)])
    origins = np.arange(steps - span.last)
    low, high = origins + span.first, origins + span.last + 1
    count = counts[high] - counts[low]
    enough = 2 * count > span.last - span.first + 1
    ahead[origins[enough]] = (sums[high] - sums[low])[enough] / count[enough]
    # Differences of running sums may round to just below 0.
    return np.where(ahead < 0, 0.0, ahead)
