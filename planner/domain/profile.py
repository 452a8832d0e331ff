"""What one replica was measured to do, interpolated between the measured points."""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from planner.domain.errors import OutsideProfileError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.model import Dtype
from planner.domain.profile_details import ProfileDetails

Floats = NDArray[np.float64]


MEAN_RATIO_SLACK = 0.1
"""Quantiles of ratios with mean 1 have a mean near it."""


class ProfileKind(StrEnum):
    """Where a profile's numbers come from."""

    MEASURED = "measured"
    IMPORTED = "imported"
    ESTIMATED = "estimated"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimeTable:
    """Seconds over two quantities, bilinear between measured points.

    For prefill: `x` = new tokens, `y` = cached tokens. For a decode step: `x` = batch
    (sequences), `y` = context tokens per sequence.

    Parameters
    ----------
    x_name, y_name : str
        What the axes count, for messages.
    x : (nx,) float, increasing
    y : (ny,) float, increasing; one point without a reach means that y makes no difference
    seconds : (nx, ny) float
    reach : (nx,) float, not increasing, or None
        The largest y that is known at each x, where less is known than all of `y`: a corner that
        was not measured, or a single y that says nothing of others. None: all of it.
    """

    x_name: str
    y_name: str
    x: Floats
    y: Floats
    seconds: Floats
    reach: Floats | None = None

    def __post_init__(self) -> None:
        if self.seconds.shape != (len(self.x), len(self.y)):
            raise ValueError(
                f"seconds has shape {self.seconds.shape}, not {(len(self.x), len(self.y))}"
            )
        if len(self.x) == 0 or len(self.y) == 0:
            raise ValueError("a table needs at least one point on each axis")
        for name, axis in ((self.x_name, self.x), (self.y_name, self.y)):
            if not bool(np.all(np.isfinite(axis))):
                raise ValueError(f"{name} must be finite")
            if bool(np.any(np.diff(axis) <= 0)) or axis[0] < 0:
                raise ValueError(f"{name} must increase and not be negative")
        if not bool(np.all(np.isfinite(self.seconds))) or self.seconds.min() <= 0:
            raise ValueError("seconds must be finite and above 0")
        self._check_reach()

    def _check_reach(self) -> None:
        reach = self.reach
        if reach is None:
            return
        if reach.shape != self.x.shape:
            raise ValueError(f"reach has {reach.size} values, not one per {self.x_name}")
        if not bool(np.all((reach >= 0) & (reach <= self.y[-1]))) or bool(
            np.any(np.diff(reach) > 0)
        ):
            raise ValueError(
                f"reach must not grow with {self.x_name}, and lie between 0 and the last "
                f"{self.y_name}, {self.y[-1]:g}"
            )

    def covers(self, x: Floats, y: Floats) -> NDArray[np.bool_]:
        """Which points the measurements bound from above (below the first point is covered)."""
        xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        if self.reach is not None:
            inside_y = ys <= np.interp(xs, self.x, self.reach)
        else:
            inside_y = (ys <= self.y[-1]) | (len(self.y) == 1)
        return np.asarray((xs <= self.x[-1]) & inside_y, dtype=np.bool_)

    def most_x(self, y: float) -> float:
        """The largest x that was measured, with so much y where some of `y` was not reached."""
        if self.reach is None or not self.reach[-1] < y <= self.reach[0]:
            return float(self.x[-1])
        # The reach falls from here on: between two lines it is straight.
        last = int(np.flatnonzero(self.reach >= y)[-1])
        (x, x1), (far, far1) = self.x[last : last + 2], self.reach[last : last + 2]
        return float(x + (x1 - x) * (far - y) / (far - far1))

    def at(self, x: Floats | float, y: Floats | float) -> Floats:
        """Seconds at (x, y), broadcast.

        Below the first measured point the first value is held (an upper bound, as time grows
        with work).

        Raises
        ------
        OutsideProfileError
            Above the last measured point on either axis: nothing is extrapolated silently.
        """
        xs, ys = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        inside = self.covers(xs, ys)
        if not bool(np.all(inside)):
            bad = ~inside
            corner = (
                ""
                if self.reach is None
                else f" (at the most {self.x_name} {self.reach[-1]:g} {self.y_name})"
            )
            raise OutsideProfileError(
                f"the profile was measured up to {self.x[-1]:g} {self.x_name} and "
                f"{self.y[-1]:g} {self.y_name}{corner}, but {float(xs[bad].max()):g} and "
                f"{float(ys[bad].max()):g} were asked for: measure further "
                f"(`poolwise profile run`) or shorten the requests"
            )
        return self.extended_at(xs, ys)

    def extended_at(self, x: Floats | float, y: Floats | float) -> Floats:
        """Seconds at (x, y), continuing the last segments beyond the measured range.

        For callers that have checked `covers` or that flag what lies outside.
        """
        xs, ys = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        i, u = _locate(self.x, xs)
        j, v = _locate(self.y, ys)
        i1 = np.minimum(i + 1, len(self.x) - 1)
        j1 = np.minimum(j + 1, len(self.y) - 1)
        low = self.seconds[i, j] * (1 - u) + self.seconds[i1, j] * u
        high = self.seconds[i, j1] * (1 - u) + self.seconds[i1, j1] * u
        floor = float(self.seconds.min())
        return np.asarray(np.maximum(low * (1 - v) + high * v, floor), dtype=np.float64)


