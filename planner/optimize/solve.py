"""Build the CP-SAT model of a problem, solve it, check the answer.

One window, or few, is solved as a whole. Where that is not proven within its work limit, the
windows are decided one after the other, each with the next ones in view, and the sum of the
windows' own optima (no start or stop paid) bounds how far that is from the optimum.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from ortools.sat.python import cp_model

from planner.domain.errors import SolverError
from planner.domain.plan import PlanStatus
from planner.optimize.check import check
from planner.optimize.constraints import CONSTRAINTS
from planner.optimize.objective import cost_expression
from planner.optimize.problem import Integers, Problem
from planner.optimize.solution import Solution, nothing_solves, solution_of
from planner.optimize.variables import USD_UNIT, Variables, add_variables

SOLVER_NAME = "ortools/cp-sat"
"""Chosen by measurement, see `benchmarks/bench_optimizer.py`."""

_WINDOWS_IN_VIEW = 2
_SOLVED = (cp_model.OPTIMAL, cp_model.FEASIBLE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Built:
    """A model with its variables."""

    model: cp_model.CpModel
    variables: Variables


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Answer:
    """What one or more solver calls gave; `replicas` None: nothing found."""

    replicas: Integers | None
    usd: float
    bound_usd: float
    wall_s: float
    proven: bool
    infeasible: bool
    replayable: bool


def build(problem: Problem) -> Built:
    """The whole model: variables, every constraint of `CONSTRAINTS`, the cost to minimize."""
    model = cp_model.CpModel()
    variables = add_variables(model, problem)
    for add in CONSTRAINTS:
        add(model, problem, variables)
    model.minimize(cost_expression(problem, variables))
    return Built(model=model, variables=variables)


def optimize(problem: Problem) -> Solution:
    """The cheapest replicas per window that satisfy every constraint.

    Where demand may stay unserved (`Problem.may_fall_short`), as little as possible stays
    unserved first, and the cheapest such fleet is taken.

    Returns
    -------
    Solution
        Status `infeasible` when nothing satisfies the constraints.

    Raises
    ------
    SolverError
        When the solver found nothing within its limits, or its answer fails the check.
    """
    answer = _answer(problem)
    if answer.infeasible:
        return nothing_solves(problem, solver_name=SOLVER_NAME, wall_s=answer.wall_s)
    if answer.replicas is None:
        raise SolverError(
            f"{SOLVER_NAME} found no fleet within {problem.solver.time_limit_s:g} s: raise "
            "`loop.solver_time_limit_s` in the spec, or offer fewer shapes or windows"
        )
    solution = solution_of(
        problem,
        answer.replicas,
        status=PlanStatus.OPTIMAL if answer.proven else PlanStatus.FEASIBLE,
        solver_name=SOLVER_NAME,
        gap_ratio=max(1 - answer.bound_usd / answer.usd, 0.0) if answer.usd > 0 else 0.0,
        wall_s=answer.wall_s,
        replayable=answer.replayable,
    )
    if faults := check(problem, solution):
        raise SolverError(f"{SOLVER_NAME} gave a fleet that breaks {'; '.join(faults)}")
    return solution


def _answer(problem: Problem) -> _Answer:
    built, wall_s = build(problem), 0.0
    least: Mapping[int, int] = {}
    if any(problem.may_fall_short(t) for t in problem.window_indices):
        least, wall_s = _least_shortfall(problem)
        _limit_shortfall(built, least)
    whole = _solve(built, problem, work=problem.solver.exact_work)
    whole = replace(whole, wall_s=whole.wall_s + wall_s)
    if whole.proven or whole.infeasible or len(problem.windows) <= _WINDOWS_IN_VIEW + 1:
        return whole
    rolling = _rolling(problem, least)
    bound_usd = max(whole.bound_usd, _sum_of_windows_usd(problem, least))
    best = rolling if rolling.usd < whole.usd else whole
    return replace(
        best,
        bound_usd=bound_usd,
        wall_s=whole.wall_s + rolling.wall_s,
        proven=best.usd - bound_usd <= problem.solver.gap_ratio * best.usd,
        replayable=whole.replayable and rolling.replayable,
    )


def _least_shortfall(problem: Problem) -> tuple[dict[int, int], float]:
    """The least unserved demand per window, units, all windows together; the solver's seconds."""
    built = build(problem)
    built.model.minimize(sum(built.variables.shortfall))
    solver, status = _run(built.model, problem, work=problem.solver.exact_work)
    if status not in _SOLVED:
        return {}, solver.wall_time
    values = {t: solver.value(x) for t, x in enumerate(built.variables.shortfall)}
    return values, solver.wall_time


