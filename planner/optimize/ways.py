"""A router that can tell requests apart may also balance them all: both ways are planned."""

from dataclasses import replace

import numpy as np

from planner.domain.plan import PlanStatus, RejectedAlternative
from planner.domain.spec import Objective, Routing, Spec
from planner.optimize.explain import unserved_text
from planner.optimize.in_unit import beside_text, mean_sought
from planner.optimize.inputs import Floats
from planner.optimize.problem import Problem
from planner.optimize.solution import Solution, mean_usd_per_hour

_BALANCED = "all requests balanced over all pools"
_APART = "requests sent apart by `target.routes_by`"

_NOTHING = 1e-6
"""Of the demand: unserved by the solver's tolerance only."""


def balancing(spec: Spec) -> Spec | None:
    """The spec with a router that only balances; None where it is one."""
    only = Routing(balancing=spec.routing.balancing)
    return None if spec.routing == only else replace(spec, routing=only)


def per_replica(problem: Problem) -> Floats:
    """(options,) what one replica adds to what is to be least: USD/h, W or accelerators."""
    each = {
        Objective.POWER: [o.power_w for o in problem.options],
        Objective.ACCELERATORS: [float(o.shape.accelerators) for o in problem.options],
    }.get(problem.objective, [o.usd_per_hour for o in problem.options])
    return np.array(each, dtype=np.float64)


def worth(problem: Problem, solution: Solution) -> tuple[float, float, float]:
    """What is to be least: requests unserved, then what was sought, then USD over the horizon.

    Less of anything is no merit of a fleet that serves less. Where requests have a price and USD
    are to be least, what stays unserved is in the USD; where they have none and all has to be
    served, nothing does.
    """
    seconds = np.array([w.window_s for w in problem.windows])
    if problem.objective is Objective.COST and problem.shortfall_usd_per_request is not None:
        return 0.0, solution.usd, solution.usd
    unserved = float(solution.shortfall_rps @ seconds)
    if unserved <= _NOTHING * float(problem.demand_rps.sum(axis=0) @ seconds):
        unserved = 0.0
    if problem.objective in (Objective.POWER, Objective.ACCELERATORS):
        sought = float(per_replica(problem) @ solution.replicas @ seconds)
        return unserved, sought, solution.usd
    return unserved, solution.usd, solution.usd


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
    *,
    is_apart: bool,
    kept: bool,
    other: tuple[Problem, Solution],
    chosen: tuple[Problem, Solution],
) -> RejectedAlternative:
    """The other way as an alternative.

    Where one of both leaves requests unserved, what that costs is in the comparison.
    """
    name = _APART if is_apart else _BALANCED
    if not kept:
        reason = "the fleets found do not keep the objectives"
        return RejectedAlternative(name=name, reason=reason, usd_per_hour=None)
    usd = mean_usd_per_hour(other[0], other[1].replicas)
    more = usd - mean_usd_per_hour(chosen[0], chosen[1].replicas)
    left, plans = unserved_text(*other), unserved_text(*chosen)
    in_all = ""
    if left or plans:
        more = (other[1].usd - chosen[1].usd) / chosen[0].horizon_h
        in_all = (
            " in all" + (f", {left}" if left else "") + (f" (the plan {plans})" if plans else "")
        )
    compared = (
        "the same" if abs(more) < 5e-3 else f"{abs(more):.2f} {'more' if more > 0 else 'less'}"
    )
    sought, plans_sought = (mean_sought(of, made.replicas) for of, made in (other, chosen))
    first = beside_text(chosen[0].objective, sought, plans_sought)
    reason = f"{first}{usd:.2f} USD/h, {compared}{in_all}"
    return RejectedAlternative(name=name, reason=reason, usd_per_hour=usd)
