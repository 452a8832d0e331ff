"""From fractions of replicas to whole ones, window after window.

Each window is decided as a small integer program within one replica of the guide: what came before
is fixed, what comes after stands as in the guide (and, as far as lead times reach, may still
change).

References
----------
Relax and fix: Pochet and Wolsey, Production Planning by Mixed Integer Programming (2006), ch. 3.
"""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from planner.optimize import scip
from planner.optimize.carrying import Cuts, FlowSystem
from planner.optimize.guide import Guide, missing_in
from planner.optimize.horizon import Horizon
from planner.optimize.inputs import Floats, Integers
from planner.optimize.linear import NO_COLUMN, Linear

_GAP_REPLICAS = 0.8
_GAP_RATIOS = 2e-3, 1e-2
"""How close to its best fleet one window's is: to so much of a replica, within these ratios."""

_FIRST_CUTS = 12
_MORE_CUTS = 4
_ATTEMPTS = 60
_VIOLATED = 1e-9
_LACKING = 1e-7
_AROUND = 1
"""Replicas that a window's fleet may differ from the guide's, each pool, rounded outwards."""

_ROUNDED = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rounded:
    """A plan in whole replicas.

    Parameters
    ----------
    x : (columns,) float
    """

    x: Floats
    cost: float
    wall_s: float


@dataclass(slots=True, eq=False)
class _Walk:
    """One way through some windows: what is decided so far, and the cuts met on it."""

    x: Floats
    cuts: Cuts
    wall_s: float = 0.0
    complete: bool = True


def rounded(h: Horizon, guide: Guide, pool: Executor) -> Rounded | None:
    """A plan in whole replicas near the guide; None where none was found.

    Without lead times and the like both halves of the horizon are decided at once, from the middle.
    """
    search, windows = _Search(h, guide), range(len(h.problem.windows))
    middle = len(windows) // 2
    ways = [windows] if search.view else [windows[middle:], windows[:middle][::-1]]
    first = h.cuts.count
    walks = list(pool.map(search.walk, ways))
    merged = np.array(guide.x)
    for way, walk in zip(ways, walks, strict=True):
        h.cuts.extend(walk.cuts, first)
        for t in way:
            own = search.columns(t)
            merged[own] = walk.x[own]
    if not all(walk.complete for walk in walks):
        return None
    done = h.completed(merged)
    return Rounded(
        x=done,
        cost=float(h.cost @ done),
        wall_s=sum(walk.wall_s for walk in walks),
    )


