"""Requests: a trace of them, their joint lengths, and what was observed of them per window."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from planner.domain.prefix_cache import PrefixCache
from planner.domain.slo import DEFAULT_CLASS

if TYPE_CHECKING:
    from planner.domain.output_length import OutputLengths

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefixBlocks:
    """Which prompt blocks requests share, as ragged arrays.

    Request `i` starts with the blocks `block_ids[offsets[i]:offsets[i + 1]]`; equal ids mean
    equal tokens *and* equal tokens before them.

    Parameters
    ----------
    block_tokens : int
        Tokens in one block (512 in Mooncake's traces).
    offsets : (requests + 1,) int
    block_ids : (blocks,) int
    """

    block_tokens: int
    offsets: Integers
    block_ids: Integers

    def of(self, request: int) -> Integers:
        """The block ids of one request, first to last."""
        return self.block_ids[self.offsets[request] : self.offsets[request + 1]]

    def take(self, first: int, last: int) -> Self:
        """The blocks of requests `first` to `last` (exclusive)."""
        offsets = self.offsets[first : last + 1]
        return type(self)(
            block_tokens=self.block_tokens,
            offsets=offsets - offsets[0],
            block_ids=self.block_ids[offsets[0] : offsets[-1]],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Requests of one model in order of arrival, as columns.

    Parameters
    ----------
    start_at : datetime
        The instant of offset 0, with a time zone.
    arrival_offset_s : (requests,) float, seconds
        Not decreasing.
    input_tokens, output_tokens : (requests,) int
        Prompt and answer lengths, at least 1.
    cached_tokens : (requests,) int
        Leading prompt tokens that an earlier request already had, 0..input_tokens: what an
        unbounded shared prefix cache would save.
    request_class : (requests,) str
        SLO class.
    duration_s : float
        Length of the interval that the requests were drawn from, seconds; not before the last
        arrival.
    prefix : PrefixBlocks or None
        Block identities, where the trace has them.
    """

    start_at: datetime
    arrival_offset_s: Floats
    input_tokens: Integers
    output_tokens: Integers
    cached_tokens: Integers
    request_class: NDArray[np.str_]
    duration_s: float
    prefix: PrefixBlocks | None = None

    def __post_init__(self) -> None:
        if self.start_at.tzinfo is None:
            raise ValueError("start_at needs a time zone")
        count = len(self.arrival_offset_s)
        for field in ("input_tokens", "output_tokens", "cached_tokens", "request_class"):
            if len(getattr(self, field)) != count:
                raise ValueError(f"{field} has {len(getattr(self, field))} rows, not {count}")
        if not 0 <= self.duration_s < math.inf:
            raise ValueError(f"duration_s must be finite and at least 0, got {self.duration_s:g}")
        if count == 0:
            return
        if not bool(np.all(np.isfinite(self.arrival_offset_s))):
            raise ValueError("arrival_offset_s must be finite")
        if bool(np.any(np.diff(self.arrival_offset_s) < 0)) or self.arrival_offset_s[0] < 0:
            raise ValueError("arrival_offset_s must not decrease and must not be negative")
        if self.duration_s < self.arrival_offset_s[-1]:
            raise ValueError("duration_s ends before the last arrival")
        if self.input_tokens.min() < 1 or self.output_tokens.min() < 1:
            raise ValueError("input_tokens and output_tokens must be at least 1")
        if self.cached_tokens.min() < 0 or bool(np.any(self.cached_tokens > self.input_tokens)):
            raise ValueError("cached_tokens must lie between 0 and input_tokens")

    def __len__(self) -> int:
        return len(self.arrival_offset_s)

    @property
    def request_rate_rps(self) -> float:
        """Mean arrivals per second over the whole interval."""
        return len(self) / self.duration_s if self.duration_s > 0 else 0.0

    def head(self, count: int, *, duration_s: float) -> Self:
        """The first `count` requests, as all that arrived in the first `duration_s` seconds."""
        return type(self)(
            start_at=self.start_at,
            arrival_offset_s=self.arrival_offset_s[:count],
            input_tokens=self.input_tokens[:count],
            output_tokens=self.output_tokens[:count],
            cached_tokens=self.cached_tokens[:count],
            request_class=self.request_class[:count],
            duration_s=duration_s,
            prefix=None if self.prefix is None else self.prefix.take(0, count),
        )

    def between(self, start_s: float, end_s: float) -> Self:
        """Requests that arrive in [start_s, end_s), with offsets counted from `start_s`."""
        first, last = np.searchsorted(self.arrival_offset_s, [start_s, end_s])
        return type(self)(
            start_at=self.start_at + timedelta(seconds=start_s),
            arrival_offset_s=self.arrival_offset_s[first:last] - start_s,
            input_tokens=self.input_tokens[first:last],
            output_tokens=self.output_tokens[first:last],
            cached_tokens=self.cached_tokens[first:last],
            request_class=self.request_class[first:last],
            duration_s=end_s - start_s,
            prefix=None if self.prefix is None else self.prefix.take(int(first), int(last)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKind:
    """Requests that a router can tell from others on arrival.

    Parameters
    ----------
    request_class : str
        Empty: all classes.
    above_tokens, most_tokens : int, int or None
        Prompts with more uncached tokens than the first (0: any), and at most the second (None:
        any more).
    """

    request_class: str = ""
    above_tokens: int = 0
    most_tokens: int | None = None

    @property
    def kind(self) -> "RequestKind":
        """The kind alone, whatever else is said of it."""
        return RequestKind(
            request_class=self.request_class,
            above_tokens=self.above_tokens,
            most_tokens=self.most_tokens,
        )

    def holds(self, uncached_tokens: Floats | Integers) -> Flags:
        """Which prompts of these lengths belong to it."""
        above = self.above_tokens
        inside = uncached_tokens > above if above else uncached_tokens >= 0
        if self.most_tokens is not None:
            inside &= uncached_tokens <= self.most_tokens
        return np.asarray(inside, dtype=np.bool_)

    def covers(self, workload: Workload) -> Flags:
        """(requests,) those of a workload that belong to it."""
        own = self.holds(workload.input_tokens - workload.cached_tokens)
        if self.request_class:
            own &= workload.request_class == self.request_class
        return own


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """Joint distribution of one request's lengths over buckets.

    Each bucket stands for the requests in it by their mean lengths; the weights sum to 1. The
    mean over buckets is the exact mean of the requests they were made from.

    Parameters
    ----------
    input_tokens, output_tokens, cached_tokens : (buckets,) float
        Mean lengths of the requests in the bucket; cached <= input.
    weight : (buckets,) float
        Share of requests.
    """

    input_tokens: Floats
    output_tokens: Floats
    cached_tokens: Floats
    weight: Floats

    def __post_init__(self) -> None:
        if len(self.weight) == 0:
            raise ValueError("a shape needs at least one bucket")
        if not np.isclose(self.weight.sum(), 1.0) or self.weight.min() < 0:
            raise ValueError("weight must be non-negative and sum to 1")
        for field in ("input_tokens", "output_tokens"):
            lengths = getattr(self, field)
            if not bool(np.all(np.isfinite(lengths))) or lengths.min() < 1:
                raise ValueError(f"{field} of a bucket must be finite and at least 1 token")
        # Means over a bucket's requests carry rounding.
        most = self.input_tokens * (1 + 1e-9)
        if not bool(np.all((self.cached_tokens >= 0) & (self.cached_tokens <= most))):
            raise ValueError("cached_tokens of a bucket must lie between 0 and input_tokens")

    @property
    def isl_mean(self) -> float:
        """Mean prompt length, tokens."""
        return float(self.input_tokens @ self.weight)

    @property
    def osl_mean(self) -> float:
        """Mean answer length, tokens."""
        return float(self.output_tokens @ self.weight)

    @property
    def uncached_tokens(self) -> Floats:
        """(buckets,) prompt tokens that prefill has to compute, at least 1."""
        return np.maximum(self.input_tokens - self.cached_tokens, 1.0)

    @property
    def reuse_ratio(self) -> float:
        """Share of prompt tokens that are cached."""
        return float(self.cached_tokens @ self.weight) / self.isl_mean

    def osl_quantile(self, level: float) -> float:
        """The answer length that a share `level` of requests does not exceed, tokens."""
        return _weighted_quantile(self.output_tokens, self.weight, level)

    def isl_quantile(self, level: float) -> float:
        """The prompt length that a share `level` of requests does not exceed, tokens."""
        return _weighted_quantile(self.input_tokens, self.weight, level)


def _weighted_quantile(values: Floats, weight: Floats, level: float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weight[order])
    position = int(np.searchsorted(cumulative, level * cumulative[-1]))
    return float(values[order][min(position, len(values) - 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Latencies of one window, seconds; the percentile is in the name. None: not observed."""

    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    tpot_p50_s: float | None = None
    tpot_p95_s: float | None = None
    itl_p50_s: float | None = None
    itl_p95_s: float | None = None
    e2e_p95_s: float | None = None
    attainment_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObservedWindow:
    """What arrived in [start_at, start_at + window_s), of one request class.

    Parameters
    ----------
    requests, input_tokens, output_tokens, cached_tokens : int
        Totals of the arrivals in the window.
    shape : Shape or None
        Their joint lengths, where they were seen one by one; None when only totals are known.
    output_lengths : OutputLengths or None
        Their answers' lengths, finer than the shape has them, where they were seen one by one.
    latency : LatencySummary or None
        What they experienced, where it was measured.
    prefix_cache : PrefixCache or None
        The caches that `cached_tokens` were found in, where that was watched.
    """

    start_at: datetime
    window_s: float
    requests: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    request_class: str = DEFAULT_CLASS
    shape: Shape | None = None
    output_lengths: "OutputLengths | None" = None
    latency: LatencySummary | None = None
    prefix_cache: PrefixCache | None = None

    def __post_init__(self) -> None:
        if self.start_at.tzinfo is None:
            raise ValueError("start_at needs a time zone")
        if not self.window_s > 0:
            raise ValueError(f"window_s must be above 0 s, got {self.window_s:g}")
        for field in ("requests", "input_tokens", "output_tokens", "cached_tokens"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field} must be at least 0, got {getattr(self, field)}")
        if self.requests == 0 and (self.input_tokens or self.output_tokens):
            raise ValueError("a window without requests cannot have tokens")
        if self.cached_tokens > self.input_tokens:
            raise ValueError("cached_tokens must not exceed input_tokens")

    @property
    def end_at(self) -> datetime:
        """End of the half-open interval."""
        return self.start_at + timedelta(seconds=self.window_s)

    @property
    def has_answers_counted(self) -> bool:
        """Whether `output_tokens` can be right: no answer is shorter than one token."""
        return self.output_tokens >= self.requests


def class_names(request_class: NDArray[np.str_]) -> list[str]:
    """The classes there are; nearly always one, and sorting a million strings takes seconds."""
    if len(request_class) == 0 or bool(np.all(request_class == request_class[0])):
        return [str(name) for name in request_class[:1]]
    return [str(name) for name in np.unique(request_class)]
