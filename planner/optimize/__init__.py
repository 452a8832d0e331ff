"""The OR-Tools model that picks the cheapest fleet, and the loop that proves it in the twin."""

from planner.optimize.check import check
from planner.optimize.coefficients import build_problem
from planner.optimize.demand_level import with_demand_level
from planner.optimize.pareto import ParetoPoint, frontier
from planner.optimize.problem import Problem
from planner.optimize.prove import plan
from planner.optimize.solution import Solution
from planner.optimize.solve import optimize
from planner.optimize.together import plan_together

__all__ = [
    "ParetoPoint",
    "Problem",
    "Solution",
    "build_problem",
    "check",
    "frontier",
    "optimize",
    "plan",
    "plan_together",
    "with_demand_level",
]
