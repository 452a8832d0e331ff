"""A deployment's signals as tables for people, in the groups in which they must be observable."""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from planner.domain.fleet import Role
from planner.service.cli import output
from serving.telemetry.signals import TargetKind

if TYPE_CHECKING:
    from serving.telemetry.signals import (
        Activity,
        DeploymentSignals,
        LedBy,
        Signal,
        TargetSignals,
    )

MISSING = "-"
_GIB = 1024**3


def show_status(signals: "DeploymentSignals") -> None:
    """All signals; what is missing as a dash, with the reasons below."""
    _show_latencies(signals)
    _show_throughput(signals)
    _show_roles(signals)
    output.print_lines("Lacking", [_lacking(role) for role in signals.lacks])
    _show_exporters(signals)
    _show_transfers(signals)
    _show_promises(signals)
    _show_targets(signals)
    output.print_lines("Bottleneck", _bottleneck(signals))
    if signals.corrections:
        output.print_lines("Profiles that the loop corrects", signals.corrections)
    if signals.led_by is not None:
        output.print_lines("Leader of the control loop", [_leader(signals.led_by)])
    output.print_lines("Ordered by people", signals.ordered)
    output.print_lines("Not known, and why", _reasons(signals))


def _show_latencies(signals: "DeploymentSignals") -> None:
    """Observed beside predicted; the bucket that a quantile lies in beside it."""
    expected = signals.expected
    predicted: dict[str, str] = {}
    if expected is not None:
        predicted = {
            "TTFT": f"{_ms(expected.ttft_p50_s)} / {_ms(expected.ttft_p95_s)}",
            "ITL": f"{MISSING} / {_ms(expected.itl_p95_s)}",
        }
    rows = []
    for name, latency in (
        ("TTFT", signals.ttft),
        ("ITL", signals.itl),
        ("end to end", signals.e2e),
    ):
        cells = [_quantile(q) for q in (latency.p50_s, latency.p95_s, latency.p99_s)]
        count = _number(latency.count)
        rows.append([name, *cells, _ms(latency.mean_s), count, predicted.get(name, MISSING)])
    columns = ("", "p50", "p95", "p99", "mean", "values", "predicted p50 / p95")
    at = f"{signals.looked_at:%Y-%m-%d %H:%M:%S} UTC"
    title = f"Latency at {at}, as seen by {signals.seen_by} [where each quantile lies]"
    output.print_table(title, columns, rows, unbroken=columns)


def _show_throughput(signals: "DeploymentSignals") -> None:
    requests, inputs, outputs = _forecast(signals)
    rows = [
        ["requests", _number(signals.requests_per_s, "/s"), *requests],
        ["prompt tokens in", _number(signals.input_tokens_per_s, "/s"), *inputs],
        ["tokens out", _number(signals.output_tokens_per_s, "/s"), *outputs],
        ["prefix cache hits", _percent(signals.prefix_hit_ratio), "", ""],
        ["cost", _number(signals.usd_per_hour, " USD/h"), "", ""],
        ["cost per million tokens out", _number(signals.usd_per_million_tokens, " USD"), "", ""],
    ]
    output.print_table(
        "Throughput and cost", ("", "now", "forecast (median)", "forecast (90 %)"), rows
    )


def _forecast(signals: "DeploymentSignals") -> list[tuple[str, str]]:
    """Median and 90 % of requests, of prompt tokens, and of tokens out."""
    beside = signals.forecast
    if beside is None:
        return [(MISSING, MISSING)] * 3
    return [
        (_number(median, "/s"), _number(high, "/s"))
        for median, high in (
            (beside.expected_rps, beside.expected_high_rps),
            (beside.expected_input_tokens_per_s, beside.expected_high_input_tokens_per_s),
            (beside.expected_output_tokens_per_s, beside.expected_high_output_tokens_per_s),
        )
    ]


