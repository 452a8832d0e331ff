"""What to keep where requests may stay unserved and the twin confirms no fleet that serves them.

Discounts make serving dearer, so a proposal after some of them may serve next to nothing. Nobody is
late then and the twin has nothing to refute, and yet it is the worst answer there is.
"""

from collections.abc import Sequence

import numpy as np

from planner.domain.plan import ClassAttainment
from planner.domain.spec import Objective
from planner.optimize.inputs import Floats
from planner.optimize.problem import Problem
from planner.optimize.proposal import Round
from planner.optimize.solution import Solution, nothing_solves
from planner.optimize.ways import worth

_LEAST_RATIO = 0.5
"""An unconfirmed fleet has to serve so much of what it takes in time, and the confirmed one less
than so much of that, for the unconfirmed one to be kept."""


def best_unconfirmed(rounds: Sequence[Round]) -> int | None:
    """Which of the proposals to keep, though the twin does not confirm it; None: the last stands.

    One that serves at least twice as much in time as the last one if that holds, and as nothing
    if it does not, and costs less in all its terms, with requests that are late at the price of
    those unserved. Of several the cheapest of those that the twin does not refute, else the one
    that misses least.
    """
    last = rounds[-1]
    if last.exhausted or not last.problem.sheds:
        return None
    if last.holds:
        in_time, cost = _in_time(last), _cost_in_all(last)
    else:
        nothing = nothing_solves(last.problem, solver_name="", wall_s=0.0)
        in_time, cost = 0.0, _with_late(last.problem, nothing, late=0.0)
    others = [
        (not_kept(r), _cost_in_all(r), i)
        for i, r in enumerate(rounds)
        if r.replays
        and not (r.exhausted or r.holds)
        and _in_time(r) >= _LEAST_RATIO * (_in_time(r) + _late(r))
        and in_time < _LEAST_RATIO * _in_time(r)
        and _cost_in_all(r) < cost
    ]
    return min(others)[-1] if others else None


def not_kept(proposal: Round) -> float:
    """By how much attainment is below its target at the worst, by all that the twin can tell.

    0 where the target lies within the interval or below it: then the twin doubts the promise, and
    does not refute it.
    """
    seen = (c for r in proposal.replays for c in r.prediction.classes)
    return max((0.0, *(c.target_ratio - _highest(c) for c in seen)))


def _highest(seen: ClassAttainment) -> float:
    return seen.attainment_ratio if seen.high_ratio is None else seen.high_ratio


def costs_less(other: Round, now: Round) -> bool:
    """Whether a proposal costs less than another, with requests that are late as if unserved."""
    return _cost_in_all(other) < _cost_in_all(now)


def _seconds(problem: Problem) -> Floats:
    return np.array([w.window_s for w in problem.windows], dtype=np.float64)


def _late(proposal: Round) -> float:
    """Requests that are served late in the windows that were replayed."""
    problem, solution = proposal.problem, proposal.solution
    seconds = _seconds(problem)
    return float(
        sum(
            (1 - (r.prediction.attainment_ratio or 0.0))
            * (problem.load_rps(r.window) - solution.shortfall_rps[r.window])
            * seconds[r.window]
            for r in proposal.replays
        )
    )


def _in_time(proposal: Round) -> float:
    """Requests that are served in time, as far as the twin was asked."""
    problem = proposal.problem
    served = problem.demand_rps.sum(axis=0) - proposal.solution.shortfall_rps
    return float(served @ _seconds(problem)) - _late(proposal)


def _cost_in_all(proposal: Round) -> tuple[float, ...]:
    return _with_late(proposal.problem, proposal.solution, late=_late(proposal))


def _with_late(problem: Problem, solution: Solution, *, late: float) -> tuple[float, ...]:
    """What is to be least (`worth`), with requests that are late as if they were unserved."""
    unserved, sought, usd = worth(problem, solution)
    price = problem.shortfall_usd_per_request
    if problem.objective is Objective.COST and price is not None:
        return unserved, sought + price * late, usd
    return unserved + late, sought, usd
