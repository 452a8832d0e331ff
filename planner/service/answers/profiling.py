"""Profiling as people ask for it: launch an engine here or take one that runs, and measure it."""

import json
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

from planner.domain.errors import InputError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.profile import EngineLimits, LifecycleTimes, Profile
from planner.service.answers.engine_formats import launched_engine
from planner.service.answers.profiling_progress import say, shown
from planner.service.answers.profiling_request import Asked
from planner.service.demo.signals import ending_on_signals
from planner.service.demo.site import find_model
from planner.service.settings import Settings, read_settings
from planner.service.spec.catalogue import read_catalogue
from profiler.engine_options import read_engine_options
from profiler.files import write_profile
from profiler.fitting.profile import Seen, Setting
from profiler.local import Launched, LocalProfiling
from profiler.measure.facts import (
    API_KEY,
    EngineFacts,
    EngineIdentity,
    gpu_facts,
    read_engine_facts,
)
from profiler.measure.probe import SHARED_NOTE, ReadCounters
from profiler.measure.session import Plan, Tell
from profiler.measure.start_up import forget_files
from profiler.measure.where import LEAST_POINTS, Range
from profiler.run import (
    Target,
    breaking_off,
    finished,
    finished_before,
    journal_for,
    measure,
    salvaging,
)
from profiler.samples import Kind
from serving.fleet.deployment import LocalDeployment
from serving.telemetry import EngineCounters, read_engine_async
from serving.workers.engine import EngineFlags
from serving.workers.gpu_memory import check_gpus
from serving.workers.launcher import LocalSite

FULL_S, QUICK_S = 560.0, 110.0
SHORTEST_PROMPT, SHORTEST_CONTEXT = 32, 64
GPU_LONGEST = 16_384
CPU_LONGEST, CPU_PROMPT, CPU_CONTEXT, CPU_BATCH = 4096, 1024, 1280, 16
LARGEST_BATCH = 256
DEFAULT_STEP_TOKENS = 8192
ASSUMED_FLIP_S = 5.0


def run_profile(asked: Asked, environment: Mapping[str, str]) -> Profile:
    """Measure as asked and write the profile.

    Raises
    ------
    InputError, OperationError
    """
    subject = _subject(asked)
    known = None if asked.fresh else finished_before(asked.out, subject)
    if known is not None:
        say("this run was finished: its profile is made of its journal, nothing is measured")
        write_profile(known, asked.out)
        return known
    with ending_on_signals(), shown() as tell:
        if asked.url is None:
            profile = _launch(asked, read_settings(environment), tell)
        else:
            profile = _measure_url(asked, asked.url, environment.get(API_KEY), tell)
    write_profile(profile, asked.out)
    return profile


def _plan(asked: Asked, area: Range, *, step_tokens: int) -> Plan:
    return Plan(
        area=area,
        kinds=asked.kinds,
        budget_s=asked.budget_s or (QUICK_S if asked.quick else FULL_S),
        target_ratio=asked.target_ratio,
        held_out=3 if asked.quick else 6,
        least_samples=1 if asked.quick else 2,
        step_tokens=step_tokens,
    )


