"""Build the model of a problem, solve it, check the answer.

One window, or few, is solved as a whole: by CP-SAT where pools have tables of capacities, by SCIP
where every replica adds the same rate. Where that is not proven within its work limit, the windows
are decided one after the other, each with the next ones in view; then a few at a time are decided
anew while the others stay, as long as that helps. How far that is from the optimum is known from
`windows_bound`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from planner.domain.errors import SolverError
from planner.domain.plan import PlanStatus
from planner.optimize import cp_sat, long_horizon, scip
from planner.optimize.answer import Answer
from planner.optimize.bound import windows_bound
from planner.optimize.build import Built, build
from planner.optimize.check import check
from planner.optimize.clock import watching
from planner.optimize.inputs import Floats, Integers, Objective
from planner.optimize.known import or_known
from planner.optimize.last_resort import busiest_alone, last_resort
from planner.optimize.linear import NO_COLUMN
from planner.optimize.problem import Problem
from planner.optimize.rounded_up import cost_in, rounded_up
from planner.optimize.second_opinion import better_of_two
from planner.optimize.solution import Solution, nothing_solves, solution_of

_WINDOWS_IN_VIEW = 2
_NEIGHBOURS = (2, 3, 4, 4)
"""So many windows are decided anew together, sweep after sweep."""

_MANY_FLOWS = 5_000
"""Streams x options x windows: the whole model of more is not tried."""

_MOST_ROLLED = 30_000
"""Options x windows^2, as which the time grows: more are not decided window after window."""

_SLACK_RATIO = 1e-4
"""Of the demand: room that solvers need around a least shortfall."""

Index = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answer:
    """What one or more solver calls gave; `replicas` None: nothing found."""

    solver: str
    replicas: Integers | None
    flips: Integers
    cost: float
    bound: float
    wall_s: float
    proven: bool
    infeasible: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shortfall:
    """What has to stay unserved.

    Parameters
    ----------
    least : Mapping
        By (stream, window), requests/s.
    bound : float
        Requests/s times hours over all windows; nothing leaves less.
    proven : bool
        It is the least.
    gap_ratio : float
        Where it has a price: of the worst priority that was not decided for good.
    """

    least: Mapping[Index, float] = field(default_factory=dict)
    bound: float = 0.0
    wall_s: float = 0.0
    proven: bool = True
    gap_ratio: float = 0.0


def optimize(problem: Problem, *, patient: bool = True, known: Sequence[Solution] = ()) -> Solution:
    """The best replicas per window that satisfy every constraint.

    Where demand may stay unserved (`Problem.may_fall_short`) without a price, as little as
    possible stays unserved first, of streams of high priority before others, and the best such
    fleet is taken.

    Parameters
    ----------
    patient : bool
        Where the time limit comes before any fleet, search on for one (`last_resort`).
    known : sequence of Solution
        Fleets that may do: where the search ends before its proof, the cheapest of these and of
        what runs is taken if it costs less than what was found (`or_known`).

    Returns
    -------
    Solution
        Status `infeasible` when nothing satisfies the constraints.

    Raises
    ------
    SolverError
        When the solver found nothing within its limits, patiently even, or its answer fails the
        check.
    """
    with watching() as clock:
        answer, short = _answer(problem)
        solution = _solution(problem, answer, patient=patient, known=known)
    return replace(_with_shortfall_gap(problem, solution, short), replayable=not clock.ended_some)


def _solution(
    problem: Problem, answer: _Answer, *, patient: bool, known: Sequence[Solution]
) -> Solution:
    """The checked solution of an answer, or a last resort."""
    if answer.infeasible:
        return nothing_solves(problem, solver_name=answer.solver, wall_s=answer.wall_s)
    if answer.replicas is None:
        return _without_answer(problem, answer, patient=patient, known=known)
    solution = solution_of(
        problem,
        answer.replicas,
        flips=answer.flips,
        status=PlanStatus.OPTIMAL if answer.proven else PlanStatus.FEASIBLE,
        solver_name=answer.solver,
        gap_ratio=max(1 - answer.bound / answer.cost, 0.0) if answer.cost > 0 else 0.0,
        wall_s=answer.wall_s,
    )
    if faults := check(problem, solution):
        raise SolverError(f"{answer.solver} gave a fleet that breaks {'; '.join(faults)}")
    return or_known(problem, solution, known) or solution


def attempt(
    problem: Problem, *, patient: bool = False, known: Sequence[Solution] = ()
) -> Solution | None:
    """`optimize` for a comparison; None where nothing was found in time.

    A plan that is in hand must not be lost because what it is compared with takes too long.
    """
    try:
        return optimize(problem, patient=patient, known=known)
    except SolverError:
        return None


def _without_answer(
    problem: Problem, answer: _Answer, *, patient: bool, known: Sequence[Solution]
) -> Solution:
    """A plan where the search found none in time, with its gap."""
    find = last_resort if patient else rounded_up
    found = or_known(problem, find(problem, bound=answer.bound), known)
    if found is None:
        raise SolverError(
            f"{answer.solver} found no fleet within {problem.solver.time_limit_s:g} s: raise "
            "`loop.solver_time_limit_s` in the spec, or offer fewer shapes or windows"
        )
    return replace(found, wall_s=answer.wall_s + found.wall_s)


def _with_shortfall_gap(problem: Problem, solution: Solution, short: _Shortfall) -> Solution:
    """The solution with what may be missing of the most that can be served.

    The gap is then the larger one of both: of the cost, and of what is served.
    """
    if short.proven or not solution.feasible:
        return solution
    if problem.sheds and problem.objective is not Objective.GOODPUT:
        gap = max(solution.gap_ratio, short.gap_ratio)
        return replace(solution, status=PlanStatus.FEASIBLE, gap_ratio=min(gap, 1.0))
    hours = np.array([w.window_s for w in problem.windows]) / 3600
    reachable = float((problem.demand_rps @ hours).sum()) - short.bound
    missing = float((solution.unserved_rps @ hours).sum()) - short.bound
    gap = min(max(missing / reachable, 0.0) if reachable > 0 else 0.0, 1.0)
    return replace(
        solution,
        status=PlanStatus.FEASIBLE,
        gap_ratio=max(solution.gap_ratio, gap),
        unserved_gap_ratio=gap,
    )


def _answer(problem: Problem) -> tuple[_Answer, _Shortfall]:
    if len(problem.streams) * len(problem.options) * len(problem.windows) > _MANY_FLOWS:
        found = _long(problem)
        if found is not None:
            return found, _Shortfall()
    built = build(problem)
    short = _least_shortfall(built, problem)
    answer = _cheapest(problem, _limit_shortfall(built, short.least), short.least)
    return replace(answer, wall_s=answer.wall_s + short.wall_s), short


def _cheapest(problem: Problem, built: Built, least: Mapping[Index, float]) -> _Answer:
    """The best fleet that leaves no more than `least` unserved."""
    whole = _solve(built, problem, work=problem.solver.exact_work)
    if whole.proven or whole.infeasible or len(problem.windows) <= _WINDOWS_IN_VIEW + 1:
        return whole
    if whole.replicas is None and (none := busiest_alone(problem)):
        return replace(
            whole, solver=none.solver, infeasible=True, wall_s=whole.wall_s + none.wall_s
        )
    long = _long(problem)
    if long is not None:
        better, bound = min(long, whole, key=lambda a: a.cost), max(long.bound, whole.bound)
        return replace(better, bound=bound, wall_s=whole.wall_s + long.wall_s)
    if len(problem.options) * len(problem.windows) ** 2 > _MOST_ROLLED:
        return _without_search(problem, whole)
    rolling = _rolling(problem, least)
    best = _improved(problem, rolling if rolling.cost < whole.cost else whole, built)
    apart = windows_bound(
        built.model,
        built.variables,
        built.cost,
        settings=problem.solver,
        work=problem.solver.rolling_work,
    )
    bound = max(whole.bound, apart)
    return replace(
        best,
        bound=bound,
        wall_s=whole.wall_s + rolling.wall_s + best.wall_s,
        proven=best.cost - bound <= problem.solver.gap_ratio * best.cost,
    )


def _without_search(problem: Problem, whole: _Answer) -> _Answer:
    """What the whole model's search found, or the relaxation rounded up if that is better."""
    found = rounded_up(problem, bound=whole.bound)
    if found is None:
        return whole
    built = build(problem)
    cost = cost_in(problem, built, found)
    if cost >= whole.cost:
        return replace(whole, bound=max(whole.bound, cost * (1 - found.gap_ratio)))
    return replace(
        whole,
        solver=found.solver_name,
        replicas=found.replicas,
        flips=found.flips,
        cost=cost,
        bound=cost * (1 - found.gap_ratio),
        wall_s=whole.wall_s + found.wall_s,
    )


