"""The files of a capacity report: a page, its figures, and two tables; all of them or none."""

import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from planner.domain.errors import InputError
from planner.service.documents.capacity_report import CapacityReport, ScenarioDocument
from planner.service.documents.unanswered_report import UnansweredReport
from planner.service.reports.capacity_page import capacity_page
from planner.service.reports.unanswered_page import unanswered_page
from planner.service.whole_file import check_writable, whole_file

FLEET_COLUMNS = (
    "start_at", "window_s", "request_rate_planned_rps", "pool", "purchase_option", "replicas",
    "accelerators", "window_usd_per_hour", "bottleneck", "attainment_ratio",
)  # fmt: skip
SCENARIO_COLUMNS = (
    "kind", "change", "status", "rate_ratio", "usd_per_hour", "more_usd_per_hour", "more_ratio",
    "accelerators", "fleet", "attainment_ratio", "beyond_inventory", "reason",
)  # fmt: skip


def paths_of(page: Path) -> tuple[Path, Path, Path, Path]:
    """The page, its JSON, the fleet by window, and the scenarios.

    Raises
    ------
    InputError
        When the page's name does not end in .html.
    """
    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {page}: a report is a page: give a name that ends in .html")
    scenarios = page.with_name(f"{page.stem}-scenarios.csv")
    return page, page.with_suffix(".json"), page.with_suffix(".csv"), scenarios


def check_files(page: Path, *, inputs: Sequence[Path] = ()) -> None:
    """Refuse files that could not be written, before long work is done for them.

    Raises
    ------
    InputError
        With what to do.
    """
    for path in paths_of(page):
        check_writable(path, option="--out", inputs=inputs)


def write_files(report: CapacityReport, page: Path) -> tuple[Path, ...]:
    """Write all files; they take their places when every one of them is whole.

    Returns
    -------
    tuple of Path
        What was written.
    """
    return _written(
        page,
        report,
        capacity_page(report),
        fleets=_fleet_rows(report),
        scenarios=map(_scenario_row, _scenarios(report)),
    )


def write_unanswered(report: UnansweredReport, page: Path) -> tuple[Path, ...]:
    """Write the same files about too little: the tables have headings only.

    Returns
    -------
    tuple of Path
        What was written.
    """
    return _written(page, report, unanswered_page(report), fleets=(), scenarios=())


def _written(
    page: Path,
    report: CapacityReport | UnansweredReport,
    html: str,
    *,
    fleets: Iterable[Sequence[object]],
    scenarios: Iterable[Sequence[object]],
) -> tuple[Path, ...]:
    texts = (
        html,
        report.model_dump_json(indent=1) + "\n",
        _table(FLEET_COLUMNS, fleets),
        _table(SCENARIO_COLUMNS, scenarios),
    )
    paths = paths_of(page)
    with ExitStack() as unfinished:
        for path, text in zip(paths, texts, strict=True):
            unfinished.enter_context(whole_file(path)).write_text(text, encoding="utf-8")
    return paths


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if cell is None else _safe(cell) for cell in row] for row in rows])
    return text.getvalue()


def _safe(cell: object) -> object:
    """A text that no spreadsheet takes for a formula."""
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@")):
        return f"'{cell}"
    return cell


def _fleet_rows(report: CapacityReport) -> Iterable[Sequence[object]]:
    for t, window in enumerate(report.recommended.windows):
        for pool in report.recommended.pools:
            yield (
                window.start_at.isoformat(),
                window.window_s,
                report.expected[t].request_rate_planned_rps,
                pool.label,
                pool.purchase_option.value,
                pool.replicas[t],
                pool.replicas[t] * pool.accelerators_per_replica,
                window.usd_per_hour,
                window.bottleneck,
                window.attainment_ratio,
            )


def _scenarios(report: CapacityReport) -> list[ScenarioDocument]:
    return [report.base, *report.growth, *report.purchase, *report.sensitivity]


def _scenario_row(found: ScenarioDocument) -> Sequence[object]:
    accelerators = " + ".join(f"{n} {name}" for name, n in found.accelerators.items())
    return (
        found.kind,
        found.change,
        "" if found.status is None else found.status.value,
        found.rate_ratio,
        found.usd_per_hour,
        found.more_usd_per_hour,
        found.more_ratio,
        accelerators,
        found.fleet,
        found.attainment_ratio,
        found.beyond_inventory,
        found.reason,
    )