def _area(
    asked: Asked, *, longest: int, sequences: int, block: int, cached: bool, cpu: bool
) -> Range:
    """The range as asked, within what the engine takes."""
    batch = asked.covers.batch or min(sequences, LARGEST_BATCH)
    if batch > sequences:
        raise InputError(
            f"--max-batch {batch}: the engine decodes {sequences} sequences at once: raise "
            "--max-num-seqs"
        )
    prompt = asked.covers.prompt or (CPU_PROMPT if cpu else longest // 2 - 1)
    prefix = asked.covers.cached
    if prefix is None:
        prefix = min(prompt, longest - prompt - 2) if cached else 0
    context = asked.covers.context or (CPU_CONTEXT if cpu else longest // 2)
    for option, value in (("--max-prompt", prompt), ("--max-context", context)):
        if value >= longest:
            raise InputError(f"{option} {value}: prompt and answer have room for {longest} tokens")
    area = Range(
        new_tokens=(min(SHORTEST_PROMPT, prompt), prompt),
        cached_tokens=(0, prefix // block * block),
        sequences=(1, batch),
        context_tokens=(min(SHORTEST_CONTEXT, context), context),
        longest_tokens=longest,
        block_tokens=block,
    )
    for kind, options in (
        (Kind.PREFILL, f"--max-prompt {prompt}"),
        (Kind.DECODE, f"--max-batch {batch} and --max-context {context}"),
    ):
        if len(area.coarse(kind)) < LEAST_POINTS:
            raise InputError(
                f"{options}: fewer than {LEAST_POINTS} points to measure make no table: ask for "
                "more"
            )
    return area


def _launch(asked: Asked, settings: Settings, tell: Tell) -> Profile:
    most = os.cpu_count() or 1
    if not 0.1 <= asked.cores <= most:
        raise InputError(f"--cores {asked.cores:g} must lie between 0.1 and this machine's {most}")
    options = read_engine_options(asked.engine_flags)
    check_gpus(asked.gpus)
    if asked.gpus:
        gpu_facts(asked.gpus)  # what cannot be asked then is said before minutes of loading
    site = _site(asked, settings, say)
    engine = launched_engine(
        site.model, options, accelerator=asked.accelerator, tp=asked.tp, gpus=bool(asked.gpus)
    )
    roof = engine.roof(read_catalogue(settings.catalogue.path))
    if not asked.quick:
        forget_files(site.model.directory)
    with LocalDeployment(site, progress=say) as deployment:
        with _salvaging(asked):
            launched = _start(asked, deployment, say)
        flags = site.flags
        run = LocalProfiling(
            deployment=deployment,
            launched=launched,
            roles=asked.roles,
            source=_source(asked),
            kv_bytes_per_token=engine.kv_bytes_per_token,
            formats=engine.formats,
            async_scheduling=options.async_scheduling,
            roof=roof,
            restart=not asked.quick,
        )
        facts = read_engine_facts(launched.answering.url, site.model.name)
        plan = _plan(
            asked,
            _area(
                asked,
                longest=flags.max_model_len,
                sequences=flags.max_num_seqs,
                block=deployment.reading(launched.answering).kv_block_tokens,
                cached=facts.prefix_cache is not False,
                cpu=not asked.gpus,
            ),
            step_tokens=flags.max_num_batched_tokens,
        )
        journal = journal_for(asked.out, _subject(asked) | facts.kind, fresh=asked.fresh)
        return run.run(plan, journal, tell=tell, keep=_keeper(asked.out))


def _site(asked: Asked, settings: Settings, say: Callable[[str], None]) -> LocalSite:
    engine, files = find_model(asked.model, settings, name=asked.name, progress=say)
    longest = asked.max_model_len or (GPU_LONGEST if asked.gpus else CPU_LONGEST)
    flags = EngineFlags(
        max_model_len=longest,
        max_num_seqs=asked.max_num_seqs or (LARGEST_BATCH if asked.gpus else CPU_BATCH),
        max_num_batched_tokens=asked.max_num_batched_tokens
        or (DEFAULT_STEP_TOKENS if asked.gpus else longest),
        enforce_eager=not asked.gpus,
        extra=asked.engine_flags,
    )
    return LocalSite(
        engine=engine,
        model=files,
        flags=flags,
        state_dir=settings.storage.state_dir / "local",
        endpoints_dir=settings.storage.state_dir,
        cores_per_replica=asked.cores,
        gpus=asked.gpus,
        ready_timeout_s=asked.start_timeout_s,
    )


def _start(asked: Asked, deployment: LocalDeployment, say: Callable[[str], None]) -> Launched:
    name = deployment.site.model.name
    roles = (Role.PREFILL, Role.DECODE) if asked.is_pair else (Role(asked.role),)
    shapes = [
        ReplicaShape(role=role, model=name, accelerator=asked.accelerator, tp=asked.tp)
        for role in roles
    ]
    # A full run starts them one after the other: its cold start is of one worker alone, as its
    # warm one is. A quick one saves the time.
    begun = iter([deployment.start(shape) for shape in shapes]) if asked.quick else None
    workers, starts_s = [], {}
    for shape in shapes:
        worker = deployment.start(shape) if begun is None else next(begun)
        workers.append(worker)
        say(f"waiting for the first token of {worker.name}")
        starts_s[worker.name] = deployment.await_ready(worker)
        if asked.is_pair:
            deployment.route(worker)
    prefill = workers[0] if asked.is_pair else None
    return Launched(
        answering=workers[-1],
        prefill=prefill,
        starts_s=starts_s,
        cold=workers[0] if not asked.quick else None,
    )


def _measure_url(asked: Asked, url: str, api_key: str | None, tell: Tell) -> Profile:
    with _salvaging(asked):
        facts = read_engine_facts(url, asked.model, metrics_url=asked.metrics_url, api_key=api_key)
    limits, assumed = _limits(asked, facts)
    area = _area(
        asked,
        longest=limits.max_model_len,
        sequences=limits.max_num_seqs,
        block=limits.kv_block_tokens,
        cached=facts.prefix_cache is not False,
        cpu=False,
    )
    plan = _plan(asked, area, step_tokens=limits.max_num_batched_tokens)
    target = Target(
        url=url,
        model=asked.model,
        words=_words(asked.words),
        block_tokens=limits.kv_block_tokens,
        counters=_counters(asked),
        identity=(
            EngineIdentity(url, api_key)
            if asked.metrics_url is None
            else EngineIdentity(asked.metrics_url)
        ),
        api_key=api_key,
    )

    def setting() -> Setting:
        return Setting(
            shape=ReplicaShape(
                role=asked.roles[0],
                model=asked.name or asked.model,
                accelerator=asked.accelerator,
                tp=asked.tp,
            ),
            roles=asked.roles,
            limits=limits,
            lifecycle=_lifecycle(asked),
            machine=asked.machine or "not told (--machine)",
            engine=f"vLLM {facts.version}" if facts.version else "OpenAI-compatible server",
            measured_at=datetime.now(UTC),
            source=_source(asked),
            notes=(*facts.notes, *assumed, SHARED_NOTE),
            seen=Seen(facts=(*facts.told, ("address", url))),
        )

    known = setting()  # what is missing is said before anything is measured
    journal = journal_for(asked.out, _subject(asked) | facts.kind, fresh=asked.fresh)
    with breaking_off(journal, plan, known, _keeper(asked.out)):
        outcome = measure(target, plan, journal, tell=tell)
    return finished(journal, setting(), plan, outcome)


def _limits(asked: Asked, facts: EngineFacts) -> tuple[EngineLimits, tuple[str, ...]]:
    """What the server admits, and what was assumed because it does not say."""
    assumed = []
    capacity = asked.kv_capacity_tokens or facts.kv_capacity_tokens
    if capacity is None:
        raise InputError(
            "the server does not tell its KV capacity on /metrics: give --kv-capacity-tokens (vLLM "
            "logs it at its start: `GPU KV cache size: … tokens`)"
        )
    longest = asked.max_model_len or facts.max_model_len
    if longest is None:
        raise InputError("the server does not tell its longest request: give --max-model-len")
    if asked.kv_bytes_per_token is None:
        raise InputError(
            "give --kv-bytes-per-token: 2 x layers x KV heads x head size x bytes of a number, all "
            "in the model's config.json"
        )
    if asked.max_num_seqs is None:
        assumed.append(f"max_num_seqs {LARGEST_BATCH} assumed: the server does not tell it")
    if asked.max_num_batched_tokens is None:
        assumed.append(
            f"max_num_batched_tokens {DEFAULT_STEP_TOKENS} assumed: the server does not tell it"
        )
    assumed.append(
        f"flip_s and drain_s {ASSUMED_FLIP_S:g} assumed: not measured on an engine that runs"
    )
    assumed.append("async_scheduling assumed: vLLM's default, and the server does not tell it")
    block = facts.kv_block_tokens or 16
    if capacity < block:
        raise InputError(
            f"--kv-capacity-tokens {capacity}: the KV cache holds no block of {block} tokens"
        )
    return EngineLimits(
        kv_capacity_tokens=capacity,
        kv_bytes_per_token=asked.kv_bytes_per_token,
        max_num_seqs=asked.max_num_seqs or LARGEST_BATCH,
        max_num_batched_tokens=asked.max_num_batched_tokens or DEFAULT_STEP_TOKENS,
        max_model_len=longest,
        kv_block_tokens=block,
        async_scheduling=True,
        late_kv_notice=asked.is_pair,
    ), tuple(assumed)


def _lifecycle(asked: Asked) -> LifecycleTimes:
    if asked.start_s is None:
        raise InputError(
            "give --start-s: how long this engine takes from its start to its first token, "
            "seconds; it cannot be measured on one that runs"
        )
    return LifecycleTimes(
        start_cold_s=asked.start_s,
        start_warm_s=asked.start_s,
        flip_s=ASSUMED_FLIP_S,
        drain_s=ASSUMED_FLIP_S,
    )


def _counters(asked: Asked) -> ReadCounters | None:
    if not asked.is_pair:
        return None
    if asked.metrics_url is None:
        raise InputError(
            "--role pair with --url measures KV transfers by a decode worker's counters: give its "
            "address as --metrics-url, or --role aggregated for a single server"
        )
    where = asked.metrics_url

    async def read() -> EngineCounters:
        return (await read_engine_async(where)).counters

    return read


def _words(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        words = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"--words {path}: cannot be read as a JSON list: {error}") from error
    if not isinstance(words, list) or len(words) < 64 or not all(isinstance(w, str) for w in words):
        raise InputError(f"--words {path}: a JSON list of at least 64 words is needed")
    return tuple(words)


def _subject(asked: Asked) -> dict[str, str]:
    """What a journal's samples are of; they mix with no other's."""
    return {
        "url": asked.url or "launched here",
        "model": asked.model,
        "accelerator": asked.accelerator,
        "role": asked.role,
        "tp": str(asked.tp),
        "cores": "" if asked.gpus else f"{asked.cores:g}",
        "gpus": ",".join(map(str, asked.gpus)),
        "engine_flags": " ".join(asked.engine_flags),
        "max_model_len": str(asked.max_model_len),
        "max_num_seqs": str(asked.max_num_seqs),
        "max_num_batched_tokens": str(asked.max_num_batched_tokens),
    }


def _source(asked: Asked) -> str:
    path = "through the P/D path" if asked.is_pair else f"one {asked.role} worker, asked directly"
    return f"poolwise profile run{' --quick' if asked.quick else ''}, {path}"


def _keeper(out: Path) -> Callable[[Profile], None]:
    def keep(profile: Profile) -> None:
        write_profile(profile, out)
        say(f"what there was is kept as a profile marked INCOMPLETE: {out}")

    return keep


def _salvaging(asked: Asked) -> AbstractContextManager[None]:
    if asked.fresh:
        return nullcontext()
    return salvaging(asked.out, _subject(asked), _keeper(asked.out))