def _show_roles(signals: "DeploymentSignals") -> None:
    rows = []
    for role in signals.roles:
        activity, hardware = role.activity, role.activity.hardware
        rows.append(
            [
                str(role.role),
                f"{role.answering} of {role.workers}",
                _number(activity.running),
                _number(activity.waiting),
                _number(activity.waiting_for_kv),
                f"{_percent(activity.kv_usage_ratio)} / {_percent(activity.kv_usage_most_ratio)}",
                _number(activity.preemptions_per_s, "/s"),
                _percent(hardware.accelerator_ratio),
                _percent(hardware.memory_used_ratio),
                _number(hardware.cpu_cores),
                _gib(hardware.resident_bytes),
            ]
        )
    columns = (
        "role",
        "answer",
        "running",
        "queue",
        "await KV",
        "KV mean / most",
        "preempted",
        "GPU busy",
        "HBM used",
        "CPU cores",
        "memory",
    )
    output.print_table("Queues, KV cache and hardware by role", columns, rows)


def _lacking(role: "Role") -> str:
    """What no worker does, and what comes of it."""
    if role is Role.AGGREGATED:
        return "no aggregated worker answers, and the spec wants one"
    other = Role.DECODE if role is Role.PREFILL else Role.PREFILL
    return f"no {role} worker answers: without one a {other} worker serves nobody"


def _show_exporters(signals: "DeploymentSignals") -> None:
    """Accelerators as their exporters tell them, which do not say whose worker is on which."""
    rows = [
        [
            target.name,
            _percent(hardware.accelerator_ratio),
            _percent(hardware.memory_used_ratio),
            _percent(hardware.memory_bandwidth_ratio),
            _percent(hardware.tensor_ratio),
            _number(hardware.power_w, " W"),
        ]
        for target in signals.targets
        if target.kind is TargetKind.HARDWARE and target.answers
        for hardware in (target.activity.hardware,)
    ]
    columns = ("exporter", "GPU busy", "HBM used", "HBM bandwidth", "tensor cores", "power")
    if rows:
        output.print_table("Accelerators, by their exporters", columns, rows)


def _show_transfers(signals: "DeploymentSignals") -> None:
    moved = signals.transfer
    latency = moved.latency
    row = [
        *[_quantile(q) for q in (latency.p50_s, latency.p95_s, latency.p99_s)],
        _ms(latency.mean_s),
        _number(moved.transfers_per_s, "/s"),
        _mib(moved.bytes_per_s),
        _number(moved.failed_per_s, "/s"),
        _number(moved.expired_per_s, "/s"),
    ]
    columns = ("p50", "p95", "p99", "mean", "transfers", "moved", "failed", "expired")
    output.print_table("KV transfer", columns, [row], numbers_from=0)


def _show_promises(signals: "DeploymentSignals") -> None:
    if not signals.slos:
        return
    expected = signals.expected
    rows = [
        [
            kept.request_class,
            output.percent(kept.target_ratio),
            _range(kept.attainment_ratio, output.percent),
            _percent(expected.attainment_ratio) if expected else MISSING,
            _range(kept.goodput_rps, lambda value: f"{value:.3g}/s"),
            _range(kept.error_budget_used_ratio, lambda value: f"{value:.0%}"),
            "counted" if not kept.from_bounds else "bounds from histograms",
        ]
        for kept in signals.slos
    ]
    columns = ("class", "promised", "in time", "predicted", "goodput", "error budget used", "")
    output.print_table("Promises, over this interval", columns, rows)


def _show_targets(signals: "DeploymentSignals") -> None:
    rows = [_target_row(target) for target in signals.targets]
    columns = ("target", "what", "state", "age", "over", "running", "queue", "KV", "tokens out")
    output.print_table("Targets", columns, rows, numbers_from=3, unbroken=columns[:1])
    notes = [f"{t.name}: {t.note}" for t in signals.targets if t.note]
    output.print_lines("Remarks on targets", notes)


def _target_row(target: "TargetSignals") -> list[str]:
    activity = target.activity
    return [
        target.name,
        f"{target.source} {target.role}" if target.role else str(target.source),
        str(target.state),
        MISSING if target.age_s is None else f"{target.age_s:.0f} s",
        MISSING if target.interval_s is None else f"{target.interval_s:.1f} s",
        _number(activity.running),
        _number(activity.waiting),
        _percent(activity.kv_usage_ratio),
        _number(activity.output_tokens_per_s, "/s"),
    ]


