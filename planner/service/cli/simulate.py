"""`poolwise simulate`: a plan or a fleet against requests, in the twin."""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from planner.domain.errors import InputError
from planner.domain.wording import counted
from planner.service.cli import output
from planner.service.cli import simulate_options as asked
from planner.service.cli.catalogue_option import known_accelerators
from planner.service.cli.event_option import event_of, longest_prompt_of
from planner.service.cli.options import (
    EstimatesOption,
    FleetOption,
    JsonOption,
    ModelOption,
    SpecOption,
    StartOption,
    instant,
)
from planner.service.cli.progress import counting
from planner.service.cli.simulate_tables import show_simulation

if TYPE_CHECKING:
    from planner.domain.spec import Spec
    from planner.domain.workload import Workload
    from planner.service.answers.simulation import Replicas, Sampling, Simulated
    from planner.service.documents.circumstances import CircumstancesDocument, EventDocument

EPILOG = (
    "Examples:\n\n"
    "poolwise simulate --spec spec.yaml --trace requests.jsonl --fleet fleet.json\n\n"
    "poolwise plan --spec spec.yaml --trace requests.jsonl --json > p.json; "
    "poolwise simulate --spec spec.yaml --trace requests.jsonl --plan p.json --window 2\n\n"
    "poolwise simulate -s spec.yaml -t requests.jsonl --fleet fleet.json --until-clear --jobs 0\n\n"
    "poolwise simulate -s spec.yaml -t requests.jsonl --fleet fleet.json --router prefix_aware "
    "--event fail@120s:pool=1,replica=0 --plot run.html --records run.parquet\n\n"
    "Exit status: 0 done; 1 the run was stopped as unstable, or --until-clear found that the "
    "objectives do not hold; 2 bad input."
)


@dataclass(frozen=True, slots=True)
class Source:
    """Where requests come from, in the order of the options."""

    trace: Path | None
    forecast: Path | None
    start_at: datetime | None
    from_s: float
    duration_s: float | None
    window: int
    all_windows: bool
    level: float | None


@dataclass(frozen=True, slots=True)
class Sureness:
    """How many futures, and where they are replayed, in the order of the options."""

    futures: int | None
    precision: float | None
    until_clear: bool
    jobs: int
    backend: str

    @property
    def sequential(self) -> bool:
        """Whether the number of futures depends on what they show."""
        return self.until_clear or self.precision is not None

    @property
    def sampled(self) -> bool:
        """Whether futures are asked for."""
        return self.sequential or self.futures is not None


@dataclass(frozen=True, slots=True)
class Routing:
    """How requests find their replicas, in the order of the options."""

    router: str
    longest_prompts: list[str]
    prefix_cache: bool
    topology: Path | None


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a request's stay, in the order of the options."""

    local_prefill_tokens: int
    early_rejection_s: float | None
    patience_s: float | None
    unstable_wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """Given requests, or what a forecast's futures are drawn from; one of them."""

    start_at: datetime
    workload: "Workload | None" = None
    sampling: "Sampling | None" = None


def simulate(
    *,
    spec: SpecOption,
    trace: asked.TraceOption = None,
    forecast: asked.ForecastOption = None,
    plan: asked.PlanOption = None,
    window: asked.WindowOption = 0,
    all_windows: asked.AllWindowsOption = False,
    fleet: FleetOption = None,
    start_at: StartOption = None,
    from_s: asked.FromOption = 0.0,
    duration_s: asked.DurationOption = None,
    demand_level: asked.LevelOption = None,
    model: ModelOption = None,
    allow_estimates: EstimatesOption = False,
    router: asked.RouterOption = "least_loaded",
    longest_prompt: asked.LongestPromptOption = None,
    local_prefill_tokens: asked.LocalPrefillOption = 0,
    no_prefix_cache: asked.NoPrefixCacheOption = False,
    early_rejection_s: asked.EarlyRejectionOption = None,
    patience_s: asked.PatienceOption = None,
    unstable_wait_s: asked.UnstableOption = 3600.0,
    topology: asked.TopologyOption = None,
    event: asked.EventOption = None,
    events: asked.EventsOption = None,
    futures: asked.FuturesOption = None,
    seed: asked.SeedOption = None,
    precision: asked.PrecisionOption = None,
    until_clear: asked.UntilClearOption = False,
    jobs: asked.JobsOption = 1,
    backend: asked.BackendOption = "loky",
    records: asked.RecordsOption = None,
    plot: asked.PlotOption = None,
    json: JsonOption = False,
) -> None:
    """Replay requests, or sampled futures, on a plan's or a fleet's replicas in the digital twin.

    Changes nothing.
    """
    _check_choices(trace=trace, forecast=forecast, plan=plan, fleet=fleet, window=window)
    from planner.service.answers.planning import sole_model
    from planner.service.spec.file import files_named_in, read_spec

    read = (spec, trace, forecast, plan, fleet, topology, events, *files_named_in(spec))
    _check_files(records=records, plot=plot, read=[path for path in read if path is not None])
    checked = read_spec(spec, allow_estimates=allow_estimates, catalogue=known_accelerators())
    if seed is not None:
        if (
            trace is not None
            and not Sureness(futures, precision, until_clear, jobs, backend).sampled
        ):
            raise InputError("--seed is for futures: give --futures, too")
        checked = replace(checked, loop=replace(checked.loop, seed=seed))
    named = sole_model(checked, model)
    circumstances = _circumstances(
        Limits(local_prefill_tokens, early_rejection_s, patience_s, unstable_wait_s),
        Routing(router, longest_prompt or [], not no_prefix_cache, topology),
        events=_events(event or [], events),
    )
    start = instant(start_at, option="--start-at")
    sureness = Sureness(futures, precision, until_clear, jobs, backend)
    if trace is not None and not sureness.sampled and (jobs != 1 or backend != "loky"):
        raise InputError("--jobs and --backend are for futures: give --futures, too")
    source = Source(trace, forecast, start, from_s, duration_s, window, all_windows, demand_level)
    requests = _requests(checked, named, source)
    pools = _pools(checked, named, plan=plan, window=window, fleet=fleet, at=requests.start_at)
    seen = _run(checked, named, pools, requests, circumstances, sureness, records is not None)
    _write(seen, records=records, plot=plot)
    _tell(seen, as_json=json, rejects=early_rejection_s is not None)
    if seen.total.stopped or (until_clear and seen.holds is False):
        raise typer.Exit(1)


