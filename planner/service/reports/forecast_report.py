"""A forecast as one HTML page that needs nothing else: what was, and what may come."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from planner.domain.forecast import Demand, Forecast, ForecastWindow, Quantiles
from planner.domain.wording import counted
from planner.domain.workload import ObservedWindow
from planner.service.answers.histories import AskedHistory
from planner.service.documents.output_lengths import LEVELS, OutputLengthsDocument
from planner.service.reports.over_time import draw_band, draw_line, stamp
from planner.service.reports.page import (
    BEFORE,
    DURING,
    PREDICTED,
    Figure,
    Key,
    Section,
    drawn,
    rendered,
    titled,
)
from planner.service.reports.quantities import duration, rate, sentence, share
from planner.service.reports.table import Fact, Table, cells, number_columns, text_columns

TEMPLATE = "forecast_report.html.j2"
HEIGHT_PX = 700
MOST_DRAWN = 2_000
"""Windows of history; older ones would be thinner than a pixel."""
HISTORY_SHARE = 8
"""So many times the horizon is in view at first; the rest of the history is a double click away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One quantity, in what was observed and in what is expected; None: not known."""

    title: str
    form: str
    observed: Callable[[ObservedWindow], float | None]
    expected: Callable[[Demand], Quantiles | None]


PANELS = (
    Panel(
        title="<b>Requests</b> per second",
        form=".4~g",
        observed=lambda w: w.requests / w.window_s,
        expected=lambda d: d.request_rate_rps,
    ),
    Panel(
        title="<b>Prompt tokens</b> per second",
        form=",.0f",
        observed=lambda w: w.input_tokens / w.window_s,
        expected=lambda d: d.input_tokens_per_s,
    ),
    Panel(
        title="<b>Answer tokens</b> per second",
        form=",.0f",
        observed=lambda w: w.output_tokens / w.window_s if w.has_answers_counted else None,
        expected=lambda d: d.output_tokens_per_s,
    ),
    Panel(
        title="<b>Cached share</b> of prompt tokens",
        form=".1%",
        observed=lambda w: w.cached_tokens / w.input_tokens if w.input_tokens else None,
        expected=lambda d: d.reuse_ratio,
    ),
)


def forecast_report(history: AskedHistory, forecast: Forecast) -> str:
    """Write the page of a forecast, with a figure for each request class.

    Returns
    -------
    str
        A whole HTML document with its styles, its scripts and plotly.js inside; about 5 MB.
    """
    classes = sorted({d.request_class for w in forecast.windows for d in w.demands})
    drifts = [
        f"lengths of class {drift.request_class} have changed: {drift.what}"
        for drift in forecast.drifts
    ]
    notes = [*history.notes, *forecast.events, *drifts]
    return rendered(
        TEMPLATE,
        title="Poolwise forecast",
        brand="forecast",
        command="poolwise forecast",
        headline=_headline(forecast),
        lead=_lead(forecast),
        notes=tuple(sentence(note) for note in notes),
        sections=tuple(
            Section(
                heading=f"Class {name}",
                figures=(class_figure(history.windows, forecast, name, number),),
            )
            for number, name in enumerate(classes)
        ),
        tables=(_windows_table(forecast), _lengths_table(forecast)),
        facts=tuple(
            Fact(term="Methods", value=of_class) for of_class in forecast.method.split("; ")
        ),
    )


def class_figure(
    windows: Sequence[ObservedWindow], forecast: Forecast, request_class: str, number: int
) -> Figure:
    """Draw the history of a class and the quantiles of what may come, over time (UTC)."""
    past = [w for w in windows if w.request_class == request_class and w.end_at <= forecast.made_at]
    past = past[-MOST_DRAWN:]
    figure = make_subplots(rows=len(PANELS), cols=1, shared_xaxes=True, vertical_spacing=0.07)
    for row, panel in enumerate(PANELS, start=1):
        _draw_history(figure, panel, past, row)
        _draw_bands(figure, panel, forecast.windows, request_class, row)
        figure.update_yaxes(rangemode="tozero", nticks=5, tickformat=panel.form, row=row, col=1)
        titled(figure, row, panel.title)
    figure.add_vline(x=stamp(forecast.made_at), line={"color": DURING, "width": 1, "dash": "dot"})
    figure.update_xaxes(range=_in_view(past, forecast))
    figure.update_xaxes(title_text="time, UTC", row=len(PANELS), col=1)
    return drawn(
        figure,
        name=f"class-{number}",
        title="What was, and what may come",
        description=_description(forecast, request_class),
        keys=(
            Key(text="observed", colour=BEFORE, mark="line"),
            Key(text="forecast, median", colour=PREDICTED, mark="line"),
            Key(text="forecast, 5% to 95% and 25% to 75%", colour=PREDICTED, mark="band"),
            Key(text="made at", colour=DURING, mark="dash"),
        ),
        height_px=HEIGHT_PX,
        zoom=True,
    )


def _draw_history(
    figure: go.Figure, panel: Panel, windows: Sequence[ObservedWindow], row: int
) -> None:
    x: list[str | None] = []
    y: list[float | None] = []
    for index, window in enumerate(windows):
        if index and window.start_at > windows[index - 1].end_at:  # a gap stays open
            x.append(None)
            y.append(None)
        x += [stamp(window.start_at), stamp(window.end_at)]
        y += [panel.observed(window)] * 2
    said = f"observed: %{{y:{panel.form}}}"
    draw_line(figure, x, y, row=row, colour=BEFORE, said=said, width=2)


def _draw_bands(
    figure: go.Figure,
    panel: Panel,
    windows: Sequence[ForecastWindow],
    request_class: str,
    row: int,
) -> None:
    known = [
        (window, quantiles)
        for window in windows
        for demand in window.demands
        if demand.request_class == request_class
        for quantiles in [panel.expected(demand)]
        if quantiles is not None
    ]
    x = [edge for window, _ in known for edge in _edges(window)]
    for low, high in ((0.05, 0.95), (0.25, 0.75)):
        bounds = ([q.at(level) for _, q in known for _ in range(2)] for level in (low, high))
        draw_band(figure, x, *bounds, row=row)
    medians = [q.median for _, q in known for _ in range(2)]
    said = f"median: %{{y:{panel.form}}}"
    draw_line(figure, x, medians, row=row, colour=PREDICTED, said=said, width=2)


def _edges(window: ForecastWindow) -> tuple[str, str]:
    return stamp(window.start_at), stamp(window.end_at)


def _in_view(past: Sequence[ObservedWindow], forecast: Forecast) -> list[str]:
    end_at = forecast.windows[-1].end_at
    begin_at = forecast.made_at - HISTORY_SHARE * (end_at - forecast.made_at)
    if past:
        begin_at = max(begin_at, past[0].start_at)
    return [stamp(begin_at), stamp(end_at)]


def _headline(forecast: Forecast) -> str:
    first = forecast.windows[0]
    expected = rate(first.request_rate_rps(0.5), "requests")
    return f"{expected} expected in the next {duration(first.window_s)}"


def _lead(forecast: Forecast) -> str:
    first = forecast.windows[0]
    return (
        f"Forecast {forecast.forecast_id} of {forecast.model}, made at "
        f"{forecast.made_at.isoformat(timespec='seconds')} for "
        f"{counted(len(forecast.windows), 'window')} of "
        f"{duration(first.window_s)}; in nine of ten cases no more than "
        f"{rate(first.request_rate_rps(0.9), 'requests')} in the first."
    )


def _description(forecast: Forecast, request_class: str) -> str:
    parts = []
    for demand in forecast.windows[0].demands:
        if demand.request_class == request_class:
            band = demand.request_rate_rps
            parts.append(
                f"in the first window {rate(band.median, 'requests')} at the median, "
                f"{rate(band.at(0.05), 'requests')} to {rate(band.at(0.95), 'requests')} in nine "
                "of ten cases"
            )
    return sentence(
        f"Rates and cached share of class {request_class} over time, observed and expected: "
        + "; ".join(parts)
    )


def _windows_table(forecast: Forecast) -> Table:
    return Table(
        caption="Rates by window",
        columns=(
            *text_columns("Window, UTC", "Class"),
            *number_columns(
                "Requests/s 10%",
                "50%",
                "90%",
                "Prompt tokens/s 90%",
                "Answer tokens/s 90%",
                "Cached",
            ),
        ),
        rows=tuple(
            cells(
                stamp(window.start_at)[:19].replace("T", " "),
                demand.request_class,
                *(f"{demand.request_rate_rps.at(level):.3g}" for level in (0.1, 0.5, 0.9)),
                f"{demand.input_tokens_per_s.at(0.9):,.0f}",
                f"{demand.output_tokens_per_s.at(0.9):,.0f}",
                share(None if demand.reuse_ratio is None else demand.reuse_ratio.median),
            )
            for window in forecast.windows
            for demand in window.demands
        ),
    )


def _lengths_table(forecast: Forecast) -> Table:
    return Table(
        caption="Answers in flight: tokens still to come",
        columns=(
            *text_columns("Class"),
            *number_columns(
                "Tokens so far", "Get longer", "Mean", *(f"{level:.0%}" for level in LEVELS)
            ),
        ),
        rows=tuple(
            cells(
                of_class.request_class,
                f"{row.so_far_tokens:,}",
                share(row.longer_ratio),
                *(f"{tokens:,.0f}" for tokens in (row.mean_tokens, *row.values)),
            )
            for demand in forecast.windows[0].demands
            for of_class in [OutputLengthsDocument.of(demand)]
            for row in of_class.remaining
        ),
    )
