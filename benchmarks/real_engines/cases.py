"""What is recorded: deployments, arrivals, and how hard each deployment is driven."""

import os
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from forecaster.readers import read_trace
from forecaster.rescale import rescale
from planner.domain.errors import InputError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.workload import Workload

MODEL = "tiny"
ACCELERATOR = "cpu-slot"
MACHINE_CORES = 2.0
"""What the cases are sized for."""
QUOTA_CORES = 0.5
"""Of a worker, kernel quota. Three workers take 1.5 of 2 cores; router and client the rest."""
WEIGHT = 40.0
"""Of workers, router and client against other processes of the machine."""
MAX_MODEL_LEN = 2048
MAX_NUM_SEQS = 16
INPUT_RATIO, OUTPUT_RATIO = 0.15, 0.2
"""Azure's conversation trace (prompts of 1,020 tokens, answers of 129 in the middle) made short
enough for half a core: 153 and 26 tokens."""
MAX_INPUT_TOKENS = 768
MAX_OUTPUT_TOKENS = 160
SLICE_FROM_S = 600.0
"""Where the slice of the trace begins: past its first minutes."""


class Arrivals(StrEnum):
    """How requests arrive."""

    POISSON = "poisson"
    TRACE = "trace"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A deployment and the rate that it gets.

    Parameters
    ----------
    rate_rps : float
        Mean arrivals per second; about half of what the deployment can bear.
    requests : int
    """

    name: str
    roles: tuple[Role, ...]
    rate_rps: float
    requests: int

    @property
    def disaggregated(self) -> bool:
        """Whether prompts and answers have workers of their own."""
        return Role.AGGREGATED not in self.roles

    def count(self, role: Role) -> int:
        """Workers in a role."""
        return self.roles.count(role)


CASES = (
    Case(name="monolithic", roles=(Role.AGGREGATED,), rate_rps=0.45, requests=60),
    Case(name="1p1d", roles=(Role.PREFILL, Role.DECODE), rate_rps=1.0, requests=110),
    Case(name="2p1d", roles=(Role.PREFILL, Role.PREFILL, Role.DECODE), rate_rps=1.7, requests=187),
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


def workload_of(case: Case, arrivals: Arrivals) -> Workload:
    """The requests of one recording; the same at every repeat.

    Both patterns have the lengths of the trace; Poisson arrivals replace its instants only.
    """
    trace = read_trace(trace_path()).workload
    whole = trace.between(SLICE_FROM_S, trace.duration_s)
    until_s = float(whole.arrival_offset_s[case.requests])
    cut = whole.head(case.requests, duration_s=until_s)
    rate_ratio = case.rate_rps / cut.request_rate_rps
    prompts, answers = (_shorter(cut, ratio, rate_ratio) for ratio in (INPUT_RATIO, OUTPUT_RATIO))
    fitted = replace(prompts, output_tokens=answers.output_tokens)
    if arrivals is Arrivals.TRACE:
        return fitted
    # Given their number, the instants of a Poisson process are uniform.
    rng = np.random.default_rng([7, case.requests])
    offsets = np.sort(rng.uniform(0.0, fitted.duration_s, case.requests))
    return replace(fitted, arrival_offset_s=offsets)


def _shorter(workload: Workload, length_ratio: float, rate_ratio: float) -> Workload:
    return rescale(
        workload,
        length_ratio=length_ratio,
        rate_ratio=rate_ratio,
        max_input_tokens=MAX_INPUT_TOKENS,
        max_output_tokens=MAX_OUTPUT_TOKENS,
    )
