"""Measured points as tables: rectangles filled, falls lifted, errors at points left out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.domain.profile import TimeTable

Floats = NDArray[np.float64]

NAMED_POINTS = 12
"""More lifted points than these are counted in a note, not named one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Seconds of so much work: of new and cached tokens, or of sequences and their context."""

    x: float
    y: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tabled:
    """A table, and what was done to make one."""

    table: TimeTable
    notes: tuple[str, ...]


def prefill_table(points: Sequence[Point]) -> Tabled:
    """Prefill over (new tokens, cached tokens); see `_tabled`."""
    return _tabled(points, "prefill", ("new tokens", "cached tokens"))


def decode_table(points: Sequence[Point]) -> Tabled:
    """Decode steps over (sequences, context tokens per sequence); see `_tabled`."""
    return _tabled(points, "decode step", ("sequences", "context tokens"))


def lifted(table: TimeTable, name: str) -> Tabled:
    """The table with the highest time so far where more work (x) takes less.

    Planning with more work must not look cheaper; every point that was lifted is noted.
    """
    seconds = np.maximum.accumulate(table.seconds, axis=0)
    rise = seconds / table.seconds - 1
    changed = [
        f"{table.x[i]:g} {table.x_name} at {table.y[j]:g} {table.y_name} from "
        f"{table.seconds[i, j]:.6g} to {seconds[i, j]:.6g} s (+{rise[i, j]:.1%})"
        for i, j in np.argwhere(rise > 0)
    ]
    if not changed:
        return Tabled(table=table, notes=())
    named = "; ".join(changed[:NAMED_POINTS])
    more = len(changed) - NAMED_POINTS
    rest = f"; and {more} more, by at most {rise.max():.1%}" if more > 0 else ""
    note = f"{name}: lifted, as more work may not take less time: {named}{rest}"
    return Tabled(
        table=TimeTable(
            x_name=table.x_name, y_name=table.y_name, x=table.x, y=table.y, seconds=seconds
        ),
        notes=(note,),
    )


def left_out_error_ratio(*tables: TimeTable) -> float | None:
    """Median relative error of points told by their neighbours along x; None: too few points."""
    errors: list[float] = []
    for table in tables:
        x = table.x
        for i in range(1, len(x) - 1):
            share = (x[i] - x[i - 1]) / (x[i + 1] - x[i - 1])
            told = table.seconds[i - 1] * (1 - share) + table.seconds[i + 1] * share
            errors.extend(np.abs(told / table.seconds[i] - 1).tolist())
    return float(np.median(errors)) if errors else None


def _tabled(points: Sequence[Point], name: str, axes: tuple[str, str]) -> Tabled:
    """Every point at its place; where a rectangle needs more, filled along x and noted.

    Repeats at one place count with their median. Within a column (one y) what lies between is
    interpolated, below the first point its time is held, beyond the last its last segment is
    continued: such cells belong to columns that were measured less far than others, as long
    contexts are for want of memory.
    """
    xs = np.unique(np.array([p.x for p in points], dtype=np.float64))
    ys = np.unique(np.array([p.y for p in points], dtype=np.float64))
    seconds = np.empty((len(xs), len(ys)))
    between = beyond = 0
    for j, y in enumerate(ys):
        at: dict[float, list[float]] = {}
        for point in points:
            if point.y == y:
                at.setdefault(point.x, []).append(point.seconds)
        own = np.array(sorted(at))
        times = np.array([float(np.median(at[x])) for x in own])
        seconds[:, j] = _along(own, times, xs)
        between += int((xs < own[-1]).sum() - len(own) + 1)
        beyond += int((xs > own[-1]).sum())
    table = TimeTable(x_name=axes[0], y_name=axes[1], x=xs, y=ys, seconds=seconds)
    notes: tuple[str, ...] = ()
    if between or beyond:
        notes = (
            f"{name}: {between} of {seconds.size} cells were interpolated between measured ones "
            f"or held below the first, {beyond} continued beyond the largest measured "
            f"{axes[0]} at their {axes[1]}",
        )
    raised = lifted(table, name)
    return Tabled(table=raised.table, notes=notes + raised.notes)


def _along(own: Floats, times: Floats, xs: Floats) -> Floats:
    """Times at `xs` from those at `own`: interpolated, held below, continued above."""
    found = np.interp(xs, own, times)
    if len(own) > 1:
        slope = max((times[-1] - times[-2]) / (own[-1] - own[-2]), 0.0)
        found = np.where(xs > own[-1], times[-1] + slope * (xs - own[-1]), found)
    return np.asarray(found, dtype=np.float64)
