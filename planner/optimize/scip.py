"""A linear model as SCIP takes it, through MathOpt."""

import math
from datetime import timedelta

import numpy as np
from ortools.math_opt import model_pb2
from ortools.math_opt.python import mathopt
from scipy.sparse import csr_array

from planner.optimize.answer import Answer
from planner.optimize.inputs import SolverSettings
from planner.optimize.linear import Floats, LinearModel

NAME = "ortools/scip"

_NODES_PER_WORK = 20_000
"""Nodes that count as one unit of deterministic time; a second has fewer."""


def solve(model: LinearModel, cost: Floats, *, settings: SolverSettings, work: float) -> Answer:
    """Minimize the cost of the columns; real coefficients, nothing is rounded.

    Parameters
    ----------
    cost : (columns,) float
    work : float
        Deterministic time (about seconds), as a limit on nodes; equal inputs end at equal answers
        unless the time limit comes first.
    """
    result = mathopt.solve(
        mathopt.Model.from_model_proto(proto_of(model, cost)),
        mathopt.SolverType.GSCIP,
        params=mathopt.SolveParameters(
            relative_gap_tolerance=settings.gap_ratio,
            node_limit=max(int(work * _NODES_PER_WORK), 1),
            time_limit=timedelta(seconds=settings.time_limit_s),
            random_seed=settings.seed,
            threads=1,
        ),
    )
    reason = result.termination.reason
    values = None
    if result.has_primal_feasible_solution():
        found = result.variable_values()
        values = np.array([found[v] for v in found])
    return Answer(
        solver=NAME,
        values=values,
        cost=result.objective_value() if values is not None else math.inf,
        bound=_finite(result.best_objective_bound()),
        wall_s=result.solve_stats.solve_time.total_seconds(),
        proven=reason is mathopt.TerminationReason.OPTIMAL,
        infeasible=reason is mathopt.TerminationReason.INFEASIBLE,
        timed_out=result.termination.limit is mathopt.Limit.TIME,
    )


def _finite(bound: float) -> float:
    """A bound of costs that are never below 0."""
    return bound if math.isfinite(bound) else 0.0


def proto_of(model: LinearModel, cost: Floats, *, relaxed: bool = False) -> model_pb2.ModelProto:
    """The model as MathOpt takes it; `relaxed`: replicas may come in fractions."""
    proto = model_pb2.ModelProto()
    columns, rows = model.column_count, model.row_count
    proto.variables.ids.extend(range(columns))
    proto.variables.lower_bounds.extend([0.0] * columns)
    proto.variables.upper_bounds.extend(model.upper)
    proto.variables.integers.extend([not (rate or relaxed) for rate in model.is_rate])
    priced = np.flatnonzero(cost)
    proto.objective.linear_coefficients.ids.extend(priced.tolist())
    proto.objective.linear_coefficients.values.extend(cost[priced].tolist())
    proto.linear_constraints.ids.extend(range(rows))
    proto.linear_constraints.lower_bounds.extend(model.low)
    proto.linear_constraints.upper_bounds.extend(model.high)
    starts, at, coefficients = model.matrix()
    matrix = csr_array((coefficients, at, starts), shape=(rows, columns))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    row_of = np.repeat(np.arange(rows), np.diff(matrix.indptr))
    proto.linear_constraint_matrix.row_ids.extend(row_of.tolist())
    proto.linear_constraint_matrix.column_ids.extend(matrix.indices.tolist())
    proto.linear_constraint_matrix.coefficients.extend(matrix.data.tolist())
    return proto
