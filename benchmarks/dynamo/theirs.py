"""A case in Dynamo's mocker, in the interpreter below `.dynamo/`."""

import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.dynamo.cases import Case, Router
from benchmarks.dynamo.outcome import Outcome
from benchmarks.dynamo.timing import write_npz
from planner.domain.errors import InputError
from planner.domain.fleet import Role

FOLDER = Path(__file__).parent
ROUTER_MODES = {Router.ROUND_ROBIN: "round_robin", Router.PREFIX_AWARE: "kv_router"}
TRACE_BLOCK_TOKENS = 512


def interpreter() -> Path:
    """The interpreter that has Dynamo, by POOLWISE_DYNAMO_PYTHON or below `.dynamo/`.

    Raises
    ------
    InputError
        When there is none.
    """
    default = FOLDER.parent.parent / ".dynamo" / "bin" / "python"
    found = Path(os.environ.get("POOLWISE_DYNAMO_PYTHON", default))
    if not found.exists():
        raise InputError(
            f"Dynamo is not installed: {found} does not exist; run `make bench-dynamo`"
        )
    return found


def run(case: Case, trace: Path, *, records: bool) -> Outcome:
    """Replay the trace; without `records` only their own summary, which is faster for them.

    Raises
    ------
    InputError
        When their simulator fails; its last words are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="poolwise-dynamo-") as folder:
        out = Path(folder)
        write_npz(case.timing, out / "timing.npz")
        job = {
            "trace": str(trace),
            "out": folder,
            "records": records,
            "options": _options(case, out / "timing.npz"),
        }
        (out / "job.json").write_text(json.dumps(job))
        done = subprocess.run(
            [interpreter(), FOLDER / "run_theirs.py", out / "job.json"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise InputError(f"Dynamo's replay of {case.name} failed: {done.stderr[-800:]}")
        summary = json.loads((out / "summary.json").read_text())
        rows = dict(np.load(out / "records.npz")) if records else {}
    return Outcome(
        ttft_s=rows.get("ttft_s", np.zeros(0)),
        tpot_s=rows.get("tpot_s", np.zeros(0)),
        e2e_s=rows.get("e2e_s", np.zeros(0)),
        cached_tokens=rows.get("cached_tokens", np.zeros(0)),
        itl_p50_s=summary["median_itl_ms"] / 1e3,
        itl_p95_s=summary["p95_itl_ms"] / 1e3,
        simulated_s=summary["wall_time_ms"] / 1e3 * summary["processor_share"],
    )


def _options(case: Case, tables: Path) -> dict[str, object]:
    options: dict[str, object] = {
        "trace_block_size": TRACE_BLOCK_TOKENS,
        "router_mode": ROUTER_MODES[case.router],
    }
    if case.aggregated:
        engine = _engine(case, Role.AGGREGATED, tables)
        return options | {"extra_engine_args": engine, "num_workers": case.aggregated}
    return options | {
        "prefill_engine_args": _engine(case, Role.PREFILL, tables),
        "decode_engine_args": _engine(case, Role.DECODE, tables),
        "num_prefill_workers": case.prefill,
        "num_decode_workers": case.decode,
    }


def _engine(case: Case, role: Role, tables: Path) -> dict[str, object]:
    engine = case.engine
    return {
        "engine": {
            "backend": "vllm",
            "worker_type": role.value,
            "block_size": engine.kv_block_tokens,
            "num_gpu_blocks": engine.kv_capacity_tokens // engine.kv_block_tokens,
            "max_num_seqs": engine.slots(role),
            "max_num_batched_tokens": engine.max_num_batched_tokens,
            "enable_prefix_caching": case.prefix_cache,
            "kv_transfer_bandwidth": engine.transfer_bytes_per_s / 1e9,
            "kv_transfer_bytes_per_token": engine.kv_bytes_per_token,
            # With prefixes only what the decode worker lacks, rounded up to whole blocks.
            "kv_transfer_timing_mode": (
                "destination_missing" if case.prefix_cache else "full_prompt"
            ),
            "timing_model": {
                "type": "external",
                "provider": "dynamo_profile",
                "config": {"path": str(tables)},
            },
        }
    }
