"""What a deployment does at this moment, beside what was promised and predicted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from planner.domain.plan import Bottleneck
from planner.domain.slo import Slo
from planner.service.api.objectives import ObjectivesDocument, SloDocument
from planner.service.dashboard.views.charts import Axes, Chart, Line, Rule, drawn
from planner.service.live.recent import Glance, fullest_kv, waiting_in
from planner.service.reports.quantities import (
    MISSING,
    counted,
    duration,
    rate,
    share,
    usd,
    usd_per_hour,
    words,
)
from planner.service.reports.table import Cell, Table, cells, number_columns, text_columns
from serving.telemetry.signals import Activity, DeploymentSignals, Latency, Signal

SHOWN = timedelta(hours=1)
KEPT, MISSED = "kept", "missed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One figure.

    Parameters
    ----------
    verdict : str
        `kept`, `missed`, or empty: nothing was promised, or nothing is known.
    """

    heading: str
    value: str
    note: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How well a promise is kept, and what of its error budget is left.

    Parameters
    ----------
    left_ratio : float or None
        Below 0: overspent; None: nothing came.
    """

    request_class: str
    promise: str
    kept: str
    requests: str
    left: str
    left_ratio: float | None
    verdict: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveView:
    """Figures of now, plots of the last hour.

    Parameters
    ----------
    missing : str
        Why nothing is seen, and what to do; empty: something is.
    """

    missing: str
    seen: str
    tiles: tuple[Tile, ...]
    roles: Table | None
    bottleneck: str
    charts: tuple[Chart, ...]


def live_view(
    signals: DeploymentSignals | None,
    recent: Sequence[Glance],
    slos: Sequence[Slo],
    *,
    now: datetime,
    predicted_ttft_s: float | None = None,
) -> LiveView:
    """The newest signals and those of the last hour.

    Parameters
    ----------
    slos : sequence of Slo
        Of the model that is planned.
    predicted_ttft_s : float or None
        The 95th percentile that the plan in force predicts for now, seconds.
    """
    charts = _charts(recent, slos, now=now)
    if signals is None:
        return LiveView(
            missing=_unread(recent), seen="", tiles=(), roles=None, bottleneck="", charts=charts
        )
    return LiveView(
        missing="",
        seen=f"Read at {signals.looked_at:%H:%M:%S} UTC from {signals.seen_by or 'its parts'}",
        tiles=_tiles(signals, slos, predicted_ttft_s),
        roles=_roles(signals),
        bottleneck=_bottleneck(signals),
        charts=charts,
    )


def _unread(recent: Sequence[Glance]) -> str:
    """Why there are no figures of now: nothing was ever read, or not lately."""
    if recent:
        return (
            f"Nothing is known of now: the newest reading is of {recent[-1].at:%H:%M:%S} UTC. "
            "Reading goes on; `poolwise status` says what does not answer."
        )
    return (
        "No part of this deployment is read. Name its engines, router or gate in "
        "POOLWISE_WATCH, or a Prometheus server in POOLWISE_PROMETHEUS_URL, and start "
        "`poolwise serve` again."
    )


def _tiles(
    signals: DeploymentSignals, slos: Sequence[Slo], predicted_ttft_s: float | None
) -> tuple[Tile, ...]:
    ttft_s = min((slo.ttft_s for slo in slos), default=None)
    itl_s = min((slo.itl_p99_s for slo in slos if slo.itl_p99_s is not None), default=None)
    predicted = f"; {duration(predicted_ttft_s)} predicted" if predicted_ttft_s else ""
    waiting, fullest = waiting_in(signals), fullest_kv(signals)
    return (
        _latency("TTFT, p95", signals.ttft, signals.ttft.p95_s, ttft_s, more=predicted),
        _latency("ITL, p95", signals.itl, signals.itl.p95_s, itl_s),
        Tile(
            heading="Requests",
            value=_rate(signals.requests_per_s, "requests"),
            note=_expected(signals) or signals.requests_per_s.missing,
        ),
        Tile(
            heading="Tokens out",
            value=_rate(signals.output_tokens_per_s, "tokens"),
            note=f"{_rate(signals.input_tokens_per_s, 'tokens')} in",
        ),
        Tile(
            heading="Waiting",
            value=MISSING if waiting is None else counted(round(waiting), "request"),
            note="no engine tells its queue" if waiting is None else "in all queues",
        ),
        Tile(
            heading="KV cache, fullest",
            value=share(fullest),
            note="no engine tells it" if fullest is None else "of one worker's memory for it",
        ),
        Tile(
            heading="Cost",
            value=usd_per_hour(signals.usd_per_hour.value),
            note=_per_million(signals) or signals.usd_per_hour.missing,
        ),
    )


def _latency(
    heading: str, latency: Latency, p95: Signal, promised_s: float | None, *, more: str = ""
) -> Tile:
    if p95.value is None:
        return Tile(heading=heading, value=MISSING, note=p95.missing)
    others = f"p50 {duration(latency.p50_s.value)}, p99 {duration(latency.p99_s.value)}"
    if promised_s is None:
        return Tile(heading=heading, value=duration(p95.value), note=others + more)
    kept = p95.value <= promised_s
    return Tile(
        heading=heading,
        value=duration(p95.value),
        note=f"{duration(promised_s)} promised{more}; {others}",
        verdict=KEPT if kept else MISSED,
    )


def _rate(signal: Signal, what: str) -> str:
    return rate(signal.value, what)


def _expected(signals: DeploymentSignals) -> str:
    ahead = signals.forecast
    if ahead is None or ahead.expected_rps.value is None:
        return ""
    return f"{rate(ahead.expected_rps.value, 'requests')} were expected for now"


def _per_million(signals: DeploymentSignals) -> str:
    each = signals.usd_per_million_tokens.value
    return "" if each is None else f"{usd(each)} per million tokens out"


def _bottleneck(signals: DeploymentSignals) -> str:
    if signals.bottleneck is None:
        return f"What would miss first is not known: {signals.bottleneck_why}."
    if signals.bottleneck is Bottleneck.NONE:
        return f"Nothing is short: {signals.bottleneck_why}."
    name = words(signals.bottleneck)
    return f"Short of {name}: {signals.bottleneck_why}."


def _roles(signals: DeploymentSignals) -> Table:
    rows = [
        cells(
            role.role.value,
            f"{role.answering} of {role.workers}",
            _number(role.activity.running),
            _number(role.activity.waiting),
            _kv(role.activity),
            share(role.activity.prefix_hit_ratio.value),
            share(role.activity.hardware.accelerator_ratio.value),
        )
        for role in signals.roles
    ]
    return Table(
        caption="Workers by role",
        columns=(
            *text_columns("Role"),
            *number_columns(
                "Answering", "Running", "Waiting", "KV cache in use", "Prefix hits", "Busy"
            ),
        ),
        rows=tuple(rows),
        when_empty="No worker is known.",
    )


def _kv(activity: Activity) -> str:
    mean, most = activity.kv_usage_ratio.value, activity.kv_usage_most_ratio.value
    if mean is None or most is None or most - mean < 0.005:
        return share(most if mean is None else mean)
    return f"{share(mean)}, at most {share(most)}"


def _number(signal: Signal) -> str:
    return MISSING if signal.value is None else f"{signal.value:,.0f}"


def _charts(recent: Sequence[Glance], slos: Sequence[Slo], *, now: datetime) -> tuple[Chart, ...]:
    if len(recent) < 2:
        return ()
    start = max(now - SHOWN, recent[0].at)

    def axes(written: Callable[[float], str]) -> Axes:
        return Axes(start_at=start, end_at=max(now, recent[-1].at), written=written)

    def line(name: str, of: Callable[[Glance], float | None], look: str = "observed") -> Line:
        return Line(name=name, look=look, points=tuple((one.at, of(one)) for one in recent))

    def plain(value: float) -> str:
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    promised = tuple(
        Rule(name=f"{duration(slo.ttft_s)} promised to {slo.request_class}", value=slo.ttft_s)
        for slo in slos
    )
    gaps = tuple(rule for slo in slos for rule in _gap_rules(slo))
    return tuple(
        chart
        for chart in (
            drawn(
                "ttft", "Time to first token, p95", axes(duration), rules=promised,
                lines=[line("TTFT p95", lambda g: g.ttft_p95_s)],
                summary=_extremes([g.ttft_p95_s for g in recent], duration),
            ),
            drawn(
                "itl", "Gap between tokens, p95", axes(duration), rules=gaps,
                lines=[line("ITL p95", lambda g: g.itl_p95_s)],
                summary=_extremes([g.itl_p95_s for g in recent], duration),
            ),
            drawn(
                "tokens", "Tokens/s", axes(plain),
                lines=[
                    line("in", lambda g: g.input_tokens_per_s, "second"),
                    line("out", lambda g: g.output_tokens_per_s),
                ],
                summary="Out: "
                + _extremes([g.output_tokens_per_s for g in recent], lambda v: rate(v, "tokens")),
            ),
            drawn(
                "waiting", "Requests that wait", axes(plain),
                lines=[line("waiting", lambda g: g.waiting)],
                summary=_extremes([g.waiting for g in recent], plain),
            ),
            drawn(
                "kv", "KV cache in use, fullest worker", axes(lambda v: f"{v:.0%}"),
                rules=[Rule(name="full", value=1.0)],
                lines=[line("KV cache", lambda g: g.kv_usage_ratio)],
                summary=_extremes([g.kv_usage_ratio for g in recent], share),
            ),
        )
        if any(shape.path for shape in chart.shapes if shape.look != "promise")
    )  # fmt: skip


def _gap_rules(slo: Slo) -> Iterator[Rule]:
    """What was promised of gaps: of single ones, where it was, and of their mean in a request."""
    whose = f"promised to {slo.request_class}"
    if slo.itl_p99_s is not None:
        yield Rule(name=f"p99 {duration(slo.itl_p99_s)} {whose}", value=slo.itl_p99_s)
    yield Rule(name=f"{duration(slo.tpot_s)} in the mean (TPOT) {whose}", value=slo.tpot_s)


def _extremes(values: Sequence[float | None], written: Callable[[float], str]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "Not known in this time."
    return f"{written(known[-1])} now, {written(min(known))} to {written(max(known))} in this time."


def budgets(document: SloDocument, signals: DeploymentSignals | None) -> tuple[Budget, ...]:
    """Each class's promise, as the gate saw it in the last hour; else as live signals have it."""
    if any(one.requests for one in document.classes) or signals is None:
        return tuple(_of_gate(one) for one in document.classes)
    found = []
    promises = {one.request_class: one for one in document.classes}
    for slo in signals.slos:
        kept, used = slo.attainment_ratio, slo.error_budget_used_ratio.value
        promised = promises.get(slo.request_class)
        left = None if used is None else 1.0 - used
        found.append(
            Budget(
                request_class=slo.request_class,
                promise=_promise(promised) if promised else share(slo.target_ratio),
                kept=_bounds(kept.low, kept.high, kept.value),
                requests="now",
                left=MISSING if left is None else share(left),
                left_ratio=left,
                verdict=_verdict(left),
            )
        )
    return tuple(found)


