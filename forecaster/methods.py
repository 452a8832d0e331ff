"""Cheap forecasting methods, and the choice among them by past error.

Every method answers, for each step of a series, what it would have forecast there from that
step and earlier ones only; so past errors are those a forecaster running then would have made.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isnan

import numpy as np

from forecaster.series import Span, mean_ahead
from planner.domain.workload import Floats

EWMA_WEIGHT = 0.3
AVERAGE_STEPS = 6
TREND_LEVEL_WEIGHT, TREND_SLOPE_WEIGHT, TREND_DAMPING = 0.5, 0.1, 0.8
"""Damped trend as Gardner and McKenzie (1985); damping 0.8 halves a trend in three steps."""

MEAN_OF_METHODS = "mean of methods"
"""One more candidate, and the choice while there are too few errors to choose by: one step ahead
on 45 production series such a mean had .88 of the last value's error, as much as the leader."""

FEWEST_ERRORS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Track:
    """What a method knew after each step.

    Parameters
    ----------
    level, slope : (steps,) float
        Forecast h steps ahead: level + slope * (damping + ... + damping^h). NaN before the first
        observation.
    """

    level: Floats
    slope: Floats
    damping: float = 0.0

    def ahead(self, span: Span) -> Floats:
        """(steps,) forecast of the mean over `span` after each step, at least 0."""
        reach = 0.0
        if self.damping:
            # Mean over h in span of sum_{i=1..h} d^i, both sums in closed form.
            d, count = self.damping, span.last - span.first + 1
            tail = (d**span.first - d ** (span.last + 1)) / (1.0 - d) / count
            reach = d / (1.0 - d) * (1.0 - tail)
        return np.maximum(self.level + self.slope * reach, 0.0)


def last_value(values: Floats) -> Track:
    """The last observed value."""
    seen = np.where(np.isnan(values), -1, np.arange(len(values)))
    last = np.maximum.accumulate(seen)
    return _flat(np.where(last >= 0, values[last], np.nan))


def ewma(values: Floats) -> Track:
    """Exponentially weighted moving average; a gap leaves it as it was."""
    level = np.full(len(values), np.nan)
    current = np.nan
    for step, value in enumerate(values.tolist()):
        if isnan(current):
            current = value
        elif not isnan(value):
            current += EWMA_WEIGHT * (value - current)
        level[step] = current
    return _flat(level)


def moving_average(values: Floats) -> Track:
    """Mean of the last `AVERAGE_STEPS` observed values."""
    observed = np.flatnonzero(~np.isnan(values))
    level = np.full(len(values), np.nan)
    sums = np.concatenate([[0.0], np.cumsum(values[observed])])
    high = np.arange(1, len(observed) + 1)
    low = np.maximum(high - AVERAGE_STEPS, 0)
    level[observed] = np.maximum(sums[high] - sums[low], 0.0) / (high - low)
    return last_value(level)


def damped_trend(values: Floats) -> Track:
    """Holt's linear trend, damped; over a gap the trend runs out."""
    level = np.full(len(values), np.nan)
    slope = np.zeros(len(values))
    current, trend = np.nan, 0.0
    for step, value in enumerate(values.tolist()):
        trend *= TREND_DAMPING
        expected = current + trend
        if isnan(current):
            current = value
        elif isnan(value):
            current = expected
        else:
            before, current = current, expected + TREND_LEVEL_WEIGHT * (value - expected)
            trend += TREND_SLOPE_WEIGHT * (current - before - trend)
        level[step], slope[step] = current, trend
    return Track(level=level, slope=slope, damping=TREND_DAMPING)


def _flat(level: Floats) -> Track:
    return Track(level=level, slope=np.zeros(len(level)))


METHODS: Mapping[str, Callable[[Floats], Track]] = {
    "last value": last_value,
    "EWMA": ewma,
    "moving average": moving_average,
    "damped trend": damped_trend,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """The method that led at the end of a series, and how following the leader did before.

    Parameters
    ----------
    point : float
        Its forecast of the mean over the span, in the series' unit.
    log_residuals : (origins,) float
        ln((actual + offset) / (forecast + offset)), oldest first, of the forecasts that following
        the leader would have made: the leader of each origin, not the one chosen in hindsight.
    """

    method: str
    point: float
    log_residuals: Floats


class Panel:
    """All methods run over one series once; each future span then chooses its leader."""

    def __init__(self, values: Floats) -> None:
        self._values = values
        self._tracks = {name: method(values) for name, method in METHODS.items()}

    def follow_the_leader(self, span: Span, *, log_offset: float) -> Choice:
        """The method with the least mean absolute error at this span so far.

        Parameters
        ----------
        log_offset : float
            Added before logarithms are taken, so that zeros have one; in the series' unit.
        """
        forecasts = np.stack([track.ahead(span) for track in self._tracks.values()])
        forecasts = np.concatenate([forecasts, forecasts.mean(axis=0, keepdims=True)])
        actual = mean_ahead(self._values, span)
        leader = _leaders(np.abs(forecasts - actual), span)
        chosen = forecasts[leader, np.arange(len(actual))]
        scored = ~np.isnan(actual) & ~np.isnan(chosen)
        with np.errstate(divide="ignore", invalid="ignore"):
            residuals = np.log((actual[scored] + log_offset) / (chosen[scored] + log_offset))
        return Choice(
            method=[*METHODS, MEAN_OF_METHODS][leader[-1]],
            point=float(chosen[-1]),
            log_residuals=residuals[np.isfinite(residuals)],
        )


def _leaders(errors: Floats, span: Span) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(steps,) best method at each step by the errors known there; `errors` is (methods, steps).

    The error of origin t is known at step t + span.last.
    """
    known = ~np.isnan(errors).any(axis=0)
    total = np.cumsum(np.where(known, errors, 0.0), axis=1)
    count = np.cumsum(known)
    steps = errors.shape[1]
    leader = np.full(steps, len(errors) - 1, dtype=np.int64)
    late = np.arange(span.last, steps)
    enough = late[count[late - span.last] >= FEWEST_ERRORS]
    leader[enough] = np.argmin(total[:, enough - span.last], axis=0)
    return leader
