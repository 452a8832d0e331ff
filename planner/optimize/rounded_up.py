"""A plan when every search ran out of time: the relaxation, rounded up.

Where pools have tables, fractions of a large pool look better than the few replicas they become;
then the demand is raised until what is rounded up serves the real one.
"""

from dataclasses import replace

import numpy as np

from planner.domain.plan import PlanStatus
from planner.optimize import scip
from planner.optimize.build import Built, build
from planner.optimize.check import check
from planner.optimize.inputs import Objective
from planner.optimize.linear import NO_COLUMN
from planner.optimize.objective import changes
from planner.optimize.problem import Problem
from planner.optimize.solution import Solution, solution_of

NAME = "ortools/glop, rounded up"

_RAISED = (1.0, 1.2, 1.5, 2.0, 3.0)
_LOWERED = (0.9, 0.75, 0.5, 0.25, 0.1, 0.05)
"""Where demand may stay unserved and what is rounded up is more than there is: for less of it."""

_WHOLE = 1e-7

_DEAR_USD = 1e3
"""Of an unserved request where as few as possible shall be unserved: more than any replica is."""


def rounded_up(problem: Problem, *, bound: float = 0.0) -> Solution | None:
    """A plan that passes `check`, with its gap; None where none is found.

    No replica changes its role in it.

    Parameters
    ----------
    bound : float
        What no plan can cost less than, in the unit of the objective, as far as is known.
    """
    if with_dear_shortfall(problem) is not problem:
        return _serving_most(problem)
    whole = build(problem)
    free = scip.relax(whole.model, whole.cost)
    bound = bound if free is None else max(bound, free.cost)
    for factor in (*_RAISED, *_LOWERED) if problem.sheds else _RAISED:
        built = build(replace(problem, demand_rps=problem.demand_rps * factor))
        flips = built.variables.flips
        found = scip.relax(built.model.fixed(flips, np.zeros(flips.shape)), built.cost)
        if found is None:
            return None
        replicas = np.ceil(found.values[built.variables.replicas] - _WHOLE).astype(np.int64)
        solution = solution_of(
            problem, replicas, status=PlanStatus.FEASIBLE, solver_name=NAME, wall_s=found.wall_s
        )
        if not check(problem, solution):
            cost = cost_in(problem, whole, solution)
            return replace(solution, gap_ratio=max(1 - bound / cost, 0.0) if cost > 0 else 0.0)
    return None


def with_dear_shortfall(problem: Problem) -> Problem:
    """The problem; where as little as possible shall stay unserved, with a high price for it."""
    if problem.objective is Objective.GOODPUT or (problem.best_effort and not problem.sheds):
        return replace(problem, objective=Objective.COST, shortfall_usd_per_request=_DEAR_USD)
    return problem


def _serving_most(problem: Problem) -> Solution | None:
    """The same where as little as possible shall stay unserved."""
    found = rounded_up(with_dear_shortfall(problem))
    if found is None:
        return None
    solution = solution_of(
        problem,
        found.replicas,
        status=PlanStatus.FEASIBLE,
        solver_name=NAME,
        gap_ratio=found.gap_ratio,
        wall_s=found.wall_s,
    )
    return None if check(problem, solution) else solution


def gap_to_relaxation(problem: Problem, solution: Solution) -> Solution:
    """The solution with a gap to what no plan of the problem is better than, in fractions even.

    With goodput as the objective: to all of the demand.
    """
    built = build(problem)
    free, cost = scip.relax(built.model, built.cost), cost_in(problem, built, solution)
    gap = 1 - (0.0 if free is None else free.cost) / cost if cost > 0 else 0.0
    if problem.objective is Objective.GOODPUT:
        demand = max(float(problem.demand_rps.sum()), 1e-12)
        gap = max(gap, float(solution.unserved_rps.sum()) / demand)
    return replace(solution, gap_ratio=max(solution.gap_ratio, gap))


def cost_in(problem: Problem, built: Built, solution: Solution) -> float:
    """What a solution costs in the unit of the objective."""
    v, x = built.variables, np.zeros(built.model.column_count)
    x[v.replicas] = solution.replicas
    x[v.starts], x[v.stops] = changes(problem, solution.replicas, solution.flips)
    short = v.shortfall != NO_COLUMN
    x[v.shortfall[short]] = solution.unserved_rps[short]
    return float(built.cost @ x)
