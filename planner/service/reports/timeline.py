"""The figure of a demo run: every request, every rollout step and the replicas, over time."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from planner.domain.workload import Floats
from planner.service.demo.outcome import Outcome
from planner.service.reports.page import (
    CARD,
    DURING,
    FAILED,
    MUTED,
    PROMISE,
    Figure,
    Key,
    drawn,
    titled,
)
from planner.service.reports.phases import Phase, phases_of, span_of
from planner.service.reports.quantities import (
    TimeUnit,
    counted,
    duration,
    long_fleet,
    time_unit,
)
from planner.service.reports.replicas import draw_replicas, replica_keys
from serving.traffic.load import Timing

LOG_FROM_RATIO = 40.0
"""Latencies that span more than this are shown on a logarithmic axis: a queue that grew would
otherwise press all others onto the ground line."""
LONGEST_ERROR = 120
_LADDER = [digit * 10.0**power for power in range(-3, 6) for digit in (1, 2, 5)]
HEIGHT_PX = 700


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One latency over time with its objective.

    Parameters
    ----------
    column : str
        A column of `Replay`: `ttft_s` or `tpot_s`.
    """

    row: int
    title: str
    column: str
    promised_s: float


def timeline(outcome: Outcome) -> Figure:
    """Draw TTFT, time per token and replicas over time, with the rollout's steps shaded."""
    figure = make_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.46, 0.32, 0.22]
    )
    slo = outcome.slo
    panels = (
        Panel(row=1, title="Time to first token", column="ttft_s", promised_s=slo.ttft_s),
        Panel(row=2, title="Time per output token", column="tpot_s", promised_s=slo.tpot_s),
    )
    for panel in panels:
        _draw_panel(figure, panel, outcome)
    draw_replicas(figure, outcome, row=3)
    for step in outcome.applied:
        figure.add_vrect(
            x0=step.began_s,
            x1=step.began_s + step.took_s,
            fillcolor=DURING,
            opacity=0.13,
            line={"width": 0.5, "color": DURING},
            layer="below",
        )
    start_s, end_s = span_of(outcome)
    margin_s = 0.015 * (end_s - start_s)
    figure.update_xaxes(range=[start_s - margin_s, end_s + margin_s])
    figure.update_xaxes(title_text="seconds since the demo began", row=3, col=1)
    return drawn(
        figure,
        name="timeline",
        title="Every request, from warm-up to after",
        description=_description(outcome),
        keys=_keys(outcome),
        height_px=HEIGHT_PX,
        zoom=True,
    )


def _draw_panel(figure: go.Figure, panel: Panel, outcome: Outcome) -> None:
    phases = phases_of(outcome)
    columns = [p.replay.column(panel.column) for p in phases]
    values = np.concatenate([*columns, [panel.promised_s]])
    values = values[np.isfinite(values)]
    unit = time_unit(values)
    logarithmic = bool(values.max() > LOG_FROM_RATIO * max(values.min(), 1e-6))
    for phase, column in zip(phases, columns, strict=True):
        requests = _requests(phase, column, unit, outcome.began_at_s)
        if requests is not None:
            figure.add_trace(requests, row=panel.row, col=1)
    if len(values) == 1:  # the promise alone
        _say_nothing_is_there(figure, panel.row)
    if panel.row == 1:
        _draw_failures(figure, phases, float(values.max()) * unit.per_s, outcome.began_at_s)
    _draw_promise(figure, panel, unit, logarithmic=logarithmic, span_s=span_of(outcome))
    if logarithmic:
        figure.update_yaxes(type="log", tickvals=_LADDER, tickformat="~g", row=panel.row, col=1)
    else:
        figure.update_yaxes(rangemode="tozero", nticks=5, row=panel.row, col=1)
    note = ", logarithmic" if logarithmic else ""
    titled(figure, panel.row, f"<b>{panel.title}</b>, {unit.name}{note}")


