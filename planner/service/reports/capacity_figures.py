"""The plots of a capacity report."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from planner.domain.fleet import Role
from planner.domain.wording import counted
from planner.service.documents.capacity_report import (
    CapacityReport,
    FleetWindowDocument,
    PaceDocument,
    ParetoPointDocument,
    PatternDocument,
    ScenarioDocument,
)
from planner.service.reports.capacity_text import is_relative
from planner.service.reports.over_time import stamp
from planner.service.reports.page import (
    AFTER,
    AGGREGATED,
    DECODE,
    DURING,
    FAILED,
    PREDICTED,
    PREFILL,
    PROMISE,
    SERIES,
    Figure,
    Key,
    drawn,
    titled,
)
from planner.service.reports.quantities import rate, share

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    """Instants on an axis: dates, or hours or minutes from the start of a trace without dates."""

    start_at: datetime
    relative: bool
    unit_s: float

    def at(self, moment: datetime) -> str | float:
        """Where an instant stands."""
        if not self.relative:
            return stamp(moment)
        return round((moment - self.start_at).total_seconds() / self.unit_s, 4)

    def width(self, seconds: float) -> float:
        """How wide an interval is: ms on an axis of dates."""
        return seconds / self.unit_s if self.relative else 1000 * seconds

    @property
    def title(self) -> str:
        """Of the axis."""
        if not self.relative:
            return "UTC"
        return "hours from the start" if self.unit_s == _HOUR_S else "minutes from the start"


def _clock(report: CapacityReport) -> _Clock:
    long = report.workload.duration_s > 6 * _HOUR_S
    return _Clock(
        start_at=report.workload.start_at,
        relative=is_relative(report),
        unit_s=_HOUR_S if long else 60.0,
    )


def pace_figure(report: CapacityReport) -> Figure:
    """Draw requests and tokens a second over time, as they were seen."""
    clock, paces = _clock(report), report.workload.pace
    panels = (
        ("Requests", "requests/s", [p.request_rate_rps for p in paces], AFTER),
        ("Prompt tokens", "tokens/s", [p.input_tokens_per_s for p in paces], PREFILL),
        ("Answer tokens", "tokens/s", [p.output_tokens_per_s for p in paces], DECODE),
    )
    corners = _corners(paces)
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    for row, (title, unit, values, colour) in enumerate(panels, start=1):
        figure.add_trace(
            go.Scatter(
                x=[None if at is None else clock.at(at) for at, _ in corners],
                y=[None if i is None else values[i] for _, i in corners],
                mode="lines",
                line={"color": colour, "width": 1.5, "shape": "hv"},
                hovertemplate=f"%{{y:.4~g}} {unit} at %{{x}}<extra></extra>",
            ),
            row=row,
            col=1,
        )
        figure.update_yaxes(rangemode="tozero", nticks=4, row=row, col=1)
        titled(figure, row, f"<b>{title}</b>, {unit}")
    figure.update_xaxes(title_text=clock.title, nticks=6, row=3, col=1)
    seen = report.workload
    return drawn(
        figure,
        name="pace",
        title="What arrived",
        description="Requests and tokens a second over time: "
        f"{rate(seen.request_rate_rps, 'requests')} in the mean, "
        f"{rate(seen.peak_rps, 'requests')} in the busiest window.",
        keys=(),
        height_px=440,
        zoom=True,
    )


def _corners(paces: Sequence[PaceDocument]) -> list[tuple[datetime | None, int | None]]:
    """Where the line of what arrived begins a step: when, and which; it breaks off at a hole."""
    corners: list[tuple[datetime | None, int | None]] = []
    end_at: datetime | None = None
    for i, pace in enumerate(paces):
        if end_at is not None and pace.start_at > end_at:
            corners += [(end_at, i - 1), (None, None)]
        corners.append((pace.start_at, i))
        end_at = pace.start_at + timedelta(seconds=pace.window_s)
    return [*corners, (end_at, len(paces) - 1)] if paces else []


def pattern_figure(name: str, title: str, pattern: Sequence[PatternDocument]) -> Figure | None:
    """Draw the mean rate by hour of the day or by day of the week; None where it is not known."""
    if not pattern:
        return None
    figure = go.Figure(
        go.Bar(
            x=[p.name if p.name[0].isdigit() else p.name[:3] for p in pattern],
            y=[p.request_rate_rps for p in pattern],
            marker={"color": AFTER},
            hovertemplate="%{x}: %{y:.4~g} requests/s<extra></extra>",
        )
    )
    figure.update_xaxes(type="category", tickangle=0, nticks=5 if len(pattern) > 7 else 8)
    figure.update_yaxes(title_text="requests/s", rangemode="tozero", nticks=4)
    busiest = max(pattern, key=lambda p: p.request_rate_rps)
    return drawn(
        figure,
        name=name,
        title=title,
        description=f"{title}: most at {busiest.name}, "
        f"{rate(busiest.request_rate_rps, 'requests')}.",
        keys=(),
        height_px=230,
        top_px=8,
    )


def fleet_figure(report: CapacityReport) -> Figure:
    """Draw expected requests, replicas by pool and cost over the planning windows."""
    clock, fleet = _clock(report), report.recommended
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.1)
    windows = fleet.windows
    last = windows[-1]
    edges = [clock.at(w.start_at) for w in windows]
    edges.append(clock.at(last.start_at + timedelta(seconds=last.window_s)))
    keys = _draw_demand(figure, report, edges)
    starts = edges[:-1]
    widths = [clock.width(w.window_s) for w in windows]
    for pool, colour in zip(fleet.pools, _colours([p.role for p in fleet.pools]), strict=True):
        label = f"{pool.label} {pool.purchase_option.value.replace('_', ' ')}"
        figure.add_trace(
            go.Bar(
                x=starts,
                y=pool.replicas,
                width=[0.94 * width for width in widths],
                offset=0,
                marker={"color": colour},
                hovertemplate=f"{label}: %{{y}} replicas from %{{x}}<extra></extra>",
            ),
            row=2,
            col=1,
        )
        keys.append(Key(text=label, colour=colour, mark="bar"))
    figure.add_trace(
        go.Bar(
            x=starts,
            y=[w.usd_per_hour for w in windows],
            width=[0.94 * width for width in widths],
            offset=0,
            marker={"color": DURING},
            hovertemplate="%{y:,.2f} USD/h from %{x}<extra></extra>",
        ),
        row=3,
        col=1,
    )
    figure.update_layout(barmode="stack")
    titles = ("<b>Requests</b>, requests/s", "<b>Replicas</b>", "<b>Cost</b>, USD/h")
    for row, title in enumerate(titles, start=1):
        figure.update_yaxes(rangemode="tozero", nticks=4, row=row, col=1)
        titled(figure, row, title)
    if max((sum(p.replicas[t] for p in fleet.pools) for t in range(len(windows))), default=0) <= 4:
        figure.update_yaxes(dtick=1, row=2, col=1)
    figure.update_xaxes(range=[edges[0], edges[-1]])
    figure.update_xaxes(title_text=clock.title, nticks=6, row=3, col=1)
    return drawn(
        figure,
        name="fleet",
        title="The fleet over time",
        description="Expected requests a second, replicas by pool and cost for every planning "
        "window; the table below holds the figures.",
        keys=keys,
        height_px=540,
        zoom=True,
    )


def _colours(roles: Sequence[Role]) -> list[str]:
    """A role's own colour for its first pool, others for the rest."""
    own = {Role.PREFILL: PREFILL, Role.DECODE: DECODE, Role.AGGREGATED: AGGREGATED}
    left = [colour for colour in SERIES if colour not in (PREFILL, DECODE, AGGREGATED)]
    found = []
    for number, role in enumerate(roles):
        first = role not in roles[:number]
        found.append(own[role] if first else left[number % len(left)])
    return found