def _bottleneck(signals: "DeploymentSignals") -> list[str]:
    known = "measured" if signals.bottleneck is not None else "not known"
    lines = [f"{known}: {signals.bottleneck_why}"]
    if signals.expected is not None and signals.expected.bottleneck is not None:
        lines.append(f"by the profiles, {signals.expected.bottleneck} misses first if load grows")
    return lines


def _reasons(signals: "DeploymentSignals") -> list[str]:
    """Every reason once, with what it is the reason for."""
    wanted: dict[str, list[str]] = {}

    def note(what: str, signal: "Signal") -> None:
        if signal.missing:
            wanted.setdefault(signal.missing, []).append(what)

    _note_latencies(signals, note)
    for what, signal in (
        ("requests/s", signals.requests_per_s),
        ("tokens in", signals.input_tokens_per_s),
        ("tokens out", signals.output_tokens_per_s),
        ("cache hits", signals.prefix_hit_ratio),
        ("cost", signals.usd_per_hour),
        ("cost per million tokens", signals.usd_per_million_tokens),
    ):
        note(what, signal)
    for role in signals.roles:
        for what, signal in _role_signals(role.activity):
            note(f"{role.role} {what}", signal)
    for kept in signals.slos:
        note(f"promise to {kept.request_class}", kept.attainment_ratio)
        if kept.note:
            wanted.setdefault(kept.note, []).append(f"promise to {kept.request_class}")
    if signals.expected is not None:
        note("prediction", signals.expected.ttft_p95_s)
    if signals.forecast is not None:
        note("forecast", signals.forecast.expected_rps)
    return [f"{', '.join(dict.fromkeys(what))}: {why}" for why, what in wanted.items()]


def _note_latencies(signals: "DeploymentSignals", note: Callable[[str, "Signal"], None]) -> None:
    for what, latency in (
        ("TTFT", signals.ttft),
        ("ITL", signals.itl),
        ("end to end", signals.e2e),
        ("KV transfer", signals.transfer.latency),
    ):
        note(what, latency.p50_s)
    note("failed transfers", signals.transfer.failed_per_s)


def _role_signals(activity: "Activity") -> Iterable[tuple[str, "Signal"]]:
    hardware = activity.hardware
    return (
        ("running", activity.running),
        ("queue", activity.waiting),
        ("await KV", activity.waiting_for_kv),
        ("KV cache", activity.kv_usage_ratio),
        ("preemptions", activity.preemptions_per_s),
        ("GPU", hardware.accelerator_ratio),
        ("HBM", hardware.memory_used_ratio),
        ("CPU", hardware.cpu_cores),
    )


def _leader(led_by: "LedBy") -> str:
    return f"{led_by.holder}, term {led_by.term} since {led_by.since_at:%Y-%m-%d %H:%M:%S} UTC"


def _ms(signal: "Signal") -> str:
    return output.milliseconds(signal.value)


def _quantile(signal: "Signal") -> str:
    """A value with the ends of its bucket."""
    if signal.value is None:
        return MISSING
    if signal.low is None or signal.high is None:
        return _ms(signal)
    if not math.isfinite(signal.high):
        return f"above {output.milliseconds(signal.low)}"
    per, unit = (1.0, "s") if signal.value >= 1 else (1000.0, "ms")
    value, low, high = (per * x for x in (signal.value, signal.low, signal.high))
    return f"{value:.3g} {unit} [{low:.4g}-{high:.4g}]"


def _number(signal: "Signal", unit: str = "") -> str:
    if signal.value is None:
        return MISSING
    value = signal.value
    text = f"{value:,.0f}" if value == round(value) or abs(value) >= 100 else f"{value:.3g}"
    return f"{text}{unit}"


def _percent(signal: "Signal") -> str:
    return MISSING if signal.value is None else f"{signal.value:.1%}"


def _gib(signal: "Signal") -> str:
    return MISSING if signal.value is None else f"{signal.value / _GIB:.2f} GiB"


def _mib(signal: "Signal") -> str:
    return MISSING if signal.value is None else f"{signal.value / 1024**2:.3g} MiB/s"


def _range(signal: "Signal", text: Callable[[float], str]) -> str:
    """A value, or the bounds it lies in."""
    if signal.value is None:
        return MISSING
    if signal.low is None or signal.high is None or signal.low == signal.high:
        return text(signal.value)
    return f"{text(signal.low)} to {text(signal.high)}"
