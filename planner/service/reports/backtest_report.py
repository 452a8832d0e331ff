"""A backtest of the forecaster as one HTML page: what came beside what was forecast of it."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from forecaster.backtest import BacktestResult, SeriesScore
from planner.domain.workload import Floats
from planner.service.answers.histories import AskedHistory
from planner.service.documents.backtest import BacktestDocument
from planner.service.reports.over_time import draw_band, draw_line, stamp
from planner.service.reports.page import (
    AFTER,
    PREDICTED,
    Figure,
    Key,
    Section,
    drawn,
    rendered,
    titled,
)
from planner.service.reports.quantities import MISSING, between, counted, duration, sentence, share
from planner.service.reports.table import Table, cells, number_columns, text_columns

TEMPLATE = "forecast_report.html.j2"
PANEL_PX = 190
BAND = (0.1, 0.9)
_TITLES = {
    "request_rate_rps": "Requests per second",
    "input_tokens_per_s": "Prompt tokens per second",
    "output_tokens_per_s": "Answer tokens per second",
}


def backtest_report(
    history: AskedHistory, result: BacktestResult, document: BacktestDocument
) -> str:
    """Write the page of a backtest, with a figure for each class and series.

    Returns
    -------
    str
        A whole HTML document with its styles, its scripts and plotly.js inside; 5 MB and more.
    """
    classes = sorted({score.request_class for score in result.scores})
    return rendered(
        TEMPLATE,
        title="Poolwise backtest of forecasts",
        brand="backtest of forecasts",
        command="poolwise backtest forecast",
        headline=_headline(document),
        lead=_lead(document),
        notes=tuple(sentence(note) for note in history.notes),
        sections=tuple(
            Section(heading=f"Class {name}", figures=_class_figures(history, result, name, number))
            for number, name in enumerate(classes)
        ),
        tables=(_scores_table(document),),
        facts=(),
    )


def _class_figures(
    history: AskedHistory, result: BacktestResult, request_class: str, number: int
) -> tuple[Figure, ...]:
    end_at = max(w.end_at for w in history.windows if w.request_class == request_class)
    of_class = [score for score in result.scores if score.request_class == request_class]
    return tuple(
        series_figure(
            [score for score in of_class if score.series == series],
            window_s=result.window_s,
            end_at=end_at,
            name=f"class-{number}-{series}",
        )
        for series in dict.fromkeys(score.series for score in of_class)
    )


def series_figure(
    scores: Sequence[SeriesScore], *, window_s: float, end_at: datetime, name: str
) -> Figure:
    """Draw a series with the median and the 10 to 90 % band of its forecasts, by horizon.

    A forecast stands at the instant that it was made for; before the scored part it is drawn, too.
    """
    figure = make_subplots(rows=len(scores), cols=1, shared_xaxes=True, vertical_spacing=0.09)
    for row, score in enumerate(scores, start=1):
        _draw_score(figure, score, window_s=window_s, end_at=end_at, row=row)
        ahead = counted(score.horizon_windows, "window")
        titled(figure, row, f"<b>{ahead} ahead</b>")
        figure.update_yaxes(rangemode="tozero", nticks=5, tickformat=",", row=row, col=1)
    figure.update_xaxes(title_text="time, UTC", row=len(scores), col=1)
    return drawn(
        figure,
        name=name,
        title=_TITLES[scores[0].series],
        description=_description(scores),
        keys=(
            Key(text="actual", colour=AFTER, mark="line"),
            Key(text="forecast, median", colour=PREDICTED, mark="line"),
            Key(text=f"forecast, {BAND[0]:.0%} to {BAND[1]:.0%}", colour=PREDICTED, mark="band"),
        ),
        height_px=80 + PANEL_PX * len(scores),
        zoom=True,
    )


def _draw_score(
    figure: go.Figure, score: SeriesScore, *, window_s: float, end_at: datetime, row: int
) -> None:
    track, ahead = score.track, score.horizon_windows
    steps = len(track.values)
    instants = [
        stamp(end_at - timedelta(seconds=window_s * (steps - 0.5 - k))) for k in range(steps)
    ]
    first = int(np.flatnonzero(score.scored)[0])
    made_for, made = instants[first + ahead :], slice(first, steps - ahead)
    low, high = (_rounded(track.at(level)[made]) for level in BAND)
    draw_band(figure, made_for, low, high, row=row)
    for x, y, colour, what in (
        (instants, track.values, AFTER, "actual"),
        (made_for, track.point[made], PREDICTED, "median"),
    ):
        draw_line(
            figure, x, _rounded(y), row=row, colour=colour, said=f"{what}: %{{y:.4~g}}", width=1.5
        )


def _rounded(values: Floats) -> list[float | None]:
    """Four digits are more than a plot shows; what is not known is left open."""
    return [float(f"{v:.4g}") if np.isfinite(v) else None for v in values.tolist()]


def _description(scores: Sequence[SeriesScore]) -> str:
    parts = [
        f"{counted(s.horizon_windows, 'window')} ahead {_number(s.score.mae_ratio)} of the last "
        f"value's mean absolute error, {share(s.score.q90_coverage_ratio)} at or below the 90% "
        "quantile"
        for s in scores
    ]
    return sentence(f"{_TITLES[scores[0].series]}, actual and forecast: " + "; ".join(parts))


def _headline(document: BacktestDocument) -> str:
    nearest = document.horizons[0]
    if nearest.mae_ratio is None:
        return "The last value was always right"
    return (
        f"{nearest.mae_ratio:.0%} of the last value's error, "
        f"{counted(nearest.horizon_windows, 'window')} ahead"
    )


def _lead(document: BacktestDocument) -> str:
    parts = [
        f"{counted(one.horizon_windows, 'window')} ahead: geometric mean {_number(one.mae_ratio)}, "
        f"worst {_number(one.worst_mae_ratio)}, {share(one.q90_coverage_ratio)} at or below the "
        "90% quantile"
        for one in document.horizons
    ]
    return (
        f"Windows of {duration(document.window_s)}, each forecast from those before it. "
        + "; ".join(parts)
        + "."
    )


def _scores_table(document: BacktestDocument) -> Table:
    return Table(
        caption="Losses over those of the last value",
        columns=(
            *text_columns("Class", "Series"),
            *number_columns(
                "Ahead", "Origins", "MAE", "MASE", "Pinball 0.9", "90% covers", "95% interval"
            ),
        ),
        rows=tuple(
            cells(
                s.request_class,
                _TITLES[s.series],
                str(s.horizon_windows),
                f"{s.origins:,}",
                _number(s.mae_ratio),
                _number(s.mase),
                _number(next((p.ratio for p in s.pinball if p.level == 0.9), None)),
                share(s.q90_coverage_ratio),
                between(s.q90_coverage_low_ratio, s.q90_coverage_high_ratio),
            )
            for s in document.scores
        ),
    )


def _number(ratio: float | None) -> str:
    return MISSING if ratio is None else f"{ratio:.3f}"
