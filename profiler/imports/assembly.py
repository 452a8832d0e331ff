"""A profile from imported tables, what the caller states, and assumptions that are said.

Foreign files hold times; most hold nothing of memory, transfer and life cycle. What the caller
states counts; next what the model's `config.json` and the accelerator's memory give; at last an
assumption. Each assumption becomes a sentence of `Provenance.notes`.
"""

import math
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from planner.capacity.memory import DEFAULT_STEP_TOKENS, memory_fit
from planner.domain.errors import ProfileError
from planner.domain.fleet import ReplicaShape, Role
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
from profiler.estimate import ASSUMED_TRANSFER, assumed_lifecycle
from profiler.files import with_profile_id
from profiler.imports.tables import left_out_error_ratio
from profiler.imports.units import check_units

ASSUMED_ERROR_RATIO = 0.1
"""Where a source says nothing of its error and has too few points to find one."""
ASSUMED_KV_BYTES_PER_TOKEN = 131_072.0
"""Llama 3 8B in BF16: 2 x 32 layers x 8 heads x 128 x 2 bytes."""
ASSUMED_WEIGHT_BYTES = 16e9
"""Llama 3 8B in BF16; for start-up times only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the caller states of the replica; None: not known to the caller either.

    Parameters
    ----------
    model, accelerator : str
        Names in specs.
    architecture : Model or None
        From the model's `config.json`.
    memory_bytes : float or None
        Of one accelerator.
    start_up_s : float or None
        From the order to start until it serves, model in the page cache or not.
    transfer_bytes_per_s : float or None
        KV cache from prefill to decode, through the P/D path.
    """

    model: str
    accelerator: str
    tp: int = 1
    roles: tuple[Role, ...] = tuple(Role)
    architecture: Model | None = None
    memory_bytes: float | None = None
    kv_capacity_tokens: int | None = None
    kv_bytes_per_token: float | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    max_model_len: int | None = None
    start_up_s: float | None = None
    transfer_bytes_per_s: float | None = None

    def __post_init__(self) -> None:
        for field in ("model", "accelerator"):
            if not getattr(self, field):
                raise ValueError(f"{field} must be named")
        for field in (
            "tp",
            "kv_capacity_tokens",
            "max_num_seqs",
            "max_num_batched_tokens",
            "max_model_len",
        ):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}")
        for field in ("memory_bytes", "kv_bytes_per_token", "start_up_s", "transfer_bytes_per_s"):
            value = getattr(self, field)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{field} must be finite and above 0, got {value:g}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Imported:
    """What a source holds.

    Parameters
    ----------
    model : str or None
        As the source names it; None: it does not.
    held_tokens : int
        Tokens that the engine is known to have held in its KV cache at once: a lower bound.
    longest_tokens : int
        Longest prompt plus answer that it is known to have served.
    points : int
        Measured points behind the tables.
    error_ratio : float or None
        As the source states it; None: found at points left out, or assumed.
    notes : tuple of str
        Rows refused and why, what was derived how.
    """

    prefill: TimeTable
    decode_step: TimeTable
    source: str
    machine: str
    engine: str
    measured_at: datetime
    points: int
    held_tokens: int
    longest_tokens: int
    model: str | None = None
    kv_capacity_tokens: int | None = None
    error_ratio: float | None = None
    notes: tuple[str, ...] = ()


def assemble(given: Given, found: Imported) -> Profile:
    """The profile of what was found, what is given, and what is assumed.

    Raises
    ------
    ProfileError
        When the values make no profile.
    """
    check_units(found.prefill, found.decode_step, source=found.source)
    try:
        return with_profile_id(_profile(given, found))
    except ValueError as error:
        raise ProfileError(f"{found.source}: these values make no profile: {error}") from error


def _profile(given: Given, found: Imported) -> Profile:
    notes = list(found.notes)
    limits = _limits(given, found, notes)
    lifecycle = _lifecycle(given, notes)
    transfer = _transfer(given, notes)
    error_ratio = _error_ratio(found, notes)
    return Profile(
        profile_id="",
        model=given.model,
        accelerator=given.accelerator,
        tp=given.tp,
        roles=given.roles,
        prefill=found.prefill,
        decode_step=found.decode_step,
        transfer=transfer,
        first_token_s=0.0,
        limits=limits,
        lifecycle=lifecycle,
        provenance=Provenance(
            kind=ProfileKind.IMPORTED,
            source=found.source,
            measured_at=found.measured_at,
            machine=found.machine,
            engine=found.engine,
            points=found.points,
            error_ratio=error_ratio,
            notes=tuple(notes),
        ),
    )


