"""From samples to a profile: tables that never get faster with more work, and their errors."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np

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
from planner.domain.profile_details import ProfileDetails, StartUp, TableFit
from profiler.files import with_profile_id
from profiler.fitting.choice import Choice, error_interval, fitted
from profiler.fitting.forms import Floats
from profiler.fitting.prompts import with_every_prompt
from profiler.fitting.tables import table_of, under_roof
from profiler.roofline import Roof
from profiler.samples import Kind, Sample, Samples, mean_of

FASTEST_BANDWIDTH_BYTES_PER_S = 1e13
FLAT_RATIO = 0.01
"""Transfer time that does not grow with size is given a slope that adds this share at most."""
SHORT_CONTEXT_TOKENS = 64.0
KV_LINK = "KV link"
"""Among the facts of a profile: the link that its KV transfers are those of."""
UNKNOWN_ERROR_RATIO = 0.1
"""Error of a table whose points tell nothing of it: too few to leave one out, none held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was measured beside the samples; None: it was not."""

    start_cold: StartUp | None = None
    start_warm: StartUp | None = None
    drain_s: float | None = None
    direct_prefill_ratio: float | None = None
    prefix_cache_hit_ratio: float | None = None
    memory_bytes: float | None = None
    power_w: float | None = None
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What was measured, on what.

    Parameters
    ----------
    shape : ReplicaShape
        Of any of `roles`.
    roles : tuple of Role
        What the profile may be used for.
    step_tokens : int
        Prompt tokens that the engine computed in one step at the most.
    notes : tuple of str
        What a reader should know.
    complete : bool
        False: the run was interrupted.
    roof : Roof or None
        What no step can be faster than; None: model or accelerator are not known well enough.
    """

    shape: ReplicaShape
    roles: tuple[Role, ...] = tuple(Role)
    limits: EngineLimits
    lifecycle: LifecycleTimes
    machine: str
    engine: str
    measured_at: datetime
    source: str
    notes: tuple[str, ...] = ()
    complete: bool = True
    roof: Roof | None = None
    seen: Seen = field(default_factory=Seen)

    @property
    def step_tokens(self) -> int:
        """Prompt tokens computed in one step at the most."""
        return self.limits.max_num_batched_tokens


def profile_of_samples(samples: Samples, setting: Setting) -> Profile:
    """Make a profile of what was measured.

    Samples without any transfer were taken of an aggregated replica; its profile has a free
    transfer, and `first_token_s` without the decode step that follows one.

    Raises
    ------
    MeasurementError
        When too few points were measured.
    """
    samples = with_every_prompt(samples)
    prefill, prefill_fit, prefill_notes = _table(samples, Kind.PREFILL, setting)
    decode, decode_fit, decode_notes = _table(samples, Kind.DECODE, setting)
    idle = [s for s in samples.good(Kind.PREFILL) if "transfer_bytes" in s.values]
    transfer = _transfer(idle)
    shape = setting.shape
    return with_profile_id(
        Profile(
            profile_id="",
            model=shape.model,
            accelerator=shape.accelerator,
            tp=shape.tp,
            pp=shape.pp,
            dp=shape.dp,
            weight_dtype=shape.weight_dtype,
            kv_dtype=shape.kv_dtype,
            roles=setting.roles,
            prefill=prefill,
            decode_step=decode,
            transfer=transfer,
            first_token_s=_first_token_s(
                samples, prefill, decode, transfer, handed_over=bool(idle)
            ),
            step_ratios=_step_ratios(samples),
            limits=setting.limits,
            lifecycle=setting.lifecycle,
            provenance=Provenance(
                kind=ProfileKind.MEASURED,
                source=setting.source,
                measured_at=setting.measured_at,
                machine=setting.machine,
                engine=setting.engine,
                points=prefill_fit.points + decode_fit.points,
                error_ratio=max(_error_ratio(fit) for fit in (prefill_fit, decode_fit)),
                notes=(*setting.notes, *prefill_notes, *decode_notes),
            ),
            details=_details(
                samples, setting, tables=(prefill, decode), fits=(prefill_fit, decode_fit)
            ),
        )
    )


