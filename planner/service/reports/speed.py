"""The profile: what one worker was measured to do, and where the numbers come from."""

import plotly.graph_objects as go

from planner.domain.profile import Profile, TimeTable
from planner.service.demo.outcome import Outcome
from planner.service.reports.page import SERIES, Figure, Key, drawn
from planner.service.reports.quantities import data, duration, share, time_unit
from planner.service.reports.table import Fact

HEIGHT_PX = 300


def prefill_figure(profile: Profile) -> Figure:
    """Draw prefill time over new tokens, one line per number of cached tokens."""
    table = profile.prefill
    return _figure(
        table,
        name="prefill",
        title="Prefill of one prompt",
        x_title="new tokens",
        line_text="{:,.0f} cached tokens",
        description=f"Prefill takes {duration(float(table.seconds[0, 0]))} for "
        f"{table.x[0]:,.0f} new tokens and {duration(float(table.seconds[-1, 0]))} for "
        f"{table.x[-1]:,.0f}, with {table.y[0]:,.0f} cached tokens.",
    )


def decode_figure(profile: Profile) -> Figure:
    """Draw the time of a decode step over the batch, one line per context length."""
    table = profile.decode_step
    return _figure(
        table,
        name="decode",
        title="One decode step",
        x_title="sequences in the batch",
        line_text="context of {:,.0f} tokens",
        description=f"A decode step takes {duration(float(table.seconds[0, 0]))} with a batch of "
        f"{table.x[0]:,.0f} and {duration(float(table.seconds[-1, 0]))} with {table.x[-1]:,.0f}, "
        f"at a context of {table.y[0]:,.0f} tokens.",
    )


def _figure(
    table: TimeTable, *, name: str, title: str, x_title: str, line_text: str, description: str
) -> Figure:
    unit = time_unit(table.seconds.ravel().tolist())
    figure = go.Figure()
    keys = []
    for j, y in enumerate(table.y.tolist()):
        colour, text = SERIES[j % len(SERIES)], line_text.format(y)
        keys.append(Key(text=text, colour=colour, mark="line"))
        figure.add_trace(
            go.Scatter(
                x=table.x.tolist(),
                y=[round(s * unit.per_s, 4) for s in table.seconds[:, j].tolist()],
                mode="lines+markers",
                name=text,
                line={"color": colour, "width": 2},
                marker={"size": 7},
                hovertemplate=f"%{{y:.4~g}} {unit.name} at %{{x:,}} {x_title}<br>{text}"
                "<extra></extra>",
            )
        )
    figure.update_yaxes(rangemode="tozero", nticks=6, ticksuffix=f" {unit.name}")
    figure.update_xaxes(title_text=x_title, tickformat=",", rangemode="tozero")
    return drawn(
        figure,
        name=name,
        title=title,
        description=description,
        keys=keys,
        height_px=HEIGHT_PX,
        top_px=8,
    )


def speed_facts(profile: Profile) -> tuple[Fact, ...]:
    """Transfer, fixed parts, lifecycle and limits."""
    transfer, limits, life = profile.transfer, profile.limits, profile.lifecycle
    kv_bytes = 1000 * limits.kv_bytes_per_token
    moved_s = float(transfer.seconds(kv_bytes))
    return (
        Fact(
            term="KV transfer",
            value=f"{duration(transfer.base_s)} + size at "
            f"{data(transfer.bandwidth_bytes_per_s)}/s: {duration(moved_s)} "
            f"for 1,000 tokens ({data(kv_bytes)})",
        ),
        Fact(term="Router, HTTP, tokenizer", value=f"{duration(profile.first_token_s)} a request"),
        Fact(
            term="Start",
            value=f"{duration(life.start_warm_s)} warm, {duration(life.start_cold_s)} cold",
        ),
        Fact(term="Flip to the other role", value=duration(life.flip_s)),
        Fact(term="Drain", value=duration(life.drain_s)),
        Fact(
            term="Limits of a worker",
            value=f"{limits.max_num_seqs:,} sequences at once, {limits.kv_capacity_tokens:,} "
            f"tokens of KV cache, {limits.max_model_len:,} tokens a request",
        ),
    )


def provenance_facts(outcome: Outcome) -> tuple[Fact, ...]:
    """Where the profile's numbers come from, and on which share of the processor."""
    machine, *others = source_facts(outcome.profile)
    return (machine, Fact(term="Share of the processor", value=outcome.quota), *others)


def source_facts(profile: Profile) -> tuple[Fact, ...]:
    """Where a profile's numbers come from."""
    source = profile.provenance
    return (
        Fact(term="Machine", value=source.machine),
        Fact(term="Engine", value=source.engine),
        Fact(term="Model", value=profile.model),
        Fact(term="Points", value=f"{source.points:,} {source.kind}"),
        Fact(term="Held-out error", value=f"{share(source.error_ratio)} (median)"),
        Fact(term="Source", value=source.source),
        Fact(term="Made", value=f"{source.measured_at:%Y-%m-%d %H:%M %Z}"),
        Fact(term="Profile", value=profile.profile_id),
    )
