"""Arrivals at a pace that changes: gamma renewal processes without a bias where it does."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.special import gammainc, gammaincinv

from planner.domain.workload import Floats

LARGEST_CV = 50.0
"""The burstiest published hour has 13 (Azure 2023 code)."""

_NEARLY_1 = 1.0 - 1e-12
_EVEN_CV = 1e-4
"""Below it gaps are taken as equal."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pace:
    """How fast and how evenly requests arrive, interval by interval.

    Parameters
    ----------
    edges_s : (intervals + 1,) float, seconds
        Increasing; the first interval begins at `edges_s[0]`.
    rate_rps : (intervals,) float, requests/s
        Mean arrivals; 0 is silence.
    arrival_cv : (intervals,) float
        Coefficient of variation of the gaps; 1 is Poisson, 0 a fixed pace.
    """

    edges_s: Floats
    rate_rps: Floats
    arrival_cv: Floats

    def __post_init__(self) -> None:
        if not len(self.edges_s) == len(self.rate_rps) + 1 == len(self.arrival_cv) + 1 > 1:
            raise ValueError("a pace needs one rate and one arrival_cv for each interval")
        if not bool(np.all(np.isfinite(self.edges_s)) and np.all(np.diff(self.edges_s) > 0)):
            raise ValueError("edges_s must be finite and increase")
        if not bool(np.all((self.rate_rps >= 0) & np.isfinite(self.rate_rps))):
            raise ValueError("rate_rps must be finite and at least 0")
        if not bool(np.all((self.arrival_cv >= 0) & (self.arrival_cv <= LARGEST_CV))):
            raise ValueError(f"arrival_cv must be in [0, {LARGEST_CV:g}]")

    @property
    def expected_requests(self) -> float:
        """Mean number of arrivals."""
        return float(np.diff(self.edges_s) @ self.rate_rps)


def steady(rate_rps: float, duration_s: float, arrival_cv: float) -> Pace:
    """One pace all the time."""
    return Pace(
        edges_s=np.array([0.0, duration_s]),
        rate_rps=np.array([rate_rps]),
        arrival_cv=np.array([arrival_cv]),
    )


def arrivals(pace: Pace, rng: np.random.Generator) -> Floats:
    """Draw arrival times in [edges_s[0], edges_s[-1]), seconds, not decreasing.

    Time is first measured in expected requests, so that every gap has mean 1 and a gap goes on
    over the edge between two rates. At the first edge, and at every edge between two CVs, the gap
    that spans it is one of a stationary process: its length L has the density l f(l), and the
    edge lies in it evenly. At a change of CV the same quantile of L goes on under the new one.
    Hence every interval has `rate_rps * length` arrivals in the mean, whatever the CVs; starting
    each with an arrival would add (cv^2 - 1) / 2.

    References
    ----------
    D. R. Cox, Renewal Theory (1962), sections 2.3 and 5.3. Gamma gaps: ServeGen, arXiv
    2505.09999, finds gamma or Weibull gaps per client.
    """
    progress = np.concatenate([[0.0], np.cumsum(np.diff(pace.edges_s) * pace.rate_rps)])
    at = np.concatenate([np.empty(0), *_renewals(pace, progress, rng)])
    interval = np.searchsorted(progress, at, side="right") - 1
    times: Floats = pace.edges_s[interval] + (at - progress[interval]) / pace.rate_rps[interval]
    # Rounding may carry an arrival onto the end, which is not part of the interval.
    inside: Floats = np.minimum(times, np.nextafter(pace.edges_s[-1], -np.inf))
    return inside


def _renewals(pace: Pace, progress: Floats, rng: np.random.Generator) -> Iterator[Floats]:
    """Arrivals in units of expected requests, stretch by stretch of one CV."""
    gap = rest = 0.0
    cv: float | None = None
    for start, end, next_cv in _stretches(pace, progress):
        if cv is None:
            gap = _spanning(_level(next_cv, rng.random()), next_cv)
            rest = gap * float(rng.random())
        elif next_cv != cv:
            level = float(rng.random()) if cv == 0 else _level_of(gap, cv)
            new = _spanning(_level(next_cv, level), next_cv)
            rest, gap = rest / gap * new, new
        cv = next_cv
        length = end - start
        if rest >= length:
            rest -= length
            continue
        steps = [np.array([rest])]
        last = rest
        while last < length:
            gaps = _gaps(math.ceil((length - last) * 1.1) + 16, cv, rng)
            steps.append(last + np.cumsum(gaps))
            last = float(steps[-1][-1])
        reached = np.concatenate(steps)
        count = int(np.searchsorted(reached, length))
        gap, rest = float(reached[count] - reached[count - 1]), float(reached[count] - length)
        yield start + reached[:count]


def _stretches(pace: Pace, progress: Floats) -> Iterator[tuple[float, float, float]]:
    """Start, end (in expected requests) and CV of each run of intervals with one CV."""
    busy = np.flatnonzero(pace.rate_rps > 0)
    cvs = pace.arrival_cv[busy]
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(cvs)) + 1, [len(busy)]])
    for first, last in pairwise(bounds):
        if last > first:
            inside = busy[first:last]
            cv = float(cvs[first])
            start, end = float(progress[inside[0]]), float(progress[inside[-1] + 1])
            yield start, end, cv if cv > _EVEN_CV else 0.0


def _gaps(count: int, cv: float, rng: np.random.Generator) -> Floats:
    if cv == 0:
        return np.ones(count)
    return rng.gamma(1.0 / cv**2, cv**2, count)


def _level(cv: float, level: float) -> float:
    return min(level, _NEARLY_1) if cv > 0 else level


def _spanning(level: float, cv: float) -> float:
    """Quantile of the gap that spans a given instant: gamma of shape 1/cv^2 + 1."""
    return float(gammaincinv(1.0 / cv**2 + 1.0, level)) * cv**2 if cv > 0 else 1.0


def _level_of(gap: float, cv: float) -> float:
    return float(gammainc(1.0 / cv**2 + 1.0, gap / cv**2))
