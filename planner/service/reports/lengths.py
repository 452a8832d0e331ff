"""The traffic that was replayed, and the proof that its prompts moved between workers."""

import numpy as np
import plotly.graph_objects as go

from planner.domain.workload import Integers
from planner.service.demo.outcome import Outcome
from planner.service.demo.traffic import DemoTraffic
from planner.service.reports.page import DECODE, PREFILL, Figure, drawn
from planner.service.reports.quantities import counted, data, duration, rate, share
from planner.service.reports.table import Column, Fact, Table, cells, number_columns

HEIGHT_PX = 240
BINS = 32


def prompt_lengths_figure(traffic: DemoTraffic) -> Figure:
    """Draw the histogram of prompt lengths."""
    tokens = traffic.workload.input_tokens
    return _histogram(tokens, name="prompts", title="Prompt lengths", colour=PREFILL)


def answer_lengths_figure(traffic: DemoTraffic) -> Figure:
    """Draw the histogram of answer lengths."""
    tokens = traffic.workload.output_tokens
    return _histogram(tokens, name="answers", title="Answer lengths", colour=DECODE)


def _histogram(tokens: Integers, *, name: str, title: str, colour: str) -> Figure:
    figure = go.Figure()
    description = f"{title}: there is no request."
    if len(tokens):
        top = int(tokens.max()) + 1
        edges = np.unique(np.linspace(0, top, min(BINS, top) + 1).round())
        counts, _ = np.histogram(tokens, bins=edges)
        half, most = np.quantile(tokens, [0.5, 0.95])
        description = (
            f"{title} of {counted(len(tokens), 'request')}: median {half:,.0f} tokens, "
            f"95th percentile {most:,.0f}, longest {top - 1:,}."
        )
        figure.add_trace(
            go.Bar(
                x=((edges[:-1] + edges[1:]) / 2).tolist(),
                y=counts.tolist(),
                width=np.diff(edges).tolist(),
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate="%{y:,} requests of about %{x:,.0f} tokens<extra></extra>",
            )
        )
    figure.update_layout(bargap=0.06)
    figure.update_xaxes(title_text="tokens", tickformat=",", rangemode="tozero")
    figure.update_yaxes(nticks=5, tickformat=",", rangemode="tozero", title_text="requests")
    return drawn(
        figure,
        name=name,
        title=title,
        description=description,
        keys=(),
        height_px=HEIGHT_PX,
        top_px=8,
    )


def traffic_facts(traffic: DemoTraffic) -> tuple[Fact, ...]:
    """Where the traffic comes from and what it amounts to."""
    workload = traffic.workload
    reused = int(workload.cached_tokens.sum())
    of_all = reused / max(int(workload.input_tokens.sum()), 1)
    return (
        Fact(term="Source", value=traffic.source),
        Fact(
            term="Fitted",
            value=f"{counted(len(workload), 'request')} in {duration(workload.duration_s)}, "
            f"{rate(workload.request_rate_rps, 'requests')} on average",
        ),
        Fact(
            term="Scale",
            value=f"lengths x {traffic.length_ratio:.3g}, rate x {traffic.rate_ratio:.3g}",
        ),
        Fact(term="Shared prefixes", value=f"{share(of_all)} of prompt tokens were seen before"),
    )


def is_disaggregated(outcome: Outcome) -> bool:
    """Whether every prompt token reached decode workers by transfer, none by computing."""
    used = [outcome.before.throughput, outcome.after.throughput]
    return (
        sum(u.transferred_tokens for u in used) > 0
        and sum(u.decode_computed_tokens for u in used) == 0
    )


def proof(outcome: Outcome) -> str:
    """Say in one sentence what the engines' counters prove."""
    used = [outcome.before.throughput, outcome.after.throughput]
    moved = sum(u.transferred_tokens for u in used)
    computed = sum(u.decode_computed_tokens for u in used)
    if moved == 0:
        return "No prompt token was transferred in the measured windows, so nothing is proven."
    if computed:
        return (
            f"{moved:,} prompt tokens reached decode workers by KV transfer, but they computed "
            f"{computed:,} themselves: not every prompt went through a prefill worker."
        )
    return (
        f"All {moved:,} prompt tokens that decode workers used reached them by KV transfer; they "
        "computed none themselves. The deployment really was disaggregated."
    )


def proof_table(outcome: Outcome) -> Table:
    """The engines' own counters for both measured windows."""
    used = (outcome.before.throughput, outcome.after.throughput)
    counters = (
        ("Prompt tokens computed", [f"{u.computed_tokens:,}" for u in used]),
        ("Prompt tokens found in a cache", [f"{u.cached_tokens:,}" for u in used]),
        ("Prompt tokens sent to decode", [f"{u.transferred_tokens:,}" for u in used]),
        ("Prompt tokens computed by decode", [f"{u.decode_computed_tokens:,}" for u in used]),
        ("KV transfers", [f"{u.transfers:,}" for u in used]),
        ("Bytes moved", [data(u.transfer_bytes) for u in used]),
        ("Prefill speed, all workers", [rate(u.prefill_tokens_per_s, "tokens") for u in used]),
        ("Decode speed, all workers", [rate(u.decode_tokens_per_s, "tokens") for u in used]),
    )
    return Table(
        caption="By the engines' own counters",
        columns=(Column(heading="Counter"), *number_columns("Warm-up", "After")),
        rows=tuple(cells(name, *texts) for name, texts in counters),
    )
