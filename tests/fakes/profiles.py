"""Profiles whose times are known formulas, so that tests can compute the truth by hand."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

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
from planner.domain.profile_details import ProfileDetails, TableFit

ALL_ROLES = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)


def linear_profile(
    *,
    profile_id: str = "linear",
    model: str = "tiny",
    accelerator: str = "cpu",
    tp: int = 1,
    roles: tuple[Role, ...] = ALL_ROLES,
    speed: float = 1.0,
    prefill_base_s: float = 0.005,
    prefill_token_s: float = 1e-4,
    prefill_cached_token_s: float = 0.0,
    decode_base_s: float = 0.01,
    decode_sequence_s: float = 2e-4,
    decode_context_token_s: float = 0.0,
    transfer_base_s: float = 0.002,
    transfer_bandwidth_bytes_per_s: float = 1e9,
    first_token_s: float = 0.0,
    kv_capacity_tokens: int = 262_144,
    kv_bytes_per_token: float = 4_096.0,
    max_num_seqs: int = 64,
    max_num_batched_tokens: int = 2_048,
    max_model_len: int = 16_384,
    max_prompt_tokens: int = 16_384,
    max_batch: int = 256,
    max_context_tokens: int = 32_768,
    start_cold_s: float = 60.0,
    start_warm_s: float = 30.0,
    flip_s: float = 5.0,
    drain_s: float = 10.0,
    kind: ProfileKind = ProfileKind.MEASURED,
) -> Profile:
    """A profile that is linear in everything, exactly.

    prefill = (base + token x new + cached_token x cached) / speed; decode step =
    (base + sequence x batch + context_token x batch x context) / speed; transfer = base + bytes /
    bandwidth. All seconds. A per-token or per-sequence time of 0 gives constant times.
    """
    new = np.array([0.0, max_prompt_tokens])
    cached = np.array([0.0, max_prompt_tokens])
    batch = np.array([0.0, max_batch])
    context = np.array([0.0, max_context_tokens])
    prefill = (
        prefill_base_s + prefill_token_s * new[:, None] + prefill_cached_token_s * cached[None, :]
    )
    decode = (
        decode_base_s
        + decode_sequence_s * batch[:, None]
        + decode_context_token_s * batch[:, None] * context[None, :]
    )
    return Profile(
        profile_id=profile_id,
        model=model,
        accelerator=accelerator,
        tp=tp,
        roles=roles,
        prefill=TimeTable(
            x_name="new tokens",
            y_name="cached tokens",
            x=new,
            y=cached,
            seconds=prefill / speed,
        ),
        decode_step=TimeTable(
            x_name="sequences",
            y_name="context tokens per sequence",
            x=batch,
            y=context,
            seconds=decode / speed,
        ),
        transfer=TransferTime(
            base_s=transfer_base_s, bandwidth_bytes_per_s=transfer_bandwidth_bytes_per_s
        ),
        first_token_s=first_token_s,
        limits=EngineLimits(
            kv_capacity_tokens=kv_capacity_tokens,
            kv_bytes_per_token=kv_bytes_per_token,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=max_model_len,
        ),
        lifecycle=LifecycleTimes(
            start_cold_s=start_cold_s, start_warm_s=start_warm_s, flip_s=flip_s, drain_s=drain_s
        ),
        provenance=Provenance(
            kind=kind,
            source="tests",
            measured_at=datetime(2026, 1, 1, tzinfo=UTC),
            machine="a formula",
            engine="none",
            points=8,
            error_ratio=0.0,
        ),
    )


def with_limits(profile: Profile, **limits: bool | int) -> Profile:
    """The same engine with other limits."""
    return replace(profile, limits=replace(profile.limits, **limits))


def interrupted(profile: Profile) -> Profile:
    """The same profile, of a run that broke off."""
    fit = TableFit(
        form="physical",
        points=4,
        held_out_points=0,
        median_error_ratio=None,
        p90_error_ratio=None,
        median_error_interval=None,
        noise_ratio=0.01,
    )
    details = ProfileDetails(
        prefill=fit, decode_step=fit, samples=8, disturbed_samples=0, complete=False
    )
    return replace(profile, details=details)
