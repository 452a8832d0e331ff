"""How little a problem of many windows can cost: each window by itself, at prices that join them.

Rows that span windows (starts and stops, lead times, minimum up-time) are taken out of the model
and priced instead, by their duals in the linear relaxation. What is left falls apart into windows,
whose own optima, found as integers, bound the whole from below: never less than the relaxation
does, and more where replicas do not come in fractions.

References
----------
Lagrangian relaxation of coupling constraints: Geoffrion, Mathematical Programming Study 2 (1974).
"""

import numpy as np
from ortools.math_opt.python import mathopt

from planner.optimize import cp_sat, scip
from planner.optimize.inputs import SolverSettings
from planner.optimize.linear import NO_COLUMN, Floats, Integers, LinearModel
from planner.optimize.variables import Variables

NOWHERE = -1


def windows_bound(
    model: LinearModel,
    variables: Variables,
    cost: Floats,
    *,
    settings: SolverSettings,
    work: float,
) -> float:
    """No solution of the model costs less; 0 where nothing can be said.

    Parameters
    ----------
    cost : (columns,) float
    work : float
        Deterministic time for each window.
    """
    place = _window_of_columns(model, variables)
    if bool((place == NOWHERE).any()):
        return 0.0
    duals = _duals(model, cost)
    if duals is None:
        return 0.0
    prices, constant = np.array(cost), 0.0
    parts = [_Part(model) for _ in range(int(place.max()) + 1)]
    for column, window in enumerate(place.tolist()):
        parts[window].take(column)
    for r, row in enumerate(model.rows()):
        windows = np.unique(place[row.columns])
        if len(windows) == 1:
            parts[int(windows[0])].keep(r, row.columns, row.coefficients)
        elif len(windows) > 1:
            side = row.low if duals[r] > 0 else row.high
            if duals[r] != 0 and np.isfinite(side):
                np.subtract.at(prices, row.columns, duals[r] * row.coefficients)
                constant += duals[r] * side
    return constant + sum(part.least(prices, settings=settings, work=work) for part in parts)


class _Part:
    """The columns and rows of one window, as a model of its own."""

    def __init__(self, whole: LinearModel) -> None:
        self.whole = whole
        self.columns: list[int] = []
        self.number: dict[int, int] = {}
        self.model = LinearModel()

    def take(self, column: int) -> None:
        self.number[column] = len(self.columns)
        self.columns.append(column)
        upper = np.array([self.whole.upper[column]])
        if self.whole.is_rate[column]:
            self.model.rates(upper)
        else:
            self.model.integers(upper.astype(np.int64))

    def keep(self, r: int, columns: Integers, coefficients: Floats) -> None:
        name, index = self.whole.row_names[r]
        here = [self.number[c] for c in columns.tolist()]
        low, high = self.whole.low[r], self.whole.high[r]
        self.model.row(name, index, (coefficients, here), low=low, high=high)

    def least(self, prices: Floats, *, settings: SolverSettings, work: float) -> float:
        """A lower bound of the window's cost at these prices."""
        tables = any(name == "have_one_count" for name, _ in self.model.row_names)
        solve = cp_sat.solve if tables else scip.solve
        found = solve(self.model, prices[self.columns], settings=settings, work=work)
        return found.bound


def _window_of_columns(model: LinearModel, v: Variables) -> Integers:
    """(columns,) the window that each belongs to."""
    place = np.full(model.column_count, NOWHERE, dtype=np.int64)
    for columns in (
        v.replicas, v.usable, v.starts, v.stops, v.flips, v.beyond, v.sent, v.shortfall, v.has_pair,
    ):  # fmt: skip
        there = columns != NO_COLUMN
        window = np.broadcast_to(np.arange(columns.shape[-1]), columns.shape)
        place[columns[there]] = window[there]
    for (_, t), columns in v.count.items():
        place[columns] = t
    return place


def _duals(model: LinearModel, cost: Floats) -> Floats | None:
    """(rows,) duals of the linear relaxation; None where it has no solution."""
    relaxed = mathopt.Model.from_model_proto(scip.proto_of(model, cost, relaxed=True))
    result = mathopt.solve(relaxed, mathopt.SolverType.GLOP)
    if not result.has_dual_feasible_solution():
        return None
    found = result.dual_values()
    return np.array([found[row] for row in relaxed.linear_constraints()])
