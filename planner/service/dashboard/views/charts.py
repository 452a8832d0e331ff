"""Plots over time as values: paths in a box of fixed size, that a page stretches to its width.

Nothing of a plot is told by colour alone: every series has a line of its own kind, a name in the
legend, and its numbers in a table.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from planner.service.reports.table import Table

WIDTH, HEIGHT = 1000.0, 240.0
"""Of the box that paths are drawn in; a page stretches it, lines keep their width."""
X_LABELS = 5
_STEPS = (1.0, 2.0, 4.0, 6.0, 8.0, 10.0)
"""An axis ends at one of them times a power of ten, so that half of it is a round number, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One series.

    Parameters
    ----------
    look : str
        A class of the style sheet: `observed`, `expected`, `promise`.
    points : tuple of (datetime, float or None)
        In order of time; None: not known, the line has a gap.
    """

    name: str
    look: str
    points: tuple[tuple[datetime, float | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """An area between two series: (instant, low, high)."""

    name: str
    look: str
    points: tuple[tuple[datetime, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A level that something is held against."""

    name: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A path of the drawing.

    Parameters
    ----------
    mark : str
        `line`, `dash` or `band`, for the legend.
    """

    name: str
    look: str
    mark: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A plot: what is drawn, what its axes say, and what it says in words and numbers."""

    name: str
    title: str
    summary: str
    shapes: tuple[Shape, ...]
    y_labels: tuple[str, ...]
    x_labels: tuple[str, ...]
    table: Table | None = None

    @property
    def description(self) -> str:
        """For those who cannot see it."""
        span = f" From {self.x_labels[0]} to {self.x_labels[-1]} UTC." if self.x_labels else ""
        return f"{self.title}. {self.summary}{span}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """Which part of time is shown, and how values are written."""

    start_at: datetime
    end_at: datetime
    written: Callable[[float], str]
    least_top: float = 0.0


def drawn(
    name: str,
    title: str,
    axes: Axes,
    *,
    summary: str,
    lines: Sequence[Line] = (),
    bands: Sequence[Band] = (),
    rules: Sequence[Rule] = (),
    table: Table | None = None,
) -> Chart:
    """Put series into the box; what lies outside the axes' time is left out."""
    values = [value for line in lines for _, value in line.points if value is not None]
    values += [high for band in bands for _, _, high in band.points]
    values += [rule.value for rule in rules]
    top = _round_up(max([axes.least_top, *values]))
    shapes = [Shape(name=b.name, look=b.look, mark="band", path=_area(b, axes, top)) for b in bands]
    shapes += [Shape(name=r.name, look="promise", mark="dash", path=_level(r, top)) for r in rules]
    shapes += [
        Shape(
            name=line.name,
            look=line.look,
            mark="dash" if line.look == "expected" else "line",
            path=_path(line, axes, top),
        )
        for line in lines
    ]
    return Chart(
        name=name,
        title=title,
        summary=summary,
        shapes=tuple(shapes),
        y_labels=tuple(axes.written(part * top) for part in (1.0, 0.5, 0.0)),
        x_labels=_instants(axes),
        table=table,
    )


def _round_up(value: float) -> float:
    if not math.isfinite(value) or value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next((step for step in _STEPS if step * power >= value * 0.9999), 10.0) * power


def _x(at: datetime, axes: Axes) -> float:
    whole = (axes.end_at - axes.start_at).total_seconds() or 1.0
    return WIDTH * (at - axes.start_at).total_seconds() / whole


def _y(value: float, top: float) -> float:
    return HEIGHT * (1.0 - min(max(value, 0.0), top) / top)


def _inside(at: datetime, axes: Axes) -> bool:
    return axes.start_at <= at <= axes.end_at


def _path(line: Line, axes: Axes, top: float) -> str:
    """Pieces between gaps; a piece of one point is a dot."""
    pieces: list[list[str]] = [[]]
    for at, value in line.points:
        if not _inside(at, axes):
            continue
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{_x(at, axes):.1f} {_y(value, top):.1f}")
    return " ".join(
        f"M{piece[0]}L{' '.join(piece[1:])}" if len(piece) > 1 else f"M{piece[0]}h0.1"
        for piece in pieces
        if piece
    )


def _area(band: Band, axes: Axes, top: float) -> str:
    points = [point for point in band.points if _inside(point[0], axes)]
    if len(points) < 2:
        return ""
    above = [f"{_x(at, axes):.1f} {_y(high, top):.1f}" for at, _, high in points]
    below = [f"{_x(at, axes):.1f} {_y(low, top):.1f}" for at, low, _ in reversed(points)]
    return f"M{above[0]}L{' '.join(above[1:])} {' '.join(below)}Z"


def _level(rule: Rule, top: float) -> str:
    return f"M0 {_y(rule.value, top):.1f}H{WIDTH:.0f}"


def _instants(axes: Axes) -> tuple[str, ...]:
    step = (axes.end_at - axes.start_at) / (X_LABELS - 1)
    shown_s = (axes.end_at - axes.start_at).total_seconds()
    form = (
        "%m-%d" if shown_s > 2 * 86_400 else "%H:%M" if step.total_seconds() >= 60 else "%H:%M:%S"
    )
    return tuple((axes.start_at + i * step).strftime(form) for i in range(X_LABELS))
