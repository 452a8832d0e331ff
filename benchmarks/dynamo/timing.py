"""One set of timing tables, written for both simulators.

Dynamo's mocker reads two tables from an npz file: milliseconds of a prefill over its new tokens
(of all prompts in the step together), and milliseconds of a decode step over the batch's tokens
in all and its mean context (whole tokens). The twin's tables are over (new, cached) tokens and
over (batch, context per sequence). A curve over new tokens, and decode times that are linear in
sequences and in tokens of context, can be written in both: the batch is tokens over context, so
the file's context axis is dense enough that interpolation between its points is off by less than
1e-5.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from planner.domain.fleet import Role
from planner.domain.profile import (
    EngineLimits,
    LifecycleTimes,
    Profile,
    ProfileKind,
    Provenance,
    TimeTable,
    TransferTime,
)

Floats = NDArray[np.float64]

LONGEST_PROMPT_TOKENS = 262_144
LARGEST_BATCH = 1_024
PREFILL_POINTS = 257
CONTEXT_POINTS = 1_500
INSTANT_BYTES_PER_S = 1e18
"""KV transfer turned off: no measurable time for any prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Times of one replica.

    A prefill takes `prefill_base_s + prefill_token_s * new + prefill_token2_s * new**2`, a decode
    step `decode_base_s + decode_sequence_s * batch + decode_context_token_s * batch * context`.
    """

    prefill_base_s: float
    prefill_token_s: float
    prefill_token2_s: float = 0.0
    decode_base_s: float
    decode_sequence_s: float
    decode_context_token_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What one replica can hold and move.

    Parameters
    ----------
    transfer_bytes_per_s : float
        Between a prefill and a decode replica; no fixed part, as theirs has none.
    prompts_together : int or None
        Prompts in work on a prefill replica at once; None for `max_num_seqs`.
    """

    kv_capacity_tokens: int
    kv_bytes_per_token: int
    kv_block_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int
    transfer_bytes_per_s: float
    prompts_together: int | None = None

    def slots(self, role: Role) -> int:
        """Sequences on a replica of this role at once."""
        if role is Role.PREFILL and self.prompts_together is not None:
            return self.prompts_together
        return self.max_num_seqs


def _new_tokens() -> Floats:
    return np.linspace(0.0, LONGEST_PROMPT_TOKENS, PREFILL_POINTS)


def _prefill_s(timing: Timing, new: Floats) -> Floats:
    return timing.prefill_base_s + timing.prefill_token_s * new + timing.prefill_token2_s * new**2


def write_npz(timing: Timing, path: Path) -> None:
    """Write the tables as Dynamo's mocker reads them (`dynamo_profile`), milliseconds."""
    new = _new_tokens()
    tokens = np.array([0.0, float(LARGEST_BATCH * LONGEST_PROMPT_TOKENS)])
    context = np.unique(np.rint(np.geomspace(1.0, LONGEST_PROMPT_TOKENS, CONTEXT_POINTS)))
    decode = (
        timing.decode_base_s
        + timing.decode_sequence_s * tokens[:, None] / context[None, :]
        + timing.decode_context_token_s * tokens[:, None]
    )
    np.savez(
        path,
        prefill_isl=new,
        prefill_ttft_ms=1e3 * _prefill_s(timing, new),
        decode_active_kv_tokens=tokens,
        decode_context_length=context,
        decode_itl=1e3 * decode,
    )


def profile_of(timing: Timing, engine: Engine, role: Role) -> Profile:
    """The same tables as a profile of ours, for replicas of one role."""
    new = _new_tokens()[0 if timing.prefill_base_s > 0 else 1 :]
    batch = np.array([0.0, float(LARGEST_BATCH)])
    context = np.array([0.0, float(LONGEST_PROMPT_TOKENS)])
    decode = (
        timing.decode_base_s
        + timing.decode_sequence_s * batch[:, None]
        + timing.decode_context_token_s * batch[:, None] * context[None, :]
    )
    return Profile(
        profile_id="dynamo-comparison",
        model="linear",
        accelerator="any",
        roles=(role,),
        prefill=TimeTable(
            x_name="new tokens",
            y_name="cached tokens",
            x=new,
            y=np.zeros(1),
            seconds=_prefill_s(timing, new)[:, None],
        ),
        decode_step=TimeTable(
            x_name="sequences",
            y_name="context tokens per sequence",
            x=batch,
            y=context,
            seconds=decode,
        ),
        transfer=TransferTime(base_s=0.0, bandwidth_bytes_per_s=engine.transfer_bytes_per_s),
        first_token_s=0.0,
        limits=EngineLimits(
            kv_capacity_tokens=engine.kv_capacity_tokens,
            kv_bytes_per_token=engine.kv_bytes_per_token,
            max_num_seqs=engine.slots(role),
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_model_len=LONGEST_PROMPT_TOKENS,
            kv_block_tokens=engine.kv_block_tokens,
        ),
        lifecycle=LifecycleTimes(start_cold_s=0.0, start_warm_s=0.0, flip_s=0.0, drain_s=0.0),
        provenance=Provenance(
            kind=ProfileKind.ESTIMATED,
            source="a formula",
            measured_at=datetime(2026, 1, 1, tzinfo=UTC),
            machine="none",
            engine="none",
            points=6,
            error_ratio=0.0,
        ),
    )
