"""A router that can tell requests apart may also balance them all: both ways are planned."""

from dataclasses import replace

import numpy as np

from planner.domain.plan import PlanStatus, RejectedAlternative
from planner.domain.spec import Objective, Routing, Spec
from planner.optimize.problem import Problem
from planner.optimize.solution import Solution, mean_usd_per_hour

_BALANCED = "all requests balanced over all pools"
_APART = "requests sent apart by `target.routes_by`"


def balancing(spec: Spec) -> Spec | None:
    """The spec with a router that only balances; None where it is one."""
    return None if spec.routing == Routing() else replace(spec, routing=Routing())


def worth(problem: Problem, solution: Solution) -> tuple[float, float]:
    """What is to be least: by the objective, then USD over the horizon."""
    seconds = np.array([w.window_s for w in problem.windows])
    each = {
        Objective.POWER: [o.power_w for o in problem.options],
        Objective.ACCELERATORS: [o.shape.accelerators for o in problem.options],
    }.get(problem.objective)
    if problem.objective is Objective.GOODPUT:
        return float(solution.shortfall_rps @ seconds), solution.usd
    if each is not None:
        return float(np.array(each) @ solution.replicas @ seconds), solution.usd
    return solution.usd, solution.usd


def beside(chosen: Solution, problem: Problem, bounds_usd: list[float]) -> Solution:
    """The solution with a gap to what either way could cost at the least.

    Parameters
    ----------
    bounds_usd : list of float
        Lower bound of each way, USD over the horizon.
    """
    if problem.objective is not Objective.COST or chosen.usd <= 0 or not bounds_usd:
        return chosen
    gap = max(chosen.gap_ratio, 1 - min(bounds_usd) / chosen.usd)
    proven = gap <= max(chosen.gap_ratio, problem.solver.gap_ratio)
    status = chosen.status if proven else PlanStatus.FEASIBLE
    return replace(chosen, gap_ratio=gap, status=status)


def not_chosen(
    *, is_apart: bool, problem: Problem, solution: Solution, kept: bool, usd_per_hour: float
) -> RejectedAlternative:
    """The other way as an alternative.

    Parameters
    ----------
    usd_per_hour : float
        Of the way that was chosen, USD/h.
    """
    name = _APART if is_apart else _BALANCED
    if not kept:
        reason = "the fleets found do not keep the objectives"
        return RejectedAlternative(name=name, reason=reason, usd_per_hour=None)
    usd = mean_usd_per_hour(problem, solution.replicas)
    more = usd - usd_per_hour
    compared = (
        "the same" if abs(more) < 5e-3 else f"{abs(more):.2f} {'more' if more > 0 else 'less'}"
    )
    return RejectedAlternative(name=name, reason=f"{usd:.2f} USD/h, {compared}", usd_per_hour=usd)