def _locate(axis: Floats, values: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Index of the segment's left end, and position in it; left of the axis position 0."""
    if len(axis) == 1:
        return np.zeros(values.shape, dtype=np.intp), np.zeros(values.shape)
    index = np.clip(np.searchsorted(axis, values, side="right") - 1, 0, len(axis) - 2)
    position = (values - axis[index]) / (axis[index + 1] - axis[index])
    return index, np.maximum(position, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferTime:
    """Moving one request's KV cache from prefill to decode: base + bytes / bandwidth.

    Parameters
    ----------
    base_s : float
        Fixed part, seconds, everything between the end of prefill and the start of decoding
        that does not grow with the prompt.
    bandwidth_bytes_per_s : float
        Bytes per second through the P/D path, not the link's nominal rate.
    """

    base_s: float
    bandwidth_bytes_per_s: float

    def __post_init__(self) -> None:
        if not 0 <= self.base_s < math.inf or not self.bandwidth_bytes_per_s > 0:
            raise ValueError(
                "base_s must be finite and at least 0 and bandwidth_bytes_per_s above 0"
            )

    def seconds(self, kv_bytes: Floats | float) -> Floats:
        """Seconds to move `kv_bytes` on an idle path."""
        return np.asarray(self.base_s + np.asarray(kv_bytes) / self.bandwidth_bytes_per_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What the engine admits at once.

    Parameters
    ----------
    kv_capacity_tokens : int
        Tokens whose KV cache fits into one replica.
    kv_bytes_per_token : float
    max_num_seqs : int
        Sequences decoded together at the most.
    max_num_batched_tokens : int
        Prompt tokens computed in one step at the most (chunk size of chunked prefill).
    max_model_len : int
        Longest prompt plus answer, tokens.
    kv_block_tokens : int
        KV cache is handed out in blocks of so many tokens (vLLM: 16 on GPUs, 128 on CPUs).
    async_scheduling : bool
        Whether a step is composed while the one before runs, so that requests wait for a step
        more (vLLM's `--async-scheduling`, on by default since 0.14, never on CPUs).
    late_kv_notice : bool
        Whether a busy engine asks for arrived KV caches when it has launched a step and hears of
        them when that ends, so that they join a step later (vLLM 0.32 with NIXL, traced).
    """

    kv_capacity_tokens: int
    kv_bytes_per_token: float
    max_num_seqs: int
    max_num_batched_tokens: int
    max_model_len: int
    kv_block_tokens: int = 16
    async_scheduling: bool = False
    late_kv_notice: bool = False

    def __post_init__(self) -> None:
        for field in (
            "kv_capacity_tokens",
            "max_num_seqs",
            "max_num_batched_tokens",
            "kv_block_tokens",
        ):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.kv_capacity_tokens < self.kv_block_tokens:
            raise ValueError(
                f"kv_capacity_tokens {self.kv_capacity_tokens} holds no block of "
                f"{self.kv_block_tokens} tokens (kv_block_tokens)"
            )
        if not 0 <= self.kv_bytes_per_token < math.inf:
            raise ValueError(
                f"kv_bytes_per_token must be at least 0, got {self.kv_bytes_per_token:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecycleTimes:
    """How long changes of a replica take, seconds."""

    start_cold_s: float
    start_warm_s: float
    flip_s: float
    drain_s: float

    def __post_init__(self) -> None:
        for field in ("start_cold_s", "start_warm_s", "flip_s", "drain_s"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ValueError(f"{field} must be finite and at least 0 s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where the numbers come from.

    Parameters
    ----------
    kind : ProfileKind
    source : str
        Who or what produced them.
    measured_at : datetime
        With a time zone.
    machine : str
        Processor or GPU, driver, quota.
    engine : str
        Engine and version.
    points : int
        Measured points behind the tables.
    error_ratio : float
        Median relative error at held-out points; for estimates, the stated interval.
    notes : tuple of str
        What whoever relies on it should know: rows refused and why, quantities assumed,
        disturbances seen while measuring.
    """

    kind: ProfileKind
    source: str
    measured_at: datetime
    machine: str
    engine: str
    points: int
    error_ratio: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """What one replica of a model on an accelerator does.

    Parameters
    ----------
    profile_id : str
        Derived from its content.
    roles : tuple of Role
        Roles in which it was measured; it may be planned for those only.
    prefill : TimeTable
        Seconds to compute a prompt over (new tokens, cached tokens), one prompt at a time.
    decode_step : TimeTable
        Seconds of one decode step over (batch, context tokens per sequence).
    transfer : TransferTime
        Through the P/D path.
    first_token_s : float
        Fixed part of TTFT outside prefill, transfer and the first step: HTTP, tokenizer,
        router, scheduling. Seconds.
    step_ratios : tuple of float
        Equally likely ratios of a single decode step to the mean of such steps, their mean 1;
        empty: not measured, steps count as all alike.
    weight_dtype, kv_dtype : Dtype or None
        Formats of weights and KV cache it was measured with; None: the model's own.
    details : ProfileDetails or None
        How it was measured, with its errors; None: not by `poolwise profile run`.
    """

    profile_id: str
    model: str
    accelerator: str
    tp: int = 1
    pp: int = 1
    dp: int = 1
    roles: tuple[Role, ...]
    prefill: TimeTable
    decode_step: TimeTable
    transfer: TransferTime
    first_token_s: float
    limits: EngineLimits
    lifecycle: LifecycleTimes
    provenance: Provenance
    step_ratios: tuple[float, ...] = ()
    weight_dtype: Dtype | None = None
    kv_dtype: Dtype | None = None
    details: ProfileDetails | None = None

    def __post_init__(self) -> None:
        if not all(ratio > 0 for ratio in self.step_ratios):
            raise ValueError("step_ratios must be above 0")
        mean = sum(self.step_ratios) / max(len(self.step_ratios), 1)
        if self.step_ratios and abs(mean - 1) > MEAN_RATIO_SLACK:
            raise ValueError(f"step_ratios must have a mean of 1, got {mean:.3g}")
        if not self.roles:
            raise ValueError(f"profile {self.profile_id} names no role")
        if bool(np.any(np.diff(self.prefill.seconds, axis=0) < 0)):
            raise ValueError(
                "prefill.seconds must not fall as new tokens grow: a longer prompt takes no less "
                "time; measure it again, or take the highest value so far"
            )
        if not 0 <= self.first_token_s < math.inf:
            raise ValueError("first_token_s must be finite and at least 0 s")

    @property
    def interrupted(self) -> bool:
        """Whether the run that measured it broke off, and this is what it had by then."""
        return self.details is not None and not self.details.complete

    def describes(self, shape: ReplicaShape) -> bool:
        """Whether a replica of this shape was measured by this profile.

        Limits that the shape leaves open are as they were when it was measured.
        """
        limits = self.limits
        return (
            shape.role in self.roles
            and (shape.model, shape.accelerator) == (self.model, self.accelerator)
            and (shape.tp, shape.pp, shape.dp) == (self.tp, self.pp, self.dp)
            and (shape.weight_dtype, shape.kv_dtype) == (self.weight_dtype, self.kv_dtype)
            and shape.max_num_batched_tokens in (None, limits.max_num_batched_tokens)
            and shape.max_num_seqs in (None, limits.max_num_seqs)
        )

    def slowed(self, factor: float) -> "Profile":
        """The same profile with prompts, decode steps and transfers that take so many times long.

        Its id stays: it is this profile, distrusted.
        """
        return replace(
            self,
            prefill=replace(self.prefill, seconds=self.prefill.seconds * factor),
            decode_step=replace(self.decode_step, seconds=self.decode_step.seconds * factor),
            transfer=TransferTime(
                base_s=self.transfer.base_s * factor,
                bandwidth_bytes_per_s=self.transfer.bandwidth_bytes_per_s / factor,
            ),
        )

    def lasting(self, *, prefill: float, decode: float) -> "Profile":
        """The same profile whose prompts and decode steps last so many times as long.

        Its id stays: it is this profile, corrected by what its replicas are seen to do.
        """
        if prefill == 1.0 and decode == 1.0:
            return self
        return replace(
            self,
            prefill=replace(self.prefill, seconds=self.prefill.seconds * prefill),
            decode_step=replace(self.decode_step, seconds=self.decode_step.seconds * decode),
        )
