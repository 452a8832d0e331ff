"""Replays a trace with Dynamo's mocker; executed by the interpreter in `.dynamo/`.

    .dynamo/bin/python benchmarks/dynamo/run_theirs.py job.json

The job names the trace (Mooncake JSONL), `options` for `run_mocker_trace_replay`, and where to
write: `summary.json` (their own report, and the share of one processor that they had during the
call) and, if `records` is set,
`records.npz` with one row per request: arrival_s, ttft_s, tpot_s, e2e_s, input_tokens,
output_tokens, cached_tokens, prefill, decode. Knows nothing of ours but this file.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dynamo._core import run_mocker_trace_replay

SECONDS = {
    "arrival_s": "arrival_time_ms",
    "ttft_s": "ttft_ms",
    "tpot_s": "itl_ms",
    "e2e_s": "e2e_latency_ms",
}
COUNTS = {
    "input_tokens": "input_length",
    "output_tokens": "output_length",
    "cached_tokens": "reused_input_tokens",
    "prefill": "prefill_worker_idx",
    "decode": "decode_worker_idx",
}


def column(records: list[dict[str, float | None]], name: str) -> NDArray[np.float64]:
    """One field of all records; NaN where they have none."""
    values = (r.get(name) for r in records)
    return np.array([np.nan if value is None else value for value in values])


def columns(records: list[dict[str, float | None]]) -> dict[str, NDArray[np.float64]]:
    """Their records as columns, in order of arrival."""
    found = {ours: column(records, name) / 1e3 for ours, name in SECONDS.items()}
    found |= {ours: column(records, name) for ours, name in COUNTS.items()}
    order = np.lexsort((found["output_tokens"], found["input_tokens"], found["arrival_s"]))
    return {name: values[order] for name, values in found.items()}


def main(job_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    out = Path(job["out"])
    started, worked = time.perf_counter(), time.process_time()
    result = run_mocker_trace_replay(
        [job["trace"]], capture_per_request=job["records"], **job["options"]
    )
    share = (time.process_time() - worked) / (time.perf_counter() - started)
    summary = {k: v for k, v in result.summary.items() if isinstance(v, int | float | str)}
    (out / "summary.json").write_text(json.dumps({"processor_share": share, **summary}))
    if job["records"]:
        np.savez(out / "records.npz", **columns(result.per_request))


if __name__ == "__main__":
    main(sys.argv[1])
