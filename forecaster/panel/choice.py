"""Which methods to follow: those that beat the last value beyond doubt."""

import numpy as np

from forecaster.panel.record import Integers
from forecaster.panel.smoothing import LAST_VALUE
from planner.domain.workload import Floats

STANDARD_ERRORS = 2.0
"""A method is followed once its mean error has been smaller than the last value's by so many
standard errors of the difference."""

FOLLOWED = 3
"""So many of the best ones, averaged: errors of different methods partly cancel."""

FEWEST_ERRORS = 8
"""With fewer known errors nothing can be told apart."""

COLD_START = ("last value", "EWMA 0.4", "mean of 6")
"""Averaged while fewer errors are known."""


def margin(gain: Floats, square: Floats) -> Floats:
    """How far a sum of gains lies above two standard errors; `square` is the sum of their squares.

    A tie (four equal gains) is no margin, whatever rounding makes of it.
    """
    above: Floats = gain - STANDARD_ERRORS * (1.0 + 1e-9) * np.sqrt(square)
    return above


class Choice:
    """Past errors of all methods, at each span of each series.

    A method's gain at one origin is the last value's absolute error less its own. It counts as
    better when sum(gain) > 2 * sqrt(sum(gain^2)): the last value is the right answer for traffic
    without pattern, and a method that was merely lucky must not replace it.
    """

    def __init__(self, *, methods: tuple[str, ...], spans: int, series: int) -> None:
        self._methods = methods
        self._cold = [methods.index(name) for name in COLD_START]
        self._gain = np.zeros((len(methods), spans, series))
        self._square = np.zeros((len(methods), spans, series))
        self._known = np.zeros((spans, series), dtype=np.int64)

    def learn(self, points: Floats, actual: Floats) -> None:
        """Take outcomes: `points` (methods, spans, series), `actual` (spans, series); NaN: none."""
        error = np.abs(points - actual)
        gain = error[LAST_VALUE] - error
        gain = np.where(np.isnan(gain), 0.0, gain)
        self._gain += gain
        self._square += gain**2
        self._known += np.isfinite(actual) & np.isfinite(points[LAST_VALUE])

    def follow(self, points: Floats, anchors: Integers) -> Floats:
        """(spans, series) the forecast: the mean over the methods that are followed."""
        weight = self._weights(points, anchors)
        total = weight.sum(axis=0)
        mean = (weight * np.where(np.isnan(points), 0.0, points)).sum(axis=0)
        return np.where(total > 0, mean / np.maximum(total, 1e-12), np.nan)

    def _weights(self, points: Floats, anchors: Integers) -> Floats:
        score = margin(self._gain[:, anchors], self._square[:, anchors])
        score = np.where((score > 0) & ~np.isnan(points), score, -np.inf)
        # The last value is one of the followed until three methods are better.
        score[LAST_VALUE] = 0.0
        rank = np.argsort(np.argsort(-score, axis=0, kind="stable"), axis=0)
        weight = ((rank < FOLLOWED) & (score >= 0)).astype(np.float64)
        cold = np.zeros(len(self._methods))
        cold[self._cold] = 1.0
        early = self._known[anchors] < FEWEST_ERRORS
        shared = np.where(np.isnan(points), 0.0, cold[:, None, None])
        return np.where(early, shared, weight)

    def names(self, points: Floats, anchors: Integers, series: int) -> tuple[str, ...]:
        """The methods followed for one series at the first of the spans, the best first."""
        weight = self._weights(points, anchors)[:, 0, series]
        gain = self._gain[:, anchors[0], series]
        order = sorted(np.flatnonzero(weight), key=lambda method: -gain[method])
        return tuple(self._methods[method] for method in order)
