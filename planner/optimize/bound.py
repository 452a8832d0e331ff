"""How little a problem of many windows can cost: each window by itself, at prices that join them.

Rows that span windows (starts and stops, lead times, minimum up-time) are taken out of the model
and priced instead, by their duals in the linear relaxation. What is left falls apart into windows,
whose own optima, found as integers, bound the whole from below: never less than the relaxation
does, and more where replicas do not come in fractions.

References
----------
Lagrangian relaxation of coupling constraints: Geoffrion, Mathematical Programming Study 2 (1974).
"""

from planner.optimize import cp_sat, scip
from planner.optimize.inputs import SolverSettings
from planner.optimize.linear import Floats, Linear
from planner.optimize.variables import Variables
from planner.optimize.windows import priced_apart, windows_of


def windows_bound(
    model: Linear,
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
    windows = windows_of(model, variables)
    if not windows.apart:
        return 0.0
    relaxed = scip.relax(model, cost)
    if relaxed is None:
        return 0.0
    prices, bound = priced_apart(model, windows, cost, relaxed.duals)
    solve = cp_sat.solve if variables.count else scip.solve
    for t in range(int(windows.of_column.max()) + 1):
        columns = windows.columns(t)
        part = model.part(columns, windows.rows(t))
        bound += solve(part, prices[columns], settings=settings, work=work).bound
    return bound
