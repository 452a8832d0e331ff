"""Whether an answer of CP-SAT stands where demand may stay unserved: SCIP looks for a better one.

OR-Tools 9.15.6755 called fleets optimal, and problems infeasible, where better fleets exist. The
step that went wrong is turned off (`planner.optimize.cp_sat`); a plan that leaves requests unserved
is still not believed from one solver alone.
"""

from dataclasses import replace

from planner.optimize import scip
from planner.optimize.answer import Answer
from planner.optimize.build import Built
from planner.optimize.inputs import SolverSettings
from planner.optimize.linear import NO_COLUMN, Floats

_WORK = 0.05
"""So much work of SCIP: enough to prove one window of a dozen options."""

_MOST_COLUMNS = 3_000
"""Larger models take SCIP long before its first fleet, and are seldom final."""

_ROUNDING_RATIO = 1e-3
"""What lies as close together may be rounding to whole steps and the permitted gaps."""


def better_of_two(
    built: Built, cost: Floats, claimed: Answer, *, settings: SolverSettings
) -> Answer:
    """The answer, or a better one of SCIP with what SCIP proves of it.

    Asked is only about answers that are called final, by models in which demand may stay unserved.

    Parameters
    ----------
    cost : (columns,) float
    claimed : Answer
        For this model and this cost.
    """
    if not _is_doubtful(built, claimed):
        return claimed
    second = scip.solve(built.model, cost, settings=settings, work=_WORK)
    is_better = second.values is not None and (
        claimed.infeasible or second.cost < (1 - _ROUNDING_RATIO) * claimed.cost
    )
    return replace(
        second if is_better else claimed,
        wall_s=claimed.wall_s + second.wall_s,
    )


def _is_doubtful(built: Built, claimed: Answer) -> bool:
    columns = built.variables.shortfall
    sheds = bool((built.model.upper[columns[columns != NO_COLUMN]] > 0).any())
    is_final = claimed.infeasible or (claimed.proven and claimed.cost > 0)
    return sheds and is_final and built.model.column_count <= _MOST_COLUMNS
