"""The tables of a capacity report."""

from collections.abc import Sequence
from datetime import datetime

from planner.domain.plan import PlanStatus
from planner.service.documents.capacity_report import (
    CapacityReport,
    LengthsDocument,
    ProfileDocument,
    ScenarioDocument,
)
from planner.service.reports.capacity_text import fleet_of, is_relative, when
from planner.service.reports.quantities import (
    MISSING,
    between,
    counted,
    duration,
    rate,
    sentence,
    share,
    share_between,
    span,
    usd,
    usd_per_hour,
    words,
)
from planner.service.reports.table import Cell, Fact, Table, cells, number_columns, text_columns

MOST_CLASSES = 8
LEAST_CHANGE = 0.0005
"""Of a cost, as a share: what is less is no change, as it is written."""


def workload_facts(report: CapacityReport) -> tuple[Fact, ...]:
    """Rates, shapes and reuse."""
    seen = report.workload
    reuse = (
        "not known" if seen.reuse_ratio is None else f"{share(seen.reuse_ratio)} of prompt tokens"
    )
    return (
        Fact(term="From", value=seen.source),
        Fact(term="Seen", value=f"{counted(seen.requests, 'request')} in {span(seen.duration_s)}"),
        Fact(term="Rate", value=rate(seen.request_rate_rps, "requests")),
        Fact(
            term="Busiest window",
            value=f"{rate(seen.peak_rps, 'requests')} in {span(seen.peak_window_s)}, "
            f"{seen.peak_to_mean:.2f} times the mean",
        ),
        Fact(term="Prompt tokens", value=rate(seen.input_tokens_per_s, "tokens")),
        Fact(term="Answer tokens", value=rate(seen.output_tokens_per_s, "tokens")),
        Fact(term="Prompt length", value=_lengths(seen.isl)),
        Fact(term="Answer length", value=_lengths(seen.osl)),
        Fact(term="Seen before (reuse)", value=reuse),
        Fact(
            term="Burstiness",
            value=f"gaps between arrivals vary {seen.arrival_cv:.2f} times their mean (Poisson: 1)"
            if seen.arrivals_known
            else "not known: only totals were observed, arrivals are taken to be Poisson's",
        ),
        Fact(term="Classes", value=_classes(report)),
    )


def _lengths(found: LengthsDocument | None) -> str:
    if found is None:
        return "not known: only totals were observed"
    return (
        f"{found.mean:,.0f} tokens in the mean; {found.p50:,.0f} at the median, {found.p95:,.0f} "
        f"at the 95th, {found.p99:,.0f} at the 99th percentile"
    )


def _classes(report: CapacityReport) -> str:
    classes = report.workload.classes
    named = ", ".join(f"{c.request_class} {share(c.request_ratio)}" for c in classes[:MOST_CLASSES])
    rest = len(classes) - MOST_CLASSES
    return named + (f" and {rest} more" if rest > 0 else "")


def alternatives_table(report: CapacityReport) -> Table:
    """Fleets that were considered and not chosen."""
    return Table(
        caption="Considered and not chosen",
        columns=(
            *text_columns("Fleet"),
            *number_columns("Cost"),
            *text_columns("Why not"),
        ),
        rows=tuple(
            cells(other.name, usd_per_hour(other.usd_per_hour), sentence(other.reason))
            for other in report.disaggregation.alternatives
        ),
        when_empty="There was no other way within the spec and its profiles.",
    )


def pools_table(report: CapacityReport) -> Table:
    """The pools over the horizon."""
    return Table(
        caption="Pools",
        columns=(
            *text_columns("Pool", "Bought"),
            *number_columns("Fewest", "Most", "Accelerators each", "Used when busiest"),
        ),
        rows=tuple(
            (
                Cell(text=pool.label),
                Cell(text=words(pool.purchase_option)),
                Cell(text=_replicas(pool.fewest_replicas)),
                Cell(text=_replicas(pool.most_replicas)),
                Cell(text=f"{pool.accelerators_per_replica:,}"),
                Cell(
                    text=share(pool.utilization_ratio), bar_ratio=min(pool.utilization_ratio, 1.0)
                ),
            )
            for pool in report.recommended.pools
        ),
        when_empty="No replica is planned.",
    )


def _replicas(count: int) -> str:
    return f"{count:,} replica{'' if count == 1 else 's'}"


def types_table(report: CapacityReport) -> Table:
    """Accelerators by type."""
    return Table(
        caption="Accelerators",
        columns=(
            *text_columns("Type"),
            *number_columns("Fewest", "Mean", "Most", "Inventory", "Left then"),
        ),
        rows=tuple(
            cells(
                kind.accelerator,
                f"{kind.fewest:,}",
                f"{kind.mean:,.2f}",
                f"{kind.most:,}",
                f"{kind.inventory:,}",
                f"{kind.spare:,}",
            )
            for kind in report.recommended.types
        ),
    )


