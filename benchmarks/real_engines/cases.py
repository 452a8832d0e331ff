"""What is recorded: deployments, what their quotas hold, arrivals, and how hard all is driven."""

import os
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from forecaster.readers import read_trace
from forecaster.rescale import rescale
from forecaster.shapes import shape_of
from planner.capacity.deployment import predict
from planner.capacity.split import PoolLoad
from planner.domain.errors import InputError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.domain.workload import Workload

MODEL = "tiny"
ACCELERATOR = "cpu-slot"
MACHINE_CORES = 2.0
"""What the cases are sized for."""
QUOTA_CORES = 0.35
"""Of a worker, kernel quota. With half a core each, bursts of three workers and their host
processes met on two cores, and steps took 40 % longer in 2P1D than in the sweep of 1P1D."""
WEIGHT = 40.0
"""Of workers, router and client against other processes of the machine."""
MAX_MODEL_LEN = 2048
MAX_NUM_SEQS = 16
LENGTH_RATIO = 0.3
"""Azure's conversation trace (prompts of 1,020 tokens, answers of 129 in the middle) made short
enough for half a core: 306 and 39 tokens."""
MAX_INPUT_TOKENS = 768
MAX_OUTPUT_TOKENS = 160
SLICE_FROM_S = 600.0
"""Where the slice of the trace begins: past its first minutes."""
LOAD_RATIO = 0.5
"""Of the rate at which the first pool saturates, by the profile of this very machine."""
RUN_S = 90.0
FEWEST_REQUESTS, MOST_REQUESTS = 60, 1_000


class Arrivals(StrEnum):
    """How requests arrive."""

    POISSON = "poisson"
    TRACE = "trace"


class Held(StrEnum):
    """What the quota of a worker holds.

    compute: the process that computes steps, which stands for an accelerator; the HTTP server and
    the scheduler run beside it, as on a host with GPUs. all: all of them share the half core, so
    that a request which comes while others decode is also slowed by its own HTTP call.
    """

    COMPUTE = "compute"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A deployment."""

    name: str
    roles: tuple[Role, ...]

    @property
    def disaggregated(self) -> bool:
        """Whether prompts and answers have workers of their own."""
        return Role.AGGREGATED not in self.roles

    def count(self, role: Role) -> int:
        """Workers in a role."""
        return self.roles.count(role)


CASES = (
    Case(name="monolithic", roles=(Role.AGGREGATED,)),
    Case(name="1p1d", roles=(Role.PREFILL, Role.DECODE)),
    Case(name="2p1d", roles=(Role.PREFILL, Role.PREFILL, Role.DECODE)),
)


def shape(role: Role) -> ReplicaShape:
    """The shape of a worker."""
    return ReplicaShape(role=role, model=MODEL, accelerator=ACCELERATOR)


def trace_path() -> Path:
    """Azure's conversation trace.

    Raises
    ------
    InputError
        Where `POOLWISE_DATA` does not lead to it.
    """
    root = os.environ.get("POOLWISE_DATA", "")
    path = Path(root) / "traces" / "AzureLLMInferenceTrace_conv.csv"
    if not root or not path.is_file():
        raise InputError(
            "the trace AzureLLMInferenceTrace_conv.csv was not found: set POOLWISE_DATA to a "
            "folder that has it below traces/ (public, AzurePublicDataset 2023)"
        )
    return path


def rate_rps_of(case: Case, profile: Profile) -> float:
    """Requests/s at which the busiest pool is loaded to `LOAD_RATIO` of its saturation."""
    pools = [
        PoolLoad(profile=profile, role=role, replicas=case.count(role))
        for role in Role
        if case.count(role)
    ]
    lengths = shape_of(_lengths(1.0, MOST_REQUESTS))
    slo = Slo(model=MODEL, ttft_s=10.0, tpot_s=1.0)  # matters for neither
    load = predict(pools, lengths, slo, request_rate_rps=1.0)
    return LOAD_RATIO / max(load.utilization_ratio)


def workload_of(rate_rps: float, arrivals: Arrivals) -> Workload:
    """The requests of one recording, `RUN_S` long if they are not too few or too many.

    Both patterns have the lengths of the trace; Poisson arrivals replace its instants only.
    """
    count = int(np.clip(rate_rps * RUN_S, FEWEST_REQUESTS, MOST_REQUESTS))
    fitted = _lengths(rate_rps, count)
    if arrivals is Arrivals.TRACE:
        return fitted
    # Given their number, the instants of a Poisson process are uniform.
    rng = np.random.default_rng([7, count])
    offsets = np.sort(rng.uniform(0.0, fitted.duration_s, count))
    return replace(fitted, arrival_offset_s=offsets)


def _lengths(rate_rps: float, count: int) -> Workload:
    """So many requests of the trace, shorter and at this mean rate."""
    trace = read_trace(trace_path()).workload
    whole = trace.between(SLICE_FROM_S, trace.duration_s)
    cut = whole.head(count, duration_s=float(whole.arrival_offset_s[count]))
    return rescale(
        cut,
        length_ratio=LENGTH_RATIO,
        rate_ratio=rate_rps / cut.request_rate_rps,
        max_input_tokens=MAX_INPUT_TOKENS,
        max_output_tokens=MAX_OUTPUT_TOKENS,
    )