def _check_choices(
    *,
    trace: Path | None,
    forecast: Path | None,
    plan: Path | None,
    fleet: Path | None,
    window: int,
) -> None:
    if (plan is None) == (fleet is None):
        raise InputError(
            "simulate needs replicas: give --plan FILE (from `poolwise plan --json`) or --fleet "
            "FILE, one of them"
        )
    if (trace is None) == (forecast is None):
        raise InputError(
            "simulate needs requests: give --trace FILE, or --forecast FILE (from `poolwise "
            "forecast --json`) to draw futures from, one of them"
        )
    if window and plan is None and forecast is None:
        raise InputError(
            "--window is for --plan and --forecast: a trace's part is named by --from-s and "
            "--duration-s"
        )


def _check_files(*, records: Path | None, plot: Path | None, read: list[Path]) -> None:
    """Say before long work that its answer could not be written."""
    from planner.service.whole_file import check_writable

    if records is not None:
        from planner.service.answers.request_records import check_parquet

        check_parquet()
        check_writable(records, option="--records", inputs=read)
    if plot is not None:
        others = read if records is None else [*read, records]
        check_writable(plot, option="--plot", inputs=others)


def _events(texts: list[str], file: Path | None) -> "list[EventDocument]":
    from planner.service.documents.circumstances import MOST_EVENTS, read_events

    listed = [] if file is None else read_events(file)
    if len(listed) + len(texts) > MOST_EVENTS:
        raise InputError(
            f"{counted(len(listed) + len(texts), 'event')}; give at most {MOST_EVENTS:,}"
        )
    return [*listed, *(event_of(text) for text in texts)]


def _circumstances(
    limits: Limits, routing: Routing, *, events: "list[EventDocument]"
) -> "CircumstancesDocument":
    from planner.service.documents.circumstances import (
        CircumstancesDocument,
        LongestPromptDocument,
        read_topology,
    )
    from planner.simulate import RouterPolicy

    longest = [longest_prompt_of(text) for text in routing.longest_prompts]
    return CircumstancesDocument(
        router=RouterPolicy(routing.router),
        longest_prompts=[LongestPromptDocument(pool=p, tokens=tokens) for p, tokens in longest],
        topology=None if routing.topology is None else read_topology(routing.topology),
        events=events,
        prefix_cache=routing.prefix_cache,
        local_prefill_tokens=limits.local_prefill_tokens,
        early_rejection_s=limits.early_rejection_s,
        patience_s=limits.patience_s,
        unstable_wait_s=limits.unstable_wait_s,
    )


def _requests(spec: "Spec", model: str, source: Source) -> Requests:
    """What is replayed, or what futures are drawn from."""
    if source.trace is None:
        if source.forecast is None:
            raise InputError("give --trace or --forecast")
        return _forecast(spec, model, source, source.forecast)
    if source.all_windows:
        raise InputError("--all-windows is for --forecast: a trace is replayed to its end")
    if source.level is not None:
        raise InputError("--demand-level is for --forecast: a trace has one rate, not quantiles")
    workload = _trace(source.trace, source.start_at)
    if source.from_s or source.duration_s:
        most_s = workload.duration_s
        end_s = most_s if source.duration_s is None else source.from_s + source.duration_s
        if end_s > most_s:
            output.note(f"{source.trace} ends after {most_s:,.0f} s: {end_s:,.0f} s were asked for")
        workload = workload.between(source.from_s, max(min(end_s, most_s), source.from_s))
    if len(workload) == 0:
        raise InputError(f"{source.trace} has no request in the part that was asked for")
    return Requests(start_at=workload.start_at, workload=workload)


