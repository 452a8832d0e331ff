"""A plan when every search ran out of time: the relaxation, rounded up.

Where pools have tables, fractions of a large pool look better than the few replicas they become;
then the demand is raised until what is rounded up serves the real one.
"""

from dataclasses import replace

import numpy as np

from planner.domain.plan import PlanStatus
from planner.optimize import scip
from planner.optimize.build import build
from planner.optimize.check import check
from planner.optimize.problem import Problem
from planner.optimize.solution import Solution, solution_of

NAME = "ortools/glop, rounded up"

_RAISED = (1.0, 1.2, 1.5, 2.0, 3.0)
_WHOLE = 1e-7


def rounded_up(problem: Problem) -> tuple[Solution, float] | None:
    """A plan that passes `check`, and what no plan can cost less than; None where none is found.

    No replica changes its role in it. The bound is in the unit of the objective.
    """
    bound = 0.0
    for factor in _RAISED:
        raised = replace(problem, demand_rps=problem.demand_rps * factor)
        built = build(raised)
        still = built.fixed(built.variables.flips, np.zeros(built.variables.flips.shape))
        if factor == 1.0:
            free = scip.relax(built.model, built.cost)
            bound = free.cost if free is not None else 0.0
        found = scip.relax(still.model, still.cost)
        if found is None:
            return None
        replicas = np.ceil(found.values[built.variables.replicas] - _WHOLE).astype(np.int64)
        solution = solution_of(
            problem, replicas, status=PlanStatus.FEASIBLE, solver_name=NAME, wall_s=found.wall_s
        )
        if not check(problem, solution):
            return solution, bound
    return None
