"""The optimizer's answer."""

from dataclasses import dataclass

import numpy as np

from planner.domain.fleet import Role
from planner.domain.plan import CostTerm, PlanStatus
from planner.optimize.objective import costs
from planner.optimize.problem import Floats, Integers, Problem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solution:
    """Replicas per option and window, and what follows from them.

    Parameters
    ----------
    replicas : (options, windows) int
        Replicas to have: ready, or ordered and starting.
    usable : (options, windows) int
        Those that serve in the window.
    served_rps : (options, windows) float
        Requests/s sent to each pool: within a role, and between the disaggregated and the
        aggregated path, in proportion to what they sustain.
    shortfall_rps : (windows,) float
        Demand that the capacity does not cover.
    terms : tuple of CostTerm
        USD over the horizon.
    wall_s : float
        As the solver measured it.
    replayable : bool
        False when the time limit ended the search: another run may end elsewhere.
    """

    status: PlanStatus
    replicas: Integers
    usable: Integers
    served_rps: Floats
    shortfall_rps: Floats
    terms: tuple[CostTerm, ...]
    solver_name: str
    gap_ratio: float
    wall_s: float
    replayable: bool

    @property
    def feasible(self) -> bool:
        """Whether there is a plan at all."""
        return self.status is not PlanStatus.INFEASIBLE

    @property
    def usd(self) -> float:
        """All money terms over the horizon."""
        return sum(term.usd for term in self.terms)


def solution_of(
    problem: Problem,
    replicas: Integers,
    *,
    status: PlanStatus,
    solver_name: str,
    gap_ratio: float = 0.0,
    wall_s: float = 0.0,
    replayable: bool = True,
) -> Solution:
    """The solution that follows from the replicas alone, whatever the solver's other values."""
    usable = problem.usable(replicas)
    served = np.zeros(replicas.shape)
    shortfall = np.zeros(len(problem.windows))
    for t, window in enumerate(problem.windows):
        total = problem.serves_rps(usable, t)
        sent = min(window.demand_rps, total)
        shortfall[t] = window.demand_rps - sent
        if sent > 0:
            served[:, t] = _split(problem, usable, t, sent_ratio=sent / total)
    return Solution(
        status=status,
        replicas=replicas,
        usable=usable,
        served_rps=served,
        shortfall_rps=shortfall,
        terms=costs(problem, replicas),
        solver_name=solver_name,
        gap_ratio=gap_ratio,
        wall_s=wall_s,
        replayable=replayable,
    )


def nothing_solves(problem: Problem, *, solver_name: str, wall_s: float) -> Solution:
    """The answer when no fleet satisfies every constraint."""
    empty = np.zeros((len(problem.options), len(problem.windows)), dtype=np.int64)
    return solution_of(
        problem, empty, status=PlanStatus.INFEASIBLE, solver_name=solver_name, wall_s=wall_s
    )


def usd_per_hour(problem: Problem, replicas: Integers, t: int) -> float:
    """What the replicas of window `t` cost, USD/h."""
    return float(np.array([o.usd_per_hour for o in problem.options]) @ replicas[:, t])


def mean_usd_per_hour(problem: Problem, replicas: Integers) -> float:
    """Mean over the horizon, weighted by window length, USD/h."""
    lengths = np.array([w.window_s for w in problem.windows])
    hourly = np.array([usd_per_hour(problem, replicas, t) for t in problem.window_indices])
    return float(hourly @ lengths / lengths.sum())


def _split(problem: Problem, usable: Integers, t: int, *, sent_ratio: float) -> Floats:
    """(options,) requests/s per pool when every path takes the same share of its capacity."""
    rates = np.array(
        [problem.capacity[o, t].at(int(usable[o, t])) for o in problem.option_indices], dtype=float
    )
    through = min(problem.role_rps(r, usable, t) for r in (Role.PREFILL, Role.DECODE))
    for role in (Role.PREFILL, Role.DECODE):
        options = list(problem.in_role(role))
        total = float(rates[options].sum())
        if total > 0:
            rates[options] *= through / total
    return np.asarray(rates * sent_ratio, dtype=np.float64)