def _long(problem: Problem) -> _Answer | None:
    """By `long_horizon`; None where the problem is of another kind, or nothing was found."""
    found = long_horizon.decide(problem) if long_horizon.is_long(problem) else None
    if found is None:
        return None
    return _Answer(
        solver=long_horizon.NAME,
        replicas=found.replicas,
        flips=found.flips,
        cost=found.cost,
        bound=found.bound,
        wall_s=found.wall_s,
        proven=found.cost - found.bound <= problem.solver.gap_ratio * found.cost,
        infeasible=False,
    )


def _improved(problem: Problem, answer: _Answer, built: Built) -> _Answer:
    """Decide a few neighbouring windows anew while the others stay; the seconds that took.

    Sweeps over the horizon end when one has gained less than the permitted gap.
    """
    best, wall_s, windows = answer, 0.0, len(problem.windows)
    for width in _NEIGHBOURS if answer.replicas is not None else ():
        before = best.cost
        for first in range(0, windows - width + 1, max(width // 2, 1)):
            found = _decided_anew(problem, best, built, range(first, first + width))
            wall_s += found.wall_s
            if found.replicas is not None and found.cost < best.cost:
                best = found
        if before - best.cost < problem.solver.gap_ratio * best.cost:
            break
    return replace(best, wall_s=wall_s)


def _decided_anew(problem: Problem, best: _Answer, built: Built, free: range) -> _Answer:
    """The model with all windows but these as they were decided."""
    v = built.variables
    held = [t for t in problem.window_indices if t not in free]
    if best.replicas is not None:
        built = built.fixed(v.replicas[:, held], best.replicas[:, held])
        built = built.fixed(v.flips[:, held], best.flips[:, held])
    return _solve(built, problem, work=problem.solver.rolling_work)


def _least_shortfall(built: Built, problem: Problem) -> _Shortfall:
    """The least unserved demand.

    Priorities one after the other, the highest first; within one, all windows together.
    """
    short = _Shortfall()
    if problem.shortfall_usd_per_request is not None and problem.objective is not Objective.GOODPUT:
        return _worth_leaving(built, problem)
    columns = built.variables.shortfall
    for priority in sorted({s.priority for s in problem.streams}, reverse=True):
        level = [
            (k, t)
            for k, t in np.argwhere(columns != NO_COLUMN).tolist()
            if problem.streams[k].priority == priority
        ]
        if not level:
            continue
        cost = np.zeros(built.model.column_count)
        for k, t in level:
            cost[columns[k, t]] = problem.windows[t].window_s / 3600
        found = _run(built, cost, problem, work=problem.solver.exact_work)
        short = replace(
            short,
            wall_s=short.wall_s + found.wall_s,
            proven=short.proven and (found.proven or found.infeasible),
            # What is least after a level that was not decided for good says nothing of the whole.
            bound=short.bound + (max(found.bound, 0.0) if short.proven else 0.0),
        )
        if found.values is None:
            return replace(short, least={})
        here = {(k, t): float(found.values[columns[k, t]]) for k, t in level}
        short = replace(short, least={**short.least, **here})
        built = _limit_shortfall(built, short.least)
    return short


def _worth_leaving(built: Built, problem: Problem) -> _Shortfall:
    """What each priority would leave unserved at its price if lower ones were not there.

    Nothing is said of the lowest, so nothing where all have the same.
    """
    short = _Shortfall()
    columns = built.variables.shortfall
    for priority in sorted({s.priority for s in problem.streams}, reverse=True)[:-1]:
        cost = _cost_from(built, problem, priority)
        found = _run(built, cost, problem, work=problem.solver.exact_work)
        decided = found.proven or found.infeasible
        gap = 1 - found.bound / found.cost if found.values is not None and found.cost > 0 else 1.0
        short = replace(
            short,
            wall_s=short.wall_s + found.wall_s,
            proven=short.proven and decided,
            gap_ratio=short.gap_ratio if decided else max(short.gap_ratio, gap),
        )
        if found.values is None:
            return short
        here = {
            (k, t): float(found.values[columns[k, t]])
            for k, t in np.argwhere(columns != NO_COLUMN).tolist()
            if problem.streams[k].priority == priority
        }
        short = replace(short, least={**short.least, **here})
        built = _limit_shortfall(built, here)
    return short


def _cost_from(built: Built, problem: Problem, priority: int) -> Floats:
    """(columns,) the cost of models of a priority and above; whatever the others do is free."""
    v = built.variables
    streams = [k for k, s in enumerate(problem.streams) if s.priority >= priority]
    models = {problem.streams[k].model for k in streams}
    own = [o for o, option in enumerate(problem.options) if option.shape.model in models]
    flips = [f for f, flip in enumerate(problem.flips) if flip.source in own]
    kept = np.concatenate(
        [
            columns.ravel()
            for columns in (
                v.replicas[own],
                v.starts[own],
                v.stops[own],
                v.flips[flips],
                v.shortfall[streams],
            )
        ]
    )
    kept = kept[kept != NO_COLUMN]
    cost = np.zeros_like(built.cost)
    cost[kept] = built.cost[kept]
    return cost


def _limit_shortfall(built: Built, least: Mapping[Index, float]) -> Built:
    upper = np.array(built.model.upper)
    for (k, t), rate in least.items():
        column = int(built.variables.shortfall[k, t])
        room = _SLACK_RATIO * upper[column]
        upper[column] = min(upper[column], rate + (room if rate else 0.0))
    return replace(built, model=replace(built.model, upper=upper))


def _rolling(problem: Problem, least: Mapping[Index, float]) -> _Answer:
    """Decide window after window, the next `_WINDOWS_IN_VIEW` in view, earlier ones fixed."""
    replicas = np.zeros((len(problem.options), len(problem.windows)), dtype=np.int64)
    flips = np.zeros((len(problem.flips), len(problem.windows)), dtype=np.int64)
    wall_s, answer = 0.0, None
    for t in problem.window_indices:
        end = min(t + 1 + _WINDOWS_IN_VIEW, len(problem.windows))
        built = build(problem.between(0, end))
        built = _limit_shortfall(built, {(k, s): n for (k, s), n in least.items() if s < end})
        built = built.fixed(built.variables.replicas[:, :t], replicas[:, :t])
        built = built.fixed(built.variables.flips[:, :t], flips[:, :t])
        answer = _solve(built, problem, work=problem.solver.rolling_work)
        wall_s += answer.wall_s
        if answer.replicas is None:
            break
        replicas[:, t:end], flips[:, t:end] = answer.replicas[:, t:end], answer.flips[:, t:end]
        if end == len(problem.windows) and answer.proven:
            break
    found = answer is not None and answer.replicas is not None
    return _Answer(
        solver=answer.solver if answer is not None else cp_sat.NAME,
        replicas=replicas if found else None,
        flips=flips,
        cost=answer.cost if answer is not None and found else math.inf,
        bound=0.0,
        wall_s=wall_s,
        proven=False,
        infeasible=False,
    )


def _solve(built: Built, problem: Problem, *, work: float) -> _Answer:
    found = _run(built, built.cost, problem, work=work)
    variables, values = built.variables, found.values

    def whole(columns: Integers) -> Integers:
        if values is None:
            return np.zeros(columns.shape, dtype=np.int64)
        return np.rint(values[columns]).astype(np.int64)

    return _Answer(
        solver=found.solver,
        replicas=None if values is None else whole(variables.replicas),
        flips=whole(variables.flips),
        cost=found.cost,
        bound=found.bound,
        wall_s=found.wall_s,
        proven=found.proven,
        infeasible=found.infeasible,
    )


def _run(built: Built, cost: Floats, problem: Problem, *, work: float) -> Answer:
    """The solver that is faster at such models, by `benchmarks/bench_optimizer.py`."""
    if not built.variables.count:
        return scip.solve(built.model, cost, settings=problem.solver, work=work)
    claimed = cp_sat.solve(built.model, cost, settings=problem.solver, work=work)
    return better_of_two(built, cost, claimed, settings=problem.solver)
