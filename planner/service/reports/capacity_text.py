"""What a capacity report says in words; every figure in them is one of its document."""

import math
from datetime import UTC

from planner.domain.plan import PlanStatus
from planner.service.documents.capacity_report import (
    CapacityReport,
    FleetWindowDocument,
    InventoryDocument,
    RecommendedDocument,
    RunsOutDocument,
    ScenarioDocument,
)
from planner.service.reports.quantities import (
    NO_BREAK,
    between,
    counted,
    duration,
    rate,
    sentence,
    share,
    span,
    usd,
    usd_per_hour,
    words,
)

FIRST_REAL_YEAR = 1990
"""Traces in relative time begin in 1970: their instants are no dates."""
FEW_REQUESTS = 100
"""Of fewer than so many requests nobody knows the rate to within a fifth."""
LEAST_HOLE = 0.01
"""Of the time from the first to the last window, as a share: less is no warning."""
_SAME = 0.0005
"""Costs that differ by less, as a share, are the same."""


def headline(report: CapacityReport) -> str:
    """What to buy, in a few words."""
    if report.plan.status is PlanStatus.INFEASIBLE:
        return f"No fleet within the limits keeps the promises of {report.model}"
    most = " + ".join(
        f"{kind.most:,} {kind.accelerator}" for kind in report.recommended.types if kind.most
    )
    return f"{most or 'No accelerator'} for {report.model}, {_per_day(report)}"


def _per_day(report: CapacityReport) -> str:
    return f"{usd(report.recommended.usd_per_day)} a day"


def answer_sentences(report: CapacityReport) -> tuple[str, str, str]:
    """The answer that can be repeated: what to have, what it costs, how sure that is."""
    if report.plan.status is PlanStatus.INFEASIBLE:
        return _no_answer(report)
    return (_what(report), _cost(report), f"{_attained(report)}; {_inventory(report)}.")


def _what(report: CapacityReport) -> str:
    fleet = report.recommended
    parts = " and ".join(
        f"{kind.most:,} {kind.accelerator}"
        + ("" if kind.most == kind.fewest else f" (at the quietest {kind.fewest:,})")
        for kind in fleet.types
        if kind.most
    )
    return (
        f"{report.model} needs {parts or 'no accelerator'} to serve up to "
        f"{rate(peak_rps(report), 'requests')}: at the most {_largest(fleet)}."
    )


def _largest(fleet: RecommendedDocument) -> str:
    """Replicas by role where most accelerators are needed, the busiest window before others."""
    at = max(
        range(len(fleet.windows)),
        key=lambda t: (fleet.windows[t].accelerators, t == fleet.busiest_window, -t),
    )
    counts: dict[str, int] = {}
    for pool in fleet.pools:
        counts[pool.role] = counts.get(pool.role, 0) + pool.replicas[at]
    parts = [f"{count} {role}" for role, count in counts.items() if count]
    one = sum(counts.values()) == 1
    return f"{' + '.join(parts) or 'no'} replica{'' if one else 's'}"


def _cost(report: CapacityReport) -> str:
    fleet = report.recommended
    per_million = ""
    if fleet.usd_per_million_tokens is not None:
        per_million = f", or {usd(fleet.usd_per_million_tokens)} per million tokens"
    return (
        f"That costs {usd_per_hour(fleet.usd_per_hour)} on average: {usd(fleet.usd_per_day)} a day "
        f"and {usd(fleet.usd_per_month)} for 30 days{per_million}.{_idle(report)}"
    )


def _idle(report: CapacityReport) -> str:
    """A sentence on what idle reserved accelerators are of the cost; empty: none is idle."""
    idle = [r for r in report.recommended.reserved if r.idle_usd_per_day > _SAME]
    if not idle:
        return ""
    parts = " and ".join(
        f"{usd(r.idle_usd_per_day)} a day for reserved {r.accelerator} that nothing uses "
        f"({r.idle_mean:,.2f} of {r.reserved:,} in the mean)"
        for r in idle
    )
    return f" In it are {parts}.{cheaper_split(report)}"


