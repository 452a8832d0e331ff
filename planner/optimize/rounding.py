"""From fractions of replicas to whole ones, window after window.

Each window is decided as a small integer program within one replica of the guide: what came before
is fixed, what comes after stands as in the guide (and, as far as lead times reach, may still
change). Then each window is decided anew between its neighbours as they are.

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

_GAP_RATIO = 2e-3
"""Of one window: its fleet is that close to the best one."""

_FIRST_CUTS = 12
_MORE_CUTS = 4
_ATTEMPTS = 60
_VIOLATED = 1e-9
_LACKING = 1e-7
_AROUND = 1
_SWEEPS = 2
_WORTH_RATIO = 2e-4
"""A sweep that gains less is the last one."""


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Walk:
    """One thread's way over some windows: what it decided and the cuts it met."""

    x: Floats
    windows: Sequence[int]
    cuts: Cuts
    wall_s: float
    replayable: bool
    complete: bool


def rounded(h: Horizon, guide: Guide, pool: Executor) -> Rounded | None:
    """A plan in whole replicas near the guide; None where none was found."""
    search = _Search(h, guide)
    best = search.all_windows(guide.x, pool, again=False)
    if best is None:
        return None
    for _ in range(_SWEEPS):
        found = search.all_windows(best.x, pool, again=True)
        gain = 0.0 if found is None else best.cost - found.cost
        wall_s = best.wall_s + (found.wall_s if found is not None else 0.0)
        best = replace(found if found is not None and gain > 0 else best, wall_s=wall_s)
        if gain < _WORTH_RATIO * best.cost:
            break
    return best


class _Search:
    """What all decisions about one horizon have in common."""

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
        self.box = np.concatenate([h.v.replicas, h.v.usable], axis=None)
        joins = h.windows.joining & ~h.changes
        self.view = int((h.windows.last - h.windows.first)[joins].max(initial=0))

    def all_windows(self, x: Floats, pool: Executor, *, again: bool) -> Rounded | None:
        """Decide all windows, from the middle in both directions at once where that is possible."""
        windows = range(len(self.h.problem.windows))
        middle = len(windows) // 2
        first = self.h.cuts.count
        if self.view or len(windows) < 2:
            walks = [self._walk(x, windows, again=again)]
        else:
            after = range(middle + again, len(windows))
            halves = pool.map(
                lambda part: self._walk(x, part, again=again), (after, range(middle - 1, -1, -1))
            )
            walks = list(halves)
        merged = np.array(x)
        for walk in walks:
            self.h.cuts.extend(walk.cuts, first)
            for t in walk.windows:
                merged[self.columns[t]] = walk.x[self.columns[t]]
        if again and len(walks) > 1:
            walks.append(self._walk(merged, [middle], again=True))
            merged = walks[-1].x
        if not all(walk.complete for walk in walks):
            return None
        done = self.h.completed(merged)
        return Rounded(
            x=done,
            cost=float(self.h.cost @ done),
            wall_s=sum(walk.wall_s for walk in walks),
            replayable=all(walk.replayable for walk in walks),
        )

    def _walk(self, x: Floats, windows: Sequence[int], *, again: bool) -> _Walk:
        """Decide windows one after the other."""
        x, cuts, wall_s, replayable = np.array(x), self.h.cuts.copy(), 0.0, True
        for t in windows:
            for around in (_AROUND, None):
                found = self._decide(t, x, cuts, around=around, again=again)
                wall_s, replayable = wall_s + found.wall_s, replayable and found.replayable
                if found.complete:
                    break
            if not found.complete and not again:
                return replace(found, windows=windows, wall_s=wall_s)
            x = found.x
        return _Walk(
            x=x,
            windows=windows,
            cuts=cuts,
            wall_s=wall_s,
            replayable=replayable,
            complete=True,
        )

    def _decide(self, t: int, x: Floats, cuts: Cuts, *, around: int | None, again: bool) -> _Walk:
        """One window between what is decided and the guide, until its traffic is carried."""
        h, wall_s, replayable = self.h, 0.0, True
        columns, base = self._program(t, x, around, again)
        windows = range(t, 1 + (t if again else min(t + self.view, len(self.columns) - 1)))
        active = {s: self._nearest(s, cuts) for s in windows}
        settings = replace(h.problem.solver, gap_ratio=_GAP_RATIO)
        for _ in range(_ATTEMPTS):
            model = base.with_rows(*h.cut_rows(cuts, active, columns))
            work = h.problem.solver.rolling_work
            found = scip.solve(model, h.cost[columns], settings=settings, work=work)
            wall_s, replayable = wall_s + found.wall_s, replayable and not found.timed_out
            if found.values is None:
                break
            decided = np.array(x)
            decided[columns] = np.where(
                self.whole[columns], np.rint(found.values), found.values
            )
            if not self._lacks(t, decided, cuts, active[t]):
                kept = np.array(x)
                kept[self.columns[t]] = decided[self.columns[t]]
                return _Walk(
                    x=kept,
                    windows=[t],
                    cuts=cuts,
                    wall_s=wall_s,
                    replayable=replayable,
                    complete=True,
                )
        return _Walk(
            x=x, windows=[t], cuts=cuts, wall_s=wall_s, replayable=replayable, complete=False
        )

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

    def _nearest(self, t: int, cuts: Cuts) -> list[int]:
        h, x = self.h, self.guide.x
        missing = cuts.missing(t, h.capacity(x, t), h.shortfall(x, t))
        return np.argsort(-missing, kind="stable")[: _FIRST_CUTS * len(cuts.traffic)].tolist()

    def _program(
        self, t: int, x: Floats, around: int | None, again: bool
    ) -> tuple[Integers, Linear]:
        """The columns that are free in deciding window `t`, and their rows."""
        h, w = self.h, self.h.windows
        end = t if again else min(t + self.view, len(self.columns) - 1)
        following = self.columns[end + 1] if end + 1 < len(self.columns) else self.columns[0][:0]
        free = [*self.columns[t : end + 1], np.intersect1d(following, self.changing)]
        columns = np.sort(np.concatenate(free))
        touches = (w.last >= t) & (w.first <= end)
        if not again:
            touches &= (w.last <= end) | (h.changes & (w.last == end + 1))
        part = h.model.part(columns, np.flatnonzero(touches), x).without_empty_rows()
        is_whole = self.whole[columns] & (w.of_column[columns] == t)
        lower, upper = np.array(part.lower), np.array(part.upper)
        if around is not None:
            boxed = np.flatnonzero(np.isin(columns, self.box) & (w.of_column[columns] == t))
            at = columns[boxed]
            near = np.minimum(self.guide.x[at], x[at]), np.maximum(self.guide.x[at], x[at])
            lower[boxed] = np.maximum(np.floor(near[0] + 1e-6) - around, 0)
            upper[boxed] = np.minimum(np.ceil(near[1] - 1e-6) + around, upper[boxed])
        return columns, replace(part, lower=lower, upper=upper, is_rate=~is_whole)
