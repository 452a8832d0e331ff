"""What a long horizon costs if replicas come in fractions, and a bound from it.

The relaxation is solved over the options that are worth having (`Guide.options`) by cuts, each
round's asked for half way between the relaxation so far and a point that carries everything: cuts
at the relaxation's own corners would be shallow. Its duals say what other options could save at
the most: that gives the bound, and the options that were missing.

References
----------
Separation between an outer and an inner point: Ben-Ameur and Neto, Networks 49 (2007). Column
generation: Gilmore and Gomory, Operations Research 9 (1961).
"""

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np

from planner.optimize import scip
from planner.optimize.carrying import FlowSystem, Missing
from planner.optimize.horizon import Horizon
from planner.optimize.inputs import Floats, Integers
from planner.optimize.windows import priced_apart

_PASSES = 3
"""The first one has one round: its cuts are still those of whole windows, and say best which
options are missing."""

_CLOSE_RATIOS = 1e-3, 2e-3
_CLOSE_REPLICAS = 0.15
"""Between relaxation and a point that carries everything, what is good enough: so much of a
replica, within these ratios."""

_ROUNDS = 12
_STALLED = 1e-5
_NEARLY = 5.0
"""A round that changes the relaxation's cost by less is the last one, if the guide is already so
many times nearly close enough."""

_STEP = 0.5
_MOST_AT_ONCE = 4
_KEPT_SLACK = 1e-3
_VIOLATED = 1e-7
_USED = 1e-6
_MISSED_RATIO = 1e-3
"""The bound is that much below the guide: options are missing in it."""


@dataclass(slots=True, eq=False)
class Guide:
    """The relaxation as far as it is known.

    Parameters
    ----------
    x : (columns,) float
        Its solution; other options than `options` are at 0.
    cost : float
        Of the solution.
    bound : float
        No plan of the whole problem costs less.
    options : index array
    active, rows : {t: cuts}
        Those of the next relaxation, and of the last one, whose duals are `cut_duals`.
    duals : (rows,) float
    """

    x: Floats
    core: Floats
    cost: float
    bound: float
    options: Integers
    active: dict[int, list[int]]
    wall_s: float = 0.0
    rows: dict[int, list[int]] = field(default_factory=dict)
    duals: Floats = field(default_factory=lambda: np.zeros(0))
    cut_duals: Floats = field(default_factory=lambda: np.zeros(0))


def guide_of(h: Horizon, pool: Executor) -> Guide | None:
    """The relaxation of a horizon; None where it has no solution."""
    guide = _start(h, pool)
    if guide is None:
        return None
    for number in range(_PASSES):
        if not _refine(h, guide, _ROUNDS if number else 1, pool):
            return None
        missed = _price_out(h, guide)
        if number and _short(guide):
            missed = np.intersect1d(missed, _by_windows(h, guide, pool))
        if number and not _short(guide):
            break
        guide.options = np.union1d(guide.options, missed)
    return guide


def _short(guide: Guide) -> bool:
    """Whether the bound is so far below the guide that options are missing in it."""
    return guide.bound < guide.cost * (1 - _MISSED_RATIO)


def _close_ratio(h: Horizon, guide: Guide) -> float:
    replicas = float(guide.x[h.v.replicas].sum()) / len(h.problem.windows)
    return float(np.clip(_CLOSE_REPLICAS / max(replicas, 1.0), *_CLOSE_RATIOS))


def _start(h: Horizon, pool: Executor) -> Guide | None:
    """Every window by itself: what it uses, and a first cut for each."""
    found = _windows_alone(h, h.cost, pool)
    if found is None:
        return None
    x, bound, wall_s = found
    used = np.flatnonzero((x[h.v.usable] > _USED).any(axis=1))
    return Guide(
        x=x,
        core=h.completed(x),
        cost=bound,
        bound=bound,
        options=np.union1d(used, h.needed()),
        active={t: h.nearest(h.cuts, x, t, _MOST_AT_ONCE) for t in h.problem.window_indices},
        wall_s=wall_s,
    )


def _price_out(h: Horizon, guide: Guide) -> Integers:
    """Update the bound by what other options could save; those that would save something.

    At the guide's duals every other column has a reduced cost; the least that all of them together
    can cost at these, within their own rows (lead times, starts and stops), bounds what they can
    take off the guide's cost.
    """
    inside = h.columns_of(guide.options)
    others = np.setdiff1d(np.arange(h.model.column_count), inside)
    if not len(others):
        guide.bound = max(guide.bound, guide.cost)
        return np.zeros(0, dtype=np.int64)
    _, own = h.part(inside)
    theirs = np.setdiff1d(np.arange(h.model.row_count), own)
    everything = np.arange(h.model.column_count)
    cuts, _ = h.cut_rows(h.cuts, guide.rows, everything)
    cost = h.cost - h.model.matrix.T @ guide.duals - cuts.T @ guide.cut_duals
    found = scip.relax(h.model.part(others, theirs), cost[others])
    if found is None:
        return np.zeros(0, dtype=np.int64)
    guide.wall_s += found.wall_s
    guide.bound = max(guide.bound, guide.cost + min(found.cost, 0.0))
    guide.duals[theirs] = found.duals
    x = np.zeros(h.model.column_count)
    x[others] = found.values
    return np.flatnonzero((x[h.v.usable] > _USED).any(axis=1))


