"""A capacity report as one HTML page that needs nothing else, made of its document alone."""

import re

from planner.domain.plan import PlanStatus
from planner.service.documents.capacity_report import CapacityReport, ReservedDocument
from planner.service.reports import capacity_figures as figures
from planner.service.reports import capacity_tables as tables
from planner.service.reports import capacity_text as text
from planner.service.reports.page import embedded, rendered
from planner.service.reports.quantities import counted, sentence, share, span, usd

TEMPLATE = "capacity_page.html.j2"
NO_FLEET = "Nothing was asked: there is no fleet that something could change."
LEAST_USD = 0.0005
"""A day: what is less is nothing, as it is written."""
_WINDOW = re.compile(r"window (\d+): ")
MOST_BINDING = 6
"""Rows that keep the plan from being cheaper; more are in the document."""


def capacity_page(report: CapacityReport) -> str:
    """Write the page; the document itself goes in with it.

    Returns
    -------
    str
        A whole HTML document with its styles, its scripts and plotly.js inside; under 5 MB.
    """
    fleet = report.recommended
    feasible = report.plan.status is not PlanStatus.INFEASIBLE
    return rendered(
        TEMPLATE,
        report=report,
        feasible=feasible,
        headline=text.headline(report),
        sentences=text.answer_sentences(report),
        few=text.few_requests(report),
        holes=text.holes(report),
        made=f"Made {report.made_at:%Y-%m-%d %H:%M} UTC from {report.workload.source}, for "
        f"deployment {report.deployment}.",
        tiles=_tiles(report) if feasible else (),
        notes=tuple(sentence(note) for note in report.workload.notes),
        pace=figures.pace_figure(report),
        day=figures.pattern_figure("day", "By hour of the day, UTC", report.workload.day),
        week=figures.pattern_figure("week", "By day of the week, UTC", report.workload.week),
        workload_facts=tables.workload_facts(report),
        disaggregation=text.disaggregation_sentence(report),
        alternatives=tables.alternatives_table(report),
        fleet=figures.fleet_figure(report),
        fleet_lead=_fleet_lead(report),
        forecast_method=sentence(f"forecast for class {report.forecast_method}"),
        cost_facts=tables.cost_facts(report),
        types=tables.types_table(report),
        pools=tables.pools_table(report),
        windows=tables.windows_table(report),
        binding=tuple(_binding(report, row.sentence) for row in report.plan.binding[:MOST_BINDING]),
        more_binding=len(report.plan.binding) > MOST_BINDING,
        attainment=figures.attainment_figure(report),
        attainment_lead=_attainment_lead(report),
        attainment_table=tables.attainment_table(report),
        attainment_facts=tables.attainment_facts(report),
        sensitivity=tables.scenarios_table(
            "If one thing were otherwise",
            (report.base, *report.sensitivity) if report.sensitivity else (),
            empty="Nothing was asked." if feasible else NO_FLEET,
        ),
        pareto=figures.pareto_figure(report),
        pareto_table=tables.pareto_table(report),
        growth=figures.growth_figure(report),
        growth_table=tables.scenarios_table(
            "Growth", (report.base, *report.growth), empty="Nothing was asked."
        ),
        growth_lead=_growth_lead(report),
        runs_out=tables.runs_out_table(report) if feasible else None,
        bought=tables.bought_table(report),
        split=tables.split_table(report),
        split_lead=_split_lead(report),
        purchase=tables.scenarios_table(
            "The busiest window bought one way only",
            report.purchase,
            empty="The spec has one price for every accelerator: there is nothing to compare.",
        ),
        risks=tuple(sentence(risk) for risk in report.risks),
        assumptions=tuple(sentence(one) for one in report.assumptions),
        profiles=tables.profiles_table(report.profiles),
        profile_notes=tuple(
            f"{profile.profile_id[:12]}: {sentence(note)}"
            for profile in report.profiles
            if profile.used
            for note in profile.notes
        ),
        effort=_effort(report),
        windows_open=len(fleet.windows) <= 6,
        document=embedded(report),
    )


