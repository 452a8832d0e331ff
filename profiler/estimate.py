"""A rough profile from arithmetic instead of a measurement, labelled so.

The roofline: an operation takes the longer of its floating-point time and its memory time, both
at a stated share of the vendor's peak. It is for a first look before anything was measured; its
`provenance.kind` is `estimated` and its `error_ratio` wide, and such plans are never applied
automatically.
"""

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from planner.capacity.memory import (
    DEFAULT_STEP_TOKENS,
    LEAST_KV_TOKENS,
    memory_fit,
)
from planner.domain.errors import ProfileError
from planner.domain.fleet import ReplicaShape
from planner.domain.hardware import AcceleratorFacts
from planner.domain.model import Model
from planner.domain.profile import (
    EngineLimits,
    LifecycleTimes,
    Profile,
    ProfileKind,
    Provenance,
    TimeTable,
    TransferTime,
)
from profiler.files import with_profile_id
from profiler.roofline import Peak, Work, decode_work, peak_of, prefill_work

Floats = NDArray[np.float64]

COMPUTE_SHARE = 0.5
"""Share of the peak FLOP/s that prefill reaches: model FLOP utilisation of 40-60 % is usual."""
BANDWIDTH_SHARE = 0.7
"""Share of the peak memory bandwidth that decoding reaches."""
PARALLEL_SHARE = 0.85
"""What is left of the sum of tensor-parallel accelerators after their communication."""
MAX_NUM_SEQS = 256
"""Sequences decoded together where the shape leaves it open: vLLM's default for a long time."""
STEP_OVERHEAD_S = 0.004
"""Scheduling, sampling and kernel launches of one step, seconds."""
TRANSFER_BYTES_PER_S = 10e9
"""Through the P/D path: well below a 400 Gbit/s link, as paths reach a fraction of it."""
ASSUMED_TRANSFER = TransferTime(base_s=0.02, bandwidth_bytes_per_s=TRANSFER_BYTES_PER_S)
FIRST_TOKEN_S = 0.02
"""HTTP, tokenizer, router and scheduling, seconds."""
ERROR_RATIO = 0.5
"""The stated interval: the truth may be half again as much, or half."""
ROUGH_AT = datetime(2026, 11, 1, tzinfo=UTC)
"""When these constants were set; an estimate has no instant of measurement."""


def estimate_profile(
    model: Model,
    shape: ReplicaShape,
    facts: AcceleratorFacts | None,
    *,
    memory_bytes: float | None = None,
) -> Profile:
    """A roofline profile of one replica of `shape`, for planning before measuring.

    Parameters
    ----------
    model : Model
        Weights and KV sizes.
    shape : ReplicaShape
        Its role becomes the profile's only role; its formats replace the model's. Quantized
        weights and KV cache are read faster, and computed with as fast as BF16 ones.
    facts : AcceleratorFacts or None
        What the catalogue says of the shape's accelerator; None: it is not in there.
    memory_bytes : float or None
        Of one accelerator; None: the vendor's figure.

    Returns
    -------
    Profile
        With `provenance.kind` estimated.

    Raises
    ------
    ProfileError
        When the catalogue does not know the accelerator, its bandwidth or its FLOP/s, or the
        weights do not fit.

    References
    ----------
    See `profiler.roofline`.
    """
    facts = _known(facts, shape.accelerator)
    peak = _peak(facts)
    memory_bytes = facts.memory_bytes if memory_bytes is None else memory_bytes
    kv_tokens = _kv_capacity_tokens(model, shape, memory_bytes)
    model = model.stored_as(weight_dtype=shape.weight_dtype, kv_dtype=shape.kv_dtype)
    context = min(model.max_context_tokens, kv_tokens)
    max_num_seqs = shape.max_num_seqs or MAX_NUM_SEQS
    return with_profile_id(
        Profile(
            profile_id="",
            model=model.name,
            accelerator=shape.accelerator,
            tp=shape.tp,
            pp=shape.pp,
            dp=shape.dp,
            weight_dtype=shape.weight_dtype,
            kv_dtype=shape.kv_dtype,
            roles=(shape.role,),
            prefill=_prefill(model, shape, peak, context),
            decode_step=_decode_step(model, shape, peak, context, max_num_seqs),
            transfer=ASSUMED_TRANSFER,
            first_token_s=FIRST_TOKEN_S,
            limits=EngineLimits(
                kv_capacity_tokens=kv_tokens,
                kv_bytes_per_token=model.kv_bytes_per_token,
                max_num_seqs=max_num_seqs,
                max_num_batched_tokens=shape.max_num_batched_tokens or DEFAULT_STEP_TOKENS,
                max_model_len=context,
            ),
            lifecycle=assumed_lifecycle(model.weight_bytes),
            provenance=Provenance(
                kind=ProfileKind.ESTIMATED,
                source=f"poolwise roofline from {facts.source}",
                measured_at=ROUGH_AT,
                machine=shape.accelerator,
                engine="none: arithmetic",
                points=0,
                error_ratio=ERROR_RATIO,
            ),
        )
    )