def cheaper_split(report: CapacityReport) -> str:
    """A sentence on reserving fewer, where that costs less; empty: it does not."""
    days = [s.split_usd_per_day for s in report.split]
    known = [usd_per_day for usd_per_day in days if usd_per_day is not None]
    mixed = [s for s in report.split if s.worth_reserving != s.most]
    least = math.fsum(known)
    if not mixed or len(known) < len(days):
        return ""
    if least >= report.recommended.usd_per_day * (1 - _SAME):
        return ""
    how = " and ".join(f"{s.worth_reserving:,} of {s.most:,} {s.accelerator}" for s in report.split)
    each = " + ".join(usd(usd_per_day) for usd_per_day in known)
    return f" With {how} reserved and the rest on demand a day would cost {each}."


def _attained(report: CapacityReport) -> str:
    seen = report.attainment
    if seen is None or seen.attainment_ratio is None:
        return f"Attainment is not known: {report.attainment_reason or 'nothing arrived'}"
    target = max((c.target_ratio for c in seen.classes), default=None)
    which = f"{share(seen.attainment_ratio)} of requests"
    if seen.attainment_ratio == 1.0:
        which = f"all {counted(seen.requests, 'request')}"
    surely = ""
    if seen.low_ratio is not None:
        surely = f" ({between(seen.low_ratio, seen.high_ratio)} with 95{NO_BREAK}% confidence)"
    return (
        f"In {counted(seen.futures, 'sampled future')} of the busiest time {which}{surely} are in "
        f"time, of {share(target)} promised"
    )


def _inventory(report: CapacityReport) -> str:
    known = report.inventory
    if known is None or known.carries_ratio <= 0:
        return "how far today's inventory carries was not found out"
    if known.fails_ratio is None:
        return f"today's inventory carries at least {times(known.carries_ratio)} this traffic"
    return (
        f"today's inventory carries {times(known.carries_ratio)} this traffic, "
        f"{runs_out(told_pace(known))}"
    )


