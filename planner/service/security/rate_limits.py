"""Token buckets, one for each of many keys; for one thread."""

import time
from collections import OrderedDict
from collections.abc import Callable

MOST_KEYS = 10_000
"""The buckets that were asked longest ago are forgotten, and are full when asked again."""


class Buckets:
    """So many events at once, and so many a second in the long run, for each key.

    Parameters
    ----------
    rate_per_s : float
        How fast a bucket fills; 0: everything passes.
    burst : float
        What a full one holds, at least 1.
    """

    def __init__(
        self, rate_per_s: float, burst: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._rate = rate_per_s
        self._burst = max(burst, 1.0)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """Seconds until the bucket of a key has something; 0: it has."""
        return max(0.0, (1.0 - self._now(key)) / self._rate) if self._rate > 0 else 0.0

    def take(self, key: str) -> float:
        """Take one; else the seconds until there is one to take."""
        if self._rate <= 0:
            return 0.0
        left = self._now(key)
        granted = left >= 1.0
        self._left[key] = (left - granted, self._clock())
        self._left.move_to_end(key)
        if len(self._left) > MOST_KEYS:
            self._left.popitem(last=False)
        return 0.0 if granted else (1.0 - left) / self._rate

    def _now(self, key: str) -> float:
        left, at_s = self._left.get(key, (self._burst, self._clock()))
        return min(self._burst, left + (self._clock() - at_s) * self._rate)
