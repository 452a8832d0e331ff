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

import numpy as np

from planner.optimize import scip
from planner.optimize.carrying import Cuts, FlowSystem
from planner.optimize.guide import Guide, missing_in
from planner.optimize.horizon import Horizon
from planner.optimize.inputs import Floats, Integers
from planner.optimize.linear import Linear

_GAP_REPLICAS = 0.6
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
    replayable: bool


@dataclass(slots=True, eq=False)
class _Walk:
    """One way through some windows: what is decided so far, and the cuts met on it."""

    x: Floats
    cuts: Cuts
    wall_s: float = 0.0
    replayable: bool = True
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
            merged[search.columns[t]] = walk.x[search.columns[t]]
    if not all(walk.complete for walk in walks):
        return None
    done = h.completed(merged)
    return Rounded(
        x=done,
        cost=float(h.cost @ done),
        wall_s=sum(walk.wall_s for walk in walks),
        replayable=all(walk.replayable for walk in walks),
    )


class _Search:
    """What all decisions about one horizon have in common.

    `view`: windows after the one decided that lead times and the like join with it.
    """

    def __init__(self, h: Horizon, guide: Guide) -> None:
        self.h, self.guide = h, guide
        self.system = FlowSystem(h.problem, guide.options)
        kept = h.columns_of(guide.options)
        place = h.windows.of_column[kept]
        self.columns = [kept[place == t] for t in h.problem.window_indices]
        self.changing = np.intersect1d(kept, np.concatenate([h.v.starts, h.v.stops], axis=None))
        self.whole = np.zeros(h.model.column_count, dtype=bool)
        for group in (h.v.replicas, h.v.usable, h.v.flips, h.v.has_pair):
            self.whole[group] = True
        self.boxed = np.zeros(h.model.column_count, dtype=bool)
        self.boxed[h.v.replicas] = self.boxed[h.v.usable] = True
        joins = h.windows.joining & ~h.changes
        self.view = int((h.windows.last - h.windows.first)[joins].max(initial=0))

    def walk(self, windows: Sequence[int]) -> _Walk:
        """Decide windows one after the other."""
        walk = _Walk(x=np.array(self.guide.x), cuts=self.h.cuts.copy())
        for t in windows:
            walk.complete = self._decide(t, walk, around=_AROUND) or self._decide(t, walk)
            if not walk.complete:
                break
        return walk

    def _decide(self, t: int, walk: _Walk, *, around: int | None = None) -> bool:
        """One window between what is decided and the guide, until its traffic is carried."""
        h, end = self.h, min(t + self.view, len(self.columns) - 1)
        columns, base = self._program(t, end, walk.x, around)
        first = _FIRST_CUTS * len(walk.cuts.traffic)
        active = {s: h.nearest(walk.cuts, self.guide.x, s, first) for s in range(t, end + 1)}
        settings = replace(h.problem.solver, gap_ratio=self._gap_ratio(t))
        for _ in range(_ATTEMPTS):
            model = base.with_rows(*h.cut_rows(walk.cuts, active, columns))
            work = h.problem.solver.rolling_work
            found = scip.solve(model, h.cost[columns], settings=settings, work=work)
            walk.wall_s += found.wall_s
            walk.replayable &= not found.timed_out
            if found.values is None:
                return False
            decided = np.array(walk.x)
            decided[columns] = np.where(base.is_rate, found.values, np.rint(found.values))
            lacking = [self._lacks(s, decided, walk.cuts, active[s]) for s in active]
            if not any(lacking):
                walk.x[self.columns[t]] = decided[self.columns[t]]
                return True
        return False

    def _gap_ratio(self, t: int) -> float:
        """How close to its optimum window `t` is solved: whole replicas are coarse."""
        replicas = float(self.guide.x[self.h.v.replicas[:, t]].sum())
        return float(np.clip(_GAP_REPLICAS / max(replicas, 1.0), *_GAP_RATIOS))

    def _lacks(self, t: int, x: Floats, cuts: Cuts, active: list[int]) -> bool:
        """Whether capacities miss some traffic; cuts that say so become active."""
        h = self.h
        capacity, shortfall = h.capacity(x, t), h.shortfall(x, t)
        missing = cuts.missing(t, capacity, shortfall)
        missing[active] = 0.0
        worst = np.argsort(-missing, kind="stable")[: _MORE_CUTS * len(cuts.traffic)]
        more = worst[missing[worst] > _VIOLATED].tolist()
        if not more:
            lacking = missing_in(h, x, self.system, t)
            if lacking.usd <= _LACKING * float(h.usd[:, t] @ x[h.v.replicas[:, t]]):
                return False
            first = cuts.count
            cuts.add(lacking.prices, at=(t, capacity, shortfall))
            more = list(range(first, cuts.count))
        active.extend(more)
        return bool(more)

    def _program(self, t: int, end: int, x: Floats, around: int | None) -> tuple[Integers, Linear]:
        """The columns that are free in deciding window `t`, and their rows.

        Windows up to `end` are free in fractions, but for what serves in them; starts and stops
        towards the window after it are what staying with the guide costs.
        """
        h, w = self.h, self.h.windows
        following = self.columns[end + 1] if end + 1 < len(self.columns) else self.columns[0][:0]
        free = [*self.columns[t : end + 1], np.intersect1d(following, self.changing)]
        columns = np.sort(np.concatenate(free))
        near = (w.last >= t) & (w.last <= end)
        near |= h.changes & (w.last == end + 1)
        part = h.model.part(columns, np.flatnonzero(near), x).without_empty_rows()
        serves = np.isin(columns, h.v.usable[:, t : end + 1])
        whole = (self.whole[columns] & (w.of_column[columns] == t)) | serves
        lower, upper = np.array(part.lower), np.array(part.upper)
        if around is not None:
            boxed = np.flatnonzero(self.boxed[columns] & whole)
            guide = self.guide.x[columns[boxed]]
            lower[boxed] = np.maximum(np.floor(guide + _ROUNDED) - around, 0)
            upper[boxed] = np.minimum(np.ceil(guide - _ROUNDED) + around, upper[boxed])
        return columns, replace(part, lower=lower, upper=upper, is_rate=~whole)
