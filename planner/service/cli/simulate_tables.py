"""A simulation for people."""

from typing import TYPE_CHECKING

from planner.domain import wording
from planner.service.cli import output

if TYPE_CHECKING:
    from planner.service.documents.simulation import SimulatedPoolDocument, SimulationDocument

_OUTCOMES = ("finished", "rejected", "aborted", "failed", "in_flight", "not_arrived")


def show_simulation(result: "SimulationDocument") -> None:
    """Print pools, latencies, outcomes, cost, attainment, and what to know before believing it."""
    distrust = output.distrust(estimated=result.estimated, incomplete=result.incomplete)
    from planner.service.reports.quantities import counted

    runs = "" if result.futures is None else f"{counted(result.futures.count, 'future')}, "
    output.print_table(
        f"{runs}{counted(result.requests, 'request')}, {_interval(result.duration_s)} s"
        f"{' each' if runs else ''}, router {result.router}{distrust}",
        ("pool", "", "replicas", "busy", "KV peak", "accelerator-hours"),
        [_pool(pool) for pool in result.pools],
        numbers_from=2,
    )
    _show_latency(result)
    facts = [
        f"{getattr(result.outcomes, name):,} {name.replace('_', ' ')}"
        for name in _OUTCOMES
        if name == "finished" or getattr(result.outcomes, name)
    ]
    each = " a future" if runs else ""
    out = output.console()
    out.print(
        f"Requests: {', '.join(facts)}; {result.output_tokens_per_s:,.0f} output tokens/s",
        markup=False,
    )
    out.print(
        f"Cost: {result.usd:,.2f} USD{each}, {result.accelerator_hours:,.2f} accelerator-hours; "
        f"{result.preemptions:,} preemptions; {output.percent(result.cached_ratio)} of prompt "
        "tokens cached",
        markup=False,
    )
    for line in _attainment(result):
        out.print(line, markup=False)
    for flag in result.flags:
        output.note(f"note: {flag}")
    if result.extrapolated_requests:
        output.note(
            f"note: {result.extrapolated_requests:,} of {result.requests:,} requests lie outside "
            "what the profiles measured: their times are extrapolated"
        )


def _interval(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.3g}"


def _pool(pool: "SimulatedPoolDocument") -> list[str]:
    from planner.service.documents.replica_shape import label_of

    bought = "" if pool.purchase_option == "on_demand" else f" {pool.purchase_option}"
    return [
        str(pool.pool),
        f"{label_of(pool)}{bought}",
        f"{pool.replicas:,}",
        f"{pool.utilization_ratio:.0%}",
        f"{pool.kv_peak_ratio:.0%}",
        f"{pool.accelerator_hours:,.2f}",
    ]


def _show_latency(result: "SimulationDocument") -> None:
    latency = result.latency
    output.print_table(
        "",
        ("", "p50", "p95"),
        [
            ["TTFT", *map(output.milliseconds, (latency.ttft_p50_s, latency.ttft_p95_s))],
            ["TPOT", *map(output.milliseconds, (latency.tpot_p50_s, latency.tpot_p95_s))],
            ["ITL", *map(output.milliseconds, (latency.itl_p50_s, latency.itl_p95_s))],
            ["end to end", "-", output.milliseconds(latency.e2e_p95_s)],
        ],
    )


def _attainment(result: "SimulationDocument") -> list[str]:
    predicted, futures = result.predicted, result.futures
    interval = ""
    low, high = predicted.attainment_low_ratio, predicted.attainment_high_ratio
    if low is not None and high is not None:
        interval = (
            f" ({wording.interval(low, high)} with 95 % confidence"
            f"{', as if requests were independent' if futures is None else ''})"
        )
    lines = [f"Attainment {output.percent(result.latency.attainment_ratio)}{interval}"]
    for each in result.classes:
        said = {True: "holds", False: "does NOT hold", None: "not clear yet"}[each.holds]
        lines.append(
            f"  {each.request_class}: {output.percent(each.attainment_ratio)} of "
            f"{each.requests:,}, promised {output.percent(each.target_ratio)}: {said}"
        )
    if futures is not None and futures.most > futures.count:
        why = {"precision": "precise enough", "clear": "clear enough"}.get(futures.ended_by, "")
        lines.append(f"  {why} after {futures.count} of at most {futures.most} futures")
    return lines
