"""A trace as one HTML page that needs nothing else: arrivals, lengths, prefix reuse."""

import math

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from forecaster.readers import ReadReport, TraceFile
from forecaster.trace_statistics import TICKS_PER_WINDOW, TraceStatistics, joint_lengths
from planner.domain.workload import Floats, Integers, Workload
from planner.service.reports.page import (
    AFTER,
    BEFORE,
    CARD,
    DECODE,
    DURING,
    PREFILL,
    Figure,
    drawn,
    rendered,
    titled,
)
from planner.service.reports.quantities import counted, duration, rate, sentence, share
from planner.service.reports.table import Fact

TEMPLATE = "trace_report.html.j2"
MOST_BINS = 240
LENGTH_BINS = 60
_STEPS_S = (1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400)
_JOINT_EDGES = tuple(2**power for power in range(24))


def trace_report(trace: TraceFile, found: TraceStatistics) -> str:
    """Write the page of a trace.

    Returns
    -------
    str
        A whole HTML document with its styles, its scripts and plotly.js inside; about 5 MB.
    """
    workload = trace.workload
    window_s = _window_s(workload, trace.report.arrival_tick_s)
    return rendered(
        TEMPLATE,
        headline=f"{counted(found.requests, 'request')} in {duration(found.duration_s)}",
        lead=f"{trace.report.path.name}, {trace.report.trace_format.label}, from "
        f"{found.start_at:%Y-%m-%d %H:%M:%S %Z}.",
        remarks=tuple(sentence(text) for text in _remarks(trace.report, found)),
        rate=rate_figure(workload, window_s),
        lengths=lengths_figure(workload),
        joint=joint_figure(workload),
        reuse=None if found.reuse_ratio is None else reuse_figure(workload, window_s),
        facts=_facts(trace.report, found),
    )


def _window_s(workload: Workload, tick_s: float | None) -> float:
    """Width of the bins of a plot over time: round, and not below ten ticks."""
    least_s = max(workload.duration_s / MOST_BINS, TICKS_PER_WINDOW * (tick_s or 0.0))
    return float(next((step for step in _STEPS_S if step >= least_s), math.ceil(least_s)))


