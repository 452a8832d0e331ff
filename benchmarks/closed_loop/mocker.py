"""A policy in NVIDIA's simulator: Dynamo's mocker, in the interpreter below `.dynamo/`."""

import json
import math
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.closed_loop.settings import MOST_REPLICAS, Setting
from benchmarks.dynamo.theirs import TRACE_BLOCK_TOKENS, interpreter
from benchmarks.dynamo.timing import write_npz
from benchmarks.dynamo.traces import write_mooncake
from planner.autoscale.backtest import ROLES, Run
from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.workload import Workload
from planner.simulate.policy import GroupView, Observation, Policy, Targets

FOLDER = Path(__file__).parent
Integers = NDArray[np.int64]
Snapshot = Mapping[str, object]


def engine_options(setting: Setting, role: Role, tables: Path) -> dict[str, object]:
    """One role's engine as the mocker wants it; no prefix is cached."""
    engine = setting.engine
    return {
        "startup_time": setting.start_s,
        "engine": {
            "backend": "vllm",
            "worker_type": role.value,
            "block_size": engine.kv_block_tokens,
            "num_gpu_blocks": engine.kv_capacity_tokens // engine.kv_block_tokens,
            "max_num_seqs": engine.slots(role),
            "max_num_batched_tokens": engine.max_num_batched_tokens,
            "enable_prefix_caching": False,
            "kv_transfer_bandwidth": engine.transfer_bytes_per_s / 1e9,
            "kv_transfer_bytes_per_token": engine.kv_bytes_per_token,
            "kv_transfer_timing_mode": "full_prompt",
            "timing_model": {
                "type": "external",
                "provider": "dynamo_profile",
                "config": {"path": str(tables)},
            },
        },
    }


def replay_options(setting: Setting, tables: Path, first: Sequence[int]) -> dict[str, object]:
    """What `run_mocker_trace_replay` is called with, beside trace and policy."""
    return {
        "trace_block_size": TRACE_BLOCK_TOKENS,
        "router_mode": "round_robin",
        "prefill_engine_args": engine_options(setting, Role.PREFILL, tables),
        "decode_engine_args": engine_options(setting, Role.DECODE, tables),
        "num_prefill_workers": first[0],
        "num_decode_workers": first[1],
    }


@dataclass(slots=True)
class Frontend:
    """Makes of the simulator's snapshots what an observer sees of a running deployment.

    Prompts are counted as they arrive. The snapshot tells how many requests ended and their mean
    times, not which ones: those are taken whose answers, at these times, end first.
    """

    workload: Workload
    setting: Setting
    _arrived: int = 0
    _since_s: float = 0.0
    _open: list[int] = field(default_factory=list)

    def observe(self, snapshot: Snapshot) -> Observation:
        """What there is to see at this tick."""
        now_s = _number(snapshot, "now_ms") / 1e3
        until = int(np.searchsorted(self.workload.arrival_offset_s, now_s, side="right"))
        came = np.arange(self._arrived, until)
        self._open.extend(came.tolist())
        traffic = snapshot["traffic"]
        ended, ttft_s, tpot_s = self._ended(traffic if isinstance(traffic, dict) else {})
        seen = Observation(
            t_s=now_s,
            since_s=self._since_s,
            groups=tuple(self._group(snapshot, role) for role in ROLES),
            arrived_input_tokens=self.workload.input_tokens[came],
            finished_input_tokens=self.workload.input_tokens[ended],
            finished_output_tokens=self.workload.output_tokens[ended],
            finished_ttft_s=np.full(len(ended), ttft_s),
            finished_tpot_s=np.full(len(ended), tpot_s),
        )
        self._arrived, self._since_s = until, now_s
        return seen

    def _ended(self, traffic: Mapping[str, float]) -> tuple[Integers, float, float]:
        count = round(traffic.get("shape_count", 0.0))
        ttft_s = traffic.get("avg_ttft_ms", 0.0) / 1e3
        tpot_s = traffic.get("avg_itl_ms", 0.0) / 1e3
        if count == 0:
            return np.zeros(0, dtype=np.int64), ttft_s, tpot_s
        rows = np.array(self._open, dtype=np.int64)
        ends_s = self.workload.arrival_offset_s[rows] + tpot_s * self.workload.output_tokens[rows]
        order = np.argsort(ends_s, kind="stable")
        ended = np.sort(rows[order[:count]])
        self._open = np.sort(rows[order[count:]]).tolist()
        return ended, ttft_s, tpot_s

    def _group(self, snapshot: Snapshot, role: Role) -> GroupView:
        active = int(_number(snapshot, f"active_{role}_count"))
        passes = snapshot[f"{role}_fpm_snapshots"]
        last: dict[object, dict[str, float]] = {}
        for one in passes if isinstance(passes, list) else []:
            last[one["worker_id"]] = one

        def total(name: str) -> float:
            return sum(one[name] for one in last.values())

        held = total("sum_decode_kv_tokens") / self.setting.engine.kv_capacity_tokens
        waiting = total("num_queued_prefill") + total("num_queued_decode")
        running = total("num_prefill_requests") + total("num_decode_requests")
        return GroupView(
            ready=active,
            starting=int(_number(snapshot, f"starting_{role}_count")),
            draining=int(_number(snapshot, f"draining_{role}_count")),
            waiting_requests=int(waiting),
            running_requests=int(running),
            queued_prompt_tokens=int(total("sum_queued_prefill_tokens")),
            kv_usage_ratio=held / max(active, 1),
        )