def told_pace(known: InventoryDocument) -> RunsOutDocument:
    """The growth that was asked about, or the example in the middle."""
    asked = [pace for pace in known.runs_out if pace.asked]
    return asked[0] if asked else known.runs_out[len(known.runs_out) // 2]


def runs_out(found: RunsOutDocument) -> str:
    """Until when, at which growth."""
    pace = f"at {share(found.growth_per_month_ratio)} growth a month"
    example = "" if found.asked else " (an example)"
    if found.at is None:
        return f"which is enough until 2200 and longer {pace}{example}"
    return f"which is used up on {found.at:%Y-%m-%d} {pace}{example}"


def times(ratio: float) -> str:
    """Write a factor: `2.6 times`."""
    return f"{ratio:.3g} times"


def _no_answer(report: CapacityReport) -> tuple[str, str, str]:
    helps = "; or ".join(report.plan.relaxations[:2])
    first = (
        f"No fleet within the spec's inventory, bounds and budget keeps the promises of "
        f"{report.model} at {rate(peak_rps(report), 'requests')}."
    )
    second = sentence(f"what would help: {helps}") if helps else "Nothing was found that helps."
    base = report.base
    if base.beyond_inventory:
        third = f"Without those limits {fleet_of(base)} would do it for {_usd(base)}."
    elif base.status is None:
        third = (
            "What it would take without those limits was not found out: "
            f"{base.reason.rstrip('.') or 'it was not asked'}."
        )
    else:
        third = (
            "Even without those limits no fleet was found: the promises themselves are too hard"
            f"{_reached(report)}."
        )
    return first, second, third


def _reached(report: CapacityReport) -> str:
    """What the best fleet within the limits did, beside what is promised."""
    seen = report.attainment
    if seen is None or seen.ttft_p95_s is None:
        return ""
    return (
        f" (the best fleet within them, at the 95th percentile: {duration(seen.ttft_p95_s)} to the "
        f"first token, {duration(seen.tpot_p95_s)} for each further one; promised are "
        f"{duration(seen.ttft_s)} and {duration(seen.tpot_s)})"
    )


def few_requests(report: CapacityReport) -> str:
    """A warning where hardly anything was seen; empty: enough was."""
    seen = report.workload.requests
    if seen >= FEW_REQUESTS:
        return ""
    return (
        f"Only {counted(seen, 'request')} {'was' if seen == 1 else 'were'} seen: rates, lengths "
        "and this fleet rest on no more than that. Show more traffic before buying by it."
    )


def holes(report: CapacityReport) -> str:
    """A warning where windows are missing in the middle; empty: hardly any time is."""
    seen = report.workload
    all_s = (seen.end_at - seen.start_at).total_seconds()
    if seen.uncovered_s < LEAST_HOLE * all_s:
        return ""
    return (
        f"What was seen has holes: {span(seen.uncovered_s)} between the first and the last window "
        f"lie in no window, {span(seen.duration_s)} are covered. The rest counts as unknown, not "
        "as zero: if traffic differed there, this fleet does not know it."
    )


def peak_rps(report: CapacityReport) -> float:
    """What the busiest window is planned for, requests/s."""
    return report.expected[report.recommended.busiest_window].request_rate_planned_rps


def _usd(scenario: ScenarioDocument) -> str:
    return usd_per_hour(scenario.usd_per_hour)


def fleet_of(scenario: ScenarioDocument) -> str:
    """Accelerators by type, as in `12 h100 + 4 l40s`."""
    return " + ".join(f"{n:,} {name}" for name, n in scenario.accelerators.items() if n) or "none"


def disaggregation_sentence(report: CapacityReport) -> str:
    """Whether to disaggregate, why, and what the other way costs."""
    found = report.disaggregation
    if found.recommended == "none":
        return "It does not matter: neither way keeps the promises within the limits."
    said = {
        "disaggregated": "Yes: prompts and answers get replicas of their own.",
        "aggregated": "No: every replica does prompts and answers.",
        "both": "In part: some replicas do both, others one of the two.",
    }[found.recommended]
    more = found.other_way_more_ratio
    if _unoffered(report) and more is not None and more < _SAME:
        answer = "no" if more <= -_SAME else "it makes no difference"
        said = (
            f"By cost, {answer}: the plan is {found.recommended} because the spec offers nothing "
            "else."
        )
    other = "Neither way alone was better." if found.recommended == "both" else _other_way(report)
    return f"{said} {other} {_bottleneck(report)}{_counted_while_used(report)}"


def _counted_while_used(report: CapacityReport) -> str:
    """Why costs of other fleets are not to be held beside what is paid; empty: they are."""
    fleet = report.recommended
    if fleet.usd_per_hour - fleet.used_usd_per_hour <= _SAME * fleet.usd_per_hour:
        return ""
    return (
        " Costs of other fleets count reserved accelerators only while they are used; this plan's "
        f"cost is then {usd_per_hour(fleet.used_usd_per_hour)}."
    )


def _unoffered(report: CapacityReport) -> bool:
    """Whether the other way was planned although the spec does not offer it."""
    other = report.disaggregation.other_way
    return other is not None and "does not offer" in other.name


def _other_way(report: CapacityReport) -> str:
    found = report.disaggregation
    other = found.other_way
    if other is None:
        return "The other way was not priced: no profile was measured in its roles."
    name = "Aggregated" if found.recommended == "disaggregated" else "Disaggregated"
    if other.usd_per_hour is None or found.other_way_more_ratio is None:
        return f"{name} replicas: {other.reason.rstrip('.')}."
    more, cost = found.other_way_more_ratio, usd_per_hour(other.usd_per_hour)
    if abs(more) < _SAME:
        return f"{name} replicas would cost the same, {cost}."
    said = f"{name} replicas would cost {cost}, {share(abs(more))} {'more' if more > 0 else 'less'}"
    if more > 0:
        return f"{said}."
    if _unoffered(report):
        return f"{said}: add pools of them to the spec to have them planned."
    return f"{said}, but were not chosen: {other.reason.rstrip('.')}."


def _bottleneck(report: CapacityReport) -> str:
    first = report.disaggregation.bottlenecks[0]
    if first.bottleneck == "none":
        return "Nothing is near its limit."
    name = words(first.bottleneck)
    return (
        f"What would miss first if the load grew is {name}, {share(first.time_ratio)} of the time."
    )


def when(report: CapacityReport, window: FleetWindowDocument) -> str:
    """When a window begins, UTC; of a trace in relative time, how long after its start."""
    if is_relative(report):
        return span(window.after_start_s)
    return f"{window.start_at.astimezone(UTC):%Y-%m-%d %H:%M}"


def is_relative(report: CapacityReport) -> bool:
    """Whether the workload's instants are no dates."""
    return report.workload.start_at.year < FIRST_REAL_YEAR
