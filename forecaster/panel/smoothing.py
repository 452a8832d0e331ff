"""Methods that carry a level forward: averages, exponential smoothing, damped trends, Theta."""

import numpy as np

from forecaster.panel.record import Record, Spans
from planner.domain.workload import Flags, Floats

EWMA_WEIGHTS = (0.2, 0.4, 0.8)
AVERAGE_STEPS = (6, 24)
TRENDS = ((0.5, 0.1, 0.8), (0.8, 0.16, 0.9))
"""Level weight, slope weight and damping of each trend; 0.8 halves a trend in three steps."""

THETA_LEVEL_WEIGHT = 0.5

NAMES = (
    "last value",
    *(f"EWMA {weight:g}" for weight in EWMA_WEIGHTS),
    *(f"mean of {steps}" for steps in AVERAGE_STEPS),
    "mean of all",
    *(f"damped trend {level:g}/{damping:g}" for level, _, damping in TRENDS),
    "Theta",
)

LAST_VALUE = 0

_EWMA, _AVERAGES = np.array(EWMA_WEIGHTS)[:, None], np.array(AVERAGE_STEPS)
_TRENDS = np.array(TRENDS).T[:, :, None]


class Smoothing:
    """The levels and slopes of `series` series after the steps seen so far.

    A step that was not observed leaves a level as it was; a trend runs out over it.

    References
    ----------
    Damped trend: Gardner and McKenzie, Management Science 31 (1985). Theta: Assimakopoulos and
    Nikolopoulos, IJF 16 (2000), as exponential smoothing with half of the linear trend's slope
    (Hyndman and Billah, IJF 19, 2003).
    """

    def __init__(self, series: int) -> None:
        self._ewma = np.full((len(EWMA_WEIGHTS), series), np.nan)
        self._level = np.full((len(TRENDS), series), np.nan)
        self._slope = np.zeros((len(TRENDS), series))
        self._theta = np.full(series, np.nan)
        # Sums over observed steps of 1, t, t^2, y, t y: the straight line through all of them.
        self._sums = np.zeros((5, series))

    def add(self, values: Floats, step: int) -> None:
        """Take step `step`; `values` is (series,)."""
        seen = ~np.isnan(values)
        self._ewma = _smoothed(self._ewma, values, _EWMA)
        self._theta = _smoothed(self._theta, values, THETA_LEVEL_WEIGHT)
        known = np.where(seen, values, 0.0)
        self._sums[:3] += seen * np.array([[1.0], [step], [float(step) ** 2]])
        self._sums[3:] += known * np.array([[1.0], [step]])
        self._add_to_trends(values, seen)

    def _add_to_trends(self, values: Floats, seen: Flags) -> None:
        level_weight, slope_weight, damping = _TRENDS
        slope = damping * self._slope
        expected = self._level + slope
        error = np.where(seen, values - expected, 0.0)
        fresh = np.isnan(expected)
        self._level = np.where(fresh, values, expected + level_weight * error)
        self._slope = np.where(fresh, 0.0, slope + slope_weight * error)

    @property
    def mean(self) -> Floats:
        """(series,) mean of everything observed; NaN before the first observation."""
        count, total = self._sums[0], self._sums[3]
        return np.where(count > 0, total / np.maximum(count, 1.0), np.nan)

    @property
    def observed_steps(self) -> Floats:
        """(series,) how many steps were observed."""
        count: Floats = self._sums[0]
        return count

    def points(self, record: Record, spans: Spans) -> Floats:
        """(methods, spans, series) forecasts of each span's mean, in the order of `NAMES`."""
        first, last = spans.first.astype(np.float64), spans.last.astype(np.float64)
        flat = np.concatenate(
            [
                record.last[None],
                self._ewma,
                record.recent_means(_AVERAGES)[0],
                self.mean[None],
            ]
        )
        held = np.repeat(flat[:, None, :], len(spans), axis=1)
        reach = _damped_reach(first, last, _TRENDS[2])
        trends = self._level[:, None, :] + self._slope[:, None, :] * reach[:, :, None]
        drift = (first + last) / 2 + 1.0 / THETA_LEVEL_WEIGHT - 1.0
        theta = self._theta + 0.5 * self._line_slope() * drift[:, None]
        return np.concatenate([held, trends, theta[None]])

    def _line_slope(self) -> Floats:
        count, t, t2, y, ty = self._sums
        spread = count * t2 - t * t
        return np.where(spread > 0, (count * ty - t * y) / np.where(spread > 0, spread, 1.0), 0.0)


def _smoothed(level: Floats, values: Floats, weight: Floats | float) -> Floats:
    moved = level + weight * (values - level)
    return np.where(np.isnan(values), level, np.where(np.isnan(level), values, moved))


def _damped_reach(first: Floats, last: Floats, damping: Floats) -> Floats:
    """(trends, spans) mean over h in a span of sum_{i=1..h} damping^i, both sums in closed form."""
    tail = (damping**first - damping ** (last + 1)) / (1.0 - damping) / (last - first + 1)
    return damping / (1.0 - damping) * (1.0 - tail)