def _draw_demand(
    figure: go.Figure, report: CapacityReport, edges: Sequence[str | float]
) -> list[Key]:
    """Lines that hold from one edge of the windows to the next."""
    lines = (
        ("expected", [e.request_rate_median_rps for e in report.expected], PREDICTED, "solid"),
        ("90 % quantile", [e.request_rate_q90_rps for e in report.expected], PREDICTED, "dash"),
        ("planned for", [e.request_rate_planned_rps for e in report.expected], PROMISE, "dot"),
    )
    for said, values, colour, dash in lines:
        figure.add_trace(
            go.Scatter(
                x=list(edges),
                y=[*values, values[-1]],
                mode="lines",
                line={"color": colour, "width": 2, "dash": dash, "shape": "hv"},
                hovertemplate=f"{said}: %{{y:.4~g}} requests/s at %{{x}}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    return [
        Key(text=said, colour=colour, mark="line" if dash == "solid" else "dash")
        for said, _, colour, dash in lines
    ]


def _lowest(window: FleetWindowDocument) -> float:
    """Where the interval of a window begins that has an attainment."""
    found = (window.attainment_low_ratio, window.attainment_ratio)
    return min(ratio for ratio in found if ratio is not None)


def attainment_figure(report: CapacityReport) -> Figure:
    """Draw the attainment of every window with its interval, and what was promised."""
    clock, windows = _clock(report), report.recommended.windows
    known = [w for w in windows if w.attainment_ratio is not None]
    figure = go.Figure()
    for source, said, symbol in (
        ("twin", "replayed in the twin", "circle"),
        ("closed_form", "computed in closed form", "circle-open"),
    ):
        of_source = [w for w in known if w.source == source]
        if not of_source:
            continue
        ratios = [w.attainment_ratio or 0.0 for w in of_source]
        lows = [r if w.attainment_low_ratio is None else w.attainment_low_ratio
                for w, r in zip(of_source, ratios, strict=True)]  # fmt: skip
        highs = [r if w.attainment_high_ratio is None else w.attainment_high_ratio
                 for w, r in zip(of_source, ratios, strict=True)]  # fmt: skip
        figure.add_trace(
            go.Scatter(
                x=[clock.at(w.start_at) for w in of_source],
                y=[round(r, 5) for r in ratios],
                mode="markers",
                marker={
                    "color": AFTER,
                    "size": 9,
                    "symbol": symbol,
                    "line": {"width": 2, "color": AFTER},
                },
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [round(h - r, 5) for h, r in zip(highs, ratios, strict=True)],
                    "arrayminus": [round(r - low, 5) for low, r in zip(lows, ratios, strict=True)],
                    "color": AFTER,
                    "thickness": 1.5,
                },
                hovertemplate=f"%{{y:.2%}} in time from %{{x}}, {said}<extra></extra>",
            )
        )
    hollow = "; hollow: in closed form" if any(w.source == "closed_form" for w in known) else ""
    seen = report.attainment
    targets = sorted({c.target_ratio for c in seen.classes}) if seen is not None else []
    for target in targets:
        figure.add_hline(y=target, line={"color": PROMISE, "width": 1.5, "dash": "dash"})
    lowest = min(
        [*targets, *(_lowest(w) for w in known)],
        default=0.0,
    )
    figure.update_yaxes(tickformat=".1~%", nticks=5, range=[lowest - 0.1 * (1.02 - lowest), 1.005])
    figure.update_xaxes(title_text=clock.title, nticks=6)
    return drawn(
        figure,
        name="attainment",
        title="Requests in time, window by window",
        description="Share of requests in time in every planning window with its 95 % interval, "
        f"beside {', '.join(share(t) for t in targets) or 'nothing'} promised.",
        keys=(
            Key(text=f"in time, with 95 % interval{hollow}", colour=AFTER, mark="dot"),
            Key(text="promised", colour=PROMISE, mark="dash"),
        ),
        height_px=280,
        top_px=8,
    )


