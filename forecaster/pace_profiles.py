"""How a rate changes over time: by the hour of the day, or window by window."""

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from forecaster.arrivals import LARGEST_CV, Pace
from planner.domain.workload import Floats

DAY_S = 86_400.0
_SINE_STEP_S = 60.0
MOST_DAYS = 1000
"""Of a daily profile; a minute is a step of a sine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyFactors:
    """A day by its hours: the rate of each as a multiple of the others'.

    Parameters
    ----------
    factors : tuple of float
        24, from midnight (in the time zone of the trace's start); only their ratios count.
    """

    factors: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.factors) != 24:
            raise ValueError(f"a day has 24 hourly factors, got {len(self.factors)}")
        if min(self.factors) < 0 or not 0 < sum(self.factors) < math.inf:
            raise ValueError("hourly factors must be at least 0 and not all 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class DailySine:
    """A day as a sine: the busiest instant and how much busier it is than the quietest.

    Parameters
    ----------
    peak_hour : float
        0..24, in the time zone of the trace's start.
    peak_to_trough : float
        At least 1.
    """

    peak_hour: float
    peak_to_trough: float

    def __post_init__(self) -> None:
        if not 0 <= self.peak_hour <= 24:
            raise ValueError(f"peak_hour must be in [0, 24], got {self.peak_hour:g}")
        if not 1 <= self.peak_to_trough < math.inf:
            raise ValueError(f"peak_to_trough must be at least 1, got {self.peak_to_trough:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRates:
    """Rates and CVs of consecutive windows, as fitted to a trace.

    Parameters
    ----------
    window_s : float
        The last window may be cut by the trace's end.
    rate_rps, arrival_cv : tuple of float
        One for each window.
    """

    window_s: float
    rate_rps: tuple[float, ...]
    arrival_cv: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 0 < self.window_s < math.inf:
            raise ValueError("window_s must be above 0 and finite")
        if not self.rate_rps or len(self.rate_rps) != len(self.arrival_cv):
            raise ValueError("rate_rps and arrival_cv must be equally many, at least one")
        if min(self.rate_rps) < 0 or not max(self.arrival_cv) <= LARGEST_CV:
            raise ValueError(f"rates must be at least 0, CVs at most {LARGEST_CV:g}")


Profile = HourlyFactors | DailySine | WindowRates


def pace_of(
    profile: Profile | None,
    *,
    rate_rps: float,
    arrival_cv: float,
    span_s: tuple[float, float],
    start_at: datetime,
) -> Pace:
    """The pace from `span_s[0]` to `span_s[1]`, seconds from `start_at`.

    `rate_rps` is the mean over whole days of a daily profile; with window rates it is not used,
    and neither is `arrival_cv`.
    """
    start_s, end_s = span_s
    if profile is None:
        edges = np.array([start_s, end_s])
        return Pace(edges_s=edges, rate_rps=np.array([rate_rps]), arrival_cv=np.array([arrival_cv]))
    if isinstance(profile, WindowRates):
        inner = profile.window_s * np.arange(1, len(profile.rate_rps), dtype=np.float64)
        edges, at_s = _edges(inner, start_s, end_s)
        index = np.clip(at_s // profile.window_s, 0, len(profile.rate_rps) - 1).astype(np.int64)
        return Pace(
            edges_s=edges,
            rate_rps=np.array(profile.rate_rps)[index],
            arrival_cv=np.array(profile.arrival_cv)[index],
        )
    midnight_s = -(start_at.hour * 3600 + start_at.minute * 60 + start_at.second)
    step_s = 3600.0 if isinstance(profile, HourlyFactors) else _SINE_STEP_S
    first = math.floor((start_s - midnight_s) / step_s)
    last = math.ceil((end_s - midnight_s) / step_s)
    steps = np.arange(first, last + 1, dtype=np.float64)
    edges, at_s = _edges(midnight_s + step_s * steps, start_s, end_s)
    hour = (at_s - midnight_s) % DAY_S / 3600.0
    return Pace(
        edges_s=edges,
        rate_rps=rate_rps * _factor(profile, hour),
        arrival_cv=np.full(len(hour), arrival_cv),
    )


def _edges(inner: Floats, start_s: float, end_s: float) -> tuple[Floats, Floats]:
    """Edges within a span, and the middles of the intervals."""
    inside = inner[(inner > start_s) & (inner < end_s)]
    edges = np.concatenate([[start_s], inside, [end_s]]).astype(np.float64)
    return edges, (edges[:-1] + edges[1:]) / 2


def _factor(profile: HourlyFactors | DailySine, hour: Floats) -> Floats:
    """Rate at these hours of the day over the day's mean."""
    if isinstance(profile, HourlyFactors):
        factors = np.array(profile.factors)
        found: Floats = (factors / factors.mean())[hour.astype(np.int64) % 24]
        return found
    swing = (profile.peak_to_trough - 1) / (profile.peak_to_trough + 1)
    wave: Floats = 1 + swing * np.cos(2 * np.pi * (hour - profile.peak_hour) / 24)
    return wave
