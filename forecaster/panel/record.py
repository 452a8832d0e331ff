"""What was observed so far: the last steps of many series, and means over any of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.domain.workload import Flags, Floats

Integers = NDArray[np.int64]


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spans:
    """Several spans as columns: (spans,) int each."""

    first: Integers
    last: Integers

    @classmethod
    def of(cls, spans: list[Span]) -> "Spans":
        """The spans, in order."""
        return cls(
            first=np.array([span.first for span in spans], dtype=np.int64),
            last=np.array([span.last for span in spans], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.first)


class Record:
    """The last `kept_steps` steps of `series` series; older ones are forgotten.

    Steps count from 0. A step that was not observed is NaN; in a "filled" mean it counts as the
    last observed value. Sums so far are kept, so that a mean over any steps is one subtraction.
    """

    def __init__(self, *, series: int, kept_steps: int) -> None:
        self.series = series
        self.steps = 0
        self._kept = kept_steps
        self._start = 0
        # Twice the room, so that rows are moved once in `kept_steps` steps. Row k: sums before it.
        self._sums = np.zeros((2 * kept_steps + 1, 4, series))
        self.last = np.full(series, np.nan)
        """(series,) the last observed values; NaN before the first."""
        self._first_seen = np.full(series, np.iinfo(np.int64).max)

    def add(self, values: Floats, logarithms: Floats) -> None:
        """Take the next step; both are (series,), NaN where nothing was observed."""
        row = self.steps - self._start
        if row == len(self._sums) - 1:
            self._sums[: self._kept + 1] = self._sums[-(self._kept + 1) :]
            self._start += row - self._kept
            row = self._kept
        seen = ~np.isnan(values)
        self.last = np.where(seen, values, self.last)
        self._first_seen = np.where(
            seen & (self._first_seen > self.steps), self.steps, self._first_seen
        )
        self._sums[row + 1] = self._sums[row]
        self._sums[row + 1, 0] += np.nan_to_num(self.last)
        self._sums[row + 1, 1] += np.where(seen, values, 0.0)
        self._sums[row + 1, 2] += seen
        self._sums[row + 1, 3] += np.where(seen, logarithms, 0.0)
        self.steps += 1

    def knows(self, first: Integers) -> Flags:
        """Whether steps so early are still known."""
        return np.asarray((first >= self._start) & (first >= 0))

    def filled_mean(self, first: Integers, last: Integers) -> Floats:
        """(spans, series) mean over steps `first` to `last`, gaps filled; NaN where not known."""
        known = self._known(first, last)
        if not known.any():
            return np.full((len(first), self.series), np.nan)
        total = self._between(first, last, known)[:, 0]
        usable = known[:, None] & (first[:, None] >= self._first_seen)
        # Differences of running sums may round to just below 0.
        return np.where(usable, np.maximum(total, 0.0) / (last - first + 1)[:, None], np.nan)

    def observed_mean(self, first: Integers, last: Integers) -> Floats:
        """(spans, series) mean over the observed ones of steps `first` to `last`.

        NaN where half of them or more was not observed.
        """
        known = self._known(first, last)
        _, total, count, _ = self._between(first, last, known).swapaxes(0, 1)
        enough = known[:, None] & (2 * count > (last - first + 1)[:, None])
        return np.where(enough, np.maximum(total, 0.0) / np.maximum(count, 1.0), np.nan)

    def recent_means(self, steps: Integers) -> tuple[Floats, Floats]:
        """Two of (counts, series): means over the observed ones of the last so many steps.

        The first of the values, the second of their logarithms.
        """
        row = self.steps - self._start
        sums = self._sums[row] - self._sums[np.maximum(row - steps, 0)]
        count = sums[:, 2]
        means = np.where(count > 0, 1.0, np.nan) / np.maximum(count, 1.0)
        return sums[:, 1] * means, sums[:, 3] * means

    def _known(self, first: Integers, last: Integers) -> Flags:
        return self.knows(first) & (last < self.steps)

    def _between(self, first: Integers, last: Integers, known: Flags) -> Floats:
        """(spans, sums, series) of all four sums over the spans; 0 where they are not known."""
        low = np.where(known, first - self._start, 0)
        high = np.where(known, last + 1 - self._start, 0)
        between: Floats = self._sums[high] - self._sums[low]
        return between
