"""From a problem to a model in arrays."""

from dataclasses import dataclass, replace

from planner.optimize.constraints import (
    CONSTRAINTS,
    Constraint,
    decode_what_is_prefilled,
    keep_transfers,
    keep_within_capacity,
    meet_demand,
)
from planner.optimize.inputs import Floats, Integers
from planner.optimize.linear import Linear, LinearModel
from planner.optimize.links import decode_what_is_moved, keep_links, move_what_is_prefilled
from planner.optimize.objective import cost_of_columns
from planner.optimize.problem import Problem
from planner.optimize.variables import Variables, add_variables

FLOW_CONSTRAINTS: tuple[Constraint, ...] = (
    meet_demand,
    decode_what_is_prefilled,
    keep_within_capacity,
    keep_transfers,
    move_what_is_prefilled,
    decode_what_is_moved,
    keep_links,
)
"""Those with `sent` in them; `planner.optimize.carrying` does without it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Built:
    """A model with its variables and what every column costs.

    Parameters
    ----------
    cost : (columns,) float
    row_names : (rows,)
        The function that each row comes from, and its index.
    """

    model: Linear
    variables: Variables
    cost: Floats
    row_names: tuple[tuple[str, tuple[object, ...]], ...]

    def fixed(self, columns: Integers, values: Integers) -> "Built":
        """The same with some columns at these values."""
        return replace(self, model=self.model.fixed(columns, values))


def build(problem: Problem, *, flows: bool = True) -> Built:
    """The whole model: variables, every constraint of `CONSTRAINTS`, the cost to minimize.

    Parameters
    ----------
    flows : bool
        False: without `sent` and the constraints that have it.
    """
    model = LinearModel()
    variables = add_variables(model, problem, flows=flows)
    for add in CONSTRAINTS:
        if flows or add not in FLOW_CONSTRAINTS:
            add(model, problem, variables)
    return Built(
        model=model.finished(),
        variables=variables,
        cost=cost_of_columns(problem, variables, model.column_count),
        row_names=tuple(model.row_names),
    )