def _requests(phase: Phase, column: Floats, unit: TimeUnit, began_at_s: float) -> go.Scatter | None:
    """Make the marks of one phase's answered requests; None when there are none."""
    shown = [
        (t.sent_at_s - began_at_s, value * unit.per_s, _request_text(t))
        for t, value in zip(phase.replay.timings, column.tolist(), strict=True)
        if math.isfinite(value)
    ]
    if not shown:
        return None
    return go.Scatter(
        x=[round(x, 3) for x, _, _ in shown],
        y=[round(y, 4) for _, y, _ in shown],
        text=[text for _, _, text in shown],
        mode="markers",
        name=phase.name,
        marker={"color": phase.colour, "symbol": phase.symbol, "size": 6, "opacity": 0.75},
        hovertemplate=f"%{{y:.4~g}} {unit.name}, sent at %{{x:.1f}} s<br>%{{text}}",
    )


def _say_nothing_is_there(figure: go.Figure, row: int) -> None:
    figure.add_annotation(
        text="no answer to show",
        x=0.5,
        xref="x domain",
        y=0.5,
        yref="y domain",
        showarrow=False,
        font={"size": 13, "color": MUTED},
        row=row,
        col=1,
    )


def _request_text(timing: Timing) -> str:
    return f"{timing.input_tokens:,} tokens in, {timing.output_tokens:,} out"


def _draw_failures(
    figure: go.Figure, phases: Sequence[Phase], top: float, began_at_s: float
) -> None:
    """Mark failed requests at the top of the panel: they have no latency of their own."""
    failed = [t for p in phases for t in p.replay.timings if t.error]
    if not failed:
        return
    figure.add_trace(
        go.Scatter(
            x=[round(t.sent_at_s - began_at_s, 3) for t in failed],
            y=[top] * len(failed),
            # Plotly's texts know tags and links: an engine's message must not become one.
            text=[html.escape(t.error[:LONGEST_ERROR]) for t in failed],
            mode="markers",
            name="failed",
            marker={"color": FAILED, "symbol": "x", "size": 9},
            hovertemplate="failed, sent at %{x:.1f} s<br>%{text}",
        ),
        row=1,
        col=1,
    )


def _draw_promise(
    figure: go.Figure,
    panel: Panel,
    unit: TimeUnit,
    *,
    logarithmic: bool,
    span_s: tuple[float, float],
) -> None:
    value = panel.promised_s * unit.per_s
    figure.add_trace(
        go.Scatter(
            x=list(span_s),
            y=[value, value],
            mode="lines",
            name="promised",
            line={"color": PROMISE, "width": 1.5, "dash": "dash"},
            hoverinfo="skip",
        ),
        row=panel.row,
        col=1,
    )
    figure.add_annotation(
        text=f"promised: {duration(panel.promised_s)}",
        x=1,
        xref="x domain",
        # On a logarithmic axis, annotations (unlike traces) are placed by exponent.
        y=math.log10(value) if logarithmic else value,
        xanchor="right",
        yanchor="bottom",
        showarrow=False,
        font={"size": 11, "color": PROMISE},
        bgcolor=CARD,
        opacity=0.9,
        row=panel.row,
        col=1,
    )


def _keys(outcome: Outcome) -> list[Key]:
    phases = phases_of(outcome)
    keys = [Key(text=p.name, colour=p.colour, mark="dot") for p in phases if p.replay.timings]
    if any(p.replay.failures for p in phases):
        keys.append(Key(text="failed", colour=FAILED, mark="cross"))
    keys.append(Key(text="promised", colour=PROMISE, mark="dash"))
    if outcome.applied:
        keys.append(Key(text="rollout step", colour=DURING, mark="band"))
    return keys + replica_keys(outcome)


def _description(outcome: Outcome) -> str:
    before, now = outcome.before.latency, outcome.after.latency
    moved = (
        f"{counted(len(outcome.applied), 'rollout step')} moved the fleet from "
        f"{long_fleet(outcome.before.fleet)} to {long_fleet(outcome.after.fleet)}"
        if outcome.applied
        else f"the fleet stayed {long_fleet(outcome.after.fleet)}"
    )
    return (
        f"Three plots over time. Time to first token, 95th percentile: "
        f"{duration(before.ttft_p95_s)} in the warm-up, {duration(now.ttft_p95_s)} after; "
        f"time per output token: {duration(before.tpot_p95_s)} and {duration(now.tpot_p95_s)}; "
        f"{moved}."
    )