def cost_facts(report: CapacityReport) -> tuple[Fact, ...]:
    """What the fleet costs."""
    fleet = report.recommended
    return (
        Fact(term="Mean", value=usd_per_hour(fleet.usd_per_hour)),
        Fact(term="When busiest", value=usd_per_hour(fleet.usd_per_hour_busiest)),
        Fact(term="Day", value=usd(fleet.usd_per_day)),
        Fact(term="30 days", value=usd(fleet.usd_per_month)),
        Fact(
            term="Million tokens", value=f"{usd(fleet.usd_per_million_tokens)} (prompt and answer)"
        ),
        Fact(term="Million answer tokens", value=usd(fleet.usd_per_million_output_tokens)),
    )


def windows_table(report: CapacityReport) -> Table:
    """The fleet window by window."""
    fleet = report.recommended
    return Table(
        caption="Window by window",
        columns=(
            *text_columns("From (after the start)" if is_relative(report) else "From (UTC)"),
            *number_columns("Planned for", *(pool.label for pool in fleet.pools), "Cost"),
            *text_columns("Bottleneck"),
            *number_columns("In time"),
        ),
        rows=tuple(
            cells(
                when(report, window),
                rate(report.expected[t].request_rate_planned_rps, "requests"),
                *(f"{pool.replicas[t]:,}" for pool in fleet.pools),
                usd_per_hour(window.usd_per_hour),
                words(window.bottleneck),
                share_between(
                    window.attainment_ratio,
                    window.attainment_low_ratio,
                    window.attainment_high_ratio,
                ),
            )
            for t, window in enumerate(fleet.windows)
        ),
    )


def attainment_table(report: CapacityReport) -> Table | None:
    """Every class beside its promise."""
    seen = report.attainment
    if seen is None:
        return None
    return Table(
        caption="Classes in the sampled futures",
        columns=(
            *text_columns("Class"),
            *number_columns("Promised", "In time", "95% interval", "Requests"),
        ),
        rows=tuple(
            cells(
                c.request_class,
                share(c.target_ratio),
                share(c.attainment_ratio),
                between(c.low_ratio, c.high_ratio),
                f"{c.requests or 0:,}",
            )
            for c in seen.classes
        ),
        when_empty="Nothing arrived in the sampled futures.",
    )


def attainment_facts(report: CapacityReport) -> tuple[Fact, ...]:
    """Latencies beside what was promised."""
    seen = report.attainment
    if seen is None:
        return ()
    return (
        Fact(
            term="Time to first token",
            value=f"{duration(seen.ttft_p50_s)} at the median, {duration(seen.ttft_p95_s)} at the "
            f"95th percentile; promised {duration(seen.ttft_s)}",
        ),
        Fact(
            term="Time per output token",
            value=f"{duration(seen.tpot_p95_s)} at the 95th percentile; promised "
            f"{duration(seen.tpot_s)}",
        ),
        Fact(
            term="Futures",
            value=f"{seen.futures:,} of {span(seen.future_s)} each, "
            f"{counted(seen.requests, 'request')} together",
        ),
    )


def scenarios_table(caption: str, rows: Sequence[ScenarioDocument], *, empty: str) -> Table:
    """Fleets of the busiest window if one thing were otherwise; bars show the change in cost."""
    most = max((abs(s.more_ratio) for s in rows if s.more_ratio is not None), default=0.0)
    remarked = any(remark(s) for s in rows)
    return Table(
        caption=caption,
        columns=(
            *text_columns("If"),
            *number_columns("Accelerators", "Cost", "Change", "In time"),
            *(text_columns("Remark") if remarked else ()),
        ),
        rows=tuple(_scenario_row(s, most, remarked=remarked) for s in rows),
        when_empty=empty,
    )


def _scenario_row(found: ScenarioDocument, most: float, *, remarked: bool) -> tuple[Cell, ...]:
    change = found.more_ratio
    bar = None if change is None or most == 0 else abs(change) / most
    return (
        Cell(text=sentence(found.change).rstrip(".")),
        Cell(text=fleet_of(found) if found.accelerators else MISSING),
        Cell(text=usd_per_hour(found.usd_per_hour)),
        Cell(text=_changed(change), bar_ratio=bar),
        Cell(text=MISSING if found.usd_per_hour is None else share(found.attainment_ratio)),
        *((Cell(text=remark(found)),) if remarked else ()),
    )


def _changed(ratio: float | None) -> str:
    if ratio is None:
        return MISSING
    return "none" if abs(ratio) < LEAST_CHANGE else f"{ratio:+.1%}"


