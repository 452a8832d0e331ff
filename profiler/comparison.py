"""Two profiles side by side: what each does, how they differ, and whether that is more than noise.

Errors are those that the profiles state (`provenance.error_ratio`), taken as independent: that of
a ratio is the root of the sum of their squares.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from planner.domain.profile import Floats, Profile, TimeTable

MOST_POINTS = 6
"""Prompt lengths at which profiles are compared."""
SHORTEST_TOKENS = 16.0
"""Shorter prompts say how long a step takes at the least, not how fast tokens are computed."""
CONTEXT_TOKENS = 1024
"""Context of each sequence, tokens, where decoding is compared, unless both were measured less."""
TRANSFER_TOKENS = 1000
"""Prompt whose KV cache is moved, tokens."""


class Quantity(StrEnum):
    """What is compared."""

    PREFILL = "prefill_tokens_per_s"
    DECODE = "decode_tokens_per_s"
    KV_CAPACITY = "kv_capacity_tokens"
    TRANSFER = "transfer_s"
    START_COLD = "start_cold_s"
    START_WARM = "start_warm_s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One quantity of every profile.

    Parameters
    ----------
    at : float or None
        Prompt length (tokens) or promised ITL (seconds), where it is asked for at one.
    values : tuple of (float or None)
        One per profile, in the quantity's unit; None: it cannot do that.
    batches : tuple of (int or None)
        For decoding: sequences at once; empty otherwise.
    ratios, low, high : tuple of (float or None)
        To the first profile, and the interval of that by both profiles' stated errors.
    per_usd : tuple of (float or None)
        Tokens for one USD where a price is known; empty for what is no throughput.
    """

    quantity: Quantity
    at: float | None = None
    values: tuple[float | None, ...]
    batches: tuple[int | None, ...] = ()
    ratios: tuple[float | None, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    per_usd: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far two profiles of the same replica are apart, over points that both measured.

    Parameters
    ----------
    points : int
    median_ratio, p90_ratio : float
        Relative difference of the second to the first, without sign.
    bias_ratio : float
        Median with sign; above 0: the second is slower.
    stated_ratio : float
        What their stated errors explain.
    """

    table: str
    points: int
    median_ratio: float
    p90_ratio: float
    bias_ratio: float
    stated_ratio: float

    @property
    def exceeds(self) -> bool:
        """Whether they are further apart than their stated errors explain."""
        return self.median_ratio > self.stated_ratio


def combined_error(first: Profile, second: Profile) -> float:
    """Relative error of the ratio of two profiles: root of the sum of squares."""
    return math.hypot(first.provenance.error_ratio, second.provenance.error_ratio)


def compare(
    profiles: Sequence[Profile],
    *,
    itl_s: Sequence[float],
    context_tokens: int | None,
    usd_per_hour: Sequence[float | None],
) -> tuple[Compared, ...]:
    """Every quantity of every profile, with ratios to the first.

    Parameters
    ----------
    profiles : sequence of Profile
        Two at least.
    itl_s : sequence of float
        Promised gaps between tokens, seconds; the most sequences that keep one are decoded.
    context_tokens : int or None
        Of each sequence; None: 1,024, or the most that all were measured at.
    usd_per_hour : sequence of (float or None)
        Price of one replica of each, USD/h.
    """
    context = context_tokens or common_context(profiles)
    rows = [_prefill(profiles, float(n)) for n in common_lengths(profiles)]
    rows += [_decode(profiles, itl, context) for itl in itl_s]
    moved = [
        float(p.transfer.seconds(TRANSFER_TOKENS * p.limits.kv_bytes_per_token)) for p in profiles
    ]
    plain = (
        (Quantity.KV_CAPACITY, [float(p.limits.kv_capacity_tokens) for p in profiles], False),
        (Quantity.TRANSFER, moved, True),
        (Quantity.START_COLD, [p.lifecycle.start_cold_s for p in profiles], False),
        (Quantity.START_WARM, [p.lifecycle.start_warm_s for p in profiles], False),
    )
    rows += [
        _with_ratios(Compared(quantity=q, values=tuple(v)), profiles, noisy=n) for q, v, n in plain
    ]
    return tuple(_with_prices(row, usd_per_hour) for row in rows)


def common_context(profiles: Sequence[Profile]) -> int:
    """The context at which decoding is compared, tokens: measured by all."""
    ends = [p.decode_step.y[-1] for p in profiles if len(p.decode_step.y) > 1]
    return int(min([CONTEXT_TOKENS, *ends]))


def common_lengths(profiles: Sequence[Profile]) -> Floats:
    """Prompt lengths, tokens, that all profiles measured around: powers of two and the ends."""
    high = min(float(p.prefill.x[-1]) for p in profiles)
    low = max(min(SHORTEST_TOKENS, high), *(float(p.prefill.x[0]) for p in profiles))
    if low > high:
        return np.empty(0)
    powers = 2.0 ** np.arange(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    every = np.unique([low, *powers, high])
    chosen = np.unique(np.linspace(0, len(every) - 1, MOST_POINTS).round().astype(int))
    return np.asarray(every[chosen])


def decode_rate(profile: Profile, *, itl_s: float, context_tokens: int) -> tuple[float, int] | None:
    """Tokens/s and sequences of the largest batch whose step keeps a promised ITL.

    Limited by the batches measured, the sequences that the engine admits and its KV cache. None:
    one sequence is too slow already, or the context was not measured.
    """
    table, limits = profile.decode_step, profile.limits
    fitting = limits.kv_capacity_tokens // max(context_tokens, 1)
    context = np.asarray(float(context_tokens))
    most = min(int(table.most_x(float(context))), limits.max_num_seqs, fitting)
    if most < 1 or not bool(table.covers(np.asarray(1.0), context)):
        return None
    batches = np.arange(1, most + 1, dtype=np.float64)
    step_s = table.extended_at(batches, context)
    kept = np.flatnonzero(step_s <= itl_s)
    if len(kept) == 0:
        return None
    last = kept[-1]
    return float(batches[last] / step_s[last]), int(batches[last])


def agreements(first: Profile, second: Profile) -> tuple[Agreement, ...]:
    """How far apart two profiles are, in prefill and in decode steps."""
    tables = (
        ("prefill", first.prefill, second.prefill),
        ("decode step", first.decode_step, second.decode_step),
    )
    found = (_agreement(n, a, b, combined_error(first, second)) for n, a, b in tables)
    return tuple(one for one in found if one is not None)


def same_replica(first: Profile, second: Profile) -> bool:
    """Whether both are of one model on one accelerator in one form, so that they should agree."""
    return all(
        getattr(first, field) == getattr(second, field)
        for field in ("model", "accelerator", "tp", "pp", "dp", "weight_dtype", "kv_dtype")
    )


def _agreement(name: str, a: TimeTable, b: TimeTable, stated: float) -> Agreement | None:
    """Over the points of either grid that lie inside both."""
    xs = _inside(a.x, b.x)
    ys = _inside(a.y, b.y) if min(len(a.y), len(b.y)) > 1 else np.asarray([float(a.y[0])])
    if len(xs) == 0 or len(ys) == 0:
        return None
    x, y = np.meshgrid(xs, ys, indexing="ij")
    apart = (b.extended_at(x, y) / a.extended_at(x, y) - 1.0).ravel()
    return Agreement(
        table=name,
        points=len(apart),
        median_ratio=float(np.median(np.abs(apart))),
        p90_ratio=float(np.quantile(np.abs(apart), 0.9)),
        bias_ratio=float(np.median(apart)),
        stated_ratio=stated,
    )


def _inside(a: Floats, b: Floats) -> Floats:
    low, high = max(a[0], b[0]), min(a[-1], b[-1])
    every = np.union1d(a, b)
    return np.asarray(every[(every >= low) & (every <= high)])


def _prefill(profiles: Sequence[Profile], tokens: float) -> Compared:
    values = tuple(tokens / float(p.prefill.extended_at(tokens, 0.0)) for p in profiles)
    row = Compared(quantity=Quantity.PREFILL, at=tokens, values=values)
    return _with_ratios(row, profiles, noisy=True)


def _decode(profiles: Sequence[Profile], itl_s: float, context: int) -> Compared:
    rates = [decode_rate(p, itl_s=itl_s, context_tokens=context) for p in profiles]
    row = Compared(
        quantity=Quantity.DECODE,
        at=itl_s,
        values=tuple(None if r is None else r[0] for r in rates),
        batches=tuple(None if r is None else r[1] for r in rates),
    )
    return _with_ratios(row, profiles, noisy=True)


def _with_ratios(row: Compared, profiles: Sequence[Profile], *, noisy: bool) -> Compared:
    """Ratios to the first profile; an interval where the stated errors are of this quantity."""
    first = row.values[0]
    ratios = [None if not first or v is None else v / first for v in row.values]
    spread = [1.0 + (combined_error(profiles[0], p) if noisy else 0.0) for p in profiles]
    spread[0] = 1.0
    low = [None if r is None else r / s for r, s in zip(ratios, spread, strict=True)]
    high = [None if r is None else r * s for r, s in zip(ratios, spread, strict=True)]
    return replace(row, ratios=tuple(ratios), low=tuple(low), high=tuple(high))


def _with_prices(row: Compared, usd_per_hour: Sequence[float | None]) -> Compared:
    if row.quantity not in (Quantity.PREFILL, Quantity.DECODE):
        return row
    per_usd = tuple(
        None if value is None or not usd else value * 3600.0 / usd
        for value, usd in zip(row.values, usd_per_hour, strict=True)
    )
    return replace(row, per_usd=per_usd)
