"""Quantiles around a point forecast, from its own past errors, kept honest by its misses."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from forecaster.panel.choice import margin
from forecaster.panel.record import Integers
from planner.domain.workload import Floats

LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.8, 0.9, 0.95, 0.99)

MEDIAN = LEVELS.index(0.5)

_LEVELS = np.array(LEVELS)[:, None, None]
_BEYOND, _NORMAL = np.minimum(_LEVELS, 1.0 - _LEVELS), ndtri(_LEVELS)

RECENT_ERRORS = 200

COLD_START_LOG_SD = 0.4
"""Spread assumed one step ahead when no error is known yet: 5 to 95 % spans a factor 0.5 to 1.9.

Wider than conversation traffic (request rates of windows of 20 to 300 s change by a log-sd of 0.07
to 0.24 in the Mooncake and Azure 2023 traces), narrower than the bursts of code traffic (1.2)."""

COLD_START_GROWTH = 0.25
"""The assumed spread grows with the steps ahead to this power."""

LARGEST_LOG_ERROR = 7.0
"""A forecast that was wrong by more than a factor 1100 is as wrong as by that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adaptation:
    """How fast quantiles follow their errors; `benchmarks.bench_forecast --only coverage` measures.

    Parameters
    ----------
    step_size, step_decay : float
        After the k-th outcome a level moves by step_size / k^step_decay times its miss.
    recent_errors : int
        So many of the last errors give the quantiles.
    """

    step_size: float = 0.1
    step_decay: float = 0.5
    recent_errors: int = RECENT_ERRORS


USUAL = Adaptation()

_PRIOR_ERRORS = 4.0
_MOST_DOWN, _MOST_UP = 0.4, 0.7
"""An adapted level stays above level - 0.4 and takes at most 0.7 of the way to 1 (mirrored below
the median): one burst must not turn every quantile into the largest error ever seen."""


class Conformal:
    """Errors of forecasts of many spans and series, as logarithms, and the quantiles they give.

    Where errors are enough for a level (two beyond it) the quantile is their split-conformal one:
    the (n + 1) * level-th smallest of the recent ones. Where there are none it is a normal spread
    assumed wide; between, a mixture of both. Each level is then moved by how often the quantile
    was exceeded, so that coverage holds when traffic changes its character.

    References
    ----------
    Split conformal prediction: Lei et al., JASA 113 (2018). Adapting the level: Gibbs and Candes,
    NeurIPS 2021, with decaying steps: Angelopoulos, Barber and Bates, ICML 2024. In log space
    because errors of rates are multiplicative.
    """

    def __init__(self, *, furthest: Integers, series: int, adaptation: Adaptation = USUAL) -> None:
        self._furthest = furthest
        self._adaptation = adaptation
        self._errors = np.full((adaptation.recent_errors, len(furthest), series), np.nan)
        self._count = 0
        shape = (len(LEVELS), len(furthest), series)
        self._levels = np.broadcast_to(_LEVELS, shape).copy()
        self._outcomes = np.zeros(shape[1:])
        self._gain, self._square = np.zeros(shape[1:]), np.zeros(shape[1:])
        low, high = _bounds(np.array(LEVELS))
        self._low, self._high = low[:, None, None], high[:, None, None]

    def learn(
        self, error: Floats, quantiles: Floats, *, actual: Floats, point: Floats, centred: Floats
    ) -> None:
        """Take the outcomes of earlier forecasts.

        Parameters
        ----------
        error : (spans, series) float
            ln of outcome over forecast, offsets included; NaN where not known.
        quantiles : (levels, spans, series) float
            As they were forecast then.
        actual, point, centred : (spans, series) float
            The outcome, the forecast, and the forecast moved by the median error.
        """
        error = np.minimum(np.maximum(error, -LARGEST_LOG_ERROR), LARGEST_LOG_ERROR)
        self._errors[self._count % len(self._errors)] = error
        self._count += 1
        known = np.isfinite(error) & np.isfinite(quantiles).all(axis=0)
        self._outcomes += known
        gain = np.where(known, np.abs(actual - point) - np.abs(actual - centred), 0.0)
        self._gain += gain
        self._square += gain**2
        step = self._adaptation.step_size / (
            np.maximum(self._outcomes, 1.0) ** self._adaptation.step_decay
        )
        covered = actual <= quantiles
        moved = self._levels + step * (_LEVELS - covered)
        moved = np.minimum(np.maximum(moved, self._low), self._high)
        self._levels = np.where(known, moved, self._levels)

    def log_offsets(self) -> tuple[Floats, Floats]:
        """What to add to the logarithm of a forecast.

        Returns
        -------
        (levels, spans, series) float
            At each of `LEVELS`, not decreasing. The median stays the forecast itself unless moving
            it by the median error has been better beyond doubt (two standard errors, as in
            `choice`): else it would follow the noise of its own errors.
        (spans, series) float
            The median error.
        """
        offsets = offsets_of(self._errors, self._levels, self._furthest)
        centre = offsets[MEDIAN].copy()
        leans = margin(self._gain, self._square) > 0
        offsets[MEDIAN] = np.where(leans, centre, 0.0)
        return np.maximum.accumulate(offsets, axis=0), centre

    def recent_errors(self) -> Floats:
        """(errors, spans, series) the errors of the last outcomes, oldest first; NaN: not known."""
        most = len(self._errors)
        if self._count < most:
            return self._errors[: self._count]
        return np.roll(self._errors, -(self._count % most), axis=0)


def offsets_of(errors: Floats, levels: Floats, furthest: Integers) -> Floats:
    """(levels, spans, series) quantiles of errors and of the wide assumption, not decreasing.

    Parameters
    ----------
    errors : (errors, spans, series) float
        NaN: not known.
    levels : (levels, spans, series) float
        As adapted.
    furthest : (spans,) int
        Steps from the last observation to the end of what is forecast.
    """
    if len(errors) == 0:
        errors = np.full((1, *errors.shape[1:]), np.nan)
    known = np.isfinite(errors)
    count = known.sum(axis=0)
    ordered = np.sort(errors, axis=0)
    assumed_sd = COLD_START_LOG_SD * furthest.astype(np.float64) ** COLD_START_GROWTH
    squares = np.where(known, errors, 0.0) ** 2
    variance = (_PRIOR_ERRORS * assumed_sd[:, None] ** 2 + squares.sum(axis=0)) / (
        _PRIOR_ERRORS + count
    )
    normal = np.sqrt(variance) * _NORMAL
    rank = np.minimum(np.maximum((count + 1) * levels - 1.0, 0.0), np.maximum(count - 1.0, 0.0))
    below = np.floor(rank).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    low = np.take_along_axis(ordered, below, axis=0)
    high = np.take_along_axis(ordered, above, axis=0)
    empirical = low + (rank - below) * (high - low)
    trust = np.minimum(count * _BEYOND / 2.0, 1.0)
    mixed = trust * np.where(count > 0, empirical, 0.0) + (1.0 - trust) * normal
    return np.maximum.accumulate(mixed, axis=0)


def _bounds(levels: Floats) -> tuple[Floats, Floats]:
    upper = levels >= 0.5
    low = np.where(upper, levels - _MOST_DOWN, levels * (1.0 - _MOST_UP))
    high = np.where(upper, levels + _MOST_UP * (1.0 - levels), levels + _MOST_DOWN)
    return low, high
