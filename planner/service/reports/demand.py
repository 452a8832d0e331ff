"""The forecast beside what it was made from and what really came."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from planner.domain.forecast import Demand, ForecastWindow, Quantiles
from planner.domain.workload import ObservedWindow, Workload
from planner.service.demo.outcome import Outcome
from planner.service.reports.page import (
    AFTER,
    BEFORE,
    DURING,
    PREDICTED,
    Figure,
    Key,
    drawn,
    titled,
)
from planner.service.reports.quantities import duration, rate, share
from planner.service.reports.table import Fact

HEIGHT_PX = 560


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One quantity over windows, in three views of it: what was, what may come, what came."""

    row: int
    title: str
    observed: Callable[[ObservedWindow], float]
    expected: Callable[[Demand], Quantiles]
    came: Callable[[Workload], float]


SERIES = (
    Series(
        row=1,
        title="<b>Requests</b> per second",
        observed=lambda w: w.requests,
        expected=lambda d: d.request_rate_rps,
        came=len,
    ),
    Series(
        row=2,
        title="<b>Prompt tokens</b> per second",
        observed=lambda w: w.input_tokens,
        expected=lambda d: d.input_tokens_per_s,
        came=lambda w: float(w.input_tokens.sum()),
    ),
    Series(
        row=3,
        title="<b>Answer tokens</b> per second",
        observed=lambda w: w.output_tokens,
        expected=lambda d: d.output_tokens_per_s,
        came=lambda w: float(w.output_tokens.sum()),
    ),
)


def forecast_figure(outcome: Outcome) -> Figure:
    """Draw history, the quantile band and what came, per second of the trace's own time."""
    figure = make_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.11, row_heights=[0.46, 0.27, 0.27]
    )
    zero_at = _zero_at(outcome)
    for series in SERIES:
        _draw_history(figure, series, outcome.history, zero_at)
        _draw_band(figure, series, outcome.forecast.windows, zero_at)
        for workload, colour, name in _what_came(outcome):
            _draw_came(figure, series, workload, zero_at, (colour, name))
        figure.update_yaxes(rangemode="tozero", nticks=5, tickformat=",", row=series.row, col=1)
        titled(figure, series.row, series.title)
    figure.update_xaxes(title_text="seconds of the trace", row=3, col=1)
    low, high = _outer_levels(outcome.forecast.windows)
    keys = [
        *([Key(text="history", colour=BEFORE, mark="line")] if outcome.history else []),
        Key(text="forecast, median", colour=PREDICTED, mark="line"),
        Key(text=f"forecast, {low:.0%} to {high:.0%} quantile", colour=PREDICTED, mark="band"),
        *(Key(text=name, colour=colour, mark="line") for _, colour, name in _what_came(outcome)),
    ]
    return drawn(
        figure,
        name="forecast",
        title="History, forecast, and what came",
        description=_description(outcome),
        keys=keys,
        height_px=HEIGHT_PX,
    )


def forecast_facts(outcome: Outcome) -> tuple[Fact, ...]:
    """What the forecast says of its first window, in words."""
    forecast = outcome.forecast
    facts = [Fact(term="Method", value=forecast.method)]
    for demand in forecast.windows[0].demands:
        band, shape = demand.request_rate_rps, demand.shape
        facts += [
            Fact(
                term="Next window",
                value=f"{rate(band.median, 'requests')} at the median, "
                f"{rate(band.values[0], 'requests')} to {rate(band.values[-1], 'requests')} "
                f"({band.levels[0]:.0%} to {band.levels[-1]:.0%} quantile)",
            ),
            Fact(
                term="Its requests",
                value=f"{shape.isl_mean:.0f} tokens in, {shape.osl_mean:.0f} out on average; "
                f"{share(shape.reuse_ratio)} of prompt tokens cached",
            ),
        ]
    if not forecast.windows[0].demands:
        facts.append(Fact(term="Next window", value="no traffic expected"))
    came = outcome.after.replay.workload
    facts.append(Fact(term="What came", value=rate(came.request_rate_rps, "requests")))
    return tuple(facts)


