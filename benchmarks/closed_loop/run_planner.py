"""Executed by the interpreter below `.dynamo/`: replay a trace that Dynamo's own planner steers.

Reads a job from the JSON file that it is given: `trace`, `options` for `run_mocker_trace_replay`,
`planner` for `PlannerConfig`, `engine` (its limits) and `measured`: what its benchmark would have
measured, prefill passes (tokens, seconds) and decode passes (sequences, tokens, seconds). The
adapter between planner and simulator is Dynamo's own. Writes the files that `run_mocker` writes.
Knows nothing of ours.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from dynamo._core import run_mocker_trace_replay
from dynamo.common.forward_pass_metrics import ForwardPassMetrics, ScheduledRequestMetrics
from dynamo.planner.config.planner_config import PlannerConfig
from dynamo.planner.core.types import EngineCapabilities, WorkerCapabilities
from dynamo.planner.offline.replay_adapter import create_replay_planner_adapter

sys.path.insert(0, str(Path(__file__).parent))
from run_mocker import written


def prefill_pass(tokens: int, seconds: float) -> ForwardPassMetrics:
    scheduled = ScheduledRequestMetrics(num_prefill_requests=1, sum_prefill_tokens=tokens)
    return ForwardPassMetrics(wall_time=seconds, scheduled_requests=scheduled)


def decode_pass(sequences: int, tokens: int, seconds: float) -> ForwardPassMetrics:
    scheduled = ScheduledRequestMetrics(num_decode_requests=sequences, sum_decode_kv_tokens=tokens)
    return ForwardPassMetrics(wall_time=seconds, scheduled_requests=scheduled)


def adapter_of(job: dict[str, Any]) -> Any:  # noqa: ANN401  their type, unknown here
    """The planner, as Dynamo's replay would make it."""
    config = PlannerConfig(**job["planner"])
    capabilities = WorkerCapabilities(
        prefill=EngineCapabilities(**job["engine"]), decode=EngineCapabilities(**job["engine"])
    )
    adapter = create_replay_planner_adapter(config, capabilities, capture_details=False)
    if config.optimization_target == "sla":
        adapter.install_benchmark_fpms(
            prefill_fpms=[prefill_pass(*row) for row in job["measured"]["prefill"]],
            decode_fpms=[decode_pass(*row) for row in job["measured"]["decode"]],
        )
    return adapter


def main(job_file: str) -> None:
    logging.disable(logging.WARNING)
    job = json.loads(Path(job_file).read_text())
    with adapter_of(job) as adapter:
        result = run_mocker_trace_replay(
            [job["trace"]], capture_per_request=True, scaling_policy=adapter, **job["options"]
        )
    written(result, Path(job_file).parent)


if __name__ == "__main__":
    main(sys.argv[1])
