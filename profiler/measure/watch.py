"""Notice when the machine is not itself: throttled, shared with somebody, or restarted."""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np

SPREADS = 4.0
BASELINE_READINGS, MOST_WARM_UPS, STEADY_RATIO = 5, 12, 0.1
CONFIRMATIONS = 3

Read = Callable[[], Awaitable[tuple[float, float]]]
"""Takes one sentinel reading: TTFT and gap of the same short request, seconds."""


@dataclass(slots=True, kw_only=True)
class Watch:
    """Compares the same short request over time with how it was at the beginning.

    Parameters
    ----------
    tolerance_ratio : float
        Slower or faster by so much is a disturbance, when it is also outside the usual spread.

    Attributes
    ----------
    baseline : (2,) float
        Medians of TTFT and gap, seconds.
    spread : (2,) float
        Their robust standard deviations over the medians.
    """

    read: Read
    tolerance_ratio: float
    baseline: np.ndarray[tuple[int], np.dtype[np.float64]] = field(init=False)
    spread: np.ndarray[tuple[int], np.dtype[np.float64]] = field(init=False)

    async def warm_up(self, *, most_s: float = math.inf) -> int:
        """Send requests until the last three agree; then take the baseline; return how many.

        What a cold engine answers first is not measured.

        Parameters
        ----------
        most_s : float
            After half of it the baseline is taken though they do not agree, and after all of it
            with fewer readings, seconds.
        """
        began_s = time.perf_counter()
        seen: list[tuple[float, float]] = []
        while len(seen) < MOST_WARM_UPS:
            seen.append(await self.read())
            last = np.array([ttft for ttft, _ in seen[-3:]])
            if len(seen) >= 3 and np.ptp(last) <= STEADY_RATIO * last.min():
                break
            if time.perf_counter() - began_s > most_s / 2:
                break
        await self.rebase(most_s=most_s - (time.perf_counter() - began_s))
        return len(seen)

    async def rebase(self, *, most_s: float = math.inf) -> None:
        """Take how it is now for how it should be, in `BASELINE_READINGS` or as long as told."""
        began_s, taken = time.perf_counter(), list[tuple[float, float]]()
        while not taken or (
            len(taken) < BASELINE_READINGS and time.perf_counter() - began_s < most_s
        ):
            taken.append(await self.read())
        readings = np.array(taken)
        self.baseline = np.median(readings, axis=0)
        off = np.median(np.abs(readings - self.baseline), axis=0)
        self.spread = 1.4826 * off / self.baseline

    async def deviation(self) -> float:
        """How much slower (above 0) or faster than the baseline; 0 within what is usual.

        A first reading outside is confirmed before it counts.
        """
        ratios = np.array([await self.read()]) / self.baseline
        if not self._outside(ratios):
            return 0.0
        more = [await self.read() for _ in range(CONFIRMATIONS - 1)]
        ratios = np.concatenate([ratios, np.array(more) / self.baseline])
        if not self._outside(ratios):
            return 0.0
        median = np.median(ratios, axis=0) - 1
        return float(median[np.argmax(np.abs(median))])

    def since(self, before: tuple[float, float]) -> float:
        """How much slower (above 0) or faster this baseline is than one of before; 0: usual."""
        ratios = self.baseline[None, :] / np.array(before)
        if not self._outside(ratios):
            return 0.0
        off = ratios[0] - 1
        return float(off[np.argmax(np.abs(off))])

    def _outside(self, ratios: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> bool:
        limit = np.maximum(self.tolerance_ratio, SPREADS * self.spread)
        return bool(np.any(np.abs(np.median(ratios, axis=0) - 1) > limit))
