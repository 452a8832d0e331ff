"""What a report page is made of: figures, and how its template is filled."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from pydantic import BaseModel


def rendered(template: str, **values: object) -> str:
    """Fill a template of this package; plotly.js goes in with the values, packed."""
    environment = Environment(
        loader=PackageLoader("planner.service.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values, packed_plotly=_packed_plotly())


def embedded(document: BaseModel) -> Markup:
    """A document as JSON that stands safely inside a `<script>` element."""
    # Pydantic writes no `<` that could end the script element once they are escaped.
    return Markup(  # noqa: S704
        document.model_dump_json()
        .replace("&", "\\u0026")
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
    )


@cache
def _packed_plotly() -> str:
    """plotly.js of the installed package, gzip in base64; the page's script unpacks it."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One entry of a figure's legend.

    Parameters
    ----------
    colour : str
        A colour of the page's palette, as in `var(--after)`.
    mark : str
        `dot`, `line`, `dash`, `band`, `bar` or `cross`.
    """

    text: str
    colour: str
    mark: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A plot with what it says in words, for those who cannot see it.

    Parameters
    ----------
    content : Markup
        Plotly's data and layout as JSON, safe inside a `<script>` element.
    height_px : int
    """

    name: str
    title: str
    description: str
    keys: tuple[Key, ...]
    content: Markup
    height_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Figures under a heading."""

    heading: str
    figures: tuple[Figure, ...]


TEXT = "var(--text)"
MUTED = "var(--muted)"
GRID = "var(--grid)"
CARD = "var(--card)"
PROMISE = "var(--promise)"
FAILED = "var(--failed)"
BEFORE, DURING, AFTER = "var(--before)", "var(--during)", "var(--after)"
PREDICTED, HINDCAST, OBSERVED = "var(--predicted)", "var(--hindcast)", AFTER
PREFILL, DECODE, AGGREGATED = "var(--prefill)", "var(--decode)", "var(--aggregated)"
SERIES = (PREFILL, DECODE, BEFORE, AFTER, DURING, AGGREGATED)
"""Colours are names: the page's script puts in those of the light, dark or printed palette."""


def titled(figure: go.Figure, row: int, text: str) -> None:
    """Put a title at the upper left of a panel: shorter than turned text, and readable."""
    figure.add_annotation(
        text=text,
        row=row,
        col=1,
        xref="x domain",
        yref="y domain",
        x=0,
        y=1,
        yshift=4,
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        font={"size": 13, "color": TEXT},
    )


def drawn(
    figure: go.Figure,
    *,
    name: str,
    title: str,
    description: str,
    keys: Sequence[Key],
    height_px: int,
    zoom: bool = False,
    top_px: int = 26,
) -> Figure:
    """Give a figure the page's look and turn it into a part of the page.

    Parameters
    ----------
    zoom : bool
        Whether dragging zooms in; a double click shows all again.
    top_px : int
        Room above the panels, for their titles.
    """
    figure.update_layout(
        template=None,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 12, "color": MUTED},
        margin={"l": 8, "r": 12, "t": top_px, "b": 8},
        showlegend=False,
        hovermode="closest",
        dragmode="zoom" if zoom else False,
    )
    axis = {
        "automargin": True,
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "title_font": {"size": 12, "color": MUTED},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return Figure(
        name=name,
        title=title,
        description=description,
        keys=tuple(keys),
        # Plotly writes <, > and & as \u escapes: nothing in it can end the script element.
        content=Markup(figure.to_json()),  # noqa: S704
        height_px=height_px,
    )
