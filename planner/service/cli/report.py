"""`poolwise report`: how many accelerators, at what cost, why, and how sure, on one page."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from planner.domain.errors import EmptyHistoryError, InputError, TooLittleError
from planner.service.cli import output
from planner.service.cli import report_options as asked
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.options import (
    AtOption,
    EstimatesOption,
    HistoryOption,
    JsonOption,
    ModelOption,
    SpecOption,
    StartOption,
    TraceOption,
    instant,
)

if TYPE_CHECKING:
    from planner.domain.spec import Spec
    from planner.service.answers.capacity.seen import Seen
    from planner.service.documents.capacity_report import CapacityReport

EPILOG = (
    "Examples:\n\n"
    "poolwise report --spec spec.yaml --trace requests.jsonl -o report.html\n\n"
    "poolwise report --spec spec.yaml --template enterprise-rag --rate 2 --quick\n\n"
    "poolwise report --spec spec.yaml --store --growth-per-month 0.08\n\n"
    "Exit status: 0 a fleet is recommended; 1 none is: no fleet keeps the objectives, or "
    "too little was seen to say (the page says what to do); 2 bad input."
)


def report(
    *,
    spec: SpecOption,
    trace: TraceOption = None,
    history: HistoryOption = None,
    workload: asked.WorkloadOption = None,
    template: asked.TemplateOption = None,
    store: asked.StoreOption = False,
    out: asked.OutOption = Path("report.html"),
    rate: asked.RateOption = None,
    start_at: StartOption = None,
    at: AtOption = None,
    model: ModelOption = None,
    growth_per_month: asked.GrowthOption = None,
    quick: asked.QuickOption = False,
    time_limit: asked.TimeLimitOption = None,
    seed: asked.SeedOption = 0,
    allow_estimates: EstimatesOption = False,
    json: JsonOption = False,
) -> None:
    """Write a capacity report: one page that works offline, its figures in JSON and CSV beside it.

    Says how many accelerators of which kind, at what cost, why, and how sure: from a trace, from
    observed windows, from what a server has stored, or from a description. Changes nothing.
    """
    source = _Source(
        trace=trace,
        history=history,
        workload=workload,
        template=template,
        store=store,
        start_at=instant(start_at, option="--start-at"),
        at=instant(at, option="--at"),
        rate=rate,
        seed=seed,
    )
    source.check()
    from planner.service.answers.capacity.report import ReportSettings, capacity_report
    from planner.service.answers.planning import sole_model
    from planner.service.cli.progress import counting
    from planner.service.reports.capacity_files import check_files, write_files
    from planner.service.spec.file import read_spec

    inputs = [path for path in (spec, trace, history, workload) if path is not None]
    check_files(out, inputs=inputs)
    checked = read_spec(spec, allow_estimates=allow_estimates, catalogue=known_accelerators())
    model = sole_model(checked, model)
    try:
        with counting("planning") as progress:
            settings = ReportSettings(
                now=datetime.now(UTC),
                clock=time.monotonic,
                quick=quick,
                growth_per_month_ratio=growth_per_month,
                time_limit_s=time_limit,
                progress=progress,
            )
            seen = source.seen(checked, model, now=settings.now)
            made = capacity_report(checked, seen, model=model, settings=settings)
    except TooLittleError as why:
        _tell(checked, why, model=model, out=out, json=json)
        raise typer.Exit(1) from why
    for note in seen.notes:
        output.note(f"{seen.source}: {note}")
    written = write_files(made, out)
    if json:
        output.print_json(made)
    else:
        _show(made, written)
    if made.plan.status == "infeasible":
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where the workload is known from."""

    trace: Path | None
    history: Path | None
    workload: Path | None
    template: str | None
    store: bool
    start_at: datetime | None
    at: datetime | None
    rate: float | None
    seed: int

    def check(self) -> None:
        """Refuse none, several, and what does not go with them."""
        given = (self.trace, self.history, self.workload, self.template, self.store or None)
        if sum(one is not None for one in given) != 1:
            raise InputError(
                "report needs to know the workload: give one of --trace FILE (requests), --history "
                "FILE (observed windows), --store (what a server has stored), --workload FILE "
                "(described) and --template NAME (described ready-made)"
            )
        described = self.workload is not None or self.template is not None
        if self.rate is not None and not described:
            raise InputError("--rate is for --workload and --template: what was seen has its rate")
        if self.rate is not None and not 0 < self.rate <= 1e6:
            raise InputError(f"--rate {self.rate:g} is no rate: give requests/s above 0")
        if self.at is not None and described:
            raise InputError("--at is for what was seen: a description has no past")
        if self.start_at is not None and (self.history is not None or self.store):
            raise InputError("--start-at is for --trace and descriptions: windows have instants")

    def seen(self, spec: "Spec", model: str, *, now: datetime) -> "Seen":
        """What it holds."""
        from planner.service.answers.capacity import seen as known
        from planner.service.documents.trace_description import read_trace_description
        from planner.service.documents.workload_template import workload_template

        if self.trace is not None:
            return known.seen_in_trace(self.trace, spec, start_at=self.start_at, at=self.at)
        if self.history is not None:
            return known.seen_in_file(self.history, at=self.at)
        if self.store:
            return _stored(spec, model, at=self.at)
        document = (
            workload_template(self.template or "")
            if self.workload is None
            else read_trace_description(self.workload)
        )
        return known.seen_in_description(
            document,
            spec,
            start_at=self.start_at or known.described_start(now),
            rate_rps=self.rate,
            seed=self.seed,
        )


