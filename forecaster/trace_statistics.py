"""What a trace is like: pace, bursts, lengths, prefix reuse, and where it has holes."""

import math
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from forecaster.rescale import spread_ticks
from planner.domain.prefix_cache import CacheReuse
from planner.domain.workload import Floats, Integers, PrefixBlocks, Workload

PEAK_WINDOWS_S = (1.0, 60.0, 300.0)
TICKS_PER_WINDOW = 10
"""Nothing shorter than so many ticks can be told from a trace on a coarse clock."""
FEWEST_WINDOWS = 3
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999)
INPUT_EDGES = (1, 256, 1024, 4096, 16_384, 65_536)
OUTPUT_EDGES = (1, 32, 128, 512, 2048)
IMPROBABLE = 1e-3
"""A silence is listed when arrivals at the pace around it have one so long in fewer traces."""
SHORTEST_GAP_S = 1.0
APART = 3.0
MOST_GAPS = 20
CACHE_STEPS = 8
MOST_BLOCKS = 3_000_000
"""Traces with more block accesses are not replayed against caches: it would take minutes."""
_NEIGHBOURS = 100
_FEWEST_GAPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """Counts in windows of one length.

    Parameters
    ----------
    peak_rps : float
        Rate of the busiest window.
    peak_to_mean : float
    dispersion : float
        Variance of the counts over their mean; 1 is Poisson, more is bursty or changing.
    """

    window_s: float
    peak_rps: float
    peak_to_mean: float
    dispersion: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthStatistics:
    """Lengths in tokens: quantiles at `LEVELS`, mean and longest."""

    quantiles: tuple[float, ...]
    mean: float
    longest: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointLengths:
    """Share of requests by prompt (rows) and answer (columns) length.

    Parameters
    ----------
    input_edges, output_edges : tuple of int
        Lower edges of the groups, tokens; the last group is open.
    share : (inputs, outputs) float
        Sums to 1.
    """

    input_edges: tuple[int, ...]
    output_edges: tuple[int, ...]
    share: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A silence that chance does not explain.

    Parameters
    ----------
    expected_requests : float
        Requests that the pace around it would have brought in that time.
    """

    start_at: datetime
    start_s: float
    length_s: float
    expected_requests: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassShare:
    """How many requests a class has."""

    request_class: str
    requests: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TraceStatistics:
    """Statistics of a trace.

    Parameters
    ----------
    arrival_cv : float or None
        CV of the gaps between arrivals; None where the clock is too coarse for it, or with fewer
        than ten gaps.
    reuse_ratio : float or None
        Share of prompt tokens that an unbounded prefix cache saves; None: no prefix is named.
    unique_tokens : int
        Prompt tokens in different blocks: an unbounded cache holds so many in the end.
    """

    start_at: datetime
    duration_s: float
    requests: int
    rate_rps: float
    input_tokens_per_s: float
    output_tokens_per_s: float
    peaks: tuple[Peak, ...]
    arrival_cv: float | None
    isl: LengthStatistics
    osl: LengthStatistics
    joint: JointLengths
    length_correlation: float
    reuse_ratio: float | None
    unique_tokens: int
    cache_reuse: tuple[CacheReuse, ...]
    gaps: tuple[Gap, ...]
    classes: tuple[ClassShare, ...]


def trace_statistics(workload: Workload, *, tick_s: float | None) -> TraceStatistics:
    """Describe a trace of at least one request.

    Parameters
    ----------
    tick_s : float or None
        Step of a coarse clock (`ReadReport.arrival_tick_s`): shorter windows than
        `TICKS_PER_WINDOW` of it are left out.
    """
    prefix = workload.prefix
    unique = 0 if prefix is None else len(np.unique(prefix.block_ids)) * prefix.block_tokens
    inputs = int(workload.input_tokens.sum())
    names, counts = np.unique(workload.request_class, return_counts=True)
    return TraceStatistics(
        start_at=workload.start_at,
        duration_s=workload.duration_s,
        requests=len(workload),
        rate_rps=workload.request_rate_rps,
        input_tokens_per_s=inputs / workload.duration_s,
        output_tokens_per_s=int(workload.output_tokens.sum()) / workload.duration_s,
        peaks=_peaks(workload, tick_s),
        arrival_cv=_arrival_cv(workload, tick_s),
        isl=_lengths(workload.input_tokens),
        osl=_lengths(workload.output_tokens),
        joint=joint_lengths(workload, INPUT_EDGES, OUTPUT_EDGES),
        length_correlation=rank_correlation(workload.input_tokens, workload.output_tokens),
        reuse_ratio=None if prefix is None else int(workload.cached_tokens.sum()) / inputs,
        unique_tokens=unique,
        cache_reuse=() if prefix is None else cache_reuse(workload, prefix, unique),
        gaps=improbable_gaps(workload, tick_s),
        classes=tuple(
            ClassShare(request_class=str(name), requests=int(count))
            for name, count in zip(names, counts, strict=True)
        ),
    )


def rank_correlation(one: Integers, other: Integers) -> float:
    """Spearman's rank correlation; 0 where a column does not vary."""
    ranks = [np.unique(values, return_inverse=True) for values in (one, other)]
    # Mean rank of ties: the middle of their places.
    middles = []
    for unique, inverse in ranks:
        sizes = np.bincount(inverse, minlength=len(unique))
        middles.append((np.cumsum(sizes) - (sizes - 1) / 2)[inverse])
    if min(len(unique) for unique, _ in ranks) < 2:
        return 0.0
    return float(np.corrcoef(middles[0], middles[1])[0, 1])