def _limit_shortfall(built: Built, least: Mapping[int, int]) -> None:
    for t, variable in enumerate(built.variables.shortfall):
        if t in least:
            built.model.add(variable <= least[t])


def _rolling(problem: Problem, least: Mapping[int, int]) -> _Answer:
    """Decide window after window, the next `_WINDOWS_IN_VIEW` in view, earlier ones fixed."""
    replicas = np.zeros((len(problem.options), len(problem.windows)), dtype=np.int64)
    wall_s, replayable, answer = 0.0, True, None
    for t in problem.window_indices:
        end = min(t + 1 + _WINDOWS_IN_VIEW, len(problem.windows))
        built = build(_first_windows(problem, end))
        _limit_shortfall(built, {s: n for s, n in least.items() if s < end})
        for (o, s), variable in built.variables.replicas.items():
            if s < t:
                built.model.add(variable == int(replicas[o, s]))
        answer = _solve(built, problem, work=problem.solver.rolling_work)
        wall_s, replayable = wall_s + answer.wall_s, replayable and answer.replayable
        if answer.replicas is None:
            break
        replicas[:, t:end] = answer.replicas[:, t:end]
        if end == len(problem.windows) and answer.proven:
            break
    found = answer is not None and answer.replicas is not None
    return _Answer(
        replicas=replicas if found else None,
        usd=answer.usd if answer is not None and found else float("inf"),
        bound_usd=0.0,
        wall_s=wall_s,
        proven=False,
        infeasible=False,
        replayable=replayable,
    )


def _sum_of_windows_usd(problem: Problem, least: Mapping[int, int]) -> float:
    """A lower bound: every window alone, free of starts and stops."""
    total = 0.0
    for t in problem.window_indices:
        alone = replace(problem.alone(t), best_effort=problem.may_fall_short(t))
        built = build(alone)
        _limit_shortfall(built, {0: least[t]} if t in least else {})
        answer = _solve(built, problem, work=problem.solver.rolling_work)
        total += max(answer.bound_usd, 0.0)
    return total


def _first_windows(problem: Problem, end: int) -> Problem:
    return replace(problem, windows=problem.windows[:end])


def _solve(built: Built, problem: Problem, *, work: float) -> _Answer:
    solver, status = _run(built.model, problem, work=work)
    replicas = None
    if status in _SOLVED:
        windows = 1 + max(t for _, t in built.variables.replicas)
        replicas = np.zeros((len(problem.options), windows), dtype=np.int64)
        for index, variable in built.variables.replicas.items():
            replicas[index] = solver.value(variable)
    return _Answer(
        replicas=replicas,
        usd=solver.objective_value * USD_UNIT if replicas is not None else float("inf"),
        bound_usd=solver.best_objective_bound * USD_UNIT,
        wall_s=solver.wall_time,
        proven=status == cp_model.OPTIMAL,
        infeasible=status == cp_model.INFEASIBLE,
        replayable=status == cp_model.OPTIMAL or solver.wall_time < problem.solver.time_limit_s,
    )


def _run(
    model: cp_model.CpModel, problem: Problem, *, work: float
) -> tuple[cp_model.CpSolver, cp_model.CpSolverStatus]:
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = problem.solver.seed
    solver.parameters.relative_gap_limit = problem.solver.gap_ratio
    solver.parameters.max_deterministic_time = work
    solver.parameters.max_time_in_seconds = problem.solver.time_limit_s
    solver.parameters.linearization_level = 2
    return solver, solver.solve(model)
