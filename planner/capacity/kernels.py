"""The inner sums of the closed form, compiled: they are evaluated at some ten rates per answer."""

import math
from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
P = ParamSpec("P")
R = TypeVar("R")

NEGLIGIBLE_S = 1e-12
"""Shorter than anything that is measured."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile on the first call; the machine code is kept on disk."""
    decorator = numba.njit(cache=True, error_model="numpy")
    return cast("Callable[P, R]", decorator(function))


@compiled
def waits_exceed(p: float, a_s: float, q: float, b_s: float, seconds: Floats) -> Floats:
    """P(first + second > seconds), element by element; 1 where `seconds` is negative.

    The waits are 0 with probabilities 1 - p and 1 - q, else exponential with means a_s and b_s:
    together hypoexponential.
    """
    tail = np.empty_like(seconds)
    alike = abs(a_s - b_s) <= 1e-6 * max(a_s, b_s)
    for i in range(len(seconds)):
        t = seconds[i]
        if t < 0:
            tail[i] = 1.0
            continue
        tail_a = math.exp(-t / a_s) if a_s >= NEGLIGIBLE_S else 0.0
        tail_b = math.exp(-t / b_s) if b_s >= NEGLIGIBLE_S else 0.0
        if alike:
            mean_s = max(a_s, b_s)
            both = math.exp(-t / mean_s) * (1 + t / mean_s) if mean_s >= NEGLIGIBLE_S else 0.0
        else:
            both = min(max((a_s * tail_a - b_s * tail_b) / (a_s - b_s), 0.0), 1.0)
        tail[i] = p * (1 - q) * tail_a + q * (1 - p) * tail_b + p * q * both
    return tail


@compiled
def chain_mass(log_rate: float, states: Floats, departures_log: Floats) -> Floats:
    """(states,) mass of a birth-death chain: rate^n over the product of departure rates.

    The largest is 1.
    """
    mass = np.empty_like(states)
    most = -np.inf
    for i in range(len(states)):
        mass[i] = states[i] * log_rate - departures_log[i]
        most = max(most, mass[i])
    for i in range(len(states)):
        mass[i] = math.exp(mass[i] - most)
    return mass


@compiled
def steps_within(
    step_s: Floats, cumulative: Floats, mean_s: float, spread: Floats, limit_s: Floats
) -> Floats:
    """(buckets,) P(mean step over a life <= limit_s).

    The distribution of the step at one instant, drawn together around its mean by `spread`.
    """
    met = np.empty_like(limit_s)
    for i in range(len(limit_s)):
        limit = mean_s + (limit_s[i] - mean_s) / spread[i]
        found = np.searchsorted(step_s, limit * (1 + 1e-12), side="right")
        met[i] = cumulative[found - 1] if found > 0 else 0.0
    return met


@compiled
def normal_cdf(x: float) -> float:
    """P(standard normal <= x)."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


@compiled
def work_within(  # noqa: PLR0917 (compiled functions take positions)
    slack_s: Floats,
    fullest_s: Floats,
    backlog_s: Floats,
    share: Floats,
    weight: Floats,
    some: Floats,
    given_s: Floats,
    alpha: Floats,
) -> Floats:
    """(buckets,) P(a backlog and the prompts that arrive during a life fit into its slack).

    Parameters
    ----------
    slack_s : (levels, buckets) float
        What a life of m steps has left for prompts, by quantile of its step time.
    fullest_s : (buckets,) float
        The most that prompts can take of a life.
    backlog_s : (backlogs, buckets) float
    share : (backlogs,) float
        Probability of each backlog.
    weight : (levels,) float
        Probability of each quantile.
    some, given_s, alpha : (buckets,) float
        Probability of any arrival; mean work given that; gamma shape of that work.

    References
    ----------
    Wilson and Hilferty (1931): the cube root of a gamma variable is close to normal.
    """
    met = np.zeros(len(some))
    for i in range(len(some)):
        for k in range(len(weight)):
            slack = slack_s[k, i]
            if slack < 0:
                continue
            if slack >= fullest_s[i]:
                met[i] += weight[k]
                continue
            for b in range(len(share)):
                left = slack - backlog_s[b, i]
                if left < 0:
                    continue
                root = (left / given_s[i]) ** (1 / 3)
                below = normal_cdf((root - 1 + 1 / (9 * alpha[i])) * 3 * math.sqrt(alpha[i]))
                met[i] += weight[k] * share[b] * (1 - some[i] + some[i] * below)
    return met
