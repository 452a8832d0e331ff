"""What policies see in tests: groups of replicas, and a minute of requests."""

import numpy as np

from planner.simulate.policy import GroupView, Observation


def group(**seen: float) -> GroupView:
    """A group of which only some figures matter."""
    whole = {
        "ready": 1,
        "starting": 0,
        "draining": 0,
        "waiting_requests": 0,
        "running_requests": 0,
        "queued_prompt_tokens": 0,
        "kv_usage_ratio": 0.0,
    }
    return GroupView(**(whole | seen))  # type: ignore[arg-type]


def minute(*groups: GroupView, t_s: float, arrived: int, isl: int, osl: int) -> Observation:
    """A minute in which so many requests arrived and ended."""
    return Observation(
        t_s=t_s,
        since_s=t_s - 60.0,
        groups=groups,
        arrived_input_tokens=np.full(arrived, isl),
        finished_input_tokens=np.full(arrived, isl),
        finished_output_tokens=np.full(arrived, osl),
        finished_ttft_s=np.full(arrived, 0.2),
        finished_tpot_s=np.full(arrived, 0.02),
    )
