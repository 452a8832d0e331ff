"""Profile an engine that was launched here: its workers, their starts, drains and flips."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

import psutil

from planner.domain.errors import EngineError
from planner.domain.fleet import Role
from planner.domain.model import Dtype
from planner.domain.profile import EngineLimits, LifecycleTimes, Profile
from planner.domain.profile_details import StartUp
from profiler.fitting.profile import KV_LINK, Seen, Setting
from profiler.interruption import run_until_asked_to_end
from profiler.measure.budget import Budget
from profiler.measure.facts import (
    EngineIdentity,
    MachineFacts,
    PowerGauge,
    cpu_facts,
    gpu_facts,
    read_engine_facts,
)
from profiler.measure.journal import Journal
from profiler.measure.probe import SENTINEL_PROMPT, SHARED_NOTE, Probe
from profiler.measure.session import Plan, Progress, Tell
from profiler.measure.start_up import start_up_of
from profiler.roofline import Roof
from profiler.run import Target, breaking_off, finished, measure
from serving.fleet.deployment import LocalDeployment
from serving.telemetry import EngineCounters, EngineReading
from serving.traffic.load import Completion, LoadClient
from serving.traffic.prompts import PromptWriter, read_words
from serving.workers.launcher import Worker

DIRECT_PROMPT_TOKENS, DIRECT_BURST, DIRECT_SAMPLES = 384, 4, 2
HIT_PROMPT_BLOCKS = 4
DIRECT_RATIO = 0.1
"""Prefill is asked directly, too, where that takes no more of the budget than this."""
DRAINED_ANSWER_TOKENS = 48
FLIP_ROOM_S = 5.0
"""For draining and flipping a worker, beside the answer that drains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launched:
    """The workers that are measured.

    Parameters
    ----------
    answering : Worker
        The decode worker of a pair, or the only one.
    prefill : Worker or None
        The prefill worker of a routed pair; None: a single worker, asked directly.
    starts_s : dict of str to float
        By worker's name, from its command to its first token.
    cold : Worker or None
        The one that was started alone and first, the model's files out of the page cache.
    """

    answering: Worker
    prefill: Worker | None
    starts_s: dict[str, float]
    cold: Worker | None = None

    @property
    def handed_over(self) -> bool:
        """Whether KV caches move between workers."""
        return self.prefill is not None

    @property
    def computing(self) -> Worker:
        """The worker that computes prompts."""
        return self.prefill or self.answering


