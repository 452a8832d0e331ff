"""What a plan costs: named terms in USD over the horizon."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from planner.domain.plan import CostTerm
from planner.optimize.problem import Floats, Integers, Problem
from planner.optimize.variables import USD_UNIT, Linear, Variables

SWITCHING_S = 30.0
"""Every start and every stop costs so many seconds of the replica's price, on top of its own
start-up or drain: a change has to be worth more than noise."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Term:
    """One linear term of the objective.

    Parameters
    ----------
    per_replica : (options, windows) float
        For every replica in a window.
    per_start, per_stop : (options,) float
        For every replica that comes or goes.
    """

    name: str
    per_replica: Floats
    per_start: Floats
    per_stop: Floats

    def usd(self, replicas: Integers, starts: Integers, stops: Integers) -> float:
        """Value of the term for a plan; arrays are (options, windows)."""
        changes = self.per_start @ starts.sum(axis=1) + self.per_stop @ stops.sum(axis=1)
        return float((self.per_replica * replicas).sum() + changes)


def accelerator_hours(problem: Problem) -> Term:
    """sum_{o,t} usd_per_hour[o] * window_h[t] * replicas[o,t]."""
    return _term(problem, "accelerator_hours", per_replica=_usd_per_window(problem))


def spot_risk(problem: Problem) -> Term:
    """sum_{o,t} interruptions[o] * start_h[o] * usd_per_hour[o] * window_h[t] * replicas[o,t].

    What reclaimed spot replicas cost until their successors serve.
    """
    lost = np.array(
        [
            o.interruptions_per_hour * o.shape.accelerators * o.start_s / 3600
            for o in problem.options
        ]
    )
    return _term(problem, "spot_risk", per_replica=lost[:, None] * _usd_per_window(problem))


def start_up_waste(problem: Problem) -> Term:
    """sum_{o,t} usd_per_hour[o] * (start_h[o] * starts[o,t] + drain_h[o] * stops[o,t]).

    Accelerator time that is paid and serves nobody.
    """
    return _term(
        problem,
        "start_up_waste",
        per_start=np.array([o.usd_per_hour * o.start_s / 3600 for o in problem.options]),
        per_stop=np.array([o.usd_per_hour * o.drain_s / 3600 for o in problem.options]),
    )


def switching(problem: Problem) -> Term:
    """sum_{o,t} usd_per_hour[o] * SWITCHING_S / 3600 * (starts[o,t] + stops[o,t])."""
    usd = np.array([o.usd_per_hour * SWITCHING_S / 3600 for o in problem.options])
    return _term(problem, "switching", per_start=usd, per_stop=usd)


COST_TERMS: tuple[Callable[[Problem], Term], ...] = (
    accelerator_hours,
    spot_risk,
    start_up_waste,
    switching,
)
"""The terms that are money."""


def costs(problem: Problem, replicas: Integers) -> tuple[CostTerm, ...]:
    """Every money term of a plan, USD over the horizon; `replicas` is (options, windows)."""
    starts, stops = changes(problem, replicas)
    terms = (term(problem) for term in COST_TERMS)
    return tuple(CostTerm(name=t.name, usd=t.usd(replicas, starts, stops)) for t in terms)


def changes(problem: Problem, replicas: Integers) -> tuple[Integers, Integers]:
    """Starts and stops (options, windows) that a plan implies, from the current fleet on."""
    if problem.has_fleet:
        initial = np.array([[o.initial_replicas] for o in problem.options], dtype=np.int64)
    else:
        initial = replicas[:, :1]
    difference = np.diff(replicas, axis=1, prepend=initial)
    return np.maximum(difference, 0), np.maximum(-difference, 0)


def cost_expression(problem: Problem, v: Variables) -> Linear:
    """All money terms in units of `USD_UNIT`, and the tie-break: one unit a replica or change.

    Between plans of equal price the one with fewer replicas and fewer changes is taken.
    """
    terms = [term(problem) for term in COST_TERMS]
    per_replica = sum((t.per_replica for t in terms), np.zeros((1, 1)))
    per_start = sum((t.per_start for t in terms), np.zeros(1))
    per_stop = sum((t.per_stop for t in terms), np.zeros(1))
    return sum(
        _units(per_replica[o, t]) * v.replicas[o, t]
        + _units(per_start[o]) * v.starts[o, t]
        + _units(per_stop[o]) * v.stops[o, t]
        for o, t in v.replicas
    )


def _units(usd: float) -> int:
    return round(float(usd) / USD_UNIT) + 1


def _usd_per_window(problem: Problem) -> Floats:
    usd = np.array([o.usd_per_hour for o in problem.options])
    hours = np.array([w.window_s for w in problem.windows]) / 3600
    return np.asarray(np.outer(usd, hours), dtype=np.float64)


def _term(
    problem: Problem,
    name: str,
    *,
    per_replica: Floats | None = None,
    per_start: Floats | None = None,
    per_stop: Floats | None = None,
) -> Term:
    options, windows = len(problem.options), len(problem.windows)
    return Term(
        name=name,
        per_replica=np.zeros((options, windows)) if per_replica is None else per_replica,
        per_start=np.zeros(options) if per_start is None else per_start,
        per_stop=np.zeros(options) if per_stop is None else per_stop,
    )
