"""Whether a class's request lengths have changed beyond what its windows differ by anyway."""

from collections.abc import Sequence

import numpy as np

from forecaster.recent_lengths import RecentLengths
from planner.domain.forecast import Drift
from planner.domain.workload import Flags, Floats, Shape

RECENT_WINDOWS = 6
FEWEST_GROUPS = 8
"""Fewer earlier groups to compare with say too little about what is usual."""

USUAL_LEVEL = 0.95
CLEARLY = 1.8
"""Times the furthest of the usual distances: many instants are tried."""

YOUNG = f" (within the last {RECENT_WINDOWS} windows, which date and size it together)"

SMALLEST_DISTANCE = 0.02
"""In doublings of length: a change of a few percent moves no plan."""


def drift_of(request_class: str, recent: RecentLengths) -> Drift | None:
    """The change of lengths between the last busy windows and those before; None: usual.

    Energy distances between mixtures of windows, of the logarithms (base 2) of input and output
    length. Usual is what groups of six windows among those before differ from the rest; a drift is
    further than 95 % of them and clearly further than the furthest. All instants of change are
    tried that leave six windows after them and enough before them (with 36 windows: up to 23 ago);
    a younger change is found in the last six windows, dated and sized by them, and `what` says so.
    """
    count = len(recent.windows)
    place = np.arange(count)
    found: tuple[float, Drift] | None = None
    for before in range(RECENT_WINDOWS - 1 + FEWEST_GROUPS, count - RECENT_WINDOWS + 1):
        last = place >= before
        distance = float(_apart(recent, last[None], ~last[None])[0])
        first = np.arange(before - RECENT_WINDOWS + 1)[:, None]
        groups = (place >= first) & (place < first + RECENT_WINDOWS)
        usual = _apart(recent, groups, ~last & ~groups)
        most = float(np.quantile(usual, USUAL_LEVEL))
        clearly = distance / max(CLEARLY * float(usual.max()), most, SMALLEST_DISTANCE)
        # Between instants of change the weighted distance decides: it peaks at the true one.
        weighted = distance * before * (count - before)
        if clearly > 1 and (found is None or weighted > found[0]):
            drift = Drift(
                request_class=request_class,
                since=recent.windows[before].start_at,
                distance=distance,
                usual=most,
                what=_what(recent.shapes, recent.requests, before)
                + (YOUNG if before == count - RECENT_WINDOWS else ""),
            )
            found = weighted, drift
    return None if found is None else found[1]


def _what(shapes: Sequence[Shape], requests: Floats, before: int) -> str:
    rows = np.array([(s.isl_mean, s.osl_mean) for s in shapes])
    totals = rows * requests[:, None]
    recent = totals[before:].sum(axis=0) / requests[before:].sum()
    isl, osl = recent / (totals[:before].sum(axis=0) / requests[:before].sum())
    return f"prompts {isl:.2g} times, answers {osl:.2g} times as long on average as before"


def _apart(recent: RecentLengths, ones: Flags, others: Flags) -> Floats:
    """(groups,) energy distances between windows `ones` and `others`, (groups, windows) each."""
    a, b = ones * recent.requests, others * recent.requests
    a /= a.sum(axis=1, keepdims=True)
    b /= b.sum(axis=1, keepdims=True)
    both = a - b
    # 2 a'Db - a'Da - b'Db = -(a - b)'D(a - b)
    distance: Floats = np.maximum(-((both @ recent.apart) * both).sum(axis=1), 0.0)
    return distance
