"""Traces made from a description: arrivals, lengths, shared prefixes, sessions, classes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import numpy as np

from forecaster.arrivals import LARGEST_CV, arrivals
from forecaster.lengths import (
    HistogramLengths,
    JointHistogram,
    Lengths,
    LognormalLengths,
    draw_lengths,
)
from forecaster.pace_profiles import (
    DAY_S,
    MOST_DAYS,
    DailySine,
    HourlyFactors,
    Profile,
    WindowRates,
    pace_of,
)
from forecaster.prefixes import cached_tokens, cached_tokens_of, leading_seen
from forecaster.sessions import Sessions, check_blocks, session_requests
from planner.domain.forecast import Quantiles
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Floats, Integers, PrefixBlocks, Workload

__all__ = [
    "LARGEST_CV",
    "MOST_REQUESTS",
    "PUBLISHED",
    "HistogramLengths",
    "JointHistogram",
    "Lengths",
    "LognormalLengths",
    "TraceDescription",
    "mix_workloads",
    "synthesize",
    "synthesize_classes",
]

MOST_REQUESTS = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceDescription:
    """What is known of a service's traffic, of one request class.

    Parameters
    ----------
    source : str
        Where the figures come from.
    request_rate_rps : float
        Mean arrivals per second; with a daily profile the mean over a day.
    duration_s : float
    isl, osl : LognormalLengths, Quantiles or HistogramLengths
        Prompt and answer lengths, tokens.
    lengths : JointHistogram or None
        Both together, instead of `isl` and `osl`.
    length_correlation : float
        Rank correlation (Spearman's) of prompt and answer, -1..1.
    arrival_cv : float
        Coefficient of variation of the gaps between arrivals; 1 is Poisson, 0 a fixed pace. With
        sessions: between their beginnings.
    profile : HourlyFactors, DailySine, WindowRates or None
        How the rate changes; window rates replace rate and CV.
    reuse_ratio : float
        Share of prompt tokens that an unbounded prefix cache would save, 0..1 (1 excluded).
    sessions : Sessions or None
        Conversations of several turns, from which the reuse follows.
    block_tokens : int
        Size of the shared prefix blocks.
    """

    name: str
    source: str
    request_rate_rps: float
    duration_s: float
    isl: Lengths | None = None
    osl: Lengths | None = None
    lengths: JointHistogram | None = None
    length_correlation: float = 0.0
    arrival_cv: float = 1.0
    profile: Profile | None = None
    reuse_ratio: float = 0.0
    sessions: Sessions | None = None
    block_tokens: int = 512
    request_class: str = DEFAULT_CLASS

    def __post_init__(self) -> None:
        for field in ("request_rate_rps", "duration_s"):
            if not 0 < getattr(self, field) < math.inf:
                raise ValueError(f"{field} must be above 0 and finite")
        if not 0 <= self.arrival_cv <= LARGEST_CV:
            raise ValueError(f"arrival_cv must be in [0, {LARGEST_CV:g}], got {self.arrival_cv:g}")
        if not 0 <= self.reuse_ratio < 1:
            raise ValueError(f"reuse_ratio must be in [0, 1), got {self.reuse_ratio:g}")
        if not -1 <= self.length_correlation <= 1:
            raise ValueError(
                f"length_correlation must be in [-1, 1], got {self.length_correlation:g}"
            )
        if self.block_tokens < 1:
            raise ValueError(f"block_tokens must be at least 1, got {self.block_tokens}")
        if self.request_rate_rps * self.duration_s > MOST_REQUESTS:
            raise ValueError(f"a synthetic trace may hold {MOST_REQUESTS} requests at most")
        if (self.lengths is None) != (self.isl is not None and self.osl is not None):
            raise ValueError("give either isl and osl, or lengths")
        if self.sessions is not None:
            self._check_sessions(self.sessions)
        warm_up_s = 0.0 if self.sessions is None else self.sessions.warm_up_s
        if isinstance(self.profile, DailySine | HourlyFactors) and (
            self.duration_s + warm_up_s > MOST_DAYS * DAY_S
        ):
            raise ValueError(f"a daily profile may last {MOST_DAYS} days, sessions before it too")

    def _check_sessions(self, sessions: Sessions) -> None:
        if self.reuse_ratio:
            raise ValueError("reuse_ratio follows from sessions: give one of them")
        if self.lengths is not None or self.length_correlation or self.is_fitted:
            raise ValueError("sessions need isl and osl, uncorrelated, and no window rates")
        started = self.request_rate_rps / sessions.turns * sessions.warm_up_s
        if started * sessions.turns > MOST_REQUESTS:
            raise ValueError("sessions last too long: use fewer turns or shorter think times")

    @property
    def is_fitted(self) -> bool:
        """Whether rates and CVs are those of the windows of a trace."""
        return isinstance(self.profile, WindowRates)


def synthesize(
    description: TraceDescription, *, start_at: datetime, rng: np.random.Generator
) -> Workload:
    """Draw one trace that fits the description; the same `rng` state gives the same trace.

    Arrivals are a stationary gamma renewal process whose clock runs as fast as the rate.
    Prefixes: with sessions each prompt continues the one before; else, while less than
    `reuse_ratio` of the prompt tokens so far were cached, a request continues an earlier prompt,
    and otherwise it brings a new one.

    Raises
    ------
    TraceError
        When the prompts have more prefix blocks than memory should hold.

    References
    ----------
    Gamma arrivals: ServeGen, arXiv 2505.09999, finds gamma or Weibull gaps per client.
    """
    if description.sessions is not None:
        return _of_sessions(description, description.sessions, start_at, rng)
    at_s = _arrivals(description, start_at, rng)
    input_tokens, output_tokens = _lengths(description, len(at_s), rng)
    cached = np.zeros(len(at_s), dtype=np.int64)
    prefix = None
    if description.reuse_ratio > 0:
        prefix, cached = _shared_prefixes(description, input_tokens, rng)
    return Workload(
        start_at=start_at,
        arrival_offset_s=at_s,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached,
        request_class=np.full(len(at_s), description.request_class),
        duration_s=description.duration_s,
        prefix=prefix,
    )


def synthesize_classes(
    descriptions: Sequence[TraceDescription], *, start_at: datetime, rng: np.random.Generator
) -> Workload:
    """Draw one trace of several classes; each has its own stream of random numbers."""
    streams = rng.spawn(len(descriptions))
    return mix_workloads(
        [
            synthesize(description, start_at=start_at, rng=stream)
            for description, stream in zip(descriptions, streams, strict=True)
        ]
    )


def mix_workloads(workloads: Sequence[Workload]) -> Workload:
    """The requests of several workloads with the same start; they share no prefix.

    Raises
    ------
    ValueError
        When there is none, or they start at different instants or have blocks of other sizes.
    """
    if not workloads or len({workload.start_at for workload in workloads}) > 1:
        raise ValueError("workloads to mix must start at the same instant")
    order = np.argsort(
        np.concatenate([workload.arrival_offset_s for workload in workloads]), kind="stable"
    )
    return Workload(
        start_at=workloads[0].start_at,
        arrival_offset_s=_joined([w.arrival_offset_s for w in workloads])[order],
        input_tokens=np.concatenate([w.input_tokens for w in workloads])[order],
        output_tokens=np.concatenate([w.output_tokens for w in workloads])[order],
        cached_tokens=np.concatenate([w.cached_tokens for w in workloads])[order],
        request_class=np.concatenate([w.request_class for w in workloads])[order],
        duration_s=max(workload.duration_s for workload in workloads),
        prefix=_mixed_prefix(workloads, order),
    )


def _joined(columns: Sequence[Floats]) -> Floats:
    joined: Floats = np.concatenate(columns)
    return joined


def _mixed_prefix(workloads: Sequence[Workload], order: Integers) -> PrefixBlocks | None:
    known = [workload.prefix for workload in workloads if workload.prefix is not None]
    if not known:
        return None
    if len({prefix.block_tokens for prefix in known}) > 1:
        raise ValueError("workloads to mix must have prefix blocks of one size")
    ids, counts = [], []
    first_free = 0
    for workload in workloads:
        prefix = workload.prefix
        if prefix is None:
            counts.append(np.zeros(len(workload), dtype=np.int64))
            continue
        ids.append(prefix.block_ids + first_free)
        counts.append(np.diff(prefix.offsets))
        first_free += int(prefix.block_ids.max(initial=-1)) + 1
    count = np.concatenate(counts)
    starts = np.concatenate([[0], np.cumsum(count)])[:-1]
    offsets = np.concatenate([[0], np.cumsum(count[order])]).astype(np.int64)
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], count[order])
    return PrefixBlocks(
        block_tokens=known[0].block_tokens,
        offsets=offsets,
        block_ids=np.concatenate(ids)[np.repeat(starts[order], count[order]) + within],
    )


def _arrivals(
    description: TraceDescription, start_at: datetime, rng: np.random.Generator
) -> Floats:
    """Arrival times in [0, duration), seconds."""
    pace = pace_of(
        description.profile,
        rate_rps=description.request_rate_rps,
        arrival_cv=description.arrival_cv,
        span_s=(0.0, description.duration_s),
        start_at=start_at,
    )
    return arrivals(pace, rng)


def _lengths(
    description: TraceDescription, count: int, rng: np.random.Generator
) -> tuple[Integers, Integers]:
    if description.lengths is not None:
        return description.lengths.draw(count, rng)
    isl, osl = _separate(description)
    return draw_lengths(isl, osl, description.length_correlation, count, rng)


def _separate(description: TraceDescription) -> tuple[Lengths, Lengths]:
    if description.isl is None or description.osl is None:
        raise ValueError("isl and osl are needed")
    return description.isl, description.osl


def _of_sessions(
    description: TraceDescription,
    sessions: Sessions,
    start_at: datetime,
    rng: np.random.Generator,
) -> Workload:
    isl, osl = _separate(description)
    pace = pace_of(
        description.profile,
        rate_rps=description.request_rate_rps / sessions.turns,
        arrival_cv=description.arrival_cv,
        span_s=(-sessions.warm_up_s, description.duration_s),
        start_at=start_at,
    )
    starts_s = arrivals(pace, rng)
    first_tokens, _ = draw_lengths(isl, osl, 0.0, len(starts_s), rng)
    drawn = session_requests(
        sessions,
        starts_s=starts_s,
        first_tokens=first_tokens,
        osl=osl,
        block_tokens=description.block_tokens,
        duration_s=description.duration_s,
        rng=rng,
    )
    return Workload(
        start_at=start_at,
        arrival_offset_s=drawn.arrival_s,
        input_tokens=drawn.input_tokens,
        output_tokens=drawn.output_tokens,
        cached_tokens=cached_tokens(drawn.blocks, drawn.input_tokens),
        request_class=np.full(len(drawn.arrival_s), description.request_class),
        duration_s=description.duration_s,
        prefix=drawn.blocks,
    )


_CANDIDATES = 8


def _shared_prefixes(
    description: TraceDescription, input_tokens: Integers, rng: np.random.Generator
) -> tuple[PrefixBlocks, Integers]:
    block_tokens = description.block_tokens
    check_blocks(input_tokens, block_tokens)
    counts = -(-input_tokens // block_tokens)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    block_ids = np.arange(offsets[-1], dtype=np.int64)
    cached = np.zeros(len(input_tokens), dtype=np.int64)
    seen: set[int] = set()
    total_tokens = cached_so_far = 0
    for index, tokens in enumerate(input_tokens.tolist()):
        total_tokens += tokens
        own = slice(offsets[index], offsets[index + 1])
        if index and cached_so_far < description.reuse_ratio * total_tokens:
            # The longest of a few earlier prompts: long contexts are the ones that come back.
            tried = rng.integers(index, size=_CANDIDATES)
            earlier = int(tried[np.argmax(counts[tried])])
            shared = min(int(counts[index]), int(counts[earlier]))
            first = int(offsets[earlier])
            block_ids[own][:shared] = block_ids[first : first + shared]
        ids = block_ids[own].tolist()
        cached[index] = cached_tokens_of(
            leading_seen(ids, seen), block_tokens=block_tokens, input_tokens=tokens
        )
        seen.update(ids)
        cached_so_far += int(cached[index])
    return PrefixBlocks(block_tokens=block_tokens, offsets=offsets, block_ids=block_ids), cached


def _table(*values: float) -> Quantiles:
    """A length table at the levels of `PUBLISHED`: least, 10, 25, 50, 75, 90, 95, 99 %, most."""
    return Quantiles(levels=(0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0), values=values)


_MOONCAKE = "Mooncake conversation trace, kvcache-ai/Mooncake, FAST'25 (Apache-2.0)"
_AZURE = "Azure LLM inference trace 2023, Azure/AzurePublicDataset, Splitwise, ISCA'24 (CC-BY-4.0)"

PUBLISHED: Mapping[str, TraceDescription] = MappingProxyType(
    {
        description.name: description
        for description in (
            TraceDescription(
                name="mooncake_conversation",
                source=_MOONCAKE,
                request_rate_rps=3.4,
                duration_s=3540.0,
                isl=LognormalLengths(p50=6909.0, p99=85400.0),
                osl=_table(1, 24, 156, 350, 472, 597, 698, 1118, 2000),
                reuse_ratio=0.37,
            ),
            TraceDescription(
                name="conversation",
                source=_AZURE,
                request_rate_rps=5.53,
                duration_s=3500.0,
                arrival_cv=1.09,
                isl=_table(2, 207, 396, 1020, 1189, 2734, 4083, 4142, 14050),
                osl=_table(7, 54, 85, 129, 395, 424, 451, 601, 1000),
            ),
            TraceDescription(
                name="code",
                source=_AZURE,
                request_rate_rps=2.57,
                duration_s=3435.0,
                arrival_cv=13.15,
                isl=_table(3, 147, 578, 1469, 2744, 5188, 7303, 7436, 7437),
                osl=_table(6, 7, 9, 13, 24, 55, 90, 251, 1899),
            ),
        )
    }
)
"""Descriptions from published statistics.

`mooncake_conversation`: prompts p50 6.9 k, p99 85 k tokens, answers p50 350, 37 % of prompt tokens
reusable; its arrivals were published on 3 s ticks, so their CV is not known and taken as 1.
`conversation`, `code`: Azure 2023, lengths and arrival CV as in the published hour (code comes in
bursts: CV 13, prompts p50 1469, answers p50 13).
"""