def pareto_figure(report: CapacityReport) -> Figure | None:
    """Draw cost over the promised TTFT, a line for each attainment target; None without points."""
    points = [p for p in report.pareto if p.usd_per_hour is not None]
    if len(points) < 2:
        return None
    figure = go.Figure()
    keys = []
    for number, target in enumerate(sorted({p.attainment_ratio for p in points})):
        line = sorted((p for p in points if p.attainment_ratio == target), key=lambda p: p.ttft_s)
        colour = SERIES[number % len(SERIES)]
        figure.add_trace(_pareto_line(line, colour))
        keys.append(Key(text=f"{share(target)} in time", colour=colour, mark="line"))
    figure.update_xaxes(title_text="promised time to first token, s", rangemode="tozero")
    figure.update_yaxes(title_text="USD/h", rangemode="tozero", nticks=5)
    return drawn(
        figure,
        name="pareto",
        title="What a promise costs when it is busiest",
        description="Cost over the promised time to first token for several shares in time; "
        "the table holds the promises that nothing cheaper keeps.",
        keys=(
            *keys,
            Key(text="nothing cheaper promises as much: filled", colour=PROMISE, mark="dot"),
        ),
        height_px=320,
        top_px=8,
    )


def _pareto_line(line: Sequence[ParetoPointDocument], colour: str) -> go.Scatter:
    return go.Scatter(
        x=[p.ttft_s for p in line],
        y=[p.usd_per_hour for p in line],
        mode="lines+markers",
        line={"color": colour, "width": 2},
        marker={
            "size": 9,
            "symbol": ["circle" if p.efficient else "circle-open" for p in line],
            "line": {"width": 2, "color": colour},
        },
        hovertemplate="%{y:,.2f} USD/h for a first token within %{x:.3~g} s<extra></extra>",
    )