@dataclass(slots=True, kw_only=True)
class LocalProfiling:
    """A profiling run of launched workers.

    Parameters
    ----------
    roles : tuple of Role
        What the profile may be used for.
    source : str
        Who measured, how.
    kv_bytes_per_token : float
        In the format that the engine keeps.
    formats : (Dtype or None, Dtype or None)
        Of weights and KV cache, as the engine was told; None: the model's own.
    async_scheduling : bool or None
        As the engine was told; None: nothing.
    roof : Roof or None
        What no step can be faster than, where it is known.
    """

    deployment: LocalDeployment
    launched: Launched
    roles: tuple[Role, ...]
    source: str
    kv_bytes_per_token: float
    formats: tuple[Dtype | None, Dtype | None] = (None, None)
    async_scheduling: bool | None = None
    roof: Roof | None = None
    restart: bool = False
    """Start the answering worker once more at the end: its files are in the page cache then."""
    _seen_hit: float | None = None
    _first: StartUp = field(init=False)
    _warm: StartUp | None = None
    _direct: float | None = None
    _drain_s: float | None = None
    _flip_s: float | None = None
    _direct_s: float | None = None
    """What comparing the path takes; None: not compared."""
    _power_w: float | None = None
    _memory_bytes: float | None = None
    _by_role: tuple[tuple[str, str], ...] = ()
    _reading: EngineReading | None = None

    def __post_init__(self) -> None:
        worker = self.launched.cold or self.launched.answering
        self._first = start_up_of(_log_of(worker), self.launched.starts_s[worker.name])

    def run(
        self,
        plan: Plan,
        journal: Journal,
        *,
        tell: Tell = lambda _progress: None,
        keep: Callable[[Profile], None] = lambda _profile: None,
    ) -> Profile:
        """Measure and fit.

        Parameters
        ----------
        keep : callable
            Takes the incomplete profile of a run that breaks off.

        Raises
        ------
        MeasurementError, EngineError, RouterError
        """
        self._check_lengths(plan)
        self._reading = self.deployment.reading(self.launched.answering)
        with breaking_off(journal, plan, self.setting(), keep), self._gauge():
            outcome = measure(
                self._target(),
                plan,
                journal,
                tell=tell,
                beside=self._beside,
                kept_back=partial(self._kept_back_s, plan.budget_s),
            )
            began_s = time.monotonic()
            if self.launched.handed_over:
                self._drain_s, self._flip_s = run_until_asked_to_end(self._drain_and_flip())
            outcome = replace(outcome, spent_s=outcome.spent_s + time.monotonic() - began_s)
            if self.restart:
                tell(_only_text(plan, "starting a worker once more, warm"))
                self._warm = self._start_again()
        return finished(journal, self.setting(), plan, outcome)

    def setting(self) -> Setting:
        """What was measured, on what, as far as it is known by now."""
        launched, deployment = self.launched, self.deployment
        worker = launched.answering
        facts = read_engine_facts(worker.url, deployment.site.model.name)
        machine = self._machine()
        slowest = max(launched.starts_s.values())
        first = self._first
        cold_s = slowest if launched.cold is None else first.total_s
        warm = self._warm or (None if launched.cold else first)
        flip_s = self._flip_s if self._flip_s is not None else 0.0
        return Setting(
            shape=replace(
                launched.computing.shape, weight_dtype=self.formats[0], kv_dtype=self.formats[1]
            ),
            roles=self.roles,
            limits=engine_limits(
                deployment,
                worker,
                kv_bytes_per_token=self.kv_bytes_per_token,
                async_scheduling=self.async_scheduling,
            ),
            lifecycle=LifecycleTimes(
                start_cold_s=cold_s,
                start_warm_s=cold_s if warm is None else warm.total_s,
                flip_s=flip_s,
                drain_s=self._drain_s if self._drain_s is not None else flip_s,
            ),
            machine=describe_machine(deployment),
            engine=f"vLLM {facts.version or 'of unknown version'}",
            measured_at=datetime.now(UTC),
            source=self.source,
            notes=facts.notes + self._unmeasured(),
            roof=self.roof,
            seen=Seen(
                start_cold=first if launched.cold else None,
                start_warm=warm,
                drain_s=self._drain_s,
                direct_prefill_ratio=self._direct,
                prefix_cache_hit_ratio=self._seen_hit,
                memory_bytes=self._memory_bytes
                or machine.memory_bytes
                or self._resident_bytes(worker),
                power_w=self._power_w,
                facts=(
                    *facts.told,
                    *machine.told,
                    *self._by_role,
                    ("flags", self._flags()),
                    (KV_LINK, "NIXL, UCX's choice" if self._gpus else "NIXL, TCP over loopback"),
                ),
            ),
        )

    def _unmeasured(self) -> tuple[str, ...]:
        """What stands in the profile without having been measured."""
        notes = []
        if not self.launched.cold:
            notes.append("no cold start was measured: start_cold_s is that of a warm one")
            if len(self.launched.starts_s) > 1:
                notes.append("workers were started at once: start_cold_s is that of the slowest")
        elif self._warm is None:
            notes.append("no warm start was measured: start_warm_s is that of a cold one")
        if not self.launched.handed_over:
            notes.append("flips and drains were not measured: one worker, not behind a router")
        elif self._direct is None:
            notes.append(
                "prefill through the P/D path was not compared with prefill asked directly: a "
                "longer --budget-s has time for it"
            )
        notes.append(
            SHARED_NOTE
            if self.deployment.site.gpus
            else "measured on a processor: nothing here was measured on a GPU"
        )
        return tuple(notes)

    def _target(self) -> Target:
        deployment, launched = self.deployment, self.launched
        worker = launched.answering

        async def counters() -> EngineCounters:
            reading = await asyncio.to_thread(deployment.reading, worker)
            return reading.counters

        return Target(
            url=deployment.router.url if launched.handed_over else worker.url,
            model=deployment.site.model.name,
            words=self._words(),
            block_tokens=self._kv_block_tokens,
            counters=counters if launched.handed_over else None,
            identity=EngineIdentity(worker.url),
        )

    @property
    def _kv_block_tokens(self) -> int:
        if self._reading is None:
            self._reading = self.deployment.reading(self.launched.answering)
        return self._reading.kv_block_tokens

    def _words(self) -> tuple[str, ...] | None:
        directory = self.deployment.site.model.directory
        return read_words(directory) if (directory / "words.json").is_file() else None

    def _kept_back_s(self, budget_s: float, ttft_s: float, gap_s: float) -> float:
        """What the prefix cache, the direct comparison, drain and flip take, seconds."""
        token_s = ttft_s / SENTINEL_PROMPT
        hit_s = 1.5 * HIT_PROMPT_BLOCKS * self._kv_block_tokens * token_s
        if not self.launched.handed_over:
            return hit_s
        self._direct_s = 2 * DIRECT_SAMPLES * (DIRECT_BURST + 1) * DIRECT_PROMPT_TOKENS * token_s
        if self._direct_s > DIRECT_RATIO * budget_s:
            self._direct_s = None
        return hit_s + (self._direct_s or 0.0) + DRAINED_ANSWER_TOKENS * gap_s + FLIP_ROOM_S

    async def _beside(self, probe: Probe, budget: Budget) -> None:
        """The prefix cache, and prefill asked directly instead of through the P/D path."""
        worker, writer = self.launched.computing, probe.writer
        client = LoadClient(url=worker.url, model=self.deployment.site.model.name)
        try:
            self._seen_hit = await self._hit_ratio(client, writer, worker)
            # `left_s` of the budget is without what was kept back for this.
            if self._direct_s is not None and budget.left_s > -0.5 * self._direct_s:
                direct = [await _burst_slope_s(client, writer, n) for n in range(DIRECT_SAMPLES)]
                through = probe.sender.client
                path = [
                    await _burst_slope_s(through, writer, n)
                    for n in range(DIRECT_SAMPLES, 2 * DIRECT_SAMPLES)
                ]
                self._direct = sum(path) / sum(direct)
        finally:
            await client.close()

    async def _hit_ratio(
        self, client: LoadClient, writer: PromptWriter, worker: Worker
    ) -> float | None:
        """Send a prompt twice; the share of the second that was found, whole blocks counting."""
        block = self._kv_block_tokens
        tokens = HIT_PROMPT_BLOCKS * block + 1
        prompt = Completion(prompt=writer.unique(tokens, number=-1), output_tokens=1)
        first = await client.send(prompt)
        before = await asyncio.to_thread(self.deployment.reading, worker)
        second = await client.send(prompt)
        after = await asyncio.to_thread(self.deployment.reading, worker)
        if first.error or second.error:
            return None
        found = after.counters - before.counters
        return found.prompt_tokens_cached / (HIT_PROMPT_BLOCKS * block)

    async def _drain_and_flip(self) -> tuple[float, float]:
        """Drain the decode worker under an answer, and put it back; (drain, flip), seconds.

        The drain counts from the last token of the answer that it had to wait for.
        """
        deployment, worker = self.deployment, self.launched.answering
        client = LoadClient(url=deployment.router.url, model=deployment.site.model.name)
        words = self._words()
        prompt = (
            PromptWriter(words=words, seed=time.time_ns() % 2**31).unique(64, number=1)
            if (words)
            else "Count to one hundred, one number after the other."
        )
        try:
            answer = asyncio.create_task(
                client.send(Completion(prompt=prompt, output_tokens=DRAINED_ANSWER_TOKENS))
            )
            await asyncio.sleep(0.5)
            await asyncio.to_thread(deployment.drain, worker)
            drained_s = time.perf_counter()
            timing = await answer
            drain_s = max(drained_s - timing.token_at_s[-1], 0.0) if timing.token_at_s else 0.0
            await asyncio.to_thread(deployment.route, worker)
        finally:
            await client.close()
        flip_s = await asyncio.to_thread(deployment.flip, worker, worker.shape)
        return drain_s, flip_s

    def _start_again(self) -> StartUp:
        """Replace the answering worker by one like it; how its start went."""
        deployment, old = self.deployment, self.launched.answering
        if self.launched.handed_over:
            deployment.drain(old)
        deployment.stop(old)
        worker = deployment.start(old.shape)
        total_s = deployment.await_ready(worker)
        if self.launched.handed_over:
            deployment.route(worker)
        self.launched = replace(self.launched, answering=worker)
        return start_up_of(_log_of(worker), total_s)

    def _check_lengths(self, plan: Plan) -> None:
        allowed = self.deployment.site.flags.max_model_len
        if plan.area.longest_tokens > allowed:
            raise EngineError(
                f"requests of {plan.area.longest_tokens} tokens are to be measured, but the engine "
                f"takes {allowed}: raise max_model_len or measure shorter prompts"
            )

    @property
    def _gpus(self) -> tuple[int, ...]:
        """Those of one replica; none on a processor."""
        return self.deployment.site.gpus[: self.launched.answering.shape.accelerators]

    def _machine(self) -> MachineFacts:
        return gpu_facts(self._gpus) if self._gpus else cpu_facts()

    @property
    def _replicas(self) -> dict[str, tuple[int, ...]]:
        """GPUs of each worker by what it does, in the order in which they were started."""
        launched, gpus = self.launched, self.deployment.site.gpus
        workers = [w for w in (launched.prefill, launched.answering) if w is not None]
        count = launched.answering.shape.accelerators
        return {str(w.shape.role): gpus[i * count : (i + 1) * count] for i, w in enumerate(workers)}

    @contextmanager
    def _gauge(self) -> Iterator[None]:
        """Read power and memory of every replica's GPUs while it is loaded."""
        if not self._gpus:
            yield
            return
        with ExitStack() as gauges:
            reading = {
                role: gauges.enter_context(PowerGauge(g)) for role, g in self._replicas.items()
            }
            yield
            used = {role: gpu_facts(g).memory_bytes for role, g in self._replicas.items()}
        power = {role: gauge.busy_w for role, gauge in reading.items()}
        self._power_w = max((w for w in power.values() if w is not None), default=None)
        self._memory_bytes = max((b for b in used.values() if b is not None), default=None)
        self._by_role = tuple(
            (f"{what} of the {role} worker, {unit}", f"{value:.0f}")
            for what, unit, of in (("power", "W", power), ("memory", "bytes", used))
            for role, value in of.items()
            if value is not None
        )

    def _resident_bytes(self, worker: Worker) -> float | None:
        """Resident memory of a worker's processes, shared pages counted in each."""
        supervisor, _group = self.deployment.launcher.process_of(worker)
        try:
            below = psutil.Process(supervisor).children(recursive=True)
            return float(sum(p.memory_info().rss for p in below))
        except psutil.Error:
            return None

    def _flags(self) -> str:
        flags = self.deployment.site.flags
        return (
            f"max_model_len {flags.max_model_len}, max_num_seqs {flags.max_num_seqs}, "
            f"max_num_batched_tokens {flags.max_num_batched_tokens}, "
            f"{'eager' if flags.enforce_eager else 'compiled'}"
            + (f", {' '.join(flags.extra)}" if flags.extra else "")
        )


