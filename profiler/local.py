"""Profile the engine of a deployment on this machine: one prefill and one decode worker."""

import asyncio
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from planner.domain.errors import EngineError
from planner.domain.profile import EngineLimits, LifecycleTimes, Profile
from profiler.fit import Setting, fit
from profiler.sweep import Measurements, Progress, SweepPlan, sweep
from serving.deployment import LocalDeployment
from serving.engine import cpu_number_format
from serving.launcher import Worker
from serving.load import LoadClient
from serving.prompts import PromptWriter, read_words
from serving.telemetry import EngineCounters


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledPair:
    """The two routed workers that are measured, and how long a start takes, seconds."""

    prefill: Worker
    decode: Worker
    start_s: float


def profile_deployment(
    deployment: LocalDeployment,
    pair: ProfiledPair,
    plan: SweepPlan,
    *,
    progress: Progress = lambda _done, _all, _next: None,
    log: Callable[[Measurements], None] = lambda _measured: None,
) -> Profile:
    """Sweep a running pair and fit its profile.

    Raises
    ------
    MeasurementError, EngineError, RouterError
    """
    _check_lengths(deployment, plan)
    measured = asyncio.run(_measure(deployment, pair, plan, progress))
    log(measured)
    flip_s = _time_flip(deployment, pair.decode)
    lifecycle = LifecycleTimes(
        start_cold_s=pair.start_s, start_warm_s=pair.start_s, flip_s=flip_s, drain_s=flip_s
    )
    setting = Setting(
        shape=pair.prefill.shape,
        limits=engine_limits(deployment, pair.decode),
        lifecycle=lifecycle,
        machine=describe_machine(deployment),
        engine=f"vLLM {engine_version(pair.decode.url)}",
        measured_at=datetime.now(UTC),
        source="poolwise quick sweep, through the P/D path",
    )
    return fit(measured, setting)


def engine_limits(deployment: LocalDeployment, worker: Worker) -> EngineLimits:
    """What a running worker admits at once.

    Raises
    ------
    EngineError
        When the worker does not answer.
    """
    site, reading = deployment.site, deployment.reading(worker)
    return EngineLimits(
        kv_capacity_tokens=reading.kv_capacity_tokens,
        kv_bytes_per_token=kv_bytes_per_token(
            site.model.directory, value_bytes=2 if site.gpus else _cpu_value_bytes()
        ),
        max_num_seqs=site.flags.max_num_seqs,
        max_num_batched_tokens=site.flags.max_num_batched_tokens,
        max_model_len=site.flags.max_model_len,
        kv_block_tokens=reading.kv_block_tokens,
        async_scheduling=bool(site.gpus),  # what vLLM does unless told; never on CPUs
        late_kv_notice=True,
    )


async def _measure(
    deployment: LocalDeployment, pair: ProfiledPair, plan: SweepPlan, progress: Progress
) -> Measurements:
    site = deployment.site
    seed = time.time_ns() % 2**31
    writer = PromptWriter(words=read_words(site.model.directory), seed=seed)
    client = LoadClient(url=deployment.router.url, model=site.model.name)

    async def decode_counters() -> EngineCounters:
        reading = await asyncio.to_thread(deployment.reading, pair.decode)
        return reading.counters

    try:
        return await sweep(client, writer, plan, decode_counters=decode_counters, progress=progress)
    finally:
        await client.close()


def _check_lengths(deployment: LocalDeployment, plan: SweepPlan) -> None:
    longest = max(plan.new_tokens) + max(plan.cached_tokens)
    allowed = deployment.site.flags.max_model_len - 1
    if longest > allowed:
        raise EngineError(
            f"the sweep wants prompts of {longest} tokens, but the engine takes {allowed}: "
            "raise max_model_len or measure shorter prompts"
        )


def _time_flip(deployment: LocalDeployment, worker: Worker) -> float:
    """Take an idle worker out of the router and put it back: what a flip costs when idle."""
    return deployment.flip(worker, worker.shape)


def _cpu_value_bytes() -> int:
    """Bytes of one number in the format that CPU workers compute in."""
    return 4 if cpu_number_format() == "float32" else 2


def kv_bytes_per_token(model_directory: Path, *, value_bytes: int = 2) -> float:
    """KV bytes of one token, from the model's `config.json`.

    2 (keys, values) x layers x kv_heads x head_size x bytes of a number (BF16: 2).
    """
    config = json.loads((model_directory / "config.json").read_text())
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    head_size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return float(2 * config["num_hidden_layers"] * heads * head_size * value_bytes)


def describe_machine(deployment: LocalDeployment) -> str:
    """Name the processor and the share of it that a worker gets."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    share = deployment.site.cores_per_replica
    if share is None or not deployment.launcher.quota_is_enforced:
        return f"{name}, cores shared without a limit"
    return f"{name}, {share:g} cores a worker (kernel quota)"


def engine_version(url: str) -> str:
    """The version that a worker tells.

    Raises
    ------
    EngineError
        When it does not.
    """
    try:
        answer = httpx.get(f"{url}/version", timeout=10.0)
        answer.raise_for_status()
        return str(answer.json()["version"])
    except (httpx.HTTPError, ValueError, KeyError) as error:
        raise EngineError(f"worker {url} does not tell its version: {error}") from error