def _zero_at(outcome: Outcome) -> datetime:
    return min(
        outcome.before.replay.workload.start_at,
        outcome.after.replay.workload.start_at,
        outcome.forecast.windows[0].start_at,
        *(w.start_at for w in outcome.history),
    )


def _what_came(outcome: Outcome) -> list[tuple[Workload, str, str]]:
    came = [(outcome.after.replay.workload, AFTER, "came in the window after")]
    if outcome.during is not None:
        during = (outcome.during.workload, DURING, "came during the rollout")
        came.insert(0, during)
    return [c for c in came if c[0].duration_s > 0]


def _draw_history(
    figure: go.Figure, series: Series, history: Sequence[ObservedWindow], zero_at: datetime
) -> None:
    per_s: dict[tuple[datetime, float], float] = {}
    for window in history:  # one entry per request class: the page shows them together
        key = (window.start_at, window.window_s)
        per_s[key] = per_s.get(key, 0.0) + series.observed(window) / window.window_s
    if not per_s:
        return
    spans = [_span(start_at, window_s, zero_at) for start_at, window_s in sorted(per_s)]
    values = [per_s[key] for key in sorted(per_s)]
    _draw_steps(figure, series.row, spans, values, color=BEFORE, name="history")


def _draw_band(
    figure: go.Figure, series: Series, windows: Sequence[ForecastWindow], zero_at: datetime
) -> None:
    spans = [_span(w.start_at, w.window_s, zero_at) for w in windows]

    def at(level: float) -> list[float]:
        return [sum(series.expected(d).at(level) for d in w.demands) for w in windows]

    low, high = _outer_levels(windows)
    flat = {"width": 0, "color": PREDICTED}
    x = [round(edge, 3) for span in spans for edge in span]
    for level, fill in ((low, None), (high, "tonexty")):
        figure.add_trace(
            go.Scatter(
                x=x,
                y=[v for v in at(level) for _ in range(2)],
                mode="lines",
                line=flat,
                fill=fill,
                fillcolor="var(--predicted-band)",
                hoverinfo="skip",
            ),
            row=series.row,
            col=1,
        )
    _draw_steps(figure, series.row, spans, at(0.5), color=PREDICTED, name="forecast, median")


def _draw_came(
    figure: go.Figure,
    series: Series,
    workload: Workload,
    zero_at: datetime,
    look: tuple[str, str],
) -> None:
    span = _span(workload.start_at, workload.duration_s, zero_at)
    value = series.came(workload) / workload.duration_s
    _draw_steps(figure, series.row, [span], [value], color=look[0], name=look[1])


def _draw_steps(
    figure: go.Figure,
    row: int,
    spans: Sequence[tuple[float, float]],
    values: Sequence[float],
    *,
    color: str,
    name: str,
) -> None:
    """Draw each window as a level line over its whole length."""
    figure.add_trace(
        go.Scatter(
            x=[round(edge, 3) for span in spans for edge in span],
            y=[round(v, 4) for v in values for _ in range(2)],
            mode="lines",
            line={"color": color, "width": 2.5},
            name=name,
            hovertemplate="%{y:.4~g} per second",
        ),
        row=row,
        col=1,
    )


def _span(start_at: datetime, window_s: float, zero_at: datetime) -> tuple[float, float]:
    start_s = (start_at - zero_at).total_seconds()
    return start_s, start_s + window_s


def _outer_levels(windows: Sequence[ForecastWindow]) -> tuple[float, float]:
    levels = [x for w in windows for d in w.demands for x in d.request_rate_rps.levels]
    return (min(levels), max(levels)) if levels else (0.1, 0.9)


def _description(outcome: Outcome) -> str:
    first = outcome.forecast.windows[0]
    low, high = _outer_levels(outcome.forecast.windows)
    came = outcome.after.replay.workload
    return (
        f"Request rate and token rates over the trace's time. For the next "
        f"{duration(first.window_s)} the forecast expects between "
        f"{rate(first.request_rate_rps(low), 'requests')} and "
        f"{rate(first.request_rate_rps(high), 'requests')}; "
        f"{rate(came.request_rate_rps, 'requests')} came in the window after."
    )
