"""What a solution comes to in the unit of what was to be best, and how two of them differ."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planner.optimize.inputs import Objective
from planner.optimize.objective import accelerator_hours, reserved, slo_shortfall
from planner.optimize.problem import Problem
from planner.optimize.solution import Solution, mean_usd_per_hour
from planner.optimize.ways import per_replica

UNITS: Mapping[Objective, str] = {
    Objective.COST: "USD/h",
    Objective.POWER: "W",
    Objective.ACCELERATORS: "accelerators",
    Objective.GOODPUT: "requests/s",
}
"""Of what was to be best, as a mean over the horizon."""

_CENT = 0.005
_SAME_RATIO = 1e-3
"""Of the requests that are served: a smaller difference is none."""

_FLEET = (accelerator_hours.__name__, reserved.__name__)
"""The terms that are the bill of the fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """Means over the horizon.

    Parameters
    ----------
    sought : float
        In `unit`: USD/h of all terms, W, accelerators, or requests/s served.
    noise : float
        So much of it the solver leaves open, in `unit`.
    usd_per_hour : float
        What the fleet costs and what it leaves unserved, USD/h.
    served_rps : float
        Requests/s.
    sheds : bool
        Requests may stay unserved.
    terms_usd_per_hour : dict
        Every money term by its name; the bill of the fleet as `fleet`.
    """

    objective: Objective
    sought: float
    noise: float
    usd_per_hour: float
    served_rps: float
    sheds: bool
    terms_usd_per_hour: Mapping[str, float]

    @property
    def unit(self) -> str:
        """Of `sought`."""
        return UNITS[self.objective]


def worth_of(problem: Problem, solution: Solution) -> Worth:
    """What a solution comes to."""
    seconds = np.array([w.window_s for w in problem.windows])
    share = seconds / seconds.sum()
    terms = {term.name: term.usd / problem.horizon_h for term in solution.terms}
    in_all = sum(terms.values())
    fixed = terms.get(reserved.__name__, 0.0)
    bill = sum(terms.pop(name, 0.0) for name in _FLEET)
    served = float((problem.demand_rps - solution.unserved_rps).sum(axis=0) @ share)
    objective = problem.objective
    if problem.best_effort and not problem.sheds:  # first as little as possible stays unserved
        objective = Objective.GOODPUT
    if objective is Objective.COST:
        sought, noise = in_all, (in_all - fixed) * solution.gap_ratio
    elif objective is Objective.GOODPUT:
        sought, noise = served, served * solution.unserved_gap_ratio
    else:
        sought = float(per_replica(problem) @ solution.replicas @ share)
        noise = sought * solution.gap_ratio
    unserved = terms.get(slo_shortfall.__name__, 0.0)
    return Worth(
        objective=objective,
        sought=sought,
        noise=noise,
        usd_per_hour=mean_usd_per_hour(problem, solution.replicas) + unserved,
        served_rps=served,
        sheds=problem.sheds or problem.best_effort,
        terms_usd_per_hour={"fleet": bill, **terms},
    )


def difference_text(before: Worth, after: Worth) -> str:
    """What is more or less after a change, in the unit of what was to be best, and in USD/h."""
    if before.objective is Objective.COST:
        return _usd_text(before, after)
    more_rps = after.served_rps - before.served_rps
    served = _served_text(more_rps, before, after) if before.sheds else ""
    if before.objective is Objective.GOODPUT:
        if not served:
            return "changes nothing that is served" + _bill_text(before, after, else_="")
        return served + _bill_text(before, after, else_=" at the same cost")
    sought = _sought_text(before, after)
    return (f"{served}, {sought}" if served else sought) + _bill_text(before, after, else_="")


def _usd_text(before: Worth, after: Worth) -> str:
    """USD/h of all terms; where that is not what the fleet's bill does, term by term."""
    more, noise = after.sought - before.sought, before.noise + after.noise
    if abs(more) <= max(noise, _CENT) and noise > _CENT:
        text = f"not distinguishable: within the solver's gap of {noise:.2f} USD/h"
    elif abs(more) <= _CENT:
        text = "changes nothing"
    else:
        text = f"{'costs' if more > 0 else 'saves'} {abs(more):.2f} USD/h"
    names = dict.fromkeys((*before.terms_usd_per_hour, *after.terms_usd_per_hour))
    parts = {
        name: after.terms_usd_per_hour.get(name, 0.0) - before.terms_usd_per_hour.get(name, 0.0)
        for name in names
    }
    told = {name: usd for name, usd in parts.items() if abs(usd) > _CENT}
    if abs(more - parts["fleet"]) <= _CENT and len(told) < 2:
        return text
    return f"{text} in all ({', '.join(f'{name} {usd:+.2f}' for name, usd in told.items())})"


def _sought_text(before: Worth, after: Worth) -> str:
    more, noise = after.sought - before.sought, before.noise + after.noise
    if abs(more) <= max(noise, _CENT) and noise > _CENT:
        return f"not distinguishable: within the solver's gap of {_amount(noise, before.unit)}"
    if abs(more) <= _CENT:
        return f"changes no {before.unit}"
    return f"{'takes' if more > 0 else 'saves'} {_amount(abs(more), before.unit)}"


def _amount(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{text} {unit.removesuffix('s') if text == '1' else unit}"


def _served_text(more_rps: float, before: Worth, after: Worth) -> str:
    """Requests/s more or less that are served; empty: as many."""
    noise = before.noise + after.noise if before.objective is Objective.GOODPUT else 0.0
    if abs(more_rps) <= _SAME_RATIO * max(before.served_rps, _SAME_RATIO):
        return ""
    if abs(more_rps) <= noise:
        return f"not distinguishable: within the solver's gap of {noise:.3g} requests/s"
    return f"serves {abs(more_rps):.3g} requests/s {'more' if more_rps > 0 else 'less'}"


def _bill_text(before: Worth, after: Worth, *, else_: str) -> str:
    more = after.usd_per_hour - before.usd_per_hour
    if abs(more) <= _CENT:
        return else_
    return f", for {abs(more):.2f} USD/h {'more' if more > 0 else 'less'}"
