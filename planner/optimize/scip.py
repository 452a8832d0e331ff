"""A linear model as SCIP takes it, and its relaxation as GLOP takes it: real coefficients.

Both through OR-Tools' model builder, which takes arrays as they are.
"""

import math
from dataclasses import dataclass

import numpy as np
from ortools.linear_solver.python import model_builder_helper as ortools
from scipy.sparse import csr_matrix

from planner.domain.wanted import go_on
from planner.optimize.answer import Answer
from planner.optimize.clock import report
from planner.optimize.inputs import SolverSettings
from planner.optimize.linear import Floats, Linear

NAME = "ortools/scip"

_NODES_PER_WORK = 20_000
"""Nodes that count as one unit of deterministic time; a second has fewer."""

_GLOP_ATTEMPTS = ("", "use_dual_simplex: true", "use_preprocessing: false")
"""The next one where numbers came out too imprecise."""

_NEARLY = 0.8
"""SCIP may stop a little before its time limit; so late it is taken to be what ended it."""

_TOLERANCE = 1e-9
"""Relative violation of a row that passes; far below what `check` lets pass."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relaxed:
    """The optimum when replicas may come in fractions.

    Parameters
    ----------
    values : (columns,) float
    duals : (rows,) float
        By how much the cost changes when a row's bound does.
    """

    values: Floats
    duals: Floats
    cost: float
    wall_s: float


def solve(model: Linear, cost: Floats, *, settings: SolverSettings, work: float) -> Answer:
    """Minimize the cost of the columns; nothing is rounded.

    A search that is under way ends at its limits only: SCIP does not heed `interrupt_solve` here.

    Parameters
    ----------
    cost : (columns,) float
    work : float
        Deterministic time (about seconds), as a limit on nodes; equal inputs end at equal answers
        unless the time limit comes first.
    """
    go_on()
    builder = _filled(model, cost)
    for column in np.flatnonzero(~model.is_rate).tolist():
        builder.set_var_integrality(column, True)
    solver = ortools.ModelSolverHelper("SCIP")
    nodes = max(int(work * _NODES_PER_WORK), 1)
    solver.set_solver_specific_parameters(
        f"limits/gap = {settings.gap_ratio!r}\nlimits/nodes = {nodes}\n"
        f"randomization/randomseedshift = {settings.seed}\nnumerics/feastol = {_TOLERANCE!r}"
    )
    solver.set_time_limit_in_seconds(settings.time_limit_s)
    solver.solve(builder)
    status, wall_s = solver.status(), solver.wall_time()
    proven = status == ortools.SolveStatus.OPTIMAL
    infeasible = status == ortools.SolveStatus.INFEASIBLE
    found = solver.has_solution()
    timed_out = not (proven or infeasible) and wall_s >= _NEARLY * settings.time_limit_s
    report(timed_out=timed_out)
    return Answer(
        solver=NAME,
        values=np.array(solver.variable_values()) if found else None,
        cost=solver.objective_value() if found else math.inf,
        bound=_finite(solver.best_objective_bound()) if found else 0.0,
        wall_s=wall_s,
        proven=proven,
        infeasible=infeasible,
        timed_out=timed_out,
    )


def relax(model: Linear, cost: Floats) -> Relaxed | None:
    """The linear relaxation; None where it has no solution.

    Parameters
    ----------
    cost : (columns,) float
    """
    go_on()
    builder = _filled(model, cost)
    for parameters in _GLOP_ATTEMPTS:
        solver = ortools.ModelSolverHelper("GLOP")
        solver.set_solver_specific_parameters(parameters)
        solver.solve(builder)
        if solver.status() in (ortools.SolveStatus.OPTIMAL, ortools.SolveStatus.INFEASIBLE):
            break
    if solver.status() != ortools.SolveStatus.OPTIMAL:
        return None
    return Relaxed(
        values=np.array(solver.variable_values()),
        duals=np.array(solver.dual_values()),
        cost=solver.objective_value(),
        wall_s=solver.wall_time(),
    )


def _filled(model: Linear, cost: Floats) -> ortools.ModelBuilderHelper:
    builder = ortools.ModelBuilderHelper()
    builder.fill_model_from_sparse_data(
        model.lower, model.upper, cost, model.low, model.high, csr_matrix(model.matrix)
    )
    return builder


def _finite(bound: float) -> float:
    """A bound of costs that are never below 0."""
    return bound if math.isfinite(bound) else 0.0
