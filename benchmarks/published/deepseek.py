"""DeepSeek's published day: tokens, rates of a node, and the nodes that ran.

References
----------
deepseek-ai/open-infra-index, day 6 (2025): 608e9 input tokens (342e9 of them from a cache on disk)
and 168e9 output tokens in 24 hours; 73.7e3 input tokens/s a node of 8 H800 in prefill (cache hits
included), 14.8e3 output tokens/s in decode; 226.75 nodes on average, 278 at the peak.
"""

from datetime import UTC, datetime

import numpy as np

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.optimize import Problem
from planner.optimize.inputs import (
    AcceleratorLimit,
    Option,
    PlanningWindow,
    PoolCapacity,
    Stream,
)

DAY_S = 86_400.0
INPUT_TOKENS, OUTPUT_TOKENS = 608e9, 168e9
PREFILL_TOKENS_PER_S, DECODE_TOKENS_PER_S = 73.7e3, 14.8e3
NODES_RUN = 226.75
USD_PER_GPU_HOUR, GPUS_PER_NODE = 2.0, 8
START = datetime(2025, 2, 27, 12, tzinfo=UTC)


def nodes() -> tuple[float, float]:
    """Prefill and decode nodes at full use, as fractions of nodes."""
    return (
        INPUT_TOKENS / DAY_S / PREFILL_TOKENS_PER_S,
        OUTPUT_TOKENS / DAY_S / DECODE_TOKENS_PER_S,
    )


def read_instance(*, requests_per_s: float = 1_000.0) -> Problem:
    """The mean hour as a problem: so many requests a second of the mean lengths."""
    isl = INPUT_TOKENS / DAY_S / requests_per_s
    osl = OUTPUT_TOKENS / DAY_S / requests_per_s
    options = tuple(
        Option(
            shape=ReplicaShape(role=role, model="v3", accelerator="h800", tp=GPUS_PER_NODE),
            purchase_option=PurchaseOption.ON_DEMAND,
            usd_per_hour=USD_PER_GPU_HOUR * GPUS_PER_NODE,
            footprint=GPUS_PER_NODE,
        )
        for role in (Role.PREFILL, Role.DECODE)
    )
    rates = (PREFILL_TOKENS_PER_S / isl, DECODE_TOKENS_PER_S / osl)
    return Problem(
        streams=(Stream(model="v3", request_class=""),),
        options=options,
        windows=(PlanningWindow(start_at=START, window_s=3600.0),),
        demand_rps=np.array([[requests_per_s]]),
        capacity={(o, 0): PoolCapacity.linear(rate) for o, rate in enumerate(rates)},
        work=np.ones((1, 2)),
        accelerators=(AcceleratorLimit(name="h800", inventory=8 * 400, per_node=8),),
        ordered_at=START,
    )