def _of_gate(one: ObjectivesDocument) -> Budget:
    return Budget(
        request_class=one.request_class,
        promise=_promise(one),
        kept=_bounds(one.attainment_low_ratio, one.attainment_high_ratio, None),
        requests=counted(one.requests, "request"),
        left=MISSING if one.budget_left_ratio is None else share(one.budget_left_ratio),
        left_ratio=one.budget_left_ratio,
        verdict=_verdict(one.budget_left_ratio),
    )


def _promise(one: ObjectivesDocument) -> str:
    parts = [f"TTFT {duration(one.ttft_s)}", f"TPOT {duration(one.tpot_s)}"]
    if one.itl_p99_s is not None:
        parts.append(f"ITL p99 {duration(one.itl_p99_s)}")
    if one.e2e_s is not None:
        parts.append(f"whole {duration(one.e2e_s)}")
    return f"{share(one.target_ratio)} within {', '.join(parts)}"


def _bounds(low: float | None, high: float | None, value: float | None) -> str:
    if low is None or high is None:
        return share(value)
    return share(low) if high - low < 0.0005 else f"{share(low)} to {share(high)}"


def _verdict(left: float | None) -> str:
    if left is None:
        return ""
    return KEPT if left >= 0 else MISSED


def budget_cell(one: Budget) -> Cell:
    """What is left of a budget, with a bar."""
    ratio = None if one.left_ratio is None else min(max(one.left_ratio, 0.0), 1.0)
    return Cell(text=one.left, bar_ratio=ratio)
