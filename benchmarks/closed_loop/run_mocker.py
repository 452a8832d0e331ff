"""Executed by the interpreter below `.dynamo/`: replay a trace that a policy elsewhere steers.

Reads a job from the JSON file that it is given: `trace`, `options` for `run_mocker_trace_replay`,
`ask` and `answer`, two file descriptors: at every tick a line of JSON with the simulator's snapshot
goes to the first, and a line with targets and the next tick is read from the second. Writes
`summary.json`, `operations.json` and `records.npz` beside the job. Knows nothing of ours.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
from dynamo._core import run_mocker_trace_replay

COLUMNS = ("arrival_time_ms", "ttft_ms", "e2e_latency_ms", "input_length", "output_length")


class Piped:
    """A scaling policy that lives in another process."""

    def __init__(self, first_tick_ms: float, ask: int, answer: int) -> None:
        self._first_tick_ms = first_tick_ms
        self._ask = os.fdopen(ask, "w")
        self._answer = os.fdopen(answer)

    def initial_tick_ms(self) -> float:
        return self._first_tick_ms

    def on_tick(self, snapshot: dict[str, object]) -> dict[str, object]:
        self._ask.write(json.dumps(snapshot) + "\n")
        self._ask.flush()
        line = self._answer.readline()
        if not line:
            raise RuntimeError("the policy has gone")
        answer: dict[str, object] = json.loads(line)
        return answer


def written(result: Any, out: Path) -> None:  # noqa: ANN401  their type, unknown here
    """Write what the other side reads."""
    summary = {k: v for k, v in result.summary.items() if isinstance(v, int | float | str)}
    (out / "summary.json").write_text(json.dumps(summary))
    (out / "operations.json").write_text(json.dumps(result.lifecycle_operations))
    rows = {
        name: np.array([np.nan if r[name] is None else r[name] for r in result.per_request])
        for name in COLUMNS
    }
    np.savez(out / "records.npz", **rows)


def main(job_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    policy = Piped(job["first_tick_ms"], job["ask"], job["answer"])
    result = run_mocker_trace_replay(
        [job["trace"]], capture_per_request=True, scaling_policy=policy, **job["options"]
    )
    written(result, Path(job_file).parent)


if __name__ == "__main__":
    main(sys.argv[1])
