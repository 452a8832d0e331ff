"""A fleet that is known to do, where a search ended before it found a better one."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from planner.domain.plan import PlanStatus
from planner.optimize.build import build
from planner.optimize.check import check
from planner.optimize.problem import Problem
from planner.optimize.rounded_up import cost_in
from planner.optimize.solution import Solution, solution_of

_NEAR = 1e-6
_WHAT_RUNS, _EARLIER = "the fleet that runs", "a fleet proposed earlier"


def or_known(
    problem: Problem, found: Solution | None, known: Sequence[Solution] = ()
) -> Solution | None:
    """What was found, or a known fleet that keeps every constraint and costs less.

    What is proven to be best, or that nothing is, stands.

    Parameters
    ----------
    found : Solution or None
        None: nothing was found in time.
    known : sequence of Solution
        Of the same options and windows, for other capacities maybe; the fleet that runs is known
        anyway.
    """
    if found is not None and found.status is not PlanStatus.FEASIBLE:
        return found
    candidates = [one for one in _candidates(problem, known) if not check(problem, one)]
    if not candidates:
        return found
    built = build(problem)
    most = np.inf if found is None else float(found.shortfall_rps.sum()) + _NEAR
    priced = problem.shortfall_usd_per_request is not None
    able = [one for one in candidates if priced or float(one.shortfall_rps.sum()) <= most]
    best = min(able, key=lambda one: cost_in(problem, built, one), default=None)
    if best is None:
        return found
    if found is None:
        return replace(best, gap_ratio=1.0)
    before, cost = (cost_in(problem, built, one) for one in (found, best))
    if cost >= before * (1 - _NEAR):
        return found
    bound = before * (1 - found.gap_ratio)
    gap = max(1 - bound / cost, 0.0) if cost > 0 else 0.0
    return replace(best, gap_ratio=gap, wall_s=found.wall_s)


def _candidates(problem: Problem, known: Sequence[Solution]) -> list[Solution]:
    shape = (len(problem.options), len(problem.windows))
    earlier = [
        solution_of(
            problem,
            one.replicas,
            flips=one.flips,
            status=PlanStatus.FEASIBLE,
            solver_name=_EARLIER,
        )
        for one in known
        if one.feasible and one.replicas.shape == shape
    ]
    if not problem.has_fleet:
        return earlier
    runs = np.array([[o.initial_replicas] * shape[1] for o in problem.options], dtype=np.int64)
    held = solution_of(problem, runs, status=PlanStatus.FEASIBLE, solver_name=_WHAT_RUNS)
    return [held, *earlier]
