"""A fitted form as a time table, over what was measured and no further."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from planner.domain.profile import TimeTable
from profiler.fitting.forms import Floats, Scatter, placed, tokens_at

MOST_ROWS, MOST_COLUMNS = 16, 8
"""Lines of a table: between them a plan interpolates, by then within a fraction of the error."""
NEAR_RATIO = 0.05
"""So little short of the last line counts as reaching it: contexts grow while they are measured."""


def table_of(
    seconds: Callable[[Floats, Floats], Floats], points: Scatter, *, x_name: str, y_name: str
) -> TimeTable:
    """Evaluate a form over the measured range.

    Times never fall as work grows: where the form says so, the highest so far is taken, because a
    plan must not gain by giving more work. What was measured is no rectangle where a run broke off
    before a corner, or could not take it: the table says how far it reaches.
    """
    x, y = _lines(points.x, MOST_ROWS), _lines(points.y, MOST_COLUMNS)
    if _reach(points, x, y) is not None and len(y) > 1:
        x = np.union1d(x, np.floor(_furthest(points)))
    grid_x, grid_y = np.meshgrid(x, y, indexing="ij")
    cells = seconds(grid_x.ravel(), grid_y.ravel()).reshape(grid_x.shape)
    cells = np.maximum.accumulate(np.maximum.accumulate(cells, axis=0), axis=1)
    reach = _reach(points, x, y)
    return TimeTable(x_name=x_name, y_name=y_name, x=x, y=y, seconds=cells, reach=reach)


def under_roof(
    table: TimeTable, points: Scatter, least_s: Callable[[Floats, Floats], Floats], name: str
) -> tuple[TimeTable, tuple[str, ...]]:
    """The table without times that the accelerator's peak forbids, and what was done, as notes.

    Where a measurement itself is faster than that by more than its noise, the peak is not that of
    this engine, and bounds nothing.

    Parameters
    ----------
    least_s : function of (x, y) to seconds
        The roofline: what computing or reading takes at the peak.
    """
    faster = least_s(points.x, points.y) / points.seconds - 1
    if bool(np.any(faster > np.maximum(3 * points.noise_ratio, NEAR_RATIO))):
        return table, (
            f"{name}: measured up to {faster.max():.0%} faster than the accelerator's peak allows: "
            "a wrong accelerator name, model config or measurement? It bounds nothing here",
        )
    bound = np.maximum(table.seconds, least_s(table.x[:, None], table.y[None, :]))
    rise = bound / table.seconds - 1
    if not bool(np.any(rise > 0)):
        return table, ()
    return replace(table, seconds=bound), (
        f"{name}: {int((rise > 0).sum())} of {rise.size} cells were raised to what the "
        f"accelerator's peak allows (roofline), by at most {rise.max():.1%}",
    )


def _furthest(points: Scatter) -> Floats:
    """Every x with a point that no other has more of both than: there the reach has a corner."""
    return np.array(
        [
            x
            for x, y in zip(points.x, points.y, strict=True)
            if not bool(np.any((points.x >= x) & (points.y > y) | (points.x > x) & (points.y >= y)))
        ]
    )


def _reach(points: Scatter, x: Floats, y: Floats) -> Floats | None:
    """(nx,) the largest y that measurements bound at each x; None: all of several, at all x.

    A measured point bounds whatever has less of both, and a form may tell what lies between two
    measured points, by logarithms.
    """
    at = placed(points.x, points.y)
    column = placed(x, np.zeros_like(x))[:, 0]
    far = np.array([at[at[:, 0] >= place - 1e-9, 1].max(initial=0.0) for place in column])
    for a, b in at:
        for c, d in at:
            if a < c and b > d:
                between = (column >= a) & (column <= c)
                straight = b + (d - b) * (column - a) / (c - a)
                far = np.where(between, np.maximum(far, straight), far)
    reach = tokens_at(far)
    reach = np.where(reach * (1 + NEAR_RATIO) >= y[-1], y[-1], reach)
    reach = np.minimum.accumulate(reach)
    return None if len(y) > 1 and bool(np.all(reach == y[-1])) else reach


def _lines(values: Floats, most: int) -> Floats:
    """Whole numbers from the least to the greatest value, evenly spread in logarithms."""
    low, high = float(np.floor(values.min())), float(np.ceil(values.max()))
    if high <= low:
        return np.array([low])
    shift = 1.0 if low == 0 else 0.0
    first = max(low, 64.0) if low == 0 else low
    count = most - 1 if low == 0 else most
    steps = np.round(np.geomspace(first, high, count)) if high > first else np.array([high])
    lines = np.unique(np.concatenate([[low] if shift else [], steps, [high]]))
    return np.asarray(lines, dtype=np.float64)
