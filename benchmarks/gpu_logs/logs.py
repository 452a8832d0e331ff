"""What the logs hold: an engine's configuration, its requests, and what each one saw.

`meta.json` has vLLM's arguments, `requests.jsonl` one request a line: lengths, `arrival_time`
(wall clock of the front end) and instants of the engine's own clock, all in seconds. The two
clocks are laid together where a request of the first third was queued soonest after its arrival.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from planner.domain.errors import InputError
from planner.domain.profile import EngineLimits
from planner.domain.workload import Workload

Floats = NDArray[np.float64]

FOLDER = Path("profiles/llmservingsim/bench-real-vllm/RTXPRO6000")
FITTED_SHARE = 1 / 3
GPU_BYTES = 96e9
GPU_MEMORY_RATIO = 0.9  # both from the logs' config.json; vLLM's own default is the same
KV_BLOCK_TOKENS = 16
ASYNC_SINCE = (0, 14)
"""The version of vLLM since which steps are composed ahead unless the arguments say otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a model's published configuration says, in bfloat16.

    Parameters
    ----------
    weight_bytes : float
    kv_bytes_per_token : float
        2 x layers x KV heads x head size x 2 bytes.
    max_model_len : int
    expert_share : float
        Experts that one token uses over all experts; 0 for a dense model.
    """

    weight_bytes: float
    kv_bytes_per_token: float
    max_model_len: int
    expert_share: float = 0.0


FACTS = {
    "meta-llama/Llama-3.1-8B": ModelFacts(
        weight_bytes=16.1e9, kv_bytes_per_token=131_072, max_model_len=131_072
    ),
    "Qwen/Qwen3-32B": ModelFacts(
        weight_bytes=65.5e9, kv_bytes_per_token=262_144, max_model_len=40_960
    ),
    "Qwen/Qwen3-30B-A3B-Instruct-2507": ModelFacts(
        weight_bytes=61.1e9,
        kv_bytes_per_token=98_304,
        max_model_len=262_144,
        expert_share=8 / 128,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Equal engines side by side (vLLM's data parallelism); limits are one engine's."""

    model: str
    accelerator: str
    engine: str
    tp: int
    engines: int
    expert_share: float
    limits: EngineLimits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What requests saw, in order of arrival.

    Parameters
    ----------
    ttft_s : (requests,) float
        First token less arrival.
    tpot_s : (requests,) float
        Mean gap between the request's tokens; the logs have no instants in between.
    end_s : (requests,) float
        Last token, from the first arrival on.
    """

    ttft_s: Floats
    tpot_s: Floats
    end_s: Floats

    def of(self, which: slice) -> "Seen":
        """Some of the requests."""
        return Seen(ttft_s=self.ttft_s[which], tpot_s=self.tpot_s[which], end_s=self.end_s[which])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineLog:
    """One recorded run."""

    deployment: Deployment
    workload: Workload
    seen: Seen

    @property
    def fitted(self) -> int:
        """Requests whose times the fit may see: the first third."""
        return fitted_requests(len(self.workload))


def fitted_requests(requests: int) -> int:
    """The first third of so many requests."""
    return int(requests * FITTED_SHARE)


def read_log(folder: Path) -> EngineLog:
    """Read one model's run.

    Raises
    ------
    InputError
        When the model's facts are not known here, or arrivals are not in order.
    """
    meta = json.loads((folder / "meta.json").read_text())
    rows = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    columns = {k: np.array([row[k] for row in rows]) for k in rows[0] if k != "request_id"}
    if np.any(np.diff(columns["arrival_time"]) < 0):
        raise InputError(f"{folder}: the requests are not in order of arrival")
    arrival_s = _engine_clock(columns)
    return EngineLog(
        deployment=_deployment(meta, folder.parent.name),
        workload=_workload(columns, arrival_s, datetime.fromisoformat(meta["started_at"])),
        seen=Seen(
            ttft_s=columns["first_token_ts"] - arrival_s,
            tpot_s=(columns["last_token_ts"] - columns["first_token_ts"])
            / (columns["output_toks"] - 1),
            end_s=columns["last_token_ts"] - arrival_s[0],
        ),
    )


def _engine_clock(columns: dict[str, Floats]) -> Floats:
    """(requests,) arrivals by the engine's clock."""
    late_s = columns["queued_ts"] - columns["arrival_time"]
    arrival_s: Floats = columns["arrival_time"] + late_s[: fitted_requests(len(late_s))].min()
    return arrival_s


def _deployment(meta: dict[str, Any], accelerator: str) -> Deployment:
    arguments, model = meta["engine_kwargs"], str(meta["model"])
    if model not in FACTS:
        raise InputError(f"no facts about {model}: add them to benchmarks/gpu_logs/logs.py")
    facts, tp = FACTS[model], int(arguments["tensor_parallel_size"])
    engines = int(arguments["data_parallel_size"])
    spread = engines if arguments["enable_expert_parallel"] else 1  # engines share the experts
    free_bytes = tp * GPU_BYTES * GPU_MEMORY_RATIO - facts.weight_bytes / spread
    return Deployment(
        model=model,
        accelerator=accelerator,
        engine=f"vLLM {meta['vllm_version']}",
        tp=tp,
        engines=engines,
        expert_share=facts.expert_share,
        limits=EngineLimits(
            kv_capacity_tokens=int(free_bytes / facts.kv_bytes_per_token),
            kv_bytes_per_token=facts.kv_bytes_per_token,
            max_num_seqs=int(arguments["max_num_seqs"]),
            max_num_batched_tokens=int(arguments["max_num_batched_tokens"]),
            max_model_len=int(arguments["max_model_len"] or facts.max_model_len),
            kv_block_tokens=KV_BLOCK_TOKENS,
            async_scheduling=_composes_ahead(meta["vllm_version"], arguments),
        ),
    )


def _composes_ahead(version: str, arguments: dict[str, Any]) -> bool:
    """Whether the engine scheduled asynchronously: as told, else by its version's default."""
    told = arguments.get("async_scheduling")
    if told is not None:
        return bool(told)
    major, minor = version.split(".")[:2]
    return (int(major), int(minor)) >= ASYNC_SINCE


def _workload(columns: dict[str, Floats], arrival_s: Floats, start_at: datetime) -> Workload:
    count = len(arrival_s)
    return Workload(
        start_at=start_at.astimezone(UTC),
        arrival_offset_s=arrival_s - arrival_s[0],
        input_tokens=columns["input_toks"].astype(np.int64),
        output_tokens=columns["output_toks"].astype(np.int64),
        cached_tokens=np.zeros(count, dtype=np.int64),  # the logs do not say which are shared
        request_class=np.full(count, "default"),
        duration_s=float(arrival_s[-1] - arrival_s[0]),
    )
