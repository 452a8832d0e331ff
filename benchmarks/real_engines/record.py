"""Record real engines: start a deployment under quotas, profile it, replay arrivals, keep all.

What is finished is kept and not recorded again, unless `again` asks for the runs that were
disturbed; the disturbed one then stays beside the new one as `….disturbed.json.gz`.
"""

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.real_engines.cases import (
    CASES,
    MAX_MODEL_LEN,
    MAX_NUM_SEQS,
    MODEL,
    QUOTA_CORES,
    WEIGHT,
    Arrivals,
    Case,
    Held,
    rate_rps_of,
    shape,
    trace_path,
    workload_of,
)
from benchmarks.real_engines.machine import (
    MachineLoad,
    Meter,
    free_host_side,
    gauge,
    leave_group,
    readings,
    weigh_own_processes,
)
from benchmarks.real_engines.recording import Run, Sent, read_run, run_path, write_run
from benchmarks.real_engines.steps import StepFile, measure_beside, measure_steps, write_steps
from benchmarks.real_engines.sweeps import (
    Sweep,
    profiled_case,
    read_sweep,
    samples_path,
    sweep_path,
    together,
    write_sweep,
)
from planner.domain.errors import EngineError, MeasurementError
from planner.domain.fleet import Role
from planner.domain.profile import LifecycleTimes
from planner.service.answers.engine_formats import launched_kv_bytes
from planner.service.demo.site import DemoModel, find_engine, prepare_model
from planner.service.settings import read_settings
from profiler.files import write_profile
from profiler.fitting.profile import Setting, profile_of_samples
from profiler.local import describe_machine, engine_limits
from profiler.measure.facts import read_engine_facts
from profiler.measure.journal import open_journal
from profiler.measure.session import Plan
from profiler.measure.where import Range
from profiler.run import Target, measure
from serving.fleet.deployment import LocalDeployment
from serving.telemetry import EngineCounters
from serving.traffic.load import Completion, LoadClient, Replay, Timing, replay
from serving.traffic.prompts import PromptWriter, read_words
from serving.workers.cpu_quota import CpuGroup
from serving.workers.engine import EngineFlags
from serving.workers.launcher import LocalSite, Worker