def _bins(workload: Workload, window_s: float) -> tuple[Floats, Integers]:
    """Middles of the whole windows, seconds, and the window of each request."""
    count = max(math.floor(workload.duration_s / window_s + 1e-9), 1)
    index: Integers = np.minimum((workload.arrival_offset_s // window_s).astype(np.int64), count)
    middles = (np.arange(count, dtype=np.float64) + 0.5) * window_s
    return middles, index


def _over_time(
    figure: go.Figure, at_s: Floats, values: Floats, *, name: str, colour: str, row: int = 1
) -> None:
    figure.add_trace(
        go.Scatter(
            x=np.round(at_s, 3).tolist(),
            y=[None if math.isnan(value) else round(value, 5) for value in values.tolist()],
            mode="lines",
            name=name,
            line={"color": colour, "width": 1.5, "shape": "hvh"},
            hovertemplate=f"{name}: %{{y:.4~g}} at %{{x:,.0f}} s<extra></extra>",
        ),
        row=row,
        col=1,
    )
    figure.update_yaxes(rangemode="tozero", nticks=5, row=row, col=1)


def rate_figure(workload: Workload, window_s: float) -> Figure:
    """Draw requests and tokens a second over time."""
    at_s, index = _bins(workload, window_s)
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    requests = np.bincount(index, minlength=len(at_s))[: len(at_s)] / window_s
    _over_time(figure, at_s, requests, name="requests/s", colour=AFTER)
    titled(figure, 1, f"<b>Requests a second</b>, in windows of {window_s:g} s")
    for row, (name, tokens, colour) in enumerate(
        (
            ("Prompt", workload.input_tokens, PREFILL),
            ("Answer", workload.output_tokens, DECODE),
        ),
        start=2,
    ):
        total = np.bincount(index, tokens, minlength=len(at_s))[: len(at_s)] / window_s
        _over_time(figure, at_s, total, name=f"{name} tokens/s", colour=colour, row=row)
        titled(figure, row, f"<b>{name} tokens a second</b>")
    figure.update_xaxes(title_text="seconds from the start", tickformat=",", row=3, col=1)
    return drawn(
        figure,
        name="rate",
        title="Arrivals over time",
        description=f"Requests a second in windows of {window_s:g} s: {requests.min():.3g} to "
        f"{requests.max():.3g}, {requests.mean():.3g} in the mean.",
        keys=(),
        height_px=520,
        zoom=True,
    )


def lengths_figure(workload: Workload) -> Figure:
    """Draw the histograms of prompt and answer lengths over a logarithmic axis."""
    figure = make_subplots(rows=2, cols=1, vertical_spacing=0.2)
    panels = (
        ("Prompts", workload.input_tokens, PREFILL),
        ("Answers", workload.output_tokens, DECODE),
    )
    for row, (name, tokens, colour) in enumerate(panels, start=1):
        edges = np.geomspace(0.9, float(tokens.max()) * 1.1, LENGTH_BINS + 1)
        counts, _ = np.histogram(tokens, bins=edges)
        # Bars on a logarithmic axis have the width of their exponents; a filled step needs none.
        figure.add_trace(
            go.Scatter(
                x=np.repeat(edges, 2).round(3).tolist(),
                y=[0, *np.repeat(counts, 2).tolist(), 0],
                mode="lines",
                fill="tozeroy",
                line={"color": colour, "width": 1},
                name=name,
                hovertemplate="%{y:,} requests of about %{x:,.0f} tokens<extra></extra>",
            ),
            row=row,
            col=1,
        )
        figure.update_xaxes(type="log", dtick=1, tickformat=",", row=row, col=1)
        figure.update_yaxes(nticks=4, tickformat=",", rangemode="tozero", row=row, col=1)
        titled(figure, row, f"<b>{name}</b>, requests by length")
    figure.update_xaxes(title_text="tokens", row=2, col=1)
    medians = [float(np.median(tokens)) for _, tokens, _ in panels]
    return drawn(
        figure,
        name="lengths",
        title="Lengths",
        description=f"Histograms of lengths: the median prompt has {medians[0]:,.0f} tokens, the "
        f"median answer {medians[1]:,.0f}.",
        keys=(),
        height_px=400,
    )


def joint_figure(workload: Workload) -> Figure:
    """Draw how often each prompt length comes with each answer length."""
    joint = joint_lengths(workload, _JOINT_EDGES, _JOINT_EDGES)
    rows, columns = (np.flatnonzero(joint.share.sum(axis=axis)) for axis in (1, 0))
    part = joint.share[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inputs, outputs = (
        [f"{low:,}" for low in _JOINT_EDGES[found[0] : found[-1] + 1]] for found in (rows, columns)
    )
    figure = go.Figure(
        go.Heatmap(
            z=[[value or None for value in row] for row in part.T.round(6).tolist()],
            x=inputs,
            y=outputs,
            colorscale=[[0, CARD], [1, BEFORE]],
            xgap=1,
            ygap=1,
            colorbar={"tickformat": ".1%", "thickness": 12, "outlinewidth": 0},
            hovertemplate="%{z:.2%} of requests: prompts from %{x}, answers from %{y} tokens "
            "(to twice that)<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="prompt, tokens (from, to twice that)", type="category")
    figure.update_yaxes(title_text="answer, tokens", type="category")
    most = np.unravel_index(int(np.argmax(part)), part.shape)
    return drawn(
        figure,
        name="joint",
        title="Prompts and answers together",
        description="Share of requests by both lengths; most often prompts from "
        f"{inputs[int(most[0])]} and answers from {outputs[int(most[1])]} tokens: "
        f"{share(float(part.max()))}.",
        keys=(),
        height_px=420,
        top_px=8,
    )


def reuse_figure(workload: Workload, window_s: float) -> Figure:
    """Draw the share of prompt tokens seen before, over time."""
    at_s, index = _bins(workload, window_s)
    cached, inputs = (
        np.bincount(index, tokens, minlength=len(at_s))[: len(at_s)]
        for tokens in (workload.cached_tokens, workload.input_tokens)
    )
    ratio = np.divide(cached, inputs, out=np.full(len(at_s), np.nan), where=inputs > 0)
    figure = make_subplots(rows=1, cols=1)
    _over_time(figure, at_s, ratio, name="reused", colour=DURING)
    figure.update_xaxes(title_text="seconds from the start", tickformat=",")
    figure.update_yaxes(tickformat=".0%", range=[0, 1])
    return drawn(
        figure,
        name="reuse",
        title="Prompt tokens seen before",
        description=f"Share of prompt tokens seen before, in windows of {window_s:g} s.",
        keys=(),
        height_px=240,
        zoom=True,
        top_px=8,
    )


def _remarks(report: ReadReport, found: TraceStatistics) -> list[str]:
    said = [*report.remarks, *(f"refused: {reason}" for reason in report.reasons)]
    said += [
        f"no request for {duration(gap.length_s)} from {gap.start_s:,.0f} s on, in which about "
        f"{gap.expected_requests:,.0f} would have come"
        for gap in found.gaps
    ]
    return said


def _facts(report: ReadReport, found: TraceStatistics) -> tuple[Fact, ...]:
    tick = report.arrival_tick_s
    facts = [
        Fact(term="Rate", value=rate(found.rate_rps, "requests")),
        Fact(term="Clock", value="fine" if tick is None else f"ticks of {duration(tick)}"),
        *(
            Fact(
                term=f"Peak in {peak.window_s:g} s",
                value=f"{rate(peak.peak_rps, 'requests')}, {peak.peak_to_mean:.3g} x the mean",
            )
            for peak in found.peaks
        ),
        Fact(
            term="Arrival CV",
            value="not known" if found.arrival_cv is None else f"{found.arrival_cv:.2f}",
        ),
        Fact(term="Mean prompt", value=f"{found.isl.mean:,.0f} tokens"),
        Fact(term="Mean answer", value=f"{found.osl.mean:,.0f} tokens"),
        Fact(term="Prefix reuse", value=share(found.reuse_ratio)),
        Fact(term="Rows refused", value=f"{report.rows_refused:,} of {report.rows_read:,}"),
    ]
    if report.requests_failed:
        facts.append(Fact(term="Failed requests", value=f"{report.requests_failed:,}, left out"))
    return tuple(facts)