_NAMES = {
    Kind.PREFILL: ("prefill", "new tokens", "cached tokens"),
    Kind.DECODE: ("decode step", "sequences", "context tokens"),
}


def _table(
    samples: Samples, kind: Kind, setting: Setting
) -> tuple[TimeTable, TableFit, tuple[str, ...]]:
    """A table, how far off it is, and what should be known of it."""
    name, x_name, y_name = _NAMES[kind]
    points = samples.scatter(kind)
    choice = fitted(samples, kind, step_tokens=setting.step_tokens)
    table = table_of(choice.seconds, points, x_name=x_name, y_name=y_name)
    notes: tuple[str, ...] = ()
    if setting.roof is not None:
        of = setting.roof.prefill_s if kind is Kind.PREFILL else setting.roof.decode_s
        table, notes = under_roof(table, points, of, name)
    fit = _fit_of(samples, kind, choice, table)
    return table, fit, (*notes, *_unmeasured(name, table, fit))


def _error_ratio(fit: TableFit) -> float:
    if fit.median_error_ratio is not None:
        return fit.median_error_ratio
    return max(fit.noise_ratio, UNKNOWN_ERROR_RATIO)


def _unmeasured(name: str, table: TimeTable, fit: TableFit) -> Iterator[str]:
    """What a table does not say, as sentences."""
    most = f"{table.x[-1]:,.0f} {table.x_name}"
    if table.reach is not None and len(table.y) == 1:
        yield (
            f"{name}: measured at {table.y[0]:,.0f} {table.y_name} only: nothing is said of more"
        )
    elif table.reach is not None:
        yield (
            f"{name}: measured up to {table.y[-1]:,.0f} {table.y_name}, but at {most} up to "
            f"{table.reach[-1]:,.0f} only: nothing is said of what lies beyond"
        )
    if fit.median_error_ratio is None:
        yield (
            f"{name}: its error is not known, as {fit.points} points do not tell it: "
            f"{_error_ratio(fit):.0%} is assumed"
        )


def _fit_of(samples: Samples, kind: Kind, choice: Choice, table: TimeTable) -> TableFit:
    """How far off the table is where nothing was fitted.

    By the points that were held out; a run too short for any is judged by the points that were
    left out one by one, which chose the form.
    """
    judged = samples.scatter(kind, held_out=True)
    # A context or two beyond the last line is no reason to judge by fewer points.
    errors = table.extended_at(judged.x, judged.y) / judged.seconds - 1
    if len(judged) == 0:
        errors = choice.left_out_errors
    median, p90, low, high = error_interval(errors)
    known = bool(np.isfinite(median))
    return TableFit(
        form=choice.form,
        coefficients=tuple(choice.fitted.coefficients.items()),
        points=len(samples.points(kind, held_out=False)),
        held_out_points=len(judged),
        median_error_ratio=median if known else None,
        p90_error_ratio=p90 if known else None,
        median_error_interval=(low, high) if known else None,
        noise_ratio=samples.noise_ratio(kind),
    )


def _step_ratios(samples: Samples) -> tuple[float, ...]:
    """Quantile by quantile the mean over all samples; empty unless every sample has them."""
    rows = [s.ratios for s in samples.good(Kind.DECODE)]
    if not all(rows) or len({len(row) for row in rows}) != 1:
        return ()
    return tuple(np.mean(rows, axis=0).tolist())


def _transfer(idle: list[Sample]) -> TransferTime:
    if not idle:
        return TransferTime(base_s=0.0, bandwidth_bytes_per_s=FASTEST_BANDWIDTH_BYTES_PER_S)
    return transfer_line(
        np.array([s.values["transfer_bytes"] for s in idle]),
        np.array([s.values["transfer_s"] for s in idle]),
    )


