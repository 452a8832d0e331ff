"""What a plan comes to beside USD: power, accelerators, requests in time, each with its unit."""

from collections.abc import Iterator, Sequence

import numpy as np

from planner.domain.plan import CostTerm, PlanWindow
from planner.optimize.inputs import Objective
from planner.optimize.problem import Problem
from planner.optimize.solution import Solution


def objective_terms(
    problem: Problem, solution: Solution, windows: Sequence[PlanWindow]
) -> tuple[CostTerm, ...]:
    """What was to be best first, then every money term, then what else can be counted.

    Parameters
    ----------
    windows : sequence of PlanWindow
        As predicted: requests in time follow from them.
    """
    money = solution.terms
    counted = list(_counted(problem, solution, windows))
    sought = [term for term in counted if term.sought]
    return (*sought, *money, *(term for term in counted if not term.sought))


def _counted(
    problem: Problem, solution: Solution, windows: Sequence[PlanWindow]
) -> Iterator[CostTerm]:
    """Means over the horizon, weighted by window length."""
    seconds = np.array([w.window_s for w in problem.windows])
    share = seconds / seconds.sum()

    def term(name: str, value: float, unit: str, objective: Objective) -> CostTerm:
        sought = problem.objective is objective
        return CostTerm(name=name, value=value, unit=unit, sought=sought)

    used = [o for o in problem.option_indices if solution.replicas[o].any()]
    if all(problem.options[o].power_w > 0 for o in used):
        watts = np.array([o.power_w for o in problem.options]) @ solution.replicas
        kwh = float(watts @ seconds) / 3.6e6
        yield term("power", float(watts @ share), "W", Objective.POWER)
        yield term("energy", kwh, "kWh", Objective.POWER)
    each = np.array([o.shape.accelerators for o in problem.options])
    accelerators = float((each @ solution.replicas) @ share)
    yield term("accelerators", accelerators, "accelerators", Objective.ACCELERATORS)
    in_time = np.array(
        [
            (w.request_rate_rps - w.shortfall_rps) * (w.predicted.attainment_ratio or 0.0)
            for w in windows
        ]
    )
    yield term("goodput", float(in_time @ share), "requests/s in time", Objective.GOODPUT)
