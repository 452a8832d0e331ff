"""What queueing theory says of waits, exactly; the mean work of a request is 1 s throughout.

References
----------
Erlang, "Solution of some problems in the theory of probabilities" (1917): M/M/c, and the series
for M/D/1. Pollaczek (1930), Khinchine (1932): mean wait of M/G/1. Crommelin, "Delay probability
formulae when the holding times are constant" (1932): M/D/c. Franx, "A simple solution for the
M/D/c waiting time distribution", Operations Research Letters 29 (2001). Kendall (1953): GI/M/1.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, localcontext

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import poisson

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitLaw:
    """The wait of an arrival in a stationary queue, first come first served.

    Parameters
    ----------
    mean_s : float
    exceeds : function of seconds
        P(wait > seconds).
    """

    mean_s: float
    exceeds: Callable[[float], float]

    def rare_wait(self, level: float = 0.05) -> tuple[float, float]:
        """A wait and how often it is exceeded: the 95th percentile, or 0 where fewer wait."""
        if self.exceeds(0.0) <= level:
            return 0.0, self.exceeds(0.0)
        longest = 1.0
        while self.exceeds(longest) > level:
            longest *= 2
        return float(brentq(lambda t: self.exceeds(t) - level, 0.0, longest)), level


def mmc(servers: int, load: float) -> WaitLaw:
    """M/M/c: P(wait > t) = C exp(-(c - a) t), C by the recursion for Erlang's B."""
    offered, blocked = servers * load, 1.0
    for k in range(1, servers + 1):
        blocked = offered * blocked / (k + offered * blocked)
    waits = blocked / (1 - load * (1 - blocked))
    rate = servers * (1 - load)
    return WaitLaw(mean_s=waits / rate, exceeds=lambda t: waits * math.exp(-rate * t))


def mg1_mean_s(load: float, second_moment_s2: float) -> float:
    """M/G/1, Pollaczek-Khinchine: lambda E[S^2] / (2 (1 - rho))."""
    return load * second_moment_s2 / (2 * (1 - load))


def mdc(servers: int, load: float) -> WaitLaw:
    """M/D/c: Crommelin's chain for the number present, Franx's sum for the wait.

    P(wait <= x) = sum_{j < kc} Q_{kc-1-j} Poisson(j; lambda (k - x)), k = floor(x) + 1, Q_m the
    probability that at most m wait. All terms are positive: nothing cancels.
    """
    rate = servers * load
    present = mdc_present(servers, load)
    at_most = np.cumsum(present)
    waiting = np.maximum(np.arange(len(present)) - servers, 0)

    def exceeds(x: float) -> float:
        k = math.floor(x) + 1
        j = np.arange(k * servers)
        in_line = np.minimum(servers + k * servers - 1 - j, len(present) - 1)
        return max(1.0 - float(at_most[in_line] @ poisson.pmf(j, rate * (k - x))), 0.0)

    return WaitLaw(mean_s=float(waiting @ present) / rate, exceeds=exceeds)


def mdc_present(servers: int, load: float) -> Floats:
    """(states,) number present in M/D/c, cut where less than 1e-12 is left.

    Who is in service now is gone a service time later, who came meanwhile is there:
    p_j = sum_{k <= c} p_k a_j + sum_{k > c} p_k a_{j-k+c}, a = Poisson(lambda D).
    """
    states = servers + math.ceil(20 / (1 - load))
    arrivals = poisson.pmf(np.arange(states), servers * load)
    chain = np.zeros((states, states))
    for k in range(states):
        left = max(k - servers, 0)
        chain[left:, k] = arrivals[: states - left]
    equations = chain - np.eye(states)
    equations[-1] = 1.0
    total = np.zeros(states)
    total[-1] = 1.0
    return np.asarray(np.linalg.solve(equations, total))


def md1_exceeds_by_series(load: float, seconds: float) -> float:
    """M/D/1 by Erlang's alternating series, in 60 digits because it cancels."""
    with localcontext() as context:
        context.prec = 60
        rate, t = Decimal(load), Decimal(seconds)
        total, factorial = Decimal(0), Decimal(1)
        for k in range(math.floor(seconds) + 1):
            factorial *= max(k, 1)
            behind = rate * (t - k)
            total += (-behind) ** k / factorial * behind.exp() if k or t else Decimal(1)
        return float(1 - (1 - rate) * total)


def in_turn_m1(servers: int, load: float) -> WaitLaw:
    """M/M servers taken in turn, each E_c/M/1: P(wait > t) = s exp(-(1 - s) t).

    s is the root in (0, 1) of s = A(1 - s), A the transform of the time between arrivals.
    """
    phases = servers * load
    root = float(
        brentq(lambda s: (phases / (phases + 1 - s)) ** servers - s, 0.0, 1 - 1e-9, xtol=1e-14)
    )
    return WaitLaw(mean_s=root / (1 - root), exceeds=lambda t: root * math.exp(-(1 - root) * t))
