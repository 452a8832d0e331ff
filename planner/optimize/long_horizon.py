"""Many windows, streams and options at once: relaxation by cuts, then whole replicas near it.

For problems in which every replica of a pool adds the same rate: the relaxation says how many
there are of what and when (`guide.py`), whole replicas are found near it (`rounding.py`), and what
a plan can cost at least is known from the relaxation's prices.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from planner.domain.wanted import same_work
from planner.optimize import scip
from planner.optimize.build import build
from planner.optimize.clock import same_watch
from planner.optimize.guide import guide_of
from planner.optimize.horizon import Horizon
from planner.optimize.inputs import Integers, Objective
from planner.optimize.problem import Problem
from planner.optimize.rounding import rounded

NAME = f"{scip.NAME}+glop"

_LEAST_WINDOWS = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LongAnswer:
    """A plan, what it costs, and what any plan costs at least, in the unit of the objective.

    Parameters
    ----------
    replicas : (options, windows) int
    flips : (flips, windows) int
    """

    replicas: Integers
    flips: Integers
    cost: float
    bound: float
    wall_s: float


def is_long(problem: Problem) -> bool:
    """Whether this is a problem of the kind, and of more windows than are solved as a whole."""
    return len(problem.windows) >= _LEAST_WINDOWS and can_be_relaxed(problem)


def can_be_relaxed(problem: Problem) -> bool:
    """Whether all pools are linear, sizes divide and windows can stand alone."""
    return (
        all(kinds is None for kinds in problem.filled.values())
        and all(pool.is_linear for pool in problem.capacity.values())
        and not problem.one_shape_per_role
        and not problem.link_pairs
        and not _falls_short_unpriced(problem)
    )


def decide(problem: Problem) -> LongAnswer | None:
    """A plan of a long horizon; None where the search finds none (there may be one)."""
    h = Horizon(problem, build(problem, flows=False))
    if not h.windows.apart:
        return None
    watch, work = same_watch(), same_work()
    with ThreadPoolExecutor(problem.solver.threads, initializer=lambda: (watch(), work())) as pool:
        try:
            guide = guide_of(h, pool)
            plan = None if guide is None else rounded(h, guide, pool)
        except ArithmeticError:  # a flow program too imprecise to solve
            return None
    if guide is None or plan is None:
        return None
    return LongAnswer(
        replicas=np.rint(plan.x[h.v.replicas]).astype(np.int64),
        flips=np.rint(plan.x[h.v.flips]).astype(np.int64),
        cost=plan.cost,
        bound=guide.bound,
        wall_s=guide.wall_s + plan.wall_s,
    )


def _falls_short_unpriced(problem: Problem) -> bool:
    """Whether demand may stay unserved without a price: that is decided before all else."""
    priced = problem.shortfall_usd_per_request is not None
    if priced and problem.objective is not Objective.GOODPUT:
        return False
    return any(
        problem.may_fall_short(k, t) for k in problem.stream_indices for t in problem.window_indices
    )
