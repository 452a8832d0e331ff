"""A problem of many windows without its flows: what the long-horizon search works on.

`x` are values of all columns of the model that `build(problem, flows=False)` gives.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import bmat, csr_array

from planner.optimize import scip
from planner.optimize.build import Built
from planner.optimize.carrying import Cuts, FlowSystem
from planner.optimize.inputs import Floats, Integers
from planner.optimize.linear import NO_COLUMN, Linear, Mask
from planner.optimize.objective import TIE_USD, changes
from planner.optimize.problem import Problem
from planner.optimize.windows import windows_of

Active = Mapping[int, Sequence[int]]
"""For each window the cuts that are rows of the model."""

LEAST_PRICE_RATIO = 0.05
"""What is lacking is measured in USD; replicas that are paid anyway count as so much of the dearest
there, since otherwise their lack would be nothing."""


class Horizon:
    """The model without flows, the cuts that stand for them, and what both have in common."""

    def __init__(self, problem: Problem, built: Built) -> None:
        self.problem, self.built = problem, built
        self.model, self.v, self.cost = built.model, built.variables, built.cost
        self.windows = windows_of(built.model, built.variables)
        self.each_rps = np.array(
            [
                [problem.capacity[o, t].tail_rps for t in problem.window_indices]
                for o in problem.option_indices
            ]
        )
        each = self.cost[self.v.replicas]
        self.usd = np.maximum(each, LEAST_PRICE_RATIO * each.max(initial=0.0)) + TIE_USD
        self.flows = FlowSystem(problem, np.arange(len(problem.options)))
        self.cuts = Cuts(problem)
        self.changes = self._rows_of("count_changes")
        self.lead_times = self._lead_times()

    def capacity(self, x: Floats, t: int) -> Floats:
        """(options,) mean requests/s of the pools in window `t`."""
        return np.asarray(self.each_rps[:, t] * x[self.v.usable[:, t]], dtype=np.float64)

    def shortfall(self, x: Floats, t: int) -> Floats:
        """(streams,) requests/s that stay unserved in window `t`."""
        columns = self.v.shortfall[:, t]
        return np.where(columns == NO_COLUMN, 0.0, x[np.maximum(columns, 0)])

    def completed(self, x: Floats) -> Floats:
        """The same plan with what its serving replicas and flips imply.

        Replicas that were ordered in time for all that serves, their starts and their stops.
        """
        done = np.array(x)
        option, t, s = self.lead_times.T
        np.maximum.at(done, self.v.replicas[option, s], done[self.v.usable[option, t]])
        starts, stops = changes(self.problem, done[self.v.replicas], done[self.v.flips])
        done[self.v.starts], done[self.v.stops] = starts, stops
        return done

    def columns_of(self, options: Integers) -> Integers:
        """Columns that are not of other options."""
        out = np.setdiff1d(np.arange(len(self.problem.options)), options)
        v, keep = self.v, np.ones(self.model.column_count, dtype=bool)
        for group in (v.replicas, v.usable, v.starts, v.stops):
            keep[group[out]] = False
        away = set(out.tolist())
        for f, flip in enumerate(self.problem.flips):
            keep[v.flips[f]] &= flip.source not in away and flip.target not in away
        return np.flatnonzero(keep)

    def part(self, columns: Integers) -> tuple[Linear, Integers]:
        """The model of some columns only, all others at 0, and the rows that are left."""
        inside = np.zeros(self.model.column_count)
        inside[columns] = 1.0
        rows = np.flatnonzero(abs(self.model.matrix) @ inside)
        return self.model.part(columns, rows), rows

    def _rows_of(self, constraint: str) -> Mask:
        return np.array([name == constraint for name, _ in self.built.row_names], dtype=bool)

    def _lead_times(self) -> Integers:
        """(rows, 3) of every `order_in_time` that joins windows: its o, t and s."""
        if self.problem.flips:  # what flips bring is not ordered
            return np.zeros((0, 3), dtype=np.int64)
        place = {option.label: o for o, option in enumerate(self.problem.options)}
        found = [
            (place[str(index[0])], index[1], index[2])
            for name, index in self.built.row_names
            if name == "order_in_time" and index[1] != index[2]
        ]
        return np.array(found, dtype=np.int64).reshape(-1, 3)

    def needed(self) -> Integers:
        """Options that no plan may leave out: those that run, and those with a lower bound."""
        bounded = {b.shape for b in self.problem.bounds if b.min_replicas}
        return np.array(
            [
                o
                for o, option in enumerate(self.problem.options)
                if option.initial_replicas or option.shape in bounded
            ],
            dtype=np.int64,
        )

    def cut_rows(self, cuts: Cuts, active: Active, columns: Integers) -> tuple[csr_array, Floats]:
        """Rows of the active cuts over some columns, and their lower bounds."""
        place = np.full(self.model.column_count + 1, NO_COLUMN, dtype=np.int64)
        place[columns] = np.arange(len(columns))
        parts, low = [], []
        at = 0
        for t, chosen in active.items():
            cut = np.array(chosen, dtype=np.int64)
            for values, where in (
                (cuts.earned[cut] * self.each_rps[:, t], place[self.v.usable[:, t]]),
                (cuts.whole[cut], place[self.v.shortfall[:, t]]),
            ):
                row, entry = np.nonzero(values * (where != NO_COLUMN))
                parts.append((values[row, entry], at + row, where[entry]))
            low.append(cuts.least[cut, t])
            at += len(cut)
        values, row, column = (np.concatenate([p[i] for p in parts]) for i in range(3))
        return csr_array((values, (row, column)), shape=(at, len(columns))), np.concatenate(low)

    def nearest(
        self, cuts: Cuts, x: Floats, t: int, most: int, groups: Sequence[int] | None = None
    ) -> list[int]:
        """Of each group the cuts that window `t` of `x` violates, or comes nearest to."""
        capacity, shortfall = self.capacity(x, t), self.shortfall(x, t)
        found: list[int] = []
        for group in range(len(cuts.traffic)) if groups is None else groups:
            own, missing = cuts.of(group, t, capacity, shortfall)
            found += own[np.argsort(-missing, kind="stable")[:most]].tolist()
        return found

    def window_program(self, t: int, prices: Floats) -> scip.Relaxed | None:
        """One window by itself with its flows; values are those of the window's columns."""
        columns, rows = self.windows.columns(t), self.windows.rows(t)
        base, flows = self.model.part(columns, rows), self.flows
        none = np.zeros(len(self.problem.options)), np.zeros(len(self.problem.streams))
        low, high = flows.limits(t, *none)
        entries = flows.matrix.shape[1]
        count = entries + len(columns)
        model = Linear(
            matrix=csr_array(
                bmat([[flows.matrix, self._beside_flows(t, columns)], [None, base.matrix]])
            ),
            low=np.concatenate([low, base.low]),
            high=np.concatenate([high, base.high]),
            lower=np.zeros(count),
            upper=np.concatenate([np.full(entries, np.inf), base.upper]),
            is_rate=np.ones(count, dtype=bool),
        )
        return scip.relax(model, np.concatenate([np.zeros(entries), prices[columns]]))

    def _beside_flows(self, t: int, columns: Integers) -> csr_array:
        """Capacity and shortfall in the flow rows of window `t`."""
        streams, options = len(self.problem.streams), len(self.problem.options)
        usable = np.searchsorted(columns, self.v.usable[:, t])
        short = np.flatnonzero(self.v.shortfall[:, t] != NO_COLUMN)
        rows = np.concatenate([2 * streams + np.arange(options), short])
        where = np.concatenate([usable, np.searchsorted(columns, self.v.shortfall[short, t])])
        values = np.concatenate([-self.each_rps[:, t], np.ones(len(short))])
        return csr_array((values, (rows, where)), shape=(self.flows.matrix.shape[0], len(columns)))