def _only_text(plan: Plan, text: str) -> Progress:
    return Progress(
        spent_s=plan.budget_s, left_s=0.0, points=0, samples=0, doubt_ratio=None, next_text=text
    )


async def _burst_slope_s(client: LoadClient, writer: PromptWriter, number: int) -> float:
    """What each further prompt adds to a burst, seconds."""
    prompts = [
        writer.unique(DIRECT_PROMPT_TOKENS, number=-1000 - number * DIRECT_BURST - i)
        for i in range(DIRECT_BURST + 1)
    ]
    alone = await client.send(Completion(prompt=prompts[-1], output_tokens=1))
    answers = await asyncio.gather(
        *(client.send(Completion(prompt=p, output_tokens=1)) for p in prompts[:-1])
    )
    if failed := next((a for a in (alone, *answers) if a.error), None):
        raise EngineError(f"{client.url} failed a measuring request: {failed.error}")
    burst_s = max(a.token_at_s[-1] for a in answers) - min(a.sent_at_s for a in answers)
    return max((burst_s - alone.ttft_s) / (DIRECT_BURST - 1), 1e-6)


def _log_of(worker: Worker) -> str:
    try:
        return worker.log_path.read_text(errors="replace")
    except OSError:
        return ""


def engine_limits(
    deployment: LocalDeployment,
    worker: Worker,
    *,
    kv_bytes_per_token: float,
    async_scheduling: bool | None = None,
) -> EngineLimits:
    """What a running worker admits at once.

    Parameters
    ----------
    kv_bytes_per_token : float
        In the format that the engine keeps.
    async_scheduling : bool or None
        None: as vLLM does unless told.

    Raises
    ------
    EngineError
        When the worker does not answer.
    """
    site, reading = deployment.site, deployment.reading(worker)
    shape = worker.shape
    return EngineLimits(
        kv_capacity_tokens=reading.kv_capacity_tokens,
        kv_bytes_per_token=kv_bytes_per_token,
        max_num_seqs=shape.max_num_seqs or site.flags.max_num_seqs,
        max_num_batched_tokens=shape.max_num_batched_tokens or site.flags.max_num_batched_tokens,
        max_model_len=site.flags.max_model_len,
        kv_block_tokens=reading.kv_block_tokens,
        # On unless told otherwise, and never on CPUs.
        async_scheduling=bool(site.gpus) and async_scheduling is not False,
        late_kv_notice=True,
    )


def describe_machine(deployment: LocalDeployment) -> str:
    """Name the device and the share of it that a worker gets."""
    gpus = deployment.site.gpus
    if gpus:
        return gpu_facts(gpus).name
    name = cpu_facts().name
    share = deployment.site.cores_per_replica
    if share is None or not deployment.launcher.quota_is_enforced:
        return f"{name}, cores shared without a limit"
    return f"{name}, {share:g} cores a worker (kernel quota)"