def _limits(given: Given, found: Imported, notes: list[str]) -> EngineLimits:
    kv_capacity = _kv_capacity_tokens(given, found, notes)
    max_num_seqs = given.max_num_seqs
    if max_num_seqs is None:
        max_num_seqs = max(int(found.decode_step.x[-1]), 1)
        notes.append(
            f"assumed: at most {max_num_seqs:,} sequences at once, as more were not measured "
            "(max_num_seqs)"
        )
    elif max_num_seqs > found.decode_step.x[-1]:
        notes.append(
            f"max_num_seqs {max_num_seqs:,} was stated, but decode steps are known up to "
            f"{found.decode_step.x[-1]:g} sequences"
        )
    batched = given.max_num_batched_tokens
    if batched is None:
        batched = DEFAULT_STEP_TOKENS
        notes.append(f"assumed: {batched:,} tokens a step, vLLM's default (max_num_batched_tokens)")
    longest = given.max_model_len
    if longest is None:
        context = given.architecture.max_context_tokens if given.architecture else 0
        longest = min(max(context, found.longest_tokens), kv_capacity)
        notes.append(
            f"assumed: prompt plus answer up to {longest:,} tokens, the model's context or the "
            "longest known to have been served, within the KV cache (max_model_len)"
        )
    return EngineLimits(
        kv_capacity_tokens=kv_capacity,
        kv_bytes_per_token=_kv_bytes_per_token(given, notes),
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=batched,
        max_model_len=longest,
    )


def _kv_capacity_tokens(given: Given, found: Imported, notes: list[str]) -> int:
    """As stated, as the source says, by arithmetic, or what is known to have been held."""
    if given.kv_capacity_tokens is not None:
        return given.kv_capacity_tokens
    if found.kv_capacity_tokens is not None:
        return found.kv_capacity_tokens
    if given.architecture is not None and given.memory_bytes is not None:
        shape = ReplicaShape(
            role=given.roles[0], model=given.model, accelerator=given.accelerator, tp=given.tp
        )
        fit = memory_fit(given.architecture, shape, given.memory_bytes)
        if fit.kv_tokens >= found.held_tokens:
            notes.append(
                f"assumed: KV cache of {fit.kv_tokens:,} tokens, by arithmetic: {fit.text} "
                "(kv_capacity_tokens)"
            )
            return fit.kv_tokens
    held = max(found.held_tokens, found.longest_tokens, 16)
    notes.append(
        f"assumed: KV cache of {held:,} tokens, a lower bound: so many were held at once while it "
        "was measured (kv_capacity_tokens)"
    )
    return held


def _kv_bytes_per_token(given: Given, notes: list[str]) -> float:
    if given.kv_bytes_per_token is not None:
        return given.kv_bytes_per_token
    if given.architecture is not None:
        return given.architecture.kv_bytes_per_token
    notes.append(
        f"assumed: {ASSUMED_KV_BYTES_PER_TOKEN:,.0f} bytes of KV cache a token, those of Llama 3 "
        "8B: give the model's config.json or kv_bytes_per_token, transfers depend on it"
    )
    return ASSUMED_KV_BYTES_PER_TOKEN


def _lifecycle(given: Given, notes: list[str]) -> LifecycleTimes:
    model = given.architecture
    usual = assumed_lifecycle(model.weight_bytes if model else ASSUMED_WEIGHT_BYTES)
    start = given.start_up_s
    cold = usual.start_cold_s if start is None else start
    warm = usual.start_warm_s if start is None else min(usual.start_warm_s, start)
    what = "start-up" if start is None else "warm start"
    notes.append(
        f"assumed: {what}, role flip and drain: {cold:.0f} s cold, {warm:.0f} s warm, "
        f"{usual.flip_s:g} s, {usual.drain_s:g} s"
    )
    return LifecycleTimes(
        start_cold_s=cold, start_warm_s=warm, flip_s=usual.flip_s, drain_s=usual.drain_s
    )


def _transfer(given: Given, notes: list[str]) -> TransferTime:
    bandwidth = given.transfer_bytes_per_s
    usual = ASSUMED_TRANSFER
    if bandwidth is None:
        bandwidth = usual.bandwidth_bytes_per_s
        what = f"KV transfer of {usual.base_s * 1e3:.0f} ms + bytes at {bandwidth / 1e9:g} GB/s"
        notes.append(f"assumed: {what} (transfer_bytes_per_s)")
    else:
        notes.append(f"assumed: {usual.base_s * 1e3:.0f} ms of each KV transfer beside its bytes")
    return TransferTime(base_s=usual.base_s, bandwidth_bytes_per_s=bandwidth)


def _error_ratio(found: Imported, notes: list[str]) -> float:
    if found.error_ratio is not None:
        return found.error_ratio
    ratio = left_out_error_ratio(found.prefill, found.decode_step)
    if ratio is None:
        notes.append(f"assumed: an error of {ASSUMED_ERROR_RATIO:.0%}: too few points to find one")
        return ASSUMED_ERROR_RATIO
    notes.append(f"the error, {ratio:.1%}, is that of points told by their neighbours (median)")
    return float(np.round(ratio, 6))
