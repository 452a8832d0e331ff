"""Coarse clocks: arrivals that were stamped in steps of seconds."""

import numpy as np

from planner.domain.workload import Floats

FINEST_TICK_S = 0.1
"""Shorter steps blur no arrival that a window of seconds would tell apart."""

_FEWEST_GAPS = 10
_JITTER_S = 0.01
"""Arrivals this close to each other share an instant of a coarse clock."""
_TOLERANCE = 0.1
"""Jitter of a tick, as a share of it (Mooncake's clock: 3.000 s +- 0.003 s)."""


def arrival_tick_s(arrival_offset_s: Floats) -> float | None:
    """Step of the arrival clock in seconds, or None when it is fine.

    The arrival instants of a coarse clock are whole multiples of its step apart, and either
    several requests share instants or the multiples differ; equal gaps without shared instants
    are requests sent at a regular pace.
    """
    between = np.diff(arrival_offset_s)
    gaps = between[between > _JITTER_S]
    if len(gaps) < _FEWEST_GAPS:
        return None
    # Not the smallest gap: one jittered or duplicated stamp must not hide the clock.
    guess = float(np.quantile(gaps, 0.1))
    if guess < FINEST_TICK_S:
        return None
    multiples = np.rint(gaps / guess)
    tick_s = float(between.sum() / multiples.sum())
    on_clock = np.abs(gaps - multiples * tick_s) <= _TOLERANCE * tick_s
    shared = 1.0 - len(gaps) / len(between)
    irregular = float(np.mean(multiples > 1))
    if np.mean(on_clock) < 0.98 or max(shared, irregular) < 0.05:
        return None
    return tick_s
