"""A fitted form as a time table, over what was measured and no further."""

from collections.abc import Callable

import numpy as np

from planner.domain.profile import TimeTable
from profiler.fitting.forms import Floats, Scatter

MOST_ROWS, MOST_COLUMNS = 16, 8
"""Lines of a table: between them a plan interpolates, by then within a fraction of the error."""


def table_of(
    seconds: Callable[[Floats, Floats], Floats], points: Scatter, *, x_name: str, y_name: str
) -> TimeTable:
    """Evaluate a form over the measured range.

    Times never fall as work grows: where the form says so, the highest so far is taken, because a
    plan must not gain by giving more work.
    """
    x, y = _lines(points.x, MOST_ROWS), _lines(points.y, MOST_COLUMNS)
    grid_x, grid_y = np.meshgrid(x, y, indexing="ij")
    cells = seconds(grid_x.ravel(), grid_y.ravel()).reshape(grid_x.shape)
    cells = np.maximum.accumulate(np.maximum.accumulate(cells, axis=0), axis=1)
    return TimeTable(x_name=x_name, y_name=y_name, x=x, y=y, seconds=cells)


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
