"""Histograms of Prometheus: what they say for certain, and what only by interpolation."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Self

_ROUNDING = 1e-9
"""Relative: counts are whole numbers, ranks of quantiles are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A quantile by interpolation, and the ends of the bucket that it lies in for certain."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Least and greatest share of values within a limit, 0..1; equal when it is a bucket's end."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """A Prometheus histogram since the engine's start, or over an interval.

    Parameters
    ----------
    count, total : float
        How many values, and their sum.
    upper : tuple of float
        Upper ends of the buckets, the last infinite.
    counts : tuple of float
        Values in each bucket (not cumulative).
    """

    count: float
    total: float
    upper: tuple[float, ...] = ()
    counts: tuple[float, ...] = ()

    @classmethod
    def of(cls, cumulative: dict[float, float], *, count: float, total: float) -> Self:
        """From values at or below each bucket's upper end, as they are exposed."""
        upper = tuple(sorted(cumulative))
        below = [0.0, *(cumulative[end] for end in upper)]
        return cls(
            count=count,
            total=total,
            upper=upper,
            counts=tuple(b - a for a, b in pairwise(below)),
        )

    def __sub__(self, earlier: Self) -> Self:
        a, b = self._alike(earlier)
        return type(self)(
            count=self.count - earlier.count,
            total=self.total - earlier.total,
            upper=a.upper,
            counts=tuple(x - y for x, y in zip(a.counts, b.counts, strict=True)),
        )

    def __add__(self, other: Self) -> Self:
        a, b = self._alike(other)
        return type(self)(
            count=self.count + other.count,
            total=self.total + other.total,
            upper=a.upper,
            counts=tuple(x + y for x, y in zip(a.counts, b.counts, strict=True)),
        )

    def _alike(self, other: Self) -> tuple[Self, Self]:
        """Both on the bucket ends that they have in common."""
        if self.upper == other.upper:
            return self, other
        common = set(self.upper) & set(other.upper)
        return self.on(common), other.on(common)

    def on(self, ends: Iterable[float]) -> Self:
        """The same values in the coarser buckets with these upper ends, all of them its own.

        Values above the greatest end are in no bucket any more.
        """
        below = dict(zip(self.upper, accumulate(self.counts), strict=True))
        return type(self).of({end: below[end] for end in ends}, count=self.count, total=self.total)

    @property
    def mean(self) -> float | None:
        """Mean value; None without any."""
        return self.total / self.count if self.count > 0 else None

    @property
    def went_back(self) -> bool:
        """Whether it holds less than nothing: what it counts was started anew in the interval."""
        return self.count < 0 or any(count < 0 for count in self.counts)

    def quantile(self, level: float) -> Estimate | None:
        """The smallest value that at least a share `level` of all does not exceed.

        Interpolated linearly inside its bucket, as `histogram_quantile` of Prometheus does. In the
        last bucket, which has no end, it is the lower end. None without values.
        """
        values = sum(self.counts)
        if values <= 0:
            return None
        rank, below, low = level * values, 0.0, min(0.0, self.upper[0])
        for high, inside in zip(self.upper, self.counts, strict=True):
            if inside > 0 and below + inside >= rank - _ROUNDING * values:
                part = min(max((rank - below) / inside, 0.0), 1.0)
                value = low + part * (high - low) if math.isfinite(high) else low
                return Estimate(value=value, low=low, high=high)
            below, low = below + inside, high
        return None

    def within(self, limit: float) -> Share | None:
        """Share of values at or below a limit; None without values."""
        values = sum(self.counts)
        if values <= 0:
            return None
        below = list(accumulate(self.counts))
        ends = list(zip(self.upper, below, strict=True))
        low = max((seen for end, seen in ends if end <= limit), default=0.0)
        high = min((seen for end, seen in ends if end >= limit), default=values)
        return Share(low=max(low, 0.0) / values, high=min(high / values, 1.0))