def _trace(path: Path, start_at: datetime | None) -> "Workload":
    """The requests of a trace; on a coarse clock spread inside each tick, as for plans."""
    from planner.service.answers.planning import read_requests

    # A hole is flagged with the figures it flatters, and may be cut off by --from-s.
    workload, report = read_requests(path, start_at=start_at, accept_jump=True)
    output.note_report(path, report)
    if report.arrival_tick_s is not None:
        clock = f"a {report.arrival_tick_s:.1f} s clock"
        output.note(f"{path}: arrivals sit on {clock}: spread evenly inside each tick")
    return workload


def _forecast(spec: "Spec", model: str, source: Source, path: Path) -> Requests:
    from planner.service.answers.planning import check_forecast
    from planner.service.answers.simulation import Sampling, sampling_through
    from planner.service.documents.forecast import read_forecast

    expected = read_forecast(path)
    check_forecast(spec, expected, model=model)
    if source.from_s:
        raise InputError("--from-s is for --trace: name the forecast's window with --window")
    if source.all_windows:
        if source.duration_s is not None or source.level is not None:
            raise InputError(
                "--all-windows goes to the forecast's end at the rates of drawn paths: leave "
                "--duration-s and --demand-level out"
            )
        sampling = sampling_through(expected)
        return Requests(start_at=sampling.window.start_at, sampling=sampling)
    if source.window >= len(expected.windows):
        raise InputError(
            f"{path} has windows 0 to {len(expected.windows) - 1}, not {source.window}"
        )
    window = expected.windows[source.window]
    duration_s = source.duration_s or window.window_s
    sampling = Sampling(window=window, duration_s=duration_s, level=source.level)
    return Requests(start_at=window.start_at, sampling=sampling)


def _pools(
    spec: "Spec", model: str, *, plan: Path | None, window: int, fleet: Path | None, at: datetime
) -> "tuple[Replicas, ...]":
    from planner.service.answers.simulation import replicas_of_fleet, replicas_of_plan
    from planner.service.documents.fleet import read_fleet
    from planner.service.documents.plan import read_plan

    if plan is not None:
        return replicas_of_plan(read_plan(plan), window=window)
    if fleet is not None:
        return replicas_of_fleet(read_fleet(fleet, spec=spec, read_at=at), model=model)
    raise InputError("give --plan or --fleet")


def _run(
    spec: "Spec",
    model: str,
    pools: "tuple[Replicas, ...]",
    requests: Requests,
    circumstances: "CircumstancesDocument",
    sureness: Sureness,
    keep_all: bool,
) -> "Simulated":
    from planner.service.answers.parallel import Backend, ordered_map
    from planner.service.answers.simulation import (
        MOST_FUTURES,
        USUAL_FUTURES,
        replay,
        sample,
        sampling_like,
    )
    from planner.simulate.futures import Kept, Stopping

    sampling = requests.sampling
    if requests.workload is not None and not sureness.sampled:
        with counting("simulating requests") as progress:
            return replay(
                spec,
                pools,
                requests.workload,
                model=model,
                circumstances=circumstances,
                progress=progress,
            )
    if requests.workload is not None:
        sampling = sampling_like(spec, pools, requests.workload, circumstances)
    if sampling is None:
        raise InputError("give --trace or --forecast")
    usual = MOST_FUTURES if sureness.sequential else USUAL_FUTURES
    stopping = Stopping(
        most_futures=sureness.futures or usual,
        precision_ratio=sureness.precision,
        until_clear=sureness.until_clear,
    )
    with counting("simulating futures") as progress:
        return sample(
            spec,
            pools,
            sampling,
            stopping,
            model=model,
            circumstances=circumstances,
            kept=Kept.ALL if keep_all else Kept.FIRST,
            each=ordered_map(sureness.jobs, Backend(sureness.backend)),
            progress=progress,
        )


def _write(seen: "Simulated", *, records: Path | None, plot: Path | None) -> None:
    if records is not None:
        from planner.service.answers.request_records import write_records

        rows = write_records(seen, records)
        output.note(f"{records}: {counted(rows, 'request')}")
    if plot is not None:
        from planner.service.reports.simulation_report import simulation_report
        from planner.service.whole_file import whole_file

        with whole_file(plot) as unfinished:
            unfinished.write_text(simulation_report(seen), encoding="utf-8")
        output.note(f"{plot}: open it in a browser")


def _tell(seen: "Simulated", *, as_json: bool, rejects: bool) -> None:
    from planner.service.documents.simulation import simulation_document

    document = simulation_document(seen)
    if as_json:
        output.print_json(document)
    else:
        show_simulation(document)
    if document.stopped is not None:
        several = (
            ""
            if document.futures is None
            else (
                f"{document.futures.stopped} of {document.futures.count} futures were stopped; the "
                "first "
            )
        )
        output.note(
            f"poolwise: {several}stopped at {document.stopped.at_s:,.1f} s: "
            f"{document.stopped.reason}; give it more replicas"
            + (" or less load" if rejects else ", less load, or --early-rejection-s")
        )
