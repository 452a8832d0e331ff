"""A plan when every search ran out of time, or the answer that there is none."""

from dataclasses import replace

import numpy as np

from planner.domain.plan import PlanStatus
from planner.optimize import cp_sat, scip
from planner.optimize.answer import Answer
from planner.optimize.build import build
from planner.optimize.check import check
from planner.optimize.problem import Problem
from planner.optimize.rounded_up import cost_in, rounded_up, with_dear_shortfall
from planner.optimize.second_opinion import better_of_two
from planner.optimize.solution import Solution, nothing_solves, solution_of

GRACE_S = 300.0
"""The search for any fleet at all may take so long, however short the time limit is; its work limit
comes first where a processor is free."""

_SEARCHES = ((0.5, 0.05), (10.0, 1e6))
"""Deterministic time and the gap that ends it: for a good fleet, and, if it finds none, for any."""


def last_resort(problem: Problem, *, bound: float = 0.0) -> Solution | None:
    """The relaxation rounded up, or else what a search without hurry finds.

    Parameters
    ----------
    bound : float
        What no plan can cost less than, in the unit of the objective, as far as is known.

    Returns
    -------
    Solution or None
        With its gap and checked; `infeasible` where it is proven that there is none; None where
        `GRACE_S` was not enough to know.
    """
    return rounded_up(problem, bound=bound) or _first_fleet(problem, bound)


def busiest_alone(problem: Problem) -> Answer | None:
    """The proof that nothing serves the busiest window, even without what ties it to others.

    None where something does, or that is not known. Then a search of all windows, in which the
    same proof takes a hundred times as long, would be in vain.
    """
    busiest = max(problem.window_indices, key=problem.load_rps)
    if len(problem.windows) == 1:
        return None
    alone = problem.alone(busiest)
    built = build(alone)
    search = cp_sat.solve if built.variables.count else scip.solve
    settings = replace(problem.solver, time_limit_s=max(problem.solver.time_limit_s, GRACE_S))
    found = search(built.model, built.cost, settings=settings, work=_SEARCHES[0][0])
    if built.variables.count:
        found = better_of_two(built, built.cost, found, settings=settings)
    return found if found.infeasible else None


def _first_fleet(problem: Problem, bound: float) -> Solution | None:
    if none := busiest_alone(problem):
        return nothing_solves(problem, solver_name=none.solver, wall_s=none.wall_s)
    asked = with_dear_shortfall(problem)
    built = build(asked)
    hurried = problem.solver
    search = cp_sat.solve if built.variables.count else scip.solve
    for work, gap_ratio in _SEARCHES:
        settings = replace(
            hurried, time_limit_s=max(hurried.time_limit_s, GRACE_S), gap_ratio=gap_ratio
        )
        found = search(built.model, built.cost, settings=settings, work=work)
        if found.infeasible or found.values is not None:
            break
    found = better_of_two(built, built.cost, found, settings=settings)
    if found.infeasible:
        return nothing_solves(problem, solver_name=found.solver, wall_s=found.wall_s)
    if found.values is None:
        return None
    solution = solution_of(
        problem,
        np.rint(found.values[built.variables.replicas]).astype(np.int64),
        flips=np.rint(found.values[built.variables.flips]).astype(np.int64),
        status=PlanStatus.FEASIBLE,
        solver_name=f"{found.solver}, without hurry",
        wall_s=found.wall_s,
    )
    if check(problem, solution):
        return None
    cost = cost_in(asked, built, solution)
    free = scip.relax(built.model, built.cost)
    known = max(found.bound, bound if asked is problem else 0.0, 0.0 if free is None else free.cost)
    return replace(solution, gap_ratio=max(1 - known / cost, 0.0) if cost > 0 else 0.0)
