"""Two fleets beside each other in the unit of what was to be least, where that is not USD."""

from collections.abc import Mapping

import numpy as np

from planner.optimize.inputs import Integers, Objective
from planner.optimize.problem import Problem

_UNITS: Mapping[Objective, str] = {Objective.POWER: "W", Objective.ACCELERATORS: "accelerators"}
_NONE = 0.005


def mean_sought(problem: Problem, replicas: Integers) -> float | None:
    """Mean W or accelerators over the horizon; None where neither was to be least."""
    if problem.objective not in _UNITS:
        return None
    power = problem.objective is Objective.POWER
    each = [o.power_w if power else float(o.shape.accelerators) for o in problem.options]
    lengths = np.array([w.window_s for w in problem.windows])
    return float(np.array(each) @ replicas @ lengths / lengths.sum())


def beside_text(objective: Objective, other: float | None, chosen: float | None) -> str:
    """As in `2,800 W, 700 more; ` to stand before a price; empty where USD were to be least."""
    unit = _UNITS.get(objective)
    if unit is None or other is None or chosen is None:
        return ""
    more = other - chosen
    if abs(more) <= _NONE:
        return f"{_amount(other)} {unit}, as many; "
    return f"{_amount(other)} {unit}, {_amount(abs(more))} {'more' if more > 0 else 'fewer'}; "


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
