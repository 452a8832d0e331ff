"""What a plan costs: named terms in USD over the horizon; and what else may be minimized."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from planner.domain.plan import CostTerm
from planner.optimize.inputs import Floats, Integers, Objective
from planner.optimize.linear import NO_COLUMN
from planner.optimize.problem import Problem
from planner.optimize.variables import Variables

Counts = TypeVar("Counts", Integers, Floats)
"""Of replicas: whole ones in a plan, fractions in a relaxation."""

SWITCHING_S = 30.0
"""Every start, stop and flip costs so many seconds of the replica's price, on top of its own
start-up, drain or flip: a change has to be worth more than noise."""

TIE_USD = 1e-6
"""What one more replica or change costs where all else is equal: fewer of both are taken."""

MONEY_RATIO = 1e-4
"""Beside power or accelerators USD decide between equals: so much of their sum's size."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decisions:
    """Values of what costs something.

    Parameters
    ----------
    replicas, starts, stops : (options, windows) int
    flips : (flips, windows) int
    shortfall_rps : (streams, windows) float, requests/s
    """

    replicas: Integers
    starts: Integers
    stops: Integers
    flips: Integers
    shortfall_rps: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Term:
    """One linear term of the objective.

    Parameters
    ----------
    per_replica : (options, windows) float
        For every replica in a window.
    per_start : (options, windows) float
        For every replica that comes in a window.
    per_stop : (options,) float
        For every replica that goes.
    per_flip : (flips,) float
        For every replica that changes its role.
    per_rps : (windows,) float
        For every request/s that stays unserved in a window.
    fixed : float
        Whatever is decided.
    """

    name: str
    per_replica: Floats
    per_start: Floats
    per_stop: Floats
    per_flip: Floats
    per_rps: Floats
    fixed: float = 0.0

    def usd(self, made: Decisions) -> float:
        """Value of the term for a plan."""
        starts = float((self.per_start * made.starts).sum())
        changes = starts + float(self.per_stop @ made.stops.sum(axis=1))
        flips = self.per_flip @ made.flips.sum(axis=1)
        unserved = float((self.per_rps * made.shortfall_rps).sum())
        return (
            float((self.per_replica * made.replicas).sum() + changes + flips)
            + unserved
            + self.fixed
        )

    def columns(self, problem: Problem, v: Variables, cost: Floats) -> None:
        """Add the term to the cost of every column."""
        windows = len(problem.windows)
        cost[v.replicas] += self.per_replica
        cost[v.starts] += self.per_start
        for columns, each in (
            (v.stops, self.per_stop),
            (v.flips, self.per_flip),
        ):
            cost[columns] += np.repeat(each[:, None], windows, axis=1)
        there = v.shortfall != NO_COLUMN
        each = np.broadcast_to(self.per_rps, v.shortfall.shape)
        cost[v.shortfall[there]] += each[there]


def accelerator_hours(problem: Problem) -> Term:
    """sum_{o,t} usd_per_hour[o] * window_h[t] * replicas[o,t]."""
    return _term(problem, "accelerator_hours", per_replica=_usd_per_window(problem))


def reserved(problem: Problem) -> Term:
    """sum_t reserved_usd_per_hour[t] * window_h[t], whatever is planned."""
    each = (
        problem.reserved_usd_per_hour_in(t) * window.window_s / 3600
        for t, window in enumerate(problem.windows)
    )
    return _term(problem, "reserved", fixed=sum(each))


def billing_increments(problem: Problem) -> Term:
    """sum_{o,t} usd_per_hour[o] * max(increment_h[o] - hours from t to the end, 0) * starts[o,t].

    What a start still has to pay when the horizon ends, so that it pays at least a whole
    increment; up to there it is kept and paid window by window (`keep_up_time`).
    """
    end_at = problem.windows[-1].end_at
    left_s = np.array([(end_at - w.start_at).total_seconds() for w in problem.windows])
    due_s = np.array([[o.billing_increment_s] for o in problem.options]) - left_s
    return _term(
        problem,
        "billing_increments",
        per_start=_usd(problem)[:, None] * np.maximum(due_s, 0.0) / 3600,
    )


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
    """sum_{o,t} usd_per_hour[o] * (start_h[o] * starts[o,t] + drain_h[o] * stops[o,t]) + flips'.

    Accelerator time that is paid and serves nobody; a flip wastes its flip_h.
    """
    usd = _usd(problem)
    return _term(
        problem,
        "start_up_waste",
        per_start=_every_window(
            problem, np.array([o.usd_per_hour * o.start_s / 3600 for o in problem.options])
        ),
        per_stop=np.array([o.usd_per_hour * o.drain_s / 3600 for o in problem.options]),
        per_flip=np.array([usd[f.source] * f.flip_s / 3600 for f in problem.flips]),
    )