def assumed_lifecycle(weight_bytes: float) -> LifecycleTimes:
    """Weights from disk at 1 GB/s cold, from page cache at 4 GB/s, and engine set-up."""
    return LifecycleTimes(
        start_cold_s=60.0 + weight_bytes / 1e9,
        start_warm_s=40.0 + weight_bytes / 4e9,
        flip_s=5.0,
        drain_s=30.0,
    )


def _kv_capacity_tokens(model: Model, shape: ReplicaShape, memory_bytes: float) -> int:
    """Tokens of KV cache beside the weights; refuses a replica that does not fit."""
    fit = memory_fit(model, shape, memory_bytes)
    if fit.kv_tokens < LEAST_KV_TOKENS:
        raise ProfileError(
            f"{model.name} on {shape.tp * shape.pp} x {shape.accelerator}: {fit.text}: raise tp "
            "of this pool, or store the weights in fewer bits (weight_dtype)"
        )
    return fit.kv_tokens


def _known(facts: AcceleratorFacts | None, name: str) -> AcceleratorFacts:
    if facts is None:
        raise ProfileError(
            f"accelerator {name} is not in the catalogue, so nothing can be estimated for it "
            "(`poolwise accelerators` lists what is): measure it with `poolwise profile run`, or "
            "add it to a catalogue of your own (POOLWISE_CATALOGUE)"
        )
    return facts


def _peak(facts: AcceleratorFacts) -> Peak:
    """Its peak in BF16; refuses an accelerator of which too little is known."""
    peak = peak_of(facts)
    if peak is None:
        raise ProfileError(
            f"the catalogue does not know the memory bandwidth or the BF16 FLOP/s of {facts.name}, "
            "so nothing can be estimated for it: measure it with `poolwise profile run`, or state "
            "both in a catalogue of your own (POOLWISE_CATALOGUE)"
        )
    return peak


def _seconds(work: Work, shape: ReplicaShape, peak: Peak) -> Floats:
    """Longer of compute and memory time at the usable shares of the peak, and the overhead."""
    count = shape.tp * shape.pp * (1.0 if shape.tp * shape.pp == 1 else PARALLEL_SHARE)
    compute_s = work.flop / (peak.flop_per_s * COMPUTE_SHARE * count)
    memory_s = work.memory_bytes / (peak.bytes_per_s * BANDWIDTH_SHARE * count)
    return np.asarray(np.maximum(compute_s, memory_s) + STEP_OVERHEAD_S)


def _doubling(first: int, last: int) -> Floats:
    """first, 2 first, 4 first, ... and `last`; increasing."""
    steps = [first * 2.0**k for k in range(64) if first * 2**k < last]
    return np.asarray([*steps, float(max(first, last))])


def _prefill(model: Model, shape: ReplicaShape, peak: Peak, context: int) -> TimeTable:
    new = _doubling(64, context)
    cached = np.concatenate([[0.0], _doubling(1024, context)])
    return TimeTable(
        x_name="new tokens",
        y_name="cached tokens",
        x=new,
        y=cached,
        seconds=_seconds(prefill_work(model, new[:, None], cached[None, :]), shape, peak),
    )


def _decode_step(
    model: Model, shape: ReplicaShape, peak: Peak, context: int, max_num_seqs: int
) -> TimeTable:
    batch, length = _doubling(1, max_num_seqs), _doubling(128, context)
    return TimeTable(
        x_name="sequences",
        y_name="context tokens",
        x=batch,
        y=length,
        seconds=_seconds(decode_work(model, batch[:, None], length[None, :]), shape, peak),
    )
