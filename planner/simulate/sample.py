"""Draw one possible future from a forecast."""

import math

import numpy as np
from numpy.typing import NDArray

from planner.domain.forecast import Demand, ForecastWindow
from planner.domain.workload import Shape, Workload

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def sample_workload(
    window: ForecastWindow, *, level: float | None, duration_s: float, rng: np.random.Generator
) -> Workload:
    """Requests as they may arrive in a window.

    Every class is drawn on its own: gaps between arrivals with the class's rate and squared
    coefficient of variation, lengths from the buckets of its shape. A bucket's mean lengths are
    rounded up or down at random, so that the mean is kept.

    Parameters
    ----------
    level : float or None
        Quantile of the forecast rate, the same for every class; None draws each class's rate from
        its quantiles.
    duration_s : float
        Length of the drawn interval, seconds; it may differ from the window's.
    rng : numpy Generator
        Equal states give equal workloads.

    Raises
    ------
    ValueError
        When `duration_s` is not above 0 or `level` not between 0 and 1.
    """
    if not 0 < duration_s < math.inf:
        raise ValueError(f"duration_s must be finite and above 0 s, got {duration_s:g}")
    if level is not None and not 0 <= level <= 1:
        raise ValueError(f"level must lie between 0 and 1, got {level:g}")
    drawn = [_draw(d, level=level, duration_s=duration_s, rng=rng) for d in window.demands]
    names = np.array([d.request_class for d in window.demands], dtype=np.str_)
    arrival_s = np.concatenate([a for a, _ in drawn]) if drawn else np.zeros(0)
    lengths = np.concatenate([x for _, x in drawn], axis=1) if drawn else np.zeros((3, 0), np.int64)
    owner = np.repeat(np.arange(len(drawn)), [len(a) for a, _ in drawn])
    order = np.argsort(arrival_s, kind="stable")
    return Workload(
        start_at=window.start_at,
        arrival_offset_s=arrival_s[order],
        input_tokens=lengths[0, order],
        output_tokens=lengths[1, order],
        cached_tokens=lengths[2, order],
        request_class=names[owner[order]] if drawn else np.zeros(0, dtype=np.str_),
        duration_s=duration_s,
    )


NO_ARRIVALS = 1e-9
"""Expected arrivals so few that none is drawn; their gaps would overflow."""


def _draw(
    demand: Demand, *, level: float | None, duration_s: float, rng: np.random.Generator
) -> tuple[Floats, Integers]:
    """Arrivals of one class, and (3, requests) input, output and cached tokens."""
    at = float(rng.uniform()) if level is None else level
    rate_rps = max(demand.request_rate_rps.at(at), 0.0)
    arrival_s = _arrivals(rate_rps, demand.arrival_cv2, duration_s, rng)
    return arrival_s, _lengths(demand.shape, len(arrival_s), rng)


def _arrivals(rate_rps: float, cv2: float, duration_s: float, rng: np.random.Generator) -> Floats:
    """Arrivals of a renewal process with gamma gaps of mean 1 / rate and the given cv2.

    It starts before the interval, so that the interval is entered in the middle of a gap.
    """
    if rate_rps * duration_s < NO_ARRIVALS:
        return np.zeros(0)
    if cv2 <= 1e-6:  # a clock, entered at a random phase
        first_s = float(rng.uniform()) / rate_rps
        return np.arange(first_s, duration_s, 1 / rate_rps)
    shape, scale_s = 1 / cv2, cv2 / rate_rps
    lead_s = 20 * max(cv2, 1.0) / rate_rps
    instants: list[Floats] = []
    last_s = -lead_s
    while last_s < duration_s:
        expected = (duration_s - last_s) * rate_rps
        batch = int(expected + 4 * math.sqrt(expected * cv2)) + 16
        run = last_s + np.cumsum(rng.gamma(shape, scale_s, batch))
        instants.append(run)
        last_s = float(run[-1])
    arrival_s = np.concatenate(instants)
    return arrival_s[(arrival_s >= 0) & (arrival_s < duration_s)]


def _lengths(shape: Shape, count: int, rng: np.random.Generator) -> Integers:
    bucket = rng.choice(len(shape.weight), size=count, p=shape.weight / shape.weight.sum())
    means = np.stack([shape.input_tokens, shape.output_tokens, shape.cached_tokens])[:, bucket]
    whole = np.floor(means)
    drawn = (whole + (rng.uniform(size=means.shape) < means - whole)).astype(np.int64)
    drawn[:2] = np.maximum(drawn[:2], 1)
    drawn[2] = np.minimum(drawn[2], drawn[0])
    return drawn