PLAN = Plan(
    area=Range(
        new_tokens=(16, 768),
        cached_tokens=(0, 0),
        sequences=(1, 16),
        context_tokens=(64, 640),
        longest_tokens=MAX_MODEL_LEN,
        block_tokens=128,
    ),
    budget_s=150.0,
    whole_area=True,
    held_out=2,
    least_samples=1,
    step_tokens=MAX_MODEL_LEN,
)
WARM_UP_REQUESTS = 6
LEAST_ANSWERED_RATIO = 0.95
"""Fewer answers are no recording but a failure."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What was asked for.

    Parameters
    ----------
    own : CpuGroup
        This process's; takes what the workers' quotas do not hold.
    again : bool
        Record disturbed runs anew.
    rate_rps : float or None
        Requests/s; None: as the profile says.
    """

    folder: Path
    repeats: int
    held: Held
    own: CpuGroup
    again: bool
    rate_rps: float | None
    say: Say


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A deployment that takes requests at `url`."""

    case: Case
    deployment: LocalDeployment
    workers: tuple[Worker, ...]
    url: str
    start_s: float
    meter: Meter
    held: Held

    def counters(self, role: Role) -> EngineCounters:
        """Counters of all workers in a role."""
        found = [w for w in self.workers if w.shape.role is role]
        total = self.deployment.reading(found[0]).counters
        for worker in found[1:]:
            total = total + self.deployment.reading(worker).counters
        return total

    @property
    def answering(self) -> Role:
        """The role of the workers that write answers."""
        return Role.DECODE if self.case.disaggregated else Role.AGGREGATED


@contextmanager
def running(case: Case, job: Job) -> Iterator[Running]:
    """Start all workers of a case, each under its quota, and end them."""
    folder, say = job.folder, job.say
    settings = read_settings(os.environ)
    engine = find_engine(settings)
    files = prepare_model(engine, DemoModel(MODEL), folder / "models", progress=say)
    site = LocalSite(
        engine=engine,
        model=files,
        flags=EngineFlags(
            max_model_len=MAX_MODEL_LEN,
            max_num_batched_tokens=MAX_MODEL_LEN,
            max_num_seqs=MAX_NUM_SEQS,
        ),
        state_dir=folder / "local",
        cores_per_replica=QUOTA_CORES,
        cpu_weight=WEIGHT,
    )
    with LocalDeployment(site=site, progress=say) as deployment:
        workers = tuple(deployment.start(shape(role)) for role in case.roles)
        start_s = max(deployment.await_ready(w) for w in workers)
        say(f"{case.name}: {len(workers)} workers ready after {start_s:.0f} s")
        if case.disaggregated:
            for worker in workers:
                deployment.route(worker)
        launched = {w.name: deployment.launcher.process_of(w) for w in workers}
        groups = {name: group for name, (_, group) in launched.items() if group is not None}
        if len(groups) < len(workers):
            raise EngineError(
                "workers run without a quota, because no control group can be made here: "
                "record as root on a machine with cgroups"
            )
        if job.held is Held.COMPUTE:
            for supervisor, _ in launched.values():
                free_host_side(supervisor, job.own)
        yield Running(
            case=case,
            held=job.held,
            deployment=deployment,
            workers=workers,
            url=deployment.router.url if case.disaggregated else workers[0].url,
            start_s=start_s,
            meter=Meter(
                supervisors={name: pid for name, (pid, _) in launched.items()}, groups=groups
            ),
        )


def warm_up(now: Running, say: Say) -> None:
    """Send a few short requests one after the other; the first ones connect the workers."""
    site = now.deployment.site

    async def send() -> list[Timing]:
        client = LoadClient(url=now.url, model=site.model.name)
        writer = PromptWriter(words=read_words(site.model.directory), seed=time.time_ns() % 2**31)
        prompts = [writer.unique(64, number=i) for i in range(WARM_UP_REQUESTS)]
        try:
            return [await client.send(Completion(prompt=p, output_tokens=4)) for p in prompts]
        finally:
            await client.close()

    ttft = " ".join(f"{1e3 * t.ttft_s:.0f}" for t in asyncio.run(send()))
    say(f"{now.case.name}: TTFT of the first {WARM_UP_REQUESTS} requests, 64 tokens: {ttft} ms")


def measure_sweep(now: Running, path: Path, say: Say) -> Sweep:
    """Sweep a running deployment with one worker a role."""
    site, folder = now.deployment.site, path.parent

    async def counters() -> EngineCounters:
        return await asyncio.to_thread(now.counters, now.answering)

    target = Target(
        url=now.url,
        model=site.model.name,
        words=read_words(site.model.directory),
        block_tokens=PLAN.area.block_tokens,
        counters=counters if now.case.disaggregated else None,
    )
    journal = open_journal(samples_path(path), {"case": now.case.name}, began_at=datetime.now(UTC))
    began = time.monotonic()
    before = now.meter.read()
    with gauge(folder / "local" / "gauge.log") as log:
        measure(target, PLAN, journal)
    load = now.meter.between(before, now.meter.read(), readings(log))
    say(f"{now.case.name}: swept in {time.monotonic() - began:.0f} s, {describe_load(load)}")
    return Sweep(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        samples=journal.samples,
        machine=load,
    )


def setting_of(now: Running) -> Setting:
    """What a sweep of this deployment measures."""
    worker = now.workers[-1]
    return Setting(
        shape=now.workers[0].shape,
        limits=engine_limits(
            now.deployment,
            worker,
            kv_bytes_per_token=launched_kv_bytes(now.deployment.site.model.directory),
        ),
        lifecycle=LifecycleTimes(
            start_cold_s=now.start_s, start_warm_s=now.start_s, flip_s=0.0, drain_s=0.0
        ),
        machine=describe_machine(now.deployment),
        engine=f"vLLM {read_engine_facts(worker.url, MODEL).version} (CPU, eager)",
        measured_at=datetime.now(UTC),
        source="benchmarks.real_engines: sweeps between the recorded runs",
    )


def record_run(now: Running, arrivals: Arrivals, repeat: int, folder: Path, rate_rps: float) -> Run:
    """Replay one pattern once."""
    site = now.deployment.site
    workload = workload_of(rate_rps, arrivals)
    seed = time.time_ns() % 2**31  # no prompt of an earlier run is in a prefix cache
    writer = PromptWriter(words=read_words(site.model.directory), seed=seed)

    async def send() -> Replay:
        client = LoadClient(url=now.url, model=site.model.name)
        try:
            return await replay(client, workload, writer)
        finally:
            await client.close()

    counted = now.counters(now.answering)
    before = now.meter.read()
    recorded_at = datetime.now(UTC).isoformat(timespec="seconds")
    with gauge(folder / "local" / "gauge.log") as log:
        replayed = asyncio.run(send())
    after = now.meter.read()
    moved = now.counters(now.answering) - counted
    now.deployment.launcher.check_alive()
    return Run(
        case=now.case.name,
        arrivals=arrivals,
        repeat=repeat,
        recorded_at=recorded_at,
        quota_cores=QUOTA_CORES,
        held=now.held,
        sent=_sent(replayed),
        late_s=replayed.late_s,
        computed_by_decode=int(moved.prompt_tokens_computed) if now.case.disaggregated else 0,
        transfers=int(moved.transfers),
        machine=now.meter.between(before, after, readings(log)),
    )


def _sent(replayed: Replay) -> tuple[Sent, ...]:
    workload = replayed.workload
    return tuple(
        Sent(
            planned_s=float(workload.arrival_offset_s[i]),
            sent_s=t.sent_at_s - replayed.began_at_s,
            input_tokens=int(workload.input_tokens[i]),
            output_tokens=int(workload.output_tokens[i]),
            token_at_s=tuple(at - t.sent_at_s for at in t.token_at_s),
            tokens=t.tokens,
            error=t.error,
        )
        for i, t in enumerate(replayed.timings)
    )


def describe_load(load: MachineLoad) -> str:
    """The machine during a recording, for the log."""
    gauge_ms = 1e3 * sum(load.gauge_s) / max(len(load.gauge_s), 1)
    return (
        f"neighbours {load.neighbour_cores:.2f} cores, client {load.client_cores:.2f}, "
        f"gauge {gauge_ms:.2f} ms, workers " + " ".join(f"{w.cores:.2f}" for w in load.workers)
    )


def record_case(case: Case, job: Job) -> None:
    """Record everything of one case that is not there yet.

    The rate follows from the first sweep of the workers' path. Where the case has a profile of
    its own, the deployment is swept before every round of repeats: the machine's speed drifts
    over minutes, for sweeps and runs alike.
    """
    folder, repeats, say = job.folder, job.repeats, job.say
    swept = len(set(case.roles)) == len(case.roles)
    missing = [
        [a for a in Arrivals if _is_wanted(run_path(folder, case.name, a, repeat), again=job.again)]
        for repeat in range(repeats)
    ]
    sweeps = [not sweep_path(folder, case.name, n).exists() for n in range(repeats) if swept]
    if not any(missing) and not any(sweeps):
        say(f"{case.name}: nothing to record")
        return
    with running(case, job) as now:
        warm_up(now, say)
        for repeat, patterns in enumerate(missing):
            if swept and sweeps[repeat]:
                path = sweep_path(folder, case.name, repeat)
                write_sweep(path, measure_sweep(now, path, say))
            first = read_sweep(sweep_path(folder, profiled_case(case), 0)).samples
            profile = profile_of_samples(first, setting_of(now))
            rate_rps = job.rate_rps or rate_rps_of(case, profile)
            for arrivals in patterns:
                _record_run(now, arrivals, repeat, rate_rps, job)
        if swept:
            write_steps(folder / f"steps-{case.name}.json", _steps(now))
            taken = [read_sweep(sweep_path(folder, case.name, n)) for n in range(repeats)]
            measured = together([t.samples for t in taken])
            profile = profile_of_samples(measured, setting_of(now))
            write_profile(profile, folder / f"profile-{case.name}.json")


def _steps(now: Running) -> StepFile:
    model = now.deployment.site.model
    urls = (now.url, *(worker.url for worker in now.workers))

    async def measure() -> StepFile:
        client, *direct = (LoadClient(url=url, model=model.name) for url in urls)
        writer = PromptWriter(words=read_words(model.directory), seed=time.time_ns() % 2**31)
        try:
            steps = await measure_steps(client, writer)
            beside = await measure_beside(*direct, writer) if now.case.disaggregated else None
            return StepFile(steps=steps, beside=beside)
        finally:
            for each in (client, *direct):
                await each.close()

    return asyncio.run(measure())


def _is_wanted(path: Path, *, again: bool) -> bool:
    return not path.exists() or (again and read_run(path).disturbed)


def _record_run(now: Running, arrivals: Arrivals, repeat: int, rate_rps: float, job: Job) -> None:
    """Record one run and write it; a disturbed one that was there is kept aside."""
    folder = job.folder
    run = record_run(now, arrivals, repeat, folder, rate_rps)
    job.say(
        f"{run.case} {run.arrivals} {run.repeat}: {len(run.answered)}/{len(run.sent)} "
        f"answered at {rate_rps:.2f} requests/s, late {1e3 * run.late_s:.0f} ms, "
        f"{describe_load(run.machine)}" + (" (disturbed)" if run.disturbed else "")
    )
    if len(run.answered) < LEAST_ANSWERED_RATIO * len(run.sent):
        errors = {s.error for s in run.sent if s.error}
        raise MeasurementError(f"many requests failed: {'; '.join(sorted(errors)[:3])}")
    path = run_path(folder, run.case, run.arrivals, run.repeat)
    if path.exists():
        path.rename(path.with_name(path.name.replace(".json", ".disturbed.json")))
    write_run(folder, run)


def record(
    folder: Path,
    *,
    names: Collection[str],
    repeats: int,
    held: Held,
    say: Say,
    again: bool = False,
    rate_rps: float | None = None,
) -> None:
    """Record the cases of these names.

    Raises
    ------
    EngineError
        Where no control group can be made.
    """
    trace_path()  # told before an engine is started
    folder.mkdir(parents=True, exist_ok=True)
    own = weigh_own_processes(WEIGHT)
    if own is None:
        raise EngineError(
            "no control group can be made here: record as root on a machine with cgroups"
        )
    job = Job(
        folder=folder,
        repeats=repeats,
        held=held,
        own=own,
        again=again,
        rate_rps=rate_rps,
        say=say,
    )
    try:
        for case in CASES:
            if case.name in names:
                record_case(case, job)
    finally:
        leave_group(own)