def growth_figure(report: CapacityReport) -> Figure | None:
    """Draw the accelerators of every growth scenario by type, and the inventory."""
    rows = [s for s in (report.base, *report.growth) if s.accelerators]
    if len(rows) < 2:
        return None
    figure = go.Figure()
    names = [kind.accelerator for kind in report.recommended.types]
    used = [name for name in names if any(s.accelerators.get(name) for s in rows)]
    keys = []
    for number, name in enumerate(used):
        colour = SERIES[number % len(SERIES)]
        figure.add_trace(
            go.Bar(
                x=[_growth_name(s) for s in rows],
                y=[s.accelerators.get(name, 0) for s in rows],
                marker={"color": colour},
                hovertemplate=f"%{{x}}: %{{y:,}} {name}<extra></extra>",
            )
        )
        keys.append(Key(text=name, colour=colour, mark="bar"))
    inventory = sum(k.inventory for k in report.recommended.types if k.accelerator in used)
    most = max(sum(s.accelerators.values()) for s in rows)
    if inventory <= 3 * most:
        figure.add_hline(y=inventory, line={"color": FAILED, "width": 2, "dash": "dash"})
        keys.append(Key(text=f"inventory, {inventory:,}", colour=FAILED, mark="dash"))
    figure.update_layout(barmode="stack")
    figure.update_xaxes(type="category", tickangle=0)
    figure.update_yaxes(title_text="accelerators", rangemode="tozero", nticks=5)
    return drawn(
        figure,
        name="growth",
        title="Accelerators when it is busiest, as traffic grows",
        description="; ".join(
            f"{_growth_name(s)}: {counted(sum(s.accelerators.values()), 'accelerator')}"
            for s in rows
        ),
        keys=keys,
        height_px=300,
        top_px=8,
    )


def _growth_name(found: ScenarioDocument) -> str:
    if found.kind == "base":
        return "today"
    return f"x{found.rate_ratio:g}" if found.kind == "growth" else "long<br>context"