def _number(snapshot: Snapshot, name: str) -> float:
    value = snapshot[name]
    if not isinstance(value, int | float):
        raise InputError(f"Dynamo's snapshot has no number `{name}`, but {value!r}")
    return float(value)


def answer_of(targets: Targets) -> dict[str, float | int | None]:
    """Targets as the mocker takes them."""
    counts: Sequence[int | None] = targets.replicas or (None, None)
    next_ms = None if math.isinf(targets.next_tick_s) else targets.next_tick_s * 1e3
    return {
        "target_prefill": None if counts[0] is None else min(counts[0], MOST_REPLICAS),
        "target_decode": None if counts[1] is None else min(counts[1], MOST_REPLICAS),
        "next_tick_ms": next_ms,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamoPlanner:
    """Dynamo's own planner, by its own code.

    Parameters
    ----------
    options : tuple of (str, value)
        For its `PlannerConfig`, beside what the setting says.
    """

    options: tuple[tuple[str, str | int | float | bool], ...]

    def config(self, setting: Setting) -> dict[str, object]:
        """All of its configuration; everything that it would serve or write is off."""
        return {
            "mode": "disagg",
            "backend": "mocker",
            "environment": "virtual",
            "advisory": True,
            "ttft_ms": 1e3 * setting.ttft_s,
            "itl_ms": 1e3 * setting.tpot_s,
            "prefill_engine_num_gpu": setting.tp,
            "decode_engine_num_gpu": setting.tp,
            "max_gpu_budget": 2 * MOST_REPLICAS * setting.tp,
            "report_interval_hours": None,
            "live_dashboard_port": 0,
            "control_api_port": 0,
        } | dict(self.options)


def replay(
    setting: Setting,
    workload: Workload,
    policy: Policy | DynamoPlanner,
    *,
    first: Sequence[int],
) -> Run:
    """Run the policy over the workload.

    Parameters
    ----------
    first : (prefill, decode) int
        Replicas that serve from the start.

    Raises
    ------
    InputError
        When their simulator fails; its last words are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="poolwise-closed-loop-") as folder:
        out = Path(folder)
        write_npz(setting.timing, out / "timing.npz")
        write_mooncake(workload, out / "trace.jsonl", block_tokens=TRACE_BLOCK_TOKENS)
        job: dict[str, object] = {
            "trace": str(out / "trace.jsonl"),
            "options": replay_options(setting, out / "timing.npz", first),
        }
        if isinstance(policy, DynamoPlanner):
            _plan(setting, policy, job, out)
            return _run_of(out, workload, first)
        decided = _steer(setting, workload, policy, job, out)
        return _run_of(out, workload, first, decided)


def _plan(setting: Setting, planner: DynamoPlanner, job: dict[str, object], out: Path) -> None:
    """Let Dynamo's planner steer."""
    engine = setting.engine
    job |= {
        "planner": planner.config(setting),
        "engine": {
            "num_gpu": setting.tp,
            "max_num_batched_tokens": engine.max_num_batched_tokens,
            "max_num_seqs": engine.max_num_seqs,
            "context_length": setting.model.max_context_tokens,
            "max_kv_tokens": engine.kv_capacity_tokens,
        },
        "measured": _measured(setting),
    }
    (out / "job.json").write_text(json.dumps(job))
    with (out / "said").open("w") as said:
        done = subprocess.run(
            [interpreter(), FOLDER / "run_planner.py", out / "job.json"],
            stdout=said,
            stderr=subprocess.STDOUT,
            check=False,
        )
    _check_ended(done.returncode, "Dynamo's planner", out)


def _measured(setting: Setting) -> dict[str, list[tuple[float, ...]]]:
    """The passes that Dynamo's replay has its estimator make, by this setting's times."""
    timing, engine = setting.timing, setting.engine
    most = engine.max_num_batched_tokens
    prefill = [
        (tokens, timing.prefill_base_s + timing.prefill_token_s * tokens)
        for tokens in range(100, most + 1, (most - 100) // 8)
    ]
    decode = [
        (
            batch,
            batch * context,
            timing.decode_base_s
            + batch * (timing.decode_sequence_s + timing.decode_context_token_s * context),
        )
        for context in (500, 2000, 4000, 8000)
        for batch in range(1, engine.max_num_seqs + 1, engine.max_num_seqs // 8)
        if batch * context <= engine.kv_capacity_tokens
    ]
    return {"prefill": list(prefill), "decode": list(decode)}


def _steer(
    setting: Setting, workload: Workload, policy: Policy, job: dict[str, object], out: Path
) -> list[float]:
    """Start their interpreter and answer its ticks; processor seconds of each decision."""
    asked, ask = os.pipe()
    answer, answered = os.pipe()
    job |= {"first_tick_ms": policy.first_tick_s * 1e3, "ask": ask, "answer": answer}
    (out / "job.json").write_text(json.dumps(job))
    frontend, decided = Frontend(workload=workload, setting=setting), []
    with (out / "said").open("w") as said:
        child = subprocess.Popen(
            [interpreter(), FOLDER / "run_mocker.py", out / "job.json"],
            pass_fds=(ask, answer),
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        os.close(ask)
        os.close(answer)
        try:
            with os.fdopen(asked) as questions, os.fdopen(answered, "w") as answers:
                for line in questions:
                    seen = frontend.observe(json.loads(line))
                    began = time.process_time()
                    targets = policy.on_tick(seen)
                    decided.append(time.process_time() - began)
                    answers.write(json.dumps(answer_of(targets)) + "\n")
                    answers.flush()
        except BaseException:
            child.kill()
            raise
        finally:
            status = child.wait()
    _check_ended(status, "Dynamo's replay", out)
    return decided


def _check_ended(status: int, what: str, out: Path) -> None:
    if status != 0:
        raise InputError(f"{what} failed: {(out / 'said').read_text()[-800:]}")


def _run_of(
    out: Path, workload: Workload, first: Sequence[int], decided: Sequence[float] = ()
) -> Run:
    rows = dict(np.load(out / "records.npz"))
    order = np.lexsort((rows["output_length"], rows["input_length"], rows["arrival_time_ms"]))
    own = np.lexsort((workload.output_tokens, workload.input_tokens, workload.arrival_offset_s))
    if len(order) != len(own):
        raise InputError(f"Dynamo's replay answers for {len(order)} of {len(own)} requests")
    ttft_s, e2e_s = np.full(len(own), np.nan), np.full(len(own), np.nan)
    ttft_s[own], e2e_s[own] = rows["ttft_ms"][order] / 1e3, rows["e2e_latency_ms"][order] / 1e3
    gaps = np.where(workload.output_tokens > 1, workload.output_tokens - 1.0, np.nan)
    summary = json.loads((out / "summary.json").read_text())
    return Run(
        ttft_s=ttft_s,
        tpot_s=(e2e_s - ttft_s) / gaps,
        paid=_paid(json.loads((out / "operations.json").read_text()), first),
        end_s=summary["duration_ms"] / 1e3,
        decided_s=tuple(decided),
    )


def _paid(
    operations: Sequence[Mapping[str, object]], first: Sequence[int]
) -> tuple[tuple[float, int, int], ...]:
    """How many replicas were there from when on, in whatever state."""
    counts = dict(zip(ROLES, first, strict=True))
    found = [(0.0, first[0], first[1])]
    for one in operations:
        state, at_ms = one["state_after_batch"], one["at_ms"]
        if not isinstance(state, dict) or not isinstance(at_ms, int | float):
            raise InputError(f"Dynamo's operation is not understood: {one}")
        counts[Role(str(one["pool"]))] = sum(len(state[name]) for name in state)
        found.append((at_ms / 1e3, counts[Role.PREFILL], counts[Role.DECODE]))
    return tuple(found)
