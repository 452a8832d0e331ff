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
FAR = 5.0
"""Standard deviations beyond which next to nothing of a normal distribution lies (3e-7)."""


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
def chain_at(  # noqa: PLR0917 (compiled functions take positions)
    log_rate: float,
    decay: float,
    stride: float,
    states: Floats,
    departures_log: Floats,
    step_s: Floats,
) -> tuple[Floats, Floats, float, float, float]:
    """A birth-death chain with an endless line behind its last state, at one arrival rate.

    Parameters
    ----------
    log_rate : float
        Log of arrivals per second.
    decay : float
        Arrivals over departures in the line, below 1.
    stride : float
        Sequences from state to state.
    states, departures_log, step_s : (states,) float
        As in `BatchChain`.

    Returns
    -------
    (states,) probability, the line counted with the last one; (states,) cumulative; mean of
    `states`; mean of `step_s`; probability that an arrival finds no slot.
    """
    probability = np.empty_like(states)
    cumulative = np.empty_like(states)
    last = len(states) - 1
    most = -np.inf
    for i in range(last + 1):
        probability[i] = states[i] * log_rate - departures_log[i]
        most = max(most, probability[i])
    total = 0.0
    for i in range(last + 1):
        probability[i] = math.exp(probability[i] - most)
        total += probability[i]
    full = probability[last] / stride
    queued = full * decay / (1 - decay)
    total += queued
    full = (full + queued) / total
    probability[last] += queued
    below, mean_state, mean_step_s = 0.0, 0.0, 0.0
    for i in range(last + 1):
        probability[i] /= total
        below += probability[i]
        cumulative[i] = below
        mean_state += probability[i] * states[i]
        mean_step_s += probability[i] * step_s[i]
    return probability, cumulative, mean_state, mean_step_s, full


@compiled
def averaging(lives_s: Floats, relaxation_s: float) -> Floats:
    """Variance of a mean over each life, as a share of the variance at one instant.

    2 (r - 1 + exp(-r)) / r^2 with r = life / relaxation: 1 for short answers, which see the batch
    as it is, falling to 0 for long ones, which see its mean.

    References
    ----------
    Time average of a process with covariance exp(-t / relaxation); Whitt, "Planning queueing
    simulations" (1989), section 3.
    """
    share = np.empty_like(lives_s)
    for i in range(len(lives_s)):
        r = max(lives_s[i] / relaxation_s, 1e-6)
        # Below 1e-3 the difference cancels; the series 1 - r/3 is exact to 1e-7 there.
        share[i] = 1 - r / 3 if r < 1e-3 else 2 * (r - 1 + math.exp(-r)) / r**2
    return share


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
        steep = 3 * math.sqrt(alpha[i])
        shift = 1 / (9 * alpha[i]) - 1
        enough_s = given_s[i] * (FAR / steep - shift) ** 3  # holds the work for all but certain
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
                    break  # the others are larger
                below = 1.0
                if left < enough_s:
                    below = normal_cdf((np.cbrt(left / given_s[i]) + shift) * steep)
                met[i] += weight[k] * share[b] * (1 - some[i] + some[i] * below)
    return met
