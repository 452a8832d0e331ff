"""A duration of two legs, each in a histogram of its own: how long both take together."""

import math
from dataclasses import dataclass
from itertools import accumulate

from serving.telemetry.histogram import Estimate, Histogram, Share

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoLegs:
    """The sum of two durations, however they hang together.

    Parameters
    ----------
    first, second : Histogram
        Of the same requests: the prefill leg and the decode leg.

    References
    ----------
    Bounds of the distribution of a sum from those of its parts: Makarov, Theory of Probability
    and its Applications 26 (1981); Frank, Nelsen and Schweizer (1987).
    """

    first: Histogram
    second: Histogram

    @property
    def count(self) -> float:
        """Requests that ended both legs, at the most."""
        return min(self.first.count, self.second.count)

    @property
    def mean(self) -> float | None:
        """Mean of the sum: the sum of the means, exact."""
        first, second = self.first.mean, self.second.mean
        return None if first is None or second is None else first + second

    def within(self, limit: float) -> Share | None:
        """Share of sums at or below a limit; None without values.

        For every split s of the limit it is at least P(first <= s) + P(second <= limit - s) - 1,
        and at most the sum of the two.
        """
        low, high = 0.0, 1.0
        for split, rest in self._splits(limit):
            one, two = self.first.within(split), self.second.within(rest)
            if one is None or two is None:
                return None
            low = max(low, one.low + two.low - 1.0)
            high = min(high, one.high + two.high)
        return Share(low=low, high=max(high, low))

    def quantile(self, level: float) -> Estimate | None:
        """A quantile of the sum with its certain ends; the value takes the legs as independent."""
        middles = self._middles()
        if middles is None:
            return None
        low, high = self._low_end(level), self._high_end(level)
        weights = list(accumulate(weight for _, weight in middles))
        rank = level * weights[-1] * (1 - _ROUNDING)
        value = next(
            sum_s for (sum_s, _), seen in zip(middles, weights, strict=True) if seen >= rank
        )
        return Estimate(value=min(max(value, low), high), low=low, high=high)

    def _splits(self, limit: float) -> list[tuple[float, float]]:
        """Where a bound can change: at every bucket's end of either leg, and at the ends."""
        parts = [(end, limit - end) for end in self.first.upper if end <= limit]
        parts += [(limit - end, end) for end in self.second.upper if end <= limit]
        return [(0.0, limit), (limit, 0.0), *parts]

    def _low_end(self, level: float) -> float:
        """The most that the quantile surely reaches: of the larger leg alone."""
        found = [leg.quantile(level) for leg in (self.first, self.second)]
        return max((one.low for one in found if one is not None), default=0.0)

    def _high_end(self, level: float) -> float:
        """The least sum of bucket ends within which a share `level` surely lies."""
        first, second = _shares(self.first), _shares(self.second)
        return min(
            (a + b for a, p in first for b, q in second if p + q - 1.0 >= level - _ROUNDING),
            default=math.inf,
        )

    def _middles(self) -> list[tuple[float, float]] | None:
        """Sums of the buckets' middles with their weights, as if the legs were independent."""
        first, second = _points(self.first), _points(self.second)
        if not first or not second:
            return None
        return sorted((a + b, p * q) for a, p in first for b, q in second)


def _shares(leg: Histogram) -> list[tuple[float, float]]:
    """Every bucket's end with the share of values up to it."""
    values = sum(leg.counts)
    return [
        (end, below / values)
        for end, below in zip(leg.upper, accumulate(leg.counts), strict=True)
        if values > 0
    ]


def _points(leg: Histogram) -> list[tuple[float, float]]:
    """Middle and count of every bucket with values, scaled so that the mean is right."""
    points, low = [], 0.0
    for high, inside in zip(leg.upper, leg.counts, strict=True):
        if inside > 0:
            points.append(((low + high) / 2 if math.isfinite(high) else low, inside))
        low = high
    total = sum(middle * inside for middle, inside in points)
    scale = leg.total / total if total > 0 else 1.0
    return [(middle * scale, inside) for middle, inside in points]
