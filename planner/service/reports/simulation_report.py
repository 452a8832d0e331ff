"""A simulation as one HTML page that needs nothing else: latencies and pools over time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from planner.domain.slo import Slo
from planner.domain.workload import Floats
from planner.service.answers.simulation import Simulated
from planner.service.reports.page import (
    AFTER,
    BEFORE,
    DURING,
    FAILED,
    PROMISE,
    SERIES,
    Figure,
    Key,
    drawn,
    rendered,
    titled,
)
from planner.service.reports.quantities import (
    between,
    counted,
    duration,
    sentence,
    share,
    time_unit,
)
from planner.service.reports.table import Fact, Table, cells, number_columns, text_columns
from planner.simulate import Outcome, SimulationResult

TEMPLATE = "simulation_report.html.j2"
BINS = 120
LATENCIES_PX, POOLS_PX = 520, 640
_QUANTILES = ((0.5, "median", AFTER), (0.95, "95th percentile", BEFORE))
_DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """A latency over time, and what was promised.

    Parameters
    ----------
    seconds : (requests,) float
    promised_s : tuple of float
        One for every class.
    """

    title: str
    seconds: Floats
    promised_s: tuple[float, ...]


def simulation_report(seen: Simulated) -> str:
    """Write the page of a simulation; of sampled futures the first one is drawn.

    Returns
    -------
    str
        A whole HTML document with its styles, its scripts and plotly.js inside; about 5 MB.
    """
    return rendered(
        TEMPLATE,
        headline=_headline(seen),
        lead=_lead(seen),
        flags=tuple(sentence(flag) for flag in seen.flags),
        drawn_from="" if seen.futures is None else "Drawn is the first future.",
        latencies=latencies_figure(seen.results[0], seen.slos),
        pools=pools_figure(seen),
        pools_table=_pools_table(seen),
        facts=_facts(seen),
    )


def latencies_figure(result: SimulationResult, slos: Sequence[Slo]) -> Figure:
    """Draw TTFT and TPOT by the instant of arrival, with the promises."""
    panels = (
        Latency(
            title="Time to first token",
            seconds=result.ttft_s,
            promised_s=tuple(sorted({slo.ttft_s for slo in slos})),
        ),
        Latency(
            title="Time per output token",
            seconds=result.tpot_s,
            promised_s=tuple(sorted({slo.tpot_s for slo in slos})),
        ),
    )
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.11)
    for row, panel in enumerate(panels, start=1):
        _draw_latency(figure, panel, result, row=row)
    figure.update_xaxes(title_text="seconds from the start", row=2, col=1)
    keys = [Key(text=text, colour=colour, mark="line") for _, text, colour in _QUANTILES]
    return drawn(
        figure,
        name="latencies",
        title="Latencies of requests by arrival",
        description="Median and 95th percentile of time to first token and of time per output "
        "token over time, beside what was promised.",
        keys=[*keys, Key(text="promised", colour=PROMISE, mark="dash")],
        height_px=LATENCIES_PX,
        zoom=True,
    )


def quantiles_over_time(
    at_s: Floats, seconds: Floats, end_s: float, level: float
) -> tuple[Floats, Floats]:
    """Middles of the bins that have a value, and the quantile of the values in each."""
    known = np.isfinite(seconds)
    at_s, seconds = at_s[known], seconds[known]
    width_s = max(end_s, 1e-9) / BINS
    bins = np.minimum((at_s / width_s).astype(np.int64), BINS - 1)
    there = np.unique(bins)
    values = np.array([np.quantile(seconds[bins == b], level) for b in there])
    return (there + 0.5) * width_s, values


def _draw_latency(figure: go.Figure, panel: Latency, result: SimulationResult, *, row: int) -> None:
    end_s = float(result.arrival_s[result.requests - 1]) if result.requests else result.end_s
    lines = [
        (text, colour, *quantiles_over_time(result.arrival_s, panel.seconds, end_s, level))
        for level, text, colour in _QUANTILES
    ]
    unit = time_unit([*panel.promised_s, *(s for *_, y in lines for s in y.tolist())])
    for text, colour, x, y in lines:
        figure.add_trace(
            go.Scatter(
                x=np.round(x, 3).tolist(),
                y=np.round(y * unit.per_s, 4).tolist(),
                mode="lines+markers",
                name=text,
                line={"color": colour, "width": 2},
                marker={"size": 4},
                hovertemplate=f"{text}: %{{y:.4~g}} {unit.name}, arrived at %{{x:,.0f}} s"
                "<extra></extra>",
            ),
            row=row,
            col=1,
        )
    for promised_s in panel.promised_s:
        figure.add_trace(
            go.Scatter(
                x=[0, end_s],
                y=[promised_s * unit.per_s] * 2,
                mode="lines",
                name="promised",
                line={"color": PROMISE, "width": 1.5, "dash": "dash"},
                hovertemplate=f"promised: {duration(promised_s)}<extra></extra>",
            ),
            row=row,
            col=1,
        )
    figure.update_yaxes(rangemode="tozero", nticks=5, row=row, col=1)
    titled(figure, row, f"<b>{panel.title}</b>, {unit.name}")


def pools_figure(seen: Simulated) -> Figure:
    """Draw lines, batches, KV use and replicas of every pool over time."""
    series = seen.results[0].series
    figure = make_subplots(rows=4, cols=1, shared_xaxes=True, vertical_spacing=0.07)
    panels = (
        ("Requests in line", series.waiting.astype(np.float64), ","),
        ("Sequences in the batches", series.running.astype(np.float64), ","),
        ("KV blocks in use", series.kv_usage_ratio, ".3~%"),
        ("Replicas that serve", series.ready.astype(np.float64), ","),
    )
    keys = []
    for number, pool in enumerate(seen.pools):
        label = f"{number}: {pool.shape.label}"
        colour, dash = SERIES[number % len(SERIES)], _DASHES[number // len(SERIES) % len(_DASHES)]
        keys.append(Key(text=label, colour=colour, mark="line"))
        for row, (title, values, form) in enumerate(panels, start=1):
            figure.add_trace(
                go.Scatter(
                    x=np.round(series.t_s, 3).tolist(),
                    y=np.round(values[number], 4).tolist(),
                    mode="lines",
                    name=label,
                    line={"color": colour, "width": 2, "dash": dash, "shape": "hv"},
                    hovertemplate=f"{label}: %{{y:{form}}} at %{{x:,.0f}} s<extra>{title}</extra>",
                ),
                row=row,
                col=1,
            )
    for row, (title, values, form) in enumerate(panels, start=1):
        figure.update_yaxes(rangemode="tozero", nticks=4, tickformat=form, row=row, col=1)
        if form == "," and values.max(initial=0) <= 4:  # no half replicas
            figure.update_yaxes(dtick=1, row=row, col=1)
        titled(figure, row, f"<b>{title}</b>")
    keys += _draw_marks(figure, seen)
    figure.update_xaxes(title_text="seconds from the start", row=4, col=1)
    return drawn(
        figure,
        name="pools",
        title="Pools",
        description=_pools_description(seen),
        keys=keys,
        height_px=POOLS_PX,
        zoom=True,
    )


def _draw_marks(figure: go.Figure, seen: Simulated) -> list[Key]:
    """Draw the events that happened and the stop as upright lines; their keys."""
    result = seen.results[0]
    keys = []
    happened = [event.at_s for event in seen.scenario.events if event.at_s <= result.end_s]
    for at_s in happened:
        figure.add_vline(x=at_s, line={"color": DURING, "width": 1, "dash": "dot"})
    if happened:
        keys.append(Key(text="event", colour=DURING, mark="dash"))
    if result.stopped is not None:
        figure.add_vline(x=result.stopped.at_s, line={"color": FAILED, "width": 2})
        keys.append(Key(text="stopped", colour=FAILED, mark="line"))
    return keys


def _pools_description(seen: Simulated) -> str:
    series = seen.results[0].series
    parts = [
        f"{pool.shape.label}: at most {int(series.waiting[n].max()):,} requests in line and "
        f"{int(series.running[n].max()):,} sequences in the batches, KV use up to "
        f"{share(float(series.kv_usage_ratio[n].max()))}"
        for n, pool in enumerate(seen.pools)
    ]
    return "Pools over time. " + "; ".join(parts) + "."


def _headline(seen: Simulated) -> str:
    if seen.total.stopped:
        return "The deployment is overloaded"
    said = {True: "The objectives hold", False: "The objectives do not hold"}
    return said.get(bool(seen.holds), "") if seen.holds is not None else "It is not clear yet"


def _lead(seen: Simulated) -> str:
    low, high = seen.attainment.low_ratio, seen.attainment.high_ratio
    alone = ", as if requests were independent" if seen.futures is None else ""
    interval = f"{between(low, high)} with 95 % confidence{alone}"
    surely = "" if low is None else f" ({interval})"
    what = f"{share(seen.attainment.ratio)} of {counted(seen.total.requests, 'request')}"
    where = "" if seen.futures is None else f" in {counted(seen.futures.count, 'sampled future')}"
    stopped = ""
    if seen.stopped is not None:
        stopped = f" Stopped at {duration(seen.stopped.at_s)}: {seen.stopped.reason}."
    return f"{what}{where} met every objective{surely}.{stopped}"


def _pools_table(seen: Simulated) -> Table:
    total = seen.total
    return Table(
        caption="Pools",
        columns=(
            *text_columns("Pool"),
            *number_columns("Replicas", "Busy", "KV peak", "Accelerator-hours"),
        ),
        rows=tuple(
            cells(
                f"{number}: {pool.shape.label}",
                f"{pool.replicas:,}",
                share(float(total.utilization_ratio[number])),
                share(float(total.kv_peak_ratio[number])),
                f"{total.accelerator_hours[number] / total.runs:,.2f}",
            )
            for number, pool in enumerate(seen.pools)
        ),
    )


def _facts(seen: Simulated) -> tuple[Fact, ...]:
    total = seen.total
    summary = seen.latency
    ended = [
        f"{total.count(outcome):,} {outcome.name.lower().replace('_', ' ')}"
        for outcome in Outcome
        if total.count(outcome)
    ]
    hours = math.fsum(total.accelerator_hours.tolist()) / total.runs
    return (
        Fact(term="Requests", value=", ".join(ended) or "none"),
        Fact(term="TTFT, 95th percentile", value=duration(summary.ttft_p95_s)),
        Fact(term="TPOT, 95th percentile", value=duration(summary.tpot_p95_s)),
        Fact(term="ITL, 95th percentile", value=duration(summary.itl_p95_s)),
        Fact(term="Cost of one run", value=f"{total.usd / total.runs:,.2f} USD"),
        Fact(term="Accelerator-hours of one run", value=f"{hours:,.2f}"),
        Fact(term="Preemptions", value=f"{total.preemptions:,}"),
        Fact(term="Router", value=seen.scenario.router.value),
        Fact(term="Extrapolated", value=counted(total.extrapolated_requests, "request")),
    )
