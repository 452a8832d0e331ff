"""Lines and bands over instants, as the pages of forecasts and backtests draw them."""

from collections.abc import Sequence
from datetime import UTC, datetime

import plotly.graph_objects as go

from planner.service.reports.page import PREDICTED


def stamp(moment: datetime) -> str:
    """UTC without its zone: plotly would move it to the reader's."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")


def draw_line(
    figure: go.Figure,
    x: Sequence[str | None],
    y: Sequence[float | None],
    *,
    row: int,
    colour: str,
    said: str,
    width: float,
) -> None:
    """Draw one line; None leaves it open.

    Parameters
    ----------
    said : str
        What stands at a point before its instant, in plotly's format.
    """
    figure.add_trace(
        go.Scatter(
            x=list(x),
            y=list(y),
            mode="lines",
            line={"color": colour, "width": width},
            hovertemplate=f"{said} at %{{x|%Y-%m-%d %H:%M:%S}}<extra></extra>",
        ),
        row=row,
        col=1,
    )


def draw_band(
    figure: go.Figure,
    x: Sequence[str],
    low: Sequence[float | None],
    high: Sequence[float | None],
    *,
    row: int,
) -> None:
    """Fill between two quantiles of what was forecast."""
    for y, fill in ((low, None), (high, "tonexty")):
        figure.add_trace(
            go.Scatter(
                x=list(x),
                y=list(y),
                mode="lines",
                line={"width": 0, "color": PREDICTED},
                fill=fill,
                fillcolor="var(--predicted-band)",
                hoverinfo="skip",
            ),
            row=row,
            col=1,
        )
