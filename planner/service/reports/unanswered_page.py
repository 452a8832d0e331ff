"""The page of a report on too little: it says so first, and shows what is known all the same."""

from planner.service.documents.unanswered_report import UnansweredReport
from planner.service.reports.capacity_tables import profiles_table
from planner.service.reports.page import embedded, rendered
from planner.service.reports.quantities import (
    MISSING,
    counted,
    duration,
    sentence,
    share,
    span,
    usd_per_hour,
)
from planner.service.reports.table import Fact, Table, cells, number_columns, text_columns

TEMPLATE = "unanswered_page.html.j2"


def headline(report: UnansweredReport) -> str:
    """That there is no answer, in a few words."""
    return f"No answer for {report.model}: too little was seen"


def sentences(report: UnansweredReport) -> tuple[str, str, str]:
    """What is missing and where, what to do, and what the page therefore is not."""
    return (
        f"How many accelerators {report.model} needs cannot be said ({report.source}: "
        f"{report.missing.rstrip('.')}).",
        sentence(f"what to do: {report.remedy}"),
        "Nothing was planned and no fleet is recommended, since no data is not zero traffic.",
    )


def unanswered_page(report: UnansweredReport) -> str:
    """Write the page; the document itself goes in with it.

    Returns
    -------
    str
        A whole HTML document that loads nothing and has no plots.
    """
    return rendered(
        TEMPLATE,
        headline=headline(report),
        sentences=sentences(report),
        made=f"Made {report.made_at:%Y-%m-%d %H:%M} UTC for deployment {report.deployment}.",
        workload=(
            Fact(term="From", value=report.source),
            Fact(term="Seen", value=counted(report.requests, "request")),
            Fact(
                term="Would be planned",
                value=f"{counted(report.horizon_windows, 'window')} of {span(report.window_s)}",
            ),
        ),
        promises=_promises_table(report),
        inventory=_inventory_table(report),
        pools=report.pools,
        profiles=profiles_table(report.profiles),
        document=embedded(report),
    )


def _promises_table(report: UnansweredReport) -> Table:
    return Table(
        caption="Promises of the spec",
        columns=(
            *text_columns("Class"),
            *number_columns("First token within", "Each further one within", "Share in time"),
        ),
        rows=tuple(
            cells(
                p.request_class, duration(p.ttft_s), duration(p.tpot_s), share(p.attainment_ratio)
            )
            for p in report.promises
        ),
        when_empty="The spec promises nothing for this model.",
    )


def _inventory_table(report: UnansweredReport) -> Table:
    return Table(
        caption="Accelerators that may be used",
        columns=(
            *text_columns("Type"),
            *number_columns("Inventory", "On demand", "Reserved", "Spot"),
        ),
        rows=tuple(
            cells(
                kind.accelerator,
                f"{kind.inventory:,}",
                _price(kind.on_demand_usd_per_hour),
                _price(kind.reserved_usd_per_hour),
                _price(kind.spot_usd_per_hour),
            )
            for kind in report.inventory
        ),
        when_empty="The spec has none.",
    )


def _price(usd: float | None) -> str:
    return MISSING if usd is None else usd_per_hour(usd)