def _peaks(workload: Workload, tick_s: float | None) -> tuple[Peak, ...]:
    found = []
    for window_s in PEAK_WINDOWS_S:
        whole = math.floor(workload.duration_s / window_s + 1e-9)
        if whole < FEWEST_WINDOWS or window_s < TICKS_PER_WINDOW * (tick_s or 0.0):
            continue
        index = (workload.arrival_offset_s // window_s).astype(np.int64)
        counts = np.bincount(index[index < whole], minlength=whole)
        if counts.sum() == 0:
            continue
        found.append(
            Peak(
                window_s=window_s,
                peak_rps=float(counts.max()) / window_s,
                peak_to_mean=float(counts.max() / counts.mean()),
                dispersion=float(counts.var() / counts.mean()),
            )
        )
    return tuple(found)


def _arrival_cv(workload: Workload, tick_s: float | None) -> float | None:
    gaps = np.diff(workload.arrival_offset_s)
    mean_s = float(gaps.mean()) if len(gaps) >= _FEWEST_GAPS else 0.0
    if mean_s == 0 or mean_s < TICKS_PER_WINDOW * (tick_s or 0.0):
        return None
    return float(gaps.std()) / mean_s


def _lengths(tokens: Integers) -> LengthStatistics:
    return LengthStatistics(
        quantiles=tuple(np.quantile(tokens, LEVELS).tolist()),
        mean=float(tokens.mean()),
        longest=int(tokens.max()),
    )


def joint_lengths(
    workload: Workload, input_edges: tuple[int, ...], output_edges: tuple[int, ...]
) -> JointLengths:
    """Count requests by prompt and answer length; edges begin at 1 and increase."""
    rows = np.searchsorted(input_edges, workload.input_tokens, side="right") - 1
    columns = np.searchsorted(output_edges, workload.output_tokens, side="right") - 1
    cells = np.bincount(
        rows * len(output_edges) + columns, minlength=len(input_edges) * len(output_edges)
    )
    return JointLengths(
        input_edges=input_edges,
        output_edges=output_edges,
        share=cells.reshape(len(input_edges), len(output_edges)) / max(len(workload), 1),
    )


def improbable_gaps(workload: Workload, tick_s: float | None) -> tuple[Gap, ...]:
    """Silences too long for the trace's own gaps, longest first.

    They stand apart: each is at least `APART` times as long as the longest gap that is not
    listed; in bursty traffic gaps of every length occur, and none is listed. And they are
    improbable at the pace around them: with the rate r and the squared variation c (at least 1)
    of the hundred gaps on either side, a silence of g seconds has a probability of about
    exp(-2 r g / (1 + c)); times the number of gaps that must be below `IMPROBABLE`. Nothing
    shorter than ten ticks, or a second, is listed.

    References
    ----------
    The exponential rate of a renewal process's tail matched by its mean residual life,
    (1 + c) / (2 r): D. R. Cox, Renewal Theory (1962), section 5.3.
    """
    spread = workload
    if tick_s is not None:
        spread = spread_ticks(workload, tick_s=tick_s, rng=np.random.default_rng(0))
    gaps = np.diff(spread.arrival_offset_s)
    if len(gaps) <= _FEWEST_GAPS:
        return ()
    order = np.argsort(-gaps, kind="stable")[: MOST_GAPS + 1]
    apart = np.flatnonzero(gaps[order[:-1]] >= APART * gaps[order[1:]])
    apart = apart[gaps[order[apart]] >= max(SHORTEST_GAP_S, TICKS_PER_WINDOW * (tick_s or 0.0))]
    if len(apart) == 0:
        return ()
    listed = order[: apart[-1] + 1].tolist()
    found = []
    for index in listed:
        near = gaps[max(index - _NEIGHBOURS, 0) : index + 1 + _NEIGHBOURS]
        around = near[near < gaps[listed[-1]]]
        mean_s = float(around.mean()) if len(around) else 0.0
        if mean_s <= 0:
            continue
        cv2 = max(float(around.var()) / mean_s**2, 1.0)
        length_s = float(gaps[index])
        if len(gaps) * math.exp(-2 * length_s / mean_s / (1 + cv2)) < IMPROBABLE:
            start_s = float(spread.arrival_offset_s[index])
            found.append(
                Gap(
                    start_at=workload.start_at + timedelta(seconds=start_s),
                    start_s=start_s,
                    length_s=length_s,
                    expected_requests=length_s / mean_s,
                )
            )
    return tuple(found)


def cache_reuse(
    workload: Workload, prefix: PrefixBlocks, unique_tokens: int
) -> tuple[CacheReuse, ...]:
    """Prompt tokens saved by one LRU cache over its size: halved from what holds everything.

    The cache holds whole blocks of prompts; a request uses the leading blocks that are there, and
    its last ones are dropped first, as an engine's prefix cache does. Answers are not cached.
    """
    if len(prefix.block_ids) > MOST_BLOCKS or unique_tokens == 0:
        return ()
    inputs = int(workload.input_tokens.sum())
    ids = prefix.block_ids.tolist()
    ends = prefix.offsets.tolist()
    tokens = workload.input_tokens.tolist()
    found = []
    for step in range(CACHE_STEPS):
        blocks = math.ceil(unique_tokens / prefix.block_tokens / 2**step)
        saved = 0
        cache: OrderedDict[int, None] = OrderedDict()
        for request, most in enumerate(tokens):
            own = ids[ends[request] : ends[request + 1]]
            hits = 0
            while hits < len(own) and own[hits] in cache:
                hits += 1
            saved += min(hits * prefix.block_tokens, most - 1)
            for block in reversed(own):
                cache[block] = None
                cache.move_to_end(block)
            while len(cache) > blocks:
                cache.popitem(last=False)
        found.append(
            CacheReuse(cache_tokens=blocks * prefix.block_tokens, reuse_ratio=saved / inputs)
        )
        if blocks == 1:
            break
    return tuple(reversed(found))
