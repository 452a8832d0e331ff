"""Which windows the columns and rows of a model belong to, and what joins them."""

from dataclasses import dataclass

import numpy as np

from planner.optimize.linear import NO_COLUMN, Floats, Integers, Linear, Mask
from planner.optimize.variables import Variables

NOWHERE = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """Where every column and row stands in time.

    Parameters
    ----------
    of_column : (columns,) int
        Its window; `NOWHERE` for what holds for all of them.
    first, last : (rows,) int
        Windows of the first and last column of the row; rows without columns belong to window 0.
    """

    of_column: Integers
    first: Integers
    last: Integers

    @property
    def apart(self) -> bool:
        """Whether every column belongs to a window."""
        return not bool((self.of_column == NOWHERE).any())

    @property
    def joining(self) -> Mask:
        """(rows,) rows that span windows: starts and stops, lead times, minimum up-time."""
        return np.asarray(self.first != self.last, dtype=bool)

    def columns(self, t: int) -> Integers:
        """Columns of a window."""
        return np.flatnonzero(self.of_column == t)

    def rows(self, t: int) -> Integers:
        """Rows with columns of this window only."""
        return np.flatnonzero((self.first == t) & (self.last == t))


def windows_of(model: Linear, variables: Variables) -> Windows:
    """Where the columns and rows of a whole model stand."""
    place = window_of_columns(model.column_count, variables)
    counts = np.diff(model.matrix.indptr)
    first = np.zeros(model.row_count, dtype=np.int64)
    last = np.zeros(model.row_count, dtype=np.int64)
    filled = np.flatnonzero(counts)
    if len(filled):
        at = place[model.matrix.indices]
        starts = model.matrix.indptr[filled]
        first[filled] = np.minimum.reduceat(at, starts)
        last[filled] = np.maximum.reduceat(at, starts)
    return Windows(of_column=place, first=first, last=last)


def window_of_columns(columns: int, v: Variables) -> Integers:
    """(columns,) the window that each belongs to."""
    place = np.full(columns, NOWHERE, dtype=np.int64)
    for group in (
        v.replicas, v.usable, v.starts, v.stops, v.flips, v.beyond, v.sent, v.moved, v.shortfall,
        v.has_pair,
    ):  # fmt: skip
        there = group != NO_COLUMN
        window = np.broadcast_to(np.arange(group.shape[-1]), group.shape)
        place[group[there]] = window[there]
    for (_, t), of_table in v.count.items():
        place[of_table] = t
    for (_, _, t), filled in v.nodes.items():
        place[filled] = t
    return place


def priced_apart(
    model: Linear, windows: Windows, cost: Floats, duals: Floats
) -> tuple[Floats, float]:
    """Prices of columns with which the windows stand alone, and what the joining rows are worth.

    Parameters
    ----------
    cost : (columns,) float
    duals : (rows,) float
        Of the joining rows; those of others are not looked at. Any values of the right sign give a
        bound, the duals of the relaxation the best one. A dual towards a side that a row does not
        have is taken as 0.

    Returns
    -------
    prices : (columns,) float
    constant : float
        The optima of the windows at these prices plus this bound the whole from below.
    """
    side = np.where(duals > 0, model.low, model.high)
    used = np.flatnonzero(windows.joining & (duals != 0) & np.isfinite(side))
    worth = np.zeros(model.row_count)
    worth[used] = duals[used]
    prices = np.asarray(cost - model.matrix.T @ worth, dtype=np.float64)
    return prices, float(worth[used] @ side[used])