def transfer_line(moved: Floats, took: Floats) -> TransferTime:
    """Fit a line through transfers by least squares, never falling.

    Parameters
    ----------
    moved : (transfers,) float
        Bytes.
    took : (transfers,) float
        Seconds.
    """
    slope = max(float(np.polyfit(moved, took, 1)[0]), 0.0) if np.ptp(moved) > 0 else 0.0
    flat = FLAT_RATIO * float(took.min()) / float(moved.max())
    bandwidth = 1 / max(slope, flat, 1 / FASTEST_BANDWIDTH_BYTES_PER_S)
    base = max(float(np.median(took - moved / bandwidth)), 0.0)
    return TransferTime(base_s=base, bandwidth_bytes_per_s=bandwidth)


def _first_token_s(
    samples: Samples,
    prefill: TimeTable,
    decode: TimeTable,
    transfer: TransferTime,
    *,
    handed_over: bool,
) -> float:
    """What is left of TTFT on an idle deployment: HTTP, tokenizer, router, scheduling."""
    step_s = float(decode.extended_at(1.0, SHORT_CONTEXT_TOKENS)) if handed_over else 0.0
    left = []
    for point in samples.points(Kind.PREFILL, held_out=False):
        taken = samples.of(point)
        moved = mean_of(taken, "transfer_bytes")
        left.append(
            mean_of(taken, "alone_ttft_s")
            - float(prefill.extended_at(point.x, point.y))
            - (float(transfer.seconds(moved)) if np.isfinite(moved) else 0.0)
            - step_s
        )
    return max(float(np.median(left)), 0.0)


def _details(
    samples: Samples,
    setting: Setting,
    *,
    tables: tuple[TimeTable, TimeTable],
    fits: tuple[TableFit, TableFit],
) -> ProfileDetails:
    (prefill, decode), seen = tables, setting.seen
    idle, loaded = (_mean(samples, n) for n in ("transfer_s", "loaded_transfer_s"))
    mixed = samples.good(Kind.MIXED)
    ratios = [s.values["beside_s"] / float(prefill.extended_at(s.point.x, 0.0)) for s in mixed]
    return ProfileDetails(
        prefill=fits[0],
        decode_step=fits[1],
        mixed_ratio=float(np.median(ratios)) if ratios else None,
        mixed_stall_s=float(np.mean([s.values["stall_s"] for s in mixed])) if mixed else None,
        loaded_transfer_ratio=loaded / idle if idle and loaded else None,
        direct_prefill_ratio=seen.direct_prefill_ratio,
        prefill_tokens_per_s=float((prefill.x[:, None] / prefill.seconds).max()),
        decode_tokens_per_s=float((decode.x[:, None] / decode.seconds)[-1].max()),
        prefix_cache_hit_ratio=seen.prefix_cache_hit_ratio,
        kv_bytes_per_token=_kv_bytes_per_token(samples),
        start_cold=seen.start_cold,
        start_warm=seen.start_warm,
        drain_s=seen.drain_s,
        memory_bytes=seen.memory_bytes,
        power_w=seen.power_w,
        samples=len(samples.taken),
        disturbed_samples=samples.disturbed,
        complete=setting.complete,
        facts=seen.facts,
    )


def _mean(samples: Samples, name: str) -> float | None:
    value = mean_of(samples.good(Kind.PREFILL), name)
    return value if np.isfinite(value) else None


def _kv_bytes_per_token(samples: Samples) -> float | None:
    """Of the longest prompts without a prefix: of short ones the last block is half empty."""
    rows = [
        (s.point.x, s.values["transfer_bytes"] / s.point.x)
        for s in samples.good(Kind.PREFILL)
        if s.point.y == 0 and s.values.get("transfer_bytes")
    ]
    return max(rows)[1] if rows else None


def marked_incomplete(setting: Setting, why: str) -> Setting:
    """The setting of a run that broke off."""
    return replace(setting, complete=False, notes=(*setting.notes, f"INCOMPLETE: {why}"))
