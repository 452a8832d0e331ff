"""How long a step takes, by a formula with a physical meaning, and as a profile for the twin."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu_logs.logs import Deployment
from planner.domain.fleet import Role
from planner.domain.profile import (
    LifecycleTimes,
    Profile,
    ProfileKind,
    Provenance,
    TimeTable,
    TransferTime,
)

Floats = NDArray[np.float64]

PROMPT_POINTS = np.arange(0.0, 8_193.0, 256.0)
LONGEST_CONTEXT = 16_384.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Seconds of a step with `b` sequences, `x` tokens of context each, and prompt tokens.

    decode(b, x) = base + expert * (1 - (1 - share)^b) + sequence * b + context_token * b * x
    prefill(m)   = base + expert + prompt_token * m + prompt_token2 * m^2

    Parameters
    ----------
    base_s : float
        Weights that every step reads, launches, everything that does not grow.
    expert_s : float
        Reading all experts; a batch reads those that any of its tokens uses.
    sequence_s, context_token_s : float
        Per sequence, and per token of its KV cache.
    prompt_token_s, prompt_token2_s : float
        Computing a prompt: linear layers, and attention.
    first_token_s : float
        Fixed part of TTFT outside the steps.

    References
    ----------
    Terms of decode and prefill: Zhong et al., DistServe (OSDI 2024), appendix A. Experts: each of
    `b` tokens misses an expert with probability `1 - share`, taken as independent.
    """

    base_s: float
    expert_s: float
    sequence_s: float
    context_token_s: float
    prompt_token_s: float
    prompt_token2_s: float
    first_token_s: float

    def decode_s(self, batch: Floats | float, context: Floats | float, share: float) -> Floats:
        """Seconds of a step without prompts."""
        experts = self.expert_s * (1 - (1 - share) ** np.asarray(batch))
        each = self.sequence_s + self.context_token_s * np.asarray(context)
        return np.asarray(self.base_s + experts + batch * each)

    def prefill_s(self, tokens: Floats | float) -> Floats:
        """Seconds of a prompt alone; of none: what the step costs anyway."""
        m = np.asarray(tokens)
        return np.asarray(
            self.base_s + self.expert_s + self.prompt_token_s * m + self.prompt_token2_s * m * m
        )


def profile_of(steps: StepTimes, deployment: Deployment) -> Profile:
    """One engine's profile."""
    batch = np.arange(deployment.limits.max_num_seqs + 1.0)
    context = np.array([0.0, LONGEST_CONTEXT])
    share = deployment.expert_share
    return Profile(
        profile_id="fitted-to-a-log",
        model=deployment.model,
        accelerator=deployment.accelerator,
        tp=deployment.tp,
        roles=(Role.AGGREGATED,),
        prefill=TimeTable(
            x_name="new tokens",
            y_name="cached tokens",
            x=PROMPT_POINTS,
            y=np.zeros(1),
            seconds=steps.prefill_s(PROMPT_POINTS)[:, None],
        ),
        decode_step=TimeTable(
            x_name="sequences",
            y_name="context tokens per sequence",
            x=batch,
            y=context,
            seconds=steps.decode_s(batch[:, None], context[None, :], share),
        ),
        transfer=TransferTime(base_s=0.0, bandwidth_bytes_per_s=1.0),  # never used: aggregated
        first_token_s=steps.first_token_s,
        limits=deployment.limits,
        lifecycle=LifecycleTimes(start_cold_s=0.0, start_warm_s=0.0, flip_s=0.0, drain_s=0.0),
        provenance=Provenance(
            kind=ProfileKind.ESTIMATED,
            source="fitted to the first third of a log",
            measured_at=datetime(2026, 4, 25, tzinfo=UTC),
            machine=deployment.accelerator,
            engine=deployment.engine,
            points=len(PROMPT_POINTS),
            error_ratio=0.15,
        ),
    )