def _stored(spec: "Spec", model: str, *, at: datetime | None) -> "Seen":
    from planner.service.answers.capacity.seen import seen_in_windows
    from planner.service.cli.own_store import own_store
    from planner.service.deployment import LONGEST_HISTORY

    with own_store() as opened:
        stored = opened.windows(spec.name, model, limit=LONGEST_HISTORY)
    windows = tuple(s.window for s in stored if at is None or s.window.end_at <= at)
    if not windows:
        before = "" if at is None or not stored else f" that ended by {at.isoformat()}"
        raise EmptyHistoryError(
            where="the store of this machine",
            what=f"no window is stored for deployment {spec.name} and model {model}{before}",
            remedy="let `poolwise serve` run on this spec until requests came, and see that "
            "POOLWISE_DATABASE_URL is its database; or report from --trace or --template",
        )
    return seen_in_windows(windows, source=f"the stored windows of {spec.name}")


def _tell(spec: "Spec", why: TooLittleError, *, model: str, out: Path, json: bool) -> None:
    """Write that too little was seen."""
    from planner.service.answers.capacity.unanswered import unanswered_report
    from planner.service.reports.capacity_files import write_unanswered
    from planner.service.reports.unanswered_page import sentences

    made = unanswered_report(spec, why, model=model, now=datetime.now(UTC))
    written = write_unanswered(made, out)
    if json:
        output.print_json(made)
        return
    shown = output.console()
    for said in sentences(made):
        shown.print(said, markup=False)
    for path in written:
        shown.print(str(path), markup=False, soft_wrap=True)


def _show(made: "CapacityReport", written: tuple[Path, ...]) -> None:
    from planner.service.reports.capacity_text import answer_sentences
    from planner.service.reports.quantities import counted

    out = output.console()
    for sentence in answer_sentences(made):
        out.print(sentence, markup=False)
    output.print_lines("Risks", made.risks)
    for path in written:
        out.print(str(path), markup=False, soft_wrap=True)
    if made.effort.left_out:
        output.note(
            f"{counted(made.effort.left_out, 'question')} left out: the time limit of "
            f"{made.effort.time_limit_s:g} s was reached (--time-limit)"
        )
