"""Where the lengths of requests last changed for good: from there on the past says nothing."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from planner.domain.workload import Floats, Shape

FALSE_ALARM_RATIO = 0.001
"""Of forecasts that see a change where there is none.

One costs little: lengths are then those of the newest window alone, as noisy as its mean."""

FEWEST_WINDOWS = 6
"""Before a change; fewer say too little of how much windows differ by anyway."""

FEWEST_REQUESTS = 30
"""After a change: means of fewer are not near enough to normal where lengths have long tails."""

YOUNGEST_WINDOWS = 6
"""Changes that are older weigh little: how fast the past loses weight has been learned since."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Means:
    """Mean input and output tokens of windows, and the variance of single requests' tokens.

    Parameters
    ----------
    requests : (windows,) float
    mean, variance : (2, windows) float, tokens and their square
    """

    requests: Floats
    mean: Floats
    variance: Floats

    def pooled(self, begin: int, end: int) -> tuple[Floats, Floats, float]:
        """Mean and variance of all requests of some windows, and how many there were."""
        count = self.requests[begin:end]
        mean = self.mean[:, begin:end] @ count / count.sum()
        apart = (self.mean[:, begin:end] - mean[:, None]) ** 2
        variance = (self.variance[:, begin:end] + apart) @ count / count.sum()
        return mean, variance, float(count.sum())

    def wobble(self, begin: int, end: int) -> Floats:
        """(2,) how many times further apart windows' means are than their requests' noise; >= 1."""
        count = self.requests[begin:end]
        mean, _, _ = self.pooled(begin, end)
        within = self.variance[:, begin:end] @ count / count.sum()
        apart = (self.mean[:, begin:end] - mean[:, None]) ** 2 @ count / (end - begin - 1)
        ratio: Floats = np.maximum(apart / within, 1.0)
        return ratio


def last_change(shapes: tuple[Shape, ...], requests: Floats) -> int:
    """The first of the windows, in order of time, whose lengths are those of now; 0: all are.

    Mean input and mean output tokens of the last windows (one to six) are compared with those of
    the windows before. The variance of their difference is what the requests' own spread makes of
    the means (the larger spread of both sides), times how much further than that the windows before
    lay apart from each other; the quantile is Student's with one degree of freedom less than these
    windows, at `FALSE_ALARM_RATIO` shared by all comparisons. Among clear changes the clearest is
    taken; what follows it is looked through again, with the same wobble.

    Parameters
    ----------
    requests : (windows,) float
    """
    seen = _Means(requests=requests, mean=_mean(shapes), variance=_variance(shapes))
    count = len(shapes)
    oldest = max(count - YOUNGEST_WINDOWS, FEWEST_WINDOWS)
    if oldest >= count:
        return 0
    found = _clearest(seen, 0, range(oldest, count), seen.wobble(0, oldest), oldest)
    if found is None:
        return 0
    wobble = seen.wobble(0, found)
    while (later := _clearest(seen, found, range(found + 1, count), wobble, oldest)) is not None:
        found = later
    return found


def _clearest(seen: _Means, begin: int, cuts: range, wobble: Floats, windows: int) -> int | None:
    """The cut that sets what is after it furthest apart from what is before; None: none clearly.

    Parameters
    ----------
    windows : int
        That the wobble was measured on.
    """
    end, found = len(seen.requests), None
    level = 1.0 - FALSE_ALARM_RATIO / (2 * 2 * max(len(cuts), 1))
    most = float(stdtrit(windows - 1, level))
    for cut in cuts:
        mean, variance, count = seen.pooled(begin, cut)
        new_mean, new_variance, new_count = seen.pooled(cut, end)
        if new_count < FEWEST_REQUESTS:
            continue
        spread = wobble * np.maximum(variance, new_variance)
        noise = np.sqrt(spread * (1.0 / count + 1.0 / new_count))
        apart = float((np.abs(new_mean - mean) / noise).max())
        if apart > most:
            most, found = apart, cut
    return found


def _mean(shapes: tuple[Shape, ...]) -> Floats:
    return np.array([[s.isl_mean for s in shapes], [s.osl_mean for s in shapes]])


def _variance(shapes: tuple[Shape, ...]) -> Floats:
    """At least that of a length rounded to a token, so that equal lengths are no certainty."""
    inputs = [s.weight @ (s.input_tokens - s.isl_mean) ** 2 for s in shapes]
    outputs = [s.weight @ (s.output_tokens - s.osl_mean) ** 2 for s in shapes]
    return np.maximum(np.array([inputs, outputs], dtype=np.float64), 1.0)
