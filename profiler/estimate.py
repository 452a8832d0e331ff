"""A rough profile from arithmetic instead of a measurement, labelled so.

The roofline: an operation takes the longer of its floating-point time and its memory time, both
at a stated share of the vendor's peak. It is for a first look before anything was measured; its
`provenance.kind` is `estimated` and its `error_ratio` wide, and such plans are never applied
automatically.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from planner.capacity.memory import (
    DEFAULT_STEP_TOKENS,
    LEAST_KV_TOKENS,
    hidden_size,
    memory_fit,
)
from planner.domain.errors import ProfileError
from planner.domain.fleet import ReplicaShape
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """A vendor's peak figures of one accelerator.

    Parameters
    ----------
    memory_bytes : float
    bandwidth_bytes_per_s : float
    bf16_flop_per_s : float
        Dense, without sparsity.
    power_w : float
        Thermal design power.
    source : str
    """

    memory_bytes: float
    bandwidth_bytes_per_s: float
    bf16_flop_per_s: float
    power_w: float
    source: str


CATALOGUE: dict[str, Peak] = {
    "a100": Peak(
        memory_bytes=80e9,
        bandwidth_bytes_per_s=2.039e12,
        bf16_flop_per_s=312e12,
        power_w=400.0,
        source="NVIDIA A100 Tensor Core GPU datasheet, A100 80GB SXM",
    ),
    "l40s": Peak(
        memory_bytes=48e9,
        bandwidth_bytes_per_s=864e9,
        bf16_flop_per_s=362.05e12,
        power_w=350.0,
        source="NVIDIA L40S datasheet",
    ),
    "h100": Peak(
        memory_bytes=80e9,
        bandwidth_bytes_per_s=3.35e12,
        bf16_flop_per_s=989.5e12,
        power_w=700.0,
        source="NVIDIA H100 Tensor Core GPU datasheet, H100 SXM (sparse figure halved)",
    ),
    "h200": Peak(
        memory_bytes=141e9,
        bandwidth_bytes_per_s=4.8e12,
        bf16_flop_per_s=989.5e12,
        power_w=700.0,
        source="NVIDIA H200 Tensor Core GPU datasheet, H200 SXM (sparse figure halved)",
    ),
    "b200": Peak(
        memory_bytes=180e9,
        bandwidth_bytes_per_s=8e12,
        bf16_flop_per_s=2.25e15,
        power_w=1000.0,
        source="NVIDIA DGX B200 datasheet, one of eight GPUs (sparse figure halved)",
    ),
}
"""Vendor figures by lower-case name; names such as `H100-SXM5-80GB` are found by their start."""


def peak_of(accelerator: str) -> Peak | None:
    """Vendor figures of an accelerator by its name, or None when it is not in the catalogue."""
    words = accelerator.lower().replace("_", "-").split("-")
    return next((CATALOGUE[word] for word in words if word in CATALOGUE), None)


def estimate_profile(
    model: Model, shape: ReplicaShape, *, memory_bytes: float | None = None
) -> Profile:
    """A roofline profile of one replica of `shape`, for planning before measuring.

    Parameters
    ----------
    model : Model
        Weights and KV sizes.
    shape : ReplicaShape
        Its role becomes the profile's only role; its formats replace the model's. Quantized
        weights and KV cache are read faster, and computed with as fast as BF16 ones.
    memory_bytes : float or None
        Of one accelerator; None: the vendor's figure.

    Returns
    -------
    Profile
        With `provenance.kind` estimated.

    Raises
    ------
    ProfileError
        When the accelerator is not in the catalogue, or the weights do not fit.

    References
    ----------
    Roofline model: Williams, Waterman, Patterson (CACM 2009). 2 FLOP per parameter and token and
    12 x layers x hidden^2 parameters: Kaplan et al. (2020), section 2.1.
    """
    peak = peak_of(shape.accelerator)
    if peak is None:
        raise ProfileError(
            f"accelerator {shape.accelerator} is not in the catalogue, so nothing can be "
            f"estimated for it (known: {', '.join(CATALOGUE)}): measure it with "
            "`poolwise profile run`"
        )
    memory_bytes = peak.memory_bytes if memory_bytes is None else memory_bytes
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
                source=f"poolwise roofline from {peak.source}",
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


def _rates(shape: ReplicaShape, peak: Peak) -> tuple[float, float]:
    """Usable FLOP/s and bytes/s of one replica's pipeline."""
    count = shape.tp * shape.pp * (1.0 if shape.tp * shape.pp == 1 else PARALLEL_SHARE)
    flop = peak.bf16_flop_per_s * COMPUTE_SHARE * count
    return flop, peak.bandwidth_bytes_per_s * BANDWIDTH_SHARE * count


def _doubling(first: int, last: int) -> Floats:
    """first, 2 first, 4 first, ... and `last`; increasing."""
    steps = [first * 2.0**k for k in range(64) if first * 2**k < last]
    return np.asarray([*steps, float(max(first, last))])


def _prefill(model: Model, shape: ReplicaShape, peak: Peak, context: int) -> TimeTable:
    """Longer of compute (2 P n + 4 L h n (c + n/2)) and reading the weights once."""
    flop_per_s, bytes_per_s = _rates(shape, peak)
    new = _doubling(64, context)
    cached = np.concatenate([[0.0], _doubling(1024, context)])
    n, c = new[:, None], cached[None, :]
    attention = 4.0 * model.layers * hidden_size(model) * n * (c + n / 2)
    compute_s = (2.0 * model.active_parameters * n + attention) / flop_per_s
    memory_s = (model.weight_bytes + (n + c) * model.kv_bytes_per_token) / bytes_per_s
    return TimeTable(
        x_name="new tokens",
        y_name="cached tokens",
        x=new,
        y=cached,
        seconds=np.maximum(compute_s, memory_s) + STEP_OVERHEAD_S,
    )


def _decode_step(
    model: Model, shape: ReplicaShape, peak: Peak, context: int, max_num_seqs: int
) -> TimeTable:
    """Longer of compute (2 P b) and reading the weights and every sequence's KV cache."""
    flop_per_s, bytes_per_s = _rates(shape, peak)
    batch, length = _doubling(1, max_num_seqs), _doubling(128, context)
    b, k = batch[:, None], length[None, :]
    memory_s = (model.weight_bytes + b * k * model.kv_bytes_per_token) / bytes_per_s
    compute_s = 2.0 * model.active_parameters * b / flop_per_s + 0.0 * k
    return TimeTable(
        x_name="sequences",
        y_name="context tokens",
        x=batch,
        y=length,
        seconds=np.maximum(compute_s, memory_s) + STEP_OVERHEAD_S,
    )