def _by_windows(h: Horizon, guide: Guide, pool: Executor) -> Integers:
    """Update the bound by every window alone at the duals of what joins them; who is used then.

    With all options and flows, so that it is often better than what cuts of the guide's own
    options say of the others; each window's program gives a cut that is tight for all.
    """
    prices, worth = priced_apart(h.model, h.windows, h.cost, guide.duals)
    found = _windows_alone(h, prices, pool)
    if found is None:
        return np.arange(len(h.problem.options))
    x, total, wall_s = found
    guide.bound = max(guide.bound, total + worth)
    guide.wall_s += wall_s
    return np.flatnonzero((x[h.v.usable] > _USED).any(axis=1))


def _windows_alone(
    h: Horizon, prices: Floats, pool: Executor
) -> tuple[Floats, float, float] | None:
    """All windows at prices: their columns, the sum of their optima, the solver's seconds."""

    def solved(t: int) -> scip.Relaxed | None:
        return h.window_program(t, prices)

    x, total, wall_s = np.zeros(h.model.column_count), 0.0, 0.0
    for t, found in enumerate(pool.map(solved, h.problem.window_indices)):
        if found is None:
            return None
        h.cuts.add(h.flows.prices(found.duals))
        columns = h.windows.columns(t)
        x[columns] = found.values[-len(columns) :]
        total, wall_s = total + found.cost, wall_s + found.wall_s
    return x, total, wall_s


def _refine(h: Horizon, guide: Guide, rounds: int, pool: Executor) -> bool:
    """Rounds of cuts over the guide's options, in place; False where nothing solves them."""
    columns = h.columns_of(guide.options)
    part, own = h.part(columns)
    system = FlowSystem(h.problem, guide.options)
    best = before = math.inf
    for _ in range(rounds):
        rows = h.cut_rows(h.cuts, guide.active, columns)
        found = scip.relax(part.with_rows(*rows), h.cost[columns])
        if found is None:
            return False
        guide.x = np.zeros(h.model.column_count)
        guide.x[columns] = found.values
        guide.duals = np.zeros(h.model.row_count)
        guide.duals[own] = found.duals[: len(own)]
        guide.cost, guide.rows = found.cost, {t: list(c) for t, c in guide.active.items()}
        guide.cut_duals = found.duals[len(own) :]
        guide.wall_s += found.wall_s
        _drop_slack(h, guide)
        middle = _STEP * guide.x + (1 - _STEP) * guide.core
        carries = _carrying(h, guide, middle, system, pool)
        total = float(h.cost @ carries)
        if total < best:
            best, guide.core = total, carries
        _activate(h, guide)
        close, lacks = _close_ratio(h, guide) * guide.cost, best - guide.cost
        stalls = abs(guide.cost - before) < _STALLED * guide.cost
        if lacks < close or (stalls and lacks < _NEARLY * close):
            break
        before = guide.cost
    return True


def _activate(h: Horizon, guide: Guide) -> None:
    """Make rows of the cuts that the guide violates most, whichever window they were found in."""
    most = _MOST_AT_ONCE * len(h.cuts.traffic)
    for t, active in guide.active.items():
        missing = h.cuts.missing(t, h.capacity(guide.x, t), h.shortfall(guide.x, t))
        missing[active] = 0.0
        worst = np.argsort(-missing, kind="stable")[:most]
        active.extend(worst[missing[worst] > _VIOLATED].tolist())


def _drop_slack(h: Horizon, guide: Guide) -> None:
    for t, active in guide.active.items():
        missing = h.cuts.missing(t, h.capacity(guide.x, t), h.shortfall(guide.x, t))
        guide.active[t] = [c for c in active if missing[c] > -_KEPT_SLACK]


def _carrying(h: Horizon, guide: Guide, x: Floats, system: FlowSystem, pool: Executor) -> Floats:
    """`x` with the fractions of replicas that it lacks; what shows the lack becomes cuts."""
    options, carries = guide.options, np.array(x)
    wanted = ask(h, x, system, h.problem.window_indices, pool)
    for t, missing in zip(h.problem.window_indices, wanted, strict=True):
        carries[h.v.usable[options, t]] += missing.more
        apart = h.v.usable[options, t] != h.v.replicas[options, t]
        carries[h.v.replicas[options[apart], t]] += missing.more[apart]
        if missing.usd > _VIOLATED * guide.cost / len(h.problem.windows):
            first = h.cuts.count
            h.cuts.add(missing.prices, at=(t, h.capacity(x, t), h.shortfall(x, t)))
            guide.active[t].extend(range(first, h.cuts.count))
    return h.completed(carries)


def ask(
    h: Horizon, x: Floats, system: FlowSystem, windows: Sequence[int], pool: Executor
) -> Sequence[Missing]:
    """What the capacities of `x` lack, window by window."""
    return list(pool.map(lambda t: missing_in(h, x, system, t), windows))


def missing_in(h: Horizon, x: Floats, system: FlowSystem, t: int) -> Missing:
    """What the capacities of `x` lack in window `t`."""
    own = system.options
    return system.missing(
        t,
        h.capacity(x, t)[own],
        h.shortfall(x, t),
        each_rps=h.each_rps[own, t],
        usd=h.usd[own, t],
    )