def remark(found: ScenarioDocument) -> str:
    """What to know about a scenario; empty: nothing."""
    if found.beyond_inventory:
        return f"More than there is: {found.reason or 'no fleet within the limits'}."
    if found.status is PlanStatus.INFEASIBLE:
        return f"No fleet keeps it. What would help: {found.reason}."
    return sentence(found.reason) if found.status is None else ""


def pareto_table(report: CapacityReport) -> Table:
    """Promises that nothing cheaper keeps."""
    return Table(
        caption="Promises that nothing cheaper keeps, for the busiest window",
        columns=(*text_columns("Time to first token"), *number_columns("In time", "Cost")),
        rows=tuple(
            cells(duration(p.ttft_s), share(p.attainment_ratio), usd_per_hour(p.usd_per_hour))
            for p in report.pareto
            if p.efficient
        ),
        when_empty=_no_promise(report),
    )


def _no_promise(report: CapacityReport) -> str:
    if report.plan.status is PlanStatus.INFEASIBLE:
        return "Nothing was asked: there is no fleet that other promises could change."
    if report.pareto or not report.effort.left_out:
        return "No promise was found that a fleet keeps."
    return "Left out: the report's time limit was reached (--time-limit)."


def runs_out_table(report: CapacityReport) -> Table:
    """Dates for paces of growth."""
    known = report.inventory
    return Table(
        caption="When today's inventory runs out",
        columns=(*text_columns("Growth"), *number_columns("Used up on")),
        rows=()
        if known is None
        else tuple(
            cells(
                f"{share(pace.growth_per_month_ratio)} a month"
                + ("" if pace.asked else " (example)"),
                _used_up(pace.at, at_least=known.fails_ratio is None),
            )
            for pace in known.runs_out
        ),
        when_empty="It was not found out.",
    )


def _used_up(moment: datetime | None, *, at_least: bool) -> str:
    if moment is None:
        return "not before 2200"
    return f"{'not before ' if at_least else ''}{moment:%Y-%m-%d}"


def bought_table(report: CapacityReport) -> Table:
    """How the accelerators are bought as planned."""
    reserved = {r.accelerator: r.reserved for r in report.recommended.reserved}
    return Table(
        caption="As planned",
        columns=(
            *text_columns("Type"),
            *number_columns(
                "Reserved, paid all day",
                "Of them used, mean",
                "On demand, mean",
                "Spot, mean",
            ),
        ),
        rows=tuple(
            cells(
                s.accelerator,
                f"{reserved.get(s.accelerator, 0):,}",
                f"{s.planned_reserved:,.2f}",
                f"{s.planned_on_demand:,.2f}",
                f"{s.planned_spot:,.2f}",
            )
            for s in report.split
        ),
        when_empty="No accelerator is planned.",
    )


def split_table(report: CapacityReport) -> Table | None:
    """What reserving would cost; None where no type has both prices."""
    priced = [s for s in report.split if s.worth_reserving is not None]
    if not priced:
        return None
    return Table(
        caption="What a day would cost",
        columns=(
            *text_columns("Type"),
            *number_columns(
                "Reserved price", "Price on demand", "Always on", "Worth reserving",
                "All on demand", "All reserved", "Reserving those",
            ),
        ),
        rows=tuple(
            cells(
                s.accelerator,
                usd_per_hour(s.reserved_usd_per_hour),
                usd_per_hour(s.on_demand_usd_per_hour),
                f"{s.always_on:,} of {s.most:,}",
                f"{s.worth_reserving:,} of {s.most:,}",
                usd(s.all_on_demand_usd_per_day),
                usd(s.all_reserved_usd_per_day),
                usd(s.split_usd_per_day),
            )
            for s in priced
        ),
    )  # fmt: skip


def profiles_table(profiles: Sequence[ProfileDocument]) -> Table:
    """Where the times come from."""
    return Table(
        caption="Profiles",
        columns=(
            *text_columns("Profile", "Replica", "Kind", "By whom, on what"),
            *number_columns("Points", "Error"),
            *text_columns("Used"),
        ),
        rows=tuple(
            (
                Cell(text=p.profile_id[:12], code=True),
                Cell(text=f"{p.accelerator}, tp{p.tp}: {', '.join(p.roles)}"),
                Cell(text=f"{p.kind.value}{'' if p.complete else ', broken off'}"),
                Cell(text=f"{p.source}; {p.machine}; {p.engine}; {p.measured_at:%Y-%m-%d}"),
                Cell(text=f"{p.points:,}"),
                Cell(text=share(p.error_ratio)),
                Cell(text="yes" if p.used else "no"),
            )
            for p in profiles
        ),
        when_empty="The spec has no profile of this model.",
    )
