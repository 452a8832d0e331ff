"""Waiting times of a pool of parallel servers, and the state of a shared-processor pool.

References
----------
Erlang (1917); Kingman, "The single server queue in heavy traffic" (1961): the wait in G/G/1 is
about exponential with mean (ca2 + cs2) / 2 x E[S] / (1 - rho).
Allen, *Probability, Statistics and Queueing Theory* (1990): the same factor for c servers
(Allen-Cunneen). Whitt, "Approximations for the GI/G/m queue" (1993).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc

from planner.capacity.kernels import waits_exceed

Floats = NDArray[np.float64]

HIGHEST_STATIONARY_RATIO = 0.995
"""Above this share of saturation a queue is taken to grow for the whole window (fluid)."""

_SHIFTS = (np.arange(8) + 0.5) / 8  # midpoints of a uniform backlog


def erlang_c(servers: float, offered_load: float) -> float:
    """Probability that an arrival has to wait in M/M/c.

    Parameters
    ----------
    servers : float
        Whole for servers; a link that carries 2.5 transfers at full speed counts as 2.5.
    offered_load : float
        Arrival rate x mean service time, below `servers`.

    References
    ----------
    Erlang B as a ratio of Poisson probabilities, P(N = c) / P(N <= c), then
    C = B / (1 - rho (1 - B)); Cooper, *Introduction to Queueing Theory* (1981), 3.2.
    """
    if offered_load <= 0:
        return 0.0
    log_mass = servers * math.log(offered_load) - offered_load - math.lgamma(servers + 1)
    blocked = math.exp(log_mass) / float(gammaincc(servers + 1, offered_load))
    ratio = offered_load / servers
    return min(blocked / (1.0 - ratio * (1.0 - blocked)), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A waiting time: nothing, or exponential; under overload a backlog on top.

    Parameters
    ----------
    probability : float
        Share of arrivals that wait.
    mean_s : float
        Mean wait of those that wait, seconds.
    backlog_s : float
        Under overload: the wait that has built up at the end of the window; an arrival meets a
        uniform share of it. 0 in a stable queue. Seconds.
    """

    probability: float
    mean_s: float
    backlog_s: float = 0.0

    def exceeds(self, seconds: Floats) -> Floats:
        """P(wait > seconds), element by element; 1 where `seconds` is negative."""
        return wait_sum_exceeds(self, NO_WAIT, seconds)


NO_WAIT = Wait(probability=0.0, mean_s=0.0)


def wait_sum_exceeds(first: Wait, second: Wait, seconds: Floats) -> Floats:
    """P(first + second > seconds) for two independent waits in a row.

    Of two backlogs the larger one counts: the slower stage starves the one behind it.

    References
    ----------
    Both exponential parts together: the hypoexponential distribution.
    """
    backlog_s = max(first.backlog_s, second.backlog_s)
    if backlog_s <= 0:
        return _stationary_exceeds(first, second, seconds)
    shifted = seconds[None, ...] - backlog_s * _SHIFTS.reshape(-1, *([1] * seconds.ndim))
    return np.asarray(_stationary_exceeds(first, second, shifted).mean(axis=0))


def _stationary_exceeds(first: Wait, second: Wait, seconds: Floats) -> Floats:
    flat = waits_exceed(
        first.probability, first.mean_s, second.probability, second.mean_s, seconds.ravel()
    )
    return flat.reshape(seconds.shape)


def pool_wait(
    *,
    servers: int,
    rate_rps: float,
    service_mean_s: float,
    service_cv2: float,
    arrival_cv2: float,
    window_s: float,
) -> Wait:
    """Waiting time before one of `servers` parallel servers (GI/G/c, first come first served).

    W = 0 with probability 1 - C(c, a), else exponential with mean
    (ca2 + cs2) / 2 x E[S] / (c (1 - rho)). Exact for M/M/c; the mean is exact for M/G/1
    (Pollaczek-Khinchine). Beyond saturation the queue of a window of `window_s` is added as a
    backlog of (rho / rho_max - 1) x window.

    References
    ----------
    Kingman (1961), Allen-Cunneen; see the module.
    """
    ratio = rate_rps * service_mean_s / servers
    return wait_behind(
        servers=servers,
        busy_ratio=ratio,
        in_service_s=service_mean_s,
        load_ratio=ratio,
        apart_s=service_mean_s / servers,
        spread=(arrival_cv2 + service_cv2) / 2,
        window_s=window_s,
    )


def wait_behind(
    *,
    servers: int,
    busy_ratio: float,
    in_service_s: float,
    load_ratio: float,
    apart_s: float,
    spread: float,
    window_s: float,
) -> Wait:
    """Wait for what is in service, and for those ahead in line.

    W > 0 with probability C(c, c x busy), then with mean
    spread x (in_service / c + apart x load / (1 - load)): in GI/G/c, where both ratios are rho and
    services end E[S] / c apart, that is Allen-Cunneen's formula.

    Parameters
    ----------
    busy_ratio : float
        Share of the time that a server is busy.
    in_service_s : float
        Length of what a server is busy with.
    load_ratio : float
        Arrivals as a share of what the servers can do at the most.
    apart_s : float
        Seconds between two ends of service when all are busy and the line is long.
    spread : float
        (ca2 + cs2) / 2.
    """
    busy = min(busy_ratio, HIGHEST_STATIONARY_RATIO)
    load = min(load_ratio, HIGHEST_STATIONARY_RATIO)
    return Wait(
        probability=erlang_c(servers, busy * servers),
        mean_s=spread * (in_service_s / servers + apart_s * load / (1 - load)),
        backlog_s=backlog_of(load_ratio, window_s),
    )


def backlog_of(ratio: float, window_s: float) -> float:
    """Wait that builds up over a window when the load is `ratio` of saturation, seconds."""
    return max(ratio / HIGHEST_STATIONARY_RATIO - 1.0, 0.0) * window_s
