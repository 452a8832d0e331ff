"""A linear model as CP-SAT takes it: integers only, rounded to the safe side."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from planner.domain.wanted import stopped_by
from planner.optimize.answer import Answer
from planner.optimize.clock import report
from planner.optimize.inputs import SolverSettings
from planner.optimize.linear import TOLERANCE_RATIO, Floats, Linear, Row

NAME = "ortools/cp-sat"

_RATE_STEPS = 1e7
_TILT = 0.3 * TOLERANCE_RATIO
"""Coefficients are rounded to the safe side, but what differs by less than this is equal."""

_COST_UNIT = 1e-6
_DECIMALS = (1.0, 10.0, 1e2, 1e3, 1e4, 1e5, 1e6)
_EXACT = 1e-9
_DIGITS = math.ceil(1 / _TILT)
"""With so many steps in the smallest coefficient of a row, rounding loses less than the tilt gives:
a fleet that is exactly enough is enough."""

_LARGEST_SUM = 1e17
"""Of a row's terms; CP-SAT refuses rows that may come near 2^63."""

_COST_DIGITS = 100.0
_LARGEST_COST = 1e17


def solve(
    model: Linear,
    cost: Floats,
    *,
    settings: SolverSettings,
    work: float,
) -> Answer:
    """Minimize the cost of the columns.

    Rates count in steps so fine that the largest has 1e7 of them. Capacities are rounded down and
    demands up, but what differs by less than `_TILT` of itself counts as equal: less than `check`
    lets pass (`TOLERANCE_RATIO`).

    Parameters
    ----------
    cost : (columns,) float
    work : float
        Deterministic time (about seconds); equal inputs end at equal answers.
    """
    per_rps = _steps_per_rps(model)
    sat = cp_model.CpModel()
    columns = [
        sat.new_int_var(*_whole_range(lower, upper, per_rps if rate else 1.0), "")
        for lower, upper, rate in zip(
            model.lower.tolist(), model.upper.tolist(), model.is_rate.tolist(), strict=True
        )
    ]
    scale = np.where(model.is_rate, per_rps, 1.0)
    reach = np.maximum(model.upper * scale, 1.0)
    for row in model.rows():
        whole = replace(row, coefficients=row.coefficients / scale[row.columns])
        _add_row(sat, columns, whole, reach[row.columns])
    priced = np.flatnonzero(cost)
    unit = _cost_unit(cost / scale, model.upper * scale, model.is_rate)
    units = np.rint(cost[priced] / scale[priced] / unit).astype(np.int64)
    sat.minimize(cp_model.LinearExpr.weighted_sum([columns[c] for c in priced], units.tolist()))
    return _run(sat, columns, (scale, unit), settings, work)


def _run(
    sat: cp_model.CpModel,
    columns: list[cp_model.IntVar],
    units: tuple[Floats, float],
    settings: SolverSettings,
    work: float,
) -> Answer:
    scale, unit = units
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = settings.seed
    solver.parameters.relative_gap_limit = settings.gap_ratio
    solver.parameters.max_deterministic_time = work
    solver.parameters.max_time_in_seconds = settings.time_limit_s
    solver.parameters.linearization_level = 2
    # Its search for rows within rows drops rows that still matter in 9.15.6755 ("linear inclusion:
    # redundant containing constraint"): false optima, where demand may stay unserved.
    solver.parameters.presolve_inclusion_work_limit = 0
    solver.parameters.catch_sigint_signal = False  # it would not give Ctrl-C back to the process
    with stopped_by(solver.stop_search):
        status = solver.solve(sat)
    final = status in (cp_model.OPTIMAL, cp_model.INFEASIBLE)
    timed_out = not final and solver.response_proto.deterministic_time < work
    report(timed_out=timed_out)
    found = status in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    values = np.array([solver.value(c) for c in columns]) / scale if found else None
    return Answer(
        solver=NAME,
        values=values,
        cost=solver.objective_value * unit if found else math.inf,
        bound=solver.best_objective_bound * unit,
        wall_s=solver.wall_time,
        proven=status == cp_model.OPTIMAL,
        infeasible=status == cp_model.INFEASIBLE,
        timed_out=timed_out,
    )


def _cost_unit(cost: Floats, upper: Floats, is_rate: NDArray[np.bool_]) -> float:
    """What one unit of the objective costs: small enough for a step of the cheapest rate."""
    rates = np.abs(cost[is_rate & (cost != 0)])
    unit = min(_COST_UNIT, float(rates.min()) / _COST_DIGITS) if len(rates) else _COST_UNIT
    most = float(np.abs(cost) @ upper)
    return max(unit, most / _LARGEST_COST)


def _whole_range(lower: float, upper: float, per_unit: float) -> tuple[int, int]:
    """The bounds of a column in whole steps."""
    return math.floor(lower * per_unit), math.ceil(upper * per_unit * (1 - 1e-12))


def _steps_per_rps(model: Linear) -> float:
    largest = float(model.upper[model.is_rate].max(initial=0.0))
    return float(10.0 ** math.ceil(math.log10(_RATE_STEPS / max(largest, 1e-6))))


def _add_row(
    sat: cp_model.CpModel, columns: list[cp_model.IntVar], row: Row, reach: Floats
) -> None:
    low, high = row.low, row.high
    factor = _factor(row.coefficients, reach)
    terms = [columns[c] for c in row.columns]
    scaled = row.coefficients * factor
    if low == high:
        whole = np.rint(scaled).astype(np.int64)
        expression = cp_model.LinearExpr.weighted_sum(terms, whole.tolist())
        sat.add(expression == math.ceil(low * factor - 1e-6))
        return
    if high < math.inf:  # too much rather than too little on the left
        whole = np.ceil(scaled - _TILT * np.abs(scaled)).astype(np.int64)
        expression = cp_model.LinearExpr.weighted_sum(terms, whole.tolist())
        sat.add(expression <= math.floor(high * factor + 1e-12 * abs(high * factor)))
    if low > -math.inf:
        whole = np.floor(scaled + _TILT * np.abs(scaled)).astype(np.int64)
        expression = cp_model.LinearExpr.weighted_sum(terms, whole.tolist())
        sat.add(expression >= math.ceil(low * factor - 1e-12 * abs(low * factor)))


def _factor(coefficients: Floats, reach: Floats) -> float:
    """What makes the coefficients integers, or the smallest of them one with enough digits.

    Parameters
    ----------
    coefficients, reach : (terms,) float
        The largest value of each term's column.
    """
    there = coefficients != 0
    sizes = np.abs(coefficients[there])
    if len(sizes) == 0:
        return 1.0
    smallest, most = float(sizes.min()), _LARGEST_SUM / float(sizes @ reach[there])
    for factor in (*_DECIMALS, *(decimal / smallest for decimal in _DECIMALS)):
        if _lost(sizes * factor) < _EXACT and factor < most:
            return factor
    if _lost(sizes / smallest) < _TILT:
        return 1.0 / smallest
    return max(math.floor(min(_DIGITS, smallest * most)), 1) / smallest


def _lost(sizes: Floats) -> float:
    """The largest relative error when they are rounded."""
    return float((np.abs(sizes - np.rint(sizes)) / sizes).max())
