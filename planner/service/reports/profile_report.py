"""A profile as one HTML page that needs nothing else: throughput under its roofs, and times."""

import math
from dataclasses import dataclass, replace

import plotly.graph_objects as go

from planner.domain.hardware import AcceleratorFacts
from planner.domain.model import Model
from planner.domain.profile import Profile, ProfileKind, TimeTable
from planner.domain.wording import counted
from planner.service.reports.page import MUTED, PROMISE, SERIES, Figure, Key, drawn, rendered
from planner.service.reports.quantities import sentence, share
from planner.service.reports.speed import (
    decode_figure,
    prefill_figure,
    source_facts,
    speed_facts,
)
from planner.service.reports.table import Fact, Table, cells, number_columns, text_columns
from profiler.roofline import Peak, Roofed, peak_of, roofed_decode, roofed_prefill

TEMPLATE = "profile_report.html.j2"
HEIGHT_PX = 380
MOST_LINES = 4
"""More lines than this in a plot are not told apart: the ends and some between are drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Axes:
    """What a plot is of."""

    name: str
    title: str
    x_title: str
    line_text: str


PREFILL = _Axes(
    name="roofline-prefill",
    title="Prefill: prompt tokens a second",
    x_title="new tokens of the prompt",
    line_text="{:,.0f} cached tokens",
)
DECODE = _Axes(
    name="roofline-decode",
    title="Decode: answer tokens a second",
    x_title="sequences in the batch",
    line_text="context of {:,.0f} tokens",
)


def profile_report(profile: Profile, model: Model | None, facts: AcceleratorFacts | None) -> str:
    """Write the page of a profile.

    Parameters
    ----------
    model : Model or None
        What a token costs; None: no roofs are drawn.
    facts : AcceleratorFacts or None
        What the catalogue says of its accelerator; None: no roofs are drawn.

    Returns
    -------
    str
        A whole HTML document with its styles, its scripts and plotly.js inside; about 5 MB.
    """
    stored = (
        None
        if model is None
        else model.stored_as(weight_dtype=profile.weight_dtype, kv_dtype=profile.kv_dtype)
    )
    dtype = None if stored is None else stored.weight_dtype
    peak = None if facts is None else peak_of(facts, dtype)
    prefill, decode = (roof(profile, stored, peak) for roof in (roofed_prefill, roofed_decode))
    drawn_of = replace(
        profile, prefill=_thinned(profile.prefill), decode_step=_thinned(profile.decode_step)
    )
    count = profile.tp * profile.pp * profile.dp
    source = profile.provenance
    return rendered(
        TEMPLATE,
        headline=f"{profile.model} on {count} x {profile.accelerator}",
        lead=f"{source.kind.value.capitalize()}, {counted(source.points, 'point')}, median error "
        f"{share(source.error_ratio)}; {', '.join(profile.roles)}.",
        remarks=tuple(sentence(text) for text in _remarks(profile, stored, facts, peak)),
        notes=tuple(sentence(text) for text in source.notes),
        prefill=roofline_figure(prefill, PREFILL),
        decode=roofline_figure(decode, DECODE),
        shares=tuple(
            table
            for table in (
                share_table(prefill, "Prefill without cached tokens", "new tokens"),
                share_table(decode, f"Decode at {decode.y[0]:,.0f} tokens of context", "sequences"),
            )
            if table is not None
        ),
        points="estimated" if source.kind is ProfileKind.ESTIMATED else "measured",
        times=(prefill_figure(drawn_of), decode_figure(drawn_of)),
        speed=speed_facts(profile),
        provenance=(*source_facts(profile), *_accelerator_facts(facts, peak)),
    )


def _remarks(
    profile: Profile, model: Model | None, facts: AcceleratorFacts | None, peak: Peak | None
) -> list[str]:
    """Why roofs are missing, or not to be trusted."""
    remarks = []
    if facts is None:
        remarks.append(
            f"the catalogue does not know {profile.accelerator}, so that no roof is drawn "
            "(`poolwise accelerators` lists what it knows, `--catalogue` adds to it)"
        )
    elif peak is None:
        remarks.append(
            f"the catalogue lacks the FLOP/s or the bandwidth of {facts.name}: no roof is drawn"
        )
    elif model is None:
        remarks.append("no roof is drawn: give the model's config.json with --config")
    if model is not None:
        ratio = profile.limits.kv_bytes_per_token / model.kv_bytes_per_token
        if not 0.9 <= ratio <= 1.1:
            remarks.append(
                f"a token takes {profile.limits.kv_bytes_per_token:,.0f} bytes of KV cache in the "
                f"profile and {model.kv_bytes_per_token:,.0f} by the config: is it this model's?"
            )
    return remarks


def roofline_figure(roofed: Roofed, axes: _Axes) -> Figure:
    """Draw measured throughput over logarithmic axes, under both roofs where they are known."""
    figure = go.Figure()
    keys: list[Key] = []
    for colour, column in zip(SERIES, _columns(len(roofed.y)), strict=False):
        text = axes.line_text.format(roofed.y[column])
        keys.append(Key(text=text, colour=colour, mark="line"))
        _draw(figure, roofed, roofed.measured[:, column].tolist(), text, colour, measured=True)
    first, last = (axes.line_text.format(roofed.y[column]) for column in (0, -1))
    both = (0,) if len(roofed.y) == 1 else (0, len(roofed.y) - 1)
    roofs = (
        (f"compute roof, {first}", roofed.compute, PROMISE, (0,)),
        (f"memory roof, {first}" + (f" and {last}" if len(both) > 1 else ""), roofed.memory, MUTED,
         both),
    )  # fmt: skip
    for text, roof, colour, columns in roofs:
        if roof is None:
            continue
        keys.append(Key(text=text, colour=colour, mark="dash"))
        for column in columns:
            said = f"{text.partition(',')[0]}, {axes.line_text.format(roofed.y[column])}"
            _draw(figure, roofed, roof[:, column].tolist(), said, colour, measured=False)
    figure.update_xaxes(
        title_text=axes.x_title, type="log", tick0=0, dtick=math.log10(4), tickformat=","
    )
    figure.update_yaxes(type="log", dtick=1, tickformat="~s", ticksuffix=" tokens/s")
    best = float(roofed.measured.max())
    reached = roofed.share
    return drawn(
        figure,
        name=axes.name,
        title=axes.title,
        description=f"{axes.title}: {best:,.0f} at the most"
        + ("." if reached is None else f", {share(float(reached.max()))} of the roof at the best."),
        keys=keys,
        height_px=HEIGHT_PX,
        top_px=8,
    )


def _draw(
    figure: go.Figure,
    roofed: Roofed,
    y: list[float],
    said: str,
    colour: str,
    *,
    measured: bool,
) -> None:
    line = {"color": colour, "width": 2 if measured else 1.5}
    figure.add_trace(
        go.Scatter(
            x=roofed.x.tolist(),
            y=[round(value, 4) for value in y],
            mode="lines+markers" if measured else "lines",
            line=line if measured else {**line, "dash": "dash"},
            marker={"size": 7},
            hovertemplate=f"%{{y:,.4~g}} tokens/s at %{{x:,}}<br>{said}<extra></extra>",
        )
    )


def _columns(count: int) -> list[int]:
    """Columns that are drawn: both ends and some between."""
    if count <= MOST_LINES:
        return list(range(count))
    return sorted({round(i * (count - 1) / (MOST_LINES - 1)) for i in range(MOST_LINES)})


def _thinned(table: TimeTable) -> TimeTable:
    """The table with the columns that are drawn."""
    columns = _columns(len(table.y))
    return replace(table, y=table.y[columns], seconds=table.seconds[:, columns])


def share_table(roofed: Roofed, caption: str, x_name: str) -> Table | None:
    """What of the roof was reached at every measured point of the first column."""
    roof, reached = roofed.roof, roofed.share
    if roof is None or reached is None or roofed.compute is None or roofed.memory is None:
        return None
    rows = []
    for i, x in enumerate(roofed.x.tolist()):
        bound = "compute" if roofed.compute[i, 0] <= roofed.memory[i, 0] else "memory"
        rows.append(
            cells(
                f"{x:,.0f}",
                f"{roofed.measured[i, 0]:,.0f}",
                f"{roof[i, 0]:,.0f}",
                share(float(reached[i, 0])),
                bound,
            )
        )
    return Table(
        caption=caption,
        columns=(
            *text_columns(x_name),
            *number_columns("tokens/s", "roof, tokens/s", "reached"),
            *text_columns("bound by"),
        ),
        rows=tuple(rows),
    )


def _accelerator_facts(facts: AcceleratorFacts | None, peak: Peak | None) -> tuple[Fact, ...]:
    if facts is None:
        return ()
    known = [Fact(term="Accelerator", value=f"{facts.title}; {facts.source}")]
    if peak is not None:
        known.append(
            Fact(
                term="Peak of one",
                value=f"{peak.flop_per_s / 1e12:,.4g} TFLOP/s, {peak.bytes_per_s / 1e12:,.4g} TB/s",
            )
        )
    return tuple(known)
