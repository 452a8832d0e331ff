"""What a solver says of a linear model."""

from dataclasses import dataclass

from planner.optimize.linear import Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answer:
    """What a solver found.

    Parameters
    ----------
    solver : str
    values : (columns,) float or None
        None: nothing was found.
    bound : float
        No solution costs less.
    proven, infeasible, timed_out : bool
    """

    solver: str
    values: Floats | None
    cost: float
    bound: float
    wall_s: float
    proven: bool
    infeasible: bool
    timed_out: bool
