"""From measurements to a profile: tables that never get faster with more work."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from planner.domain.errors import MeasurementError
from planner.domain.fleet import ReplicaShape, Role
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
from profiler.sweep import Measurements, PrefillPoint

FASTEST_BANDWIDTH_BYTES_PER_S = 1e13
FLAT_RATIO = 0.01
"""Transfer time that does not grow with size is given a slope that adds this share at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What was measured, on what.

    Parameters
    ----------
    shape : ReplicaShape
        Any role; the profile serves all roles of this engine.
    """

    shape: ReplicaShape
    limits: EngineLimits
    lifecycle: LifecycleTimes
    machine: str
    engine: str
    measured_at: datetime
    source: str


def fit(measured: Measurements, setting: Setting) -> Profile:
    """Make a profile of an engine that can take every role.

    Points without any transfer were measured on an aggregated worker; its profile has a free
    transfer, and `first_token_s` without the decode step that follows one.

    Raises
    ------
    MeasurementError
        When a grid point is missing.
    """
    prefill = _prefill_table(measured.prefill)
    decode = _decode_table(measured)
    transfer = _transfer(measured.prefill)
    points = len(measured.prefill) + len(measured.decode)
    predicted = float(prefill.at(measured.check.new_tokens, 0.0))
    return with_profile_id(
        Profile(
            profile_id="",
            model=setting.shape.model,
            accelerator=setting.shape.accelerator,
            tp=setting.shape.tp,
            pp=setting.shape.pp,
            dp=setting.shape.dp,
            weight_dtype=setting.shape.weight_dtype,
            kv_dtype=setting.shape.kv_dtype,
            roles=(Role.PREFILL, Role.DECODE, Role.AGGREGATED),
            prefill=prefill,
            decode_step=decode,
            transfer=transfer,
            first_token_s=_first_token_s(measured.prefill, prefill, decode, transfer),
            step_ratios=_step_ratios(measured),
            limits=setting.limits,
            lifecycle=setting.lifecycle,
            provenance=Provenance(
                kind=ProfileKind.MEASURED,
                source=setting.source,
                measured_at=setting.measured_at,
                machine=setting.machine,
                engine=setting.engine,
                points=points,
                error_ratio=abs(predicted - measured.check.busy_s) / measured.check.busy_s,
            ),
        )
    )


def _grid(
    points: dict[tuple[int, int], float], what: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    xs = sorted({x for x, _ in points})
    ys = sorted({y for _, y in points})
    missing = [(x, y) for x in xs for y in ys if (x, y) not in points]
    if missing:
        raise MeasurementError(f"the {what} grid lacks the points {missing}: measure them too")
    seconds = np.array([[points[x, y] for y in ys] for x in xs])
    seconds = np.maximum.accumulate(np.maximum.accumulate(seconds, axis=0), axis=1)
    return np.array(xs, float), np.array(ys, float), seconds


def _prefill_table(points: tuple[PrefillPoint, ...]) -> TimeTable:
    grid = {(p.new_tokens, p.cached_tokens): p.busy_s for p in points}
    x, y, seconds = _grid(grid, "prefill")
    return TimeTable(x_name="new tokens", y_name="cached tokens", x=x, y=y, seconds=seconds)


def _decode_table(measured: Measurements) -> TimeTable:
    grid = {(p.batch, p.context_tokens): p.step_s for p in measured.decode}
    x, y, seconds = _grid(grid, "decode")
    return TimeTable(x_name="sequences", y_name="context tokens", x=x, y=y, seconds=seconds)


def _step_ratios(measured: Measurements) -> tuple[float, ...]:
    """Quantile by quantile the mean over all points; empty unless every point has them."""
    rows = [p.step_ratios for p in measured.decode]
    if not all(rows) or len({len(row) for row in rows}) != 1:
        return ()
    return tuple(np.mean(rows, axis=0).tolist())


def _transfer(points: tuple[PrefillPoint, ...]) -> TransferTime:
    """Fit a line through (bytes, seconds) by least squares, never falling."""
    moved = np.array([p.transfer_bytes for p in points])
    took = np.array([p.transfer_s for p in points])
    if not moved.any():
        return TransferTime(base_s=0.0, bandwidth_bytes_per_s=FASTEST_BANDWIDTH_BYTES_PER_S)
    slope = max(float(np.polyfit(moved, took, 1)[0]), 0.0) if np.ptp(moved) > 0 else 0.0
    flat = FLAT_RATIO * float(took.min()) / float(moved.max())
    bandwidth = 1 / max(slope, flat, 1 / FASTEST_BANDWIDTH_BYTES_PER_S)
    base = max(float(np.median(took - moved / bandwidth)), 0.0)
    return TransferTime(base_s=base, bandwidth_bytes_per_s=bandwidth)


def _first_token_s(
    points: tuple[PrefillPoint, ...],
    prefill: TimeTable,
    decode: TimeTable,
    transfer: TransferTime,
) -> float:
    """What is left of TTFT on an idle deployment: HTTP, tokenizer, router, scheduling."""
    handed_over = any(p.transfer_bytes for p in points)
    step_s = float(decode.extended_at(1.0, 64.0)) if handed_over else 0.0
    left = [
        p.alone_ttft_s
        - float(prefill.at(p.new_tokens, p.cached_tokens))
        - float(transfer.seconds(p.transfer_bytes))
        - step_s
        for p in points
    ]
    return max(float(np.median(left)), 0.0)