def _tiles(report: CapacityReport) -> tuple[tuple[str, str, str], ...]:
    """Heading, figure and note of each."""
    fleet, seen, known = report.recommended, report.attainment, report.inventory
    most = " + ".join(f"{k.most:,} {k.accelerator}" for k in fleet.types if k.most) or "none"
    left = ", ".join(f"{k.spare:,} of {k.inventory:,} {k.accelerator} left" for k in fleet.types)
    million = fleet.usd_per_million_tokens
    tiles = [
        ("Accelerators, at the most", most, left),
        ("Cost of a day", usd(fleet.usd_per_day), f"{usd(fleet.usd_per_month)} for 30 days"),
        ("Cost of a million tokens", usd(million), "prompt and answer tokens"),
    ]
    if seen is not None and seen.attainment_ratio is not None:
        target = max((c.target_ratio for c in seen.classes), default=None)
        tiles.append(
            ("Requests in time", share(seen.attainment_ratio), f"{share(target)} promised")
        )
    if known is not None and known.carries_ratio > 0:
        told = text.told_pace(known)
        at_least = "" if known.fails_ratio is not None else "at least "
        until = "beyond 2200" if told.at is None else f"{at_least}until {told.at:%Y-%m-%d}"
        pace = share(told.growth_per_month_ratio)
        said = f"{until} at {pace} growth a month{'' if told.asked else ' (an example)'}"
        tiles.append(
            ("Inventory carries", f"{at_least}{text.times(known.carries_ratio)} the traffic", said)
        )
    return tuple(tiles)


def _fleet_lead(report: CapacityReport) -> str:
    fleet = report.recommended
    count = counted(len(fleet.windows), "window")
    said = f"{count} of {span(fleet.windows[0].window_s)} are planned"
    if report.demand_level is not None:
        said += f", for the {share(report.demand_level)} quantile of the forecast"
    day = "" if fleet.covers_a_day else " A day is taken to be such windows over and over."
    return f"{said}.{day}"


def _attainment_lead(report: CapacityReport) -> str:
    if report.attainment is None:
        return sentence(f"nothing was replayed: {report.attainment_reason}")
    verdict = {
        True: "The promise is kept, with 95 % confidence.",
        False: "The promise is not kept, with 95 % confidence.",
        None: "Whether the promise is kept is not clear with 95 % confidence.",
    }[report.attainment.holds]
    return (
        f"{verdict} The digital twin replayed the fleet of the busiest window in futures drawn "
        "from the forecast: each has its own rate, arrivals and lengths."
    )


def _growth_lead(report: CapacityReport) -> str:
    known = report.inventory
    if known is None:
        return "How far today's inventory carries was not found out."
    if known.carries_ratio <= 0:
        return "Today's inventory does not carry today's traffic."
    carries = text.times(known.carries_ratio)
    if known.fails_ratio is None:
        return f"Today's inventory carries at least {carries} today's traffic; no limit was found."
    why = f" What would help then: {known.fails_why}." if known.fails_why else ""
    return (
        f"Today's inventory carries {carries} today's traffic, but not "
        f"{text.times(known.fails_ratio)}.{why}"
    )


def _split_lead(report: CapacityReport) -> str:
    parts = []
    for s in report.split:
        if s.break_even_ratio is None or s.worth_reserving is None:
            parts.append(
                f"The spec has no reserved and on-demand price for {s.accelerator} to compare."
            )
            continue
        parts.append(
            f"Reserving a {s.accelerator} pays when it is used at least "
            f"{share(s.break_even_ratio)} of the time, as {s.worth_reserving:,} of {s.most:,} are."
        )
    parts += [
        f"As planned {r.reserved:,} {r.accelerator} are reserved and paid all day; {_unused(r)}."
        for r in report.recommended.reserved
    ]
    return " ".join(parts) + text.cheaper_split(report)


def _unused(found: ReservedDocument) -> str:
    if found.idle_usd_per_day < LEAST_USD:
        return "none of them is ever idle"
    return (
        f"{found.idle_mean:,.2f} of them are idle in the mean, which costs "
        f"{usd(found.idle_usd_per_day)} a day"
    )


def _binding(report: CapacityReport, told: str) -> str:
    """What binds, with the time of its window instead of the window's number."""
    found = _WINDOW.match(told)
    windows = report.recommended.windows
    if found is None or int(found[1]) >= len(windows):
        return sentence(told)
    at = text.when(report, windows[int(found[1])])
    after = " after the start" if text.is_relative(report) else " UTC"
    return sentence(f"from {at}{after}: {told[found.end() :]}")


def _effort(report: CapacityReport) -> str:
    done = report.effort
    left = f"; {counted(done.left_out, 'question')} left out" if done.left_out else ""
    kind = "quick report" if done.quick else "report"
    return (
        f"A {kind}: {counted(done.plans, 'plan')} in {span(done.wall_s)} of at most "
        f"{span(done.time_limit_s)}{left}."
    )