class _Search:
    """What all decisions about one horizon have in common.

    `view`: windows after the one decided that lead times and the like join with it. `group`: of
    every column the model it belongs to (all the same where a transfer limit joins them).
    """

    def __init__(self, h: Horizon, guide: Guide) -> None:
        self.h, self.guide = h, guide
        self.group = _group_of_columns(h)
        used = np.flatnonzero((guide.x[h.v.replicas] > _ROUNDED).any(axis=1))
        options = np.union1d(used, h.needed())
        self.systems = [
            FlowSystem(h.problem, np.intersect1d(options, t.options), t.streams)
            for t in h.cuts.traffic
        ]
        self.kept = h.columns_of(options)
        self.place = h.windows.of_column[self.kept]
        self.changing = np.zeros(h.model.column_count, dtype=bool)
        self.changing[h.v.starts] = self.changing[h.v.stops] = True
        self.whole = np.zeros(h.model.column_count, dtype=bool)
        for whole in (h.v.replicas, h.v.usable, h.v.flips, h.v.has_pair):
            self.whole[whole] = True
        self.boxed = np.zeros(h.model.column_count, dtype=bool)
        self.boxed[h.v.replicas] = self.boxed[h.v.usable] = True
        joins = h.windows.joining & ~h.changes
        self.view = int((h.windows.last - h.windows.first)[joins].max(initial=0))

    def columns(self, t: int, groups: Sequence[int] | None = None) -> Integers:
        """Columns of a window, of all groups or of some."""
        there = np.asarray(self.kept[self.place == t], dtype=np.int64)
        return there if groups is None else there[np.isin(self.group[there], groups)]

    def walk(self, windows: Sequence[int]) -> _Walk:
        """Decide windows one after the other, in each one group after the other.

        The other groups stay as in the guide; where that leaves no room (inventory, budget), those
        not yet decided give way.
        """
        walk, groups = _Walk(x=np.array(self.guide.x), cuts=self.h.cuts.copy()), self.systems
        for t, g in product(windows, range(len(groups))):
            waiting = list(range(g, len(groups)))
            walk.complete = any(
                self._decide(t, walk, free, around=around)
                for free in ([[g]] if len(waiting) == 1 else [[g], waiting])
                for around in (_AROUND, None)
            )
            if not walk.complete:
                break
        return walk

    def _decide(self, t: int, walk: _Walk, free: Sequence[int], *, around: int | None) -> bool:
        """Decide the first of the free groups in a window, until its traffic is carried."""
        h, g, end = self.h, free[0], min(t + self.view, len(self.h.problem.windows) - 1)
        columns, base = self._program((t, end), walk.x, free, around)
        active = {
            s: h.nearest(walk.cuts, self.guide.x, s, _FIRST_CUTS, free) for s in range(t, end + 1)
        }
        settings = replace(h.problem.solver, gap_ratio=self._gap_ratio(t))
        for _ in range(_ATTEMPTS):
            model = base.with_rows(*h.cut_rows(walk.cuts, active, columns))
            work = h.problem.solver.rolling_work
            found = scip.solve(model, h.cost[columns], settings=settings, work=work)
            walk.wall_s += found.wall_s
            if found.values is None:
                return False
            decided = np.array(walk.x)
            decided[columns] = np.where(base.is_rate, found.values, np.rint(found.values))
            lacking = [self._lacks(s, g, decided, walk.cuts, active[s]) for s in active]
            if not any(lacking):
                mine = self.columns(t, free)
                walk.x[mine] = decided[mine]
                return True
        return False

    def _gap_ratio(self, t: int) -> float:
        """How close to its optimum window `t` is solved: whole replicas are coarse."""
        replicas = float(self.guide.x[self.h.v.replicas[:, t]].sum())
        return float(np.clip(_GAP_REPLICAS / max(replicas, 1.0), *_GAP_RATIOS))

    def _lacks(self, t: int, g: int, x: Floats, cuts: Cuts, active: list[int]) -> bool:
        """Whether capacities miss some traffic of a group; cuts that say so become active."""
        h, own = self.h, self.systems[g].options
        capacity, shortfall = h.capacity(x, t), h.shortfall(x, t)
        numbers, missing = cuts.of(g, t, capacity, shortfall)
        missing[np.isin(numbers, active)] = 0.0
        worst = np.argsort(-missing, kind="stable")[:_MORE_CUTS]
        more = numbers[worst[missing[worst] > _VIOLATED]].tolist()
        if not more:
            lacking = missing_in(h, x, self.systems[g], t)
            if lacking.usd <= _LACKING * float(h.usd[own, t] @ x[h.v.replicas[own, t]]):
                return False
            first = cuts.count
            cuts.add(lacking.prices, at=(t, capacity, shortfall))
            more = list(range(first, cuts.count))
        active.extend(more)
        return bool(more)

    def _program(
        self, windows: tuple[int, int], x: Floats, free: Sequence[int], around: int | None
    ) -> tuple[Integers, Linear]:
        """The columns that are free in deciding the first of the windows, and their rows.

        Only the first group's are whole. Later windows, up to the last one given, are free in
        fractions, but for what serves in them; starts and stops towards the window after it are
        what staying with the guide costs.
        """
        h, w, (t, end) = self.h, self.h.windows, windows
        following = self.columns(end + 1, free)
        parts = [self.columns(s, free) for s in range(t, end + 1)]
        columns = np.sort(np.concatenate([*parts, following[self.changing[following]]]))
        near = (w.last >= t) & (w.last <= end)
        near |= h.changes & (w.last == end + 1)
        part = h.model.part(columns, np.flatnonzero(near), x).without_empty_rows()
        serves = np.isin(columns, h.v.usable[:, t : end + 1])
        whole = (self.whole[columns] & (w.of_column[columns] == t)) | serves
        whole &= self.group[columns] == free[0]
        lower, upper = np.array(part.lower), np.array(part.upper)
        if around is not None:
            boxed = np.flatnonzero(self.boxed[columns] & whole)
            guide = self.guide.x[columns[boxed]]
            lower[boxed] = np.maximum(np.floor(guide + _ROUNDED) - around, 0)
            upper[boxed] = np.minimum(np.ceil(guide - _ROUNDED) + around, upper[boxed])
        return columns, replace(part, lower=lower, upper=upper, is_rate=~whole)


def _group_of_columns(h: Horizon) -> Integers:
    """(columns,) the number of the group in `h.cuts.traffic` that each belongs to."""
    group, v, problem = np.zeros(h.model.column_count, dtype=np.int64), h.v, h.problem
    for g, traffic in enumerate(h.cuts.traffic):
        for of_options in (v.replicas, v.usable, v.starts, v.stops):
            group[of_options[traffic.options]] = g
        short = v.shortfall[traffic.streams]
        group[short[short != NO_COLUMN]] = g
        models = {problem.streams[k].model for k in traffic.streams}
        group[v.has_pair[[m for m, name in enumerate(problem.models) if name in models]]] = g
        for f, flip in enumerate(problem.flips):
            if flip.source in traffic.options:
                group[v.flips[f]] = g
    return group