def switching(problem: Problem) -> Term:
    """sum_{o,t} usd_per_hour[o] * SWITCHING_S / 3600 * (starts[o,t] + stops[o,t]) + flips'."""
    usd = _usd(problem) * SWITCHING_S / 3600
    flips = np.array([usd[f.source] for f in problem.flips])
    starts = _every_window(problem, usd)
    return _term(problem, "switching", per_start=starts, per_stop=usd, per_flip=flips)


def slo_shortfall(problem: Problem) -> Term:
    """sum_{k,t} shortfall_usd_per_request * window_s[t] * shortfall[k,t]."""
    usd = problem.shortfall_usd_per_request or 0.0
    seconds = np.array([w.window_s for w in problem.windows])
    return _term(problem, "slo_shortfall", per_rps=usd * seconds)


COST_TERMS: tuple[Callable[[Problem], Term], ...] = (
    accelerator_hours,
    reserved,
    spot_risk,
    start_up_waste,
    billing_increments,
    switching,
    slo_shortfall,
)
"""The terms that are money."""


def costs(problem: Problem, made: Decisions) -> tuple[CostTerm, ...]:
    """Every money term of a plan, USD over the horizon."""
    terms = (term(problem) for term in COST_TERMS)
    return tuple(CostTerm(name=t.name, usd=t.usd(made)) for t in terms)


def changes(problem: Problem, replicas: Counts, flips: Counts) -> tuple[Counts, Counts]:
    """Starts and stops (options, windows) that a plan implies, from the current fleet on."""
    if problem.has_fleet:
        initial = np.array([[o.initial_replicas] for o in problem.options], dtype=replicas.dtype)
    else:
        initial = replicas[:, :1]
    difference = np.diff(replicas, axis=1, prepend=initial)
    for f, flip in enumerate(problem.flips):
        difference[flip.target] -= flips[f]
        difference[flip.source] += flips[f]
    return np.maximum(difference, 0), np.maximum(-difference, 0)


def usd_of_columns(problem: Problem, v: Variables, columns: int) -> Floats:
    """(columns,) USD: all money terms, and `TIE_USD` for every replica, start, stop and flip."""
    cost = np.zeros(columns)
    for term in COST_TERMS:
        term(problem).columns(problem, v, cost)
    for tied in (v.replicas, v.starts, v.stops, v.flips):
        cost[tied] += TIE_USD
    return cost


def cost_of_columns(problem: Problem, v: Variables, columns: int) -> Floats:
    """(columns,) what is minimized: USD, or watt-hours or accelerator-hours and a little of USD."""
    usd = usd_of_columns(problem, v, columns)
    each = {
        Objective.POWER: [o.power_w for o in problem.options],
        Objective.ACCELERATORS: [float(o.shape.accelerators) for o in problem.options],
    }.get(problem.objective)
    if each is None:
        return usd
    hours = np.array([w.window_s for w in problem.windows]) / 3600
    wanted = _term(problem, problem.objective, per_replica=np.outer(np.array(each), hours))
    if problem.shortfall_usd_per_request is not None:
        # An unserved request must cost more than serving it would in the unit that is minimized.
        most = float(wanted.per_replica.max())
        wanted = replace(wanted, per_rps=np.full(len(problem.windows), 1e3 * most))
    cost = np.zeros(columns)
    wanted.columns(problem, v, cost)
    scale = float(wanted.per_replica.max()) / max(float(usd[v.replicas].max()), TIE_USD)
    return cost + MONEY_RATIO * scale * usd


def _usd(problem: Problem) -> Floats:
    return np.array([o.usd_per_hour for o in problem.options])


def _usd_per_window(problem: Problem) -> Floats:
    hours = np.array([w.window_s for w in problem.windows]) / 3600
    return np.asarray(np.outer(_usd(problem), hours), dtype=np.float64)


def _every_window(problem: Problem, each: Floats) -> Floats:
    """(options, windows) the same in every window."""
    return np.repeat(each[:, None], len(problem.windows), axis=1)


def _term(
    problem: Problem,
    name: str,
    *,
    per_replica: Floats | None = None,
    per_start: Floats | None = None,
    per_stop: Floats | None = None,
    per_flip: Floats | None = None,
    per_rps: Floats | None = None,
    fixed: float = 0.0,
) -> Term:
    options, windows = len(problem.options), len(problem.windows)
    return Term(
        name=name,
        per_replica=np.zeros((options, windows)) if per_replica is None else per_replica,
        per_start=np.zeros((options, windows)) if per_start is None else per_start,
        per_stop=np.zeros(options) if per_stop is None else per_stop,
        per_flip=np.zeros(len(problem.flips)) if per_flip is None else per_flip,
        per_rps=np.zeros(windows) if per_rps is None else per_rps,
        fixed=fixed,
    )
