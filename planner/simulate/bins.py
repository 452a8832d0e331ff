"""Times in bins of 1 %: what histograms of gaps and latencies are made of."""

import math

import numpy as np
from numpy.typing import NDArray

from planner.simulate.state import GAP_BINS, GAP_RATIO, GAP_SHORTEST_S

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def binned(seconds: Floats) -> Integers:
    """(bins,) how many of the times that there are (not NaN) lie in each bin."""
    known = np.maximum(seconds[np.isfinite(seconds)], GAP_SHORTEST_S)
    bins = np.floor(np.log(known / GAP_SHORTEST_S) / math.log(GAP_RATIO)).astype(np.int64)
    return np.bincount(np.minimum(bins, GAP_BINS - 1), minlength=GAP_BINS)


def quantile_s(counts: Integers | Floats, level: float, *, total: int) -> float | None:
    """Quantile of binned times, within 0.5 %; None when there are none.

    Parameters
    ----------
    total : int
        How many there are; counts that were spread sum to it up to rounding.
    """
    if total == 0:
        return None
    rank = max(math.ceil(level * total), 1)
    found = int(np.searchsorted(np.cumsum(counts), rank - 1e-6))
    return float(GAP_SHORTEST_S * GAP_RATIO ** (found + 0.5))
