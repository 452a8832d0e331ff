"""Traces made from a description: renewal arrivals, random lengths, shared prefixes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

import numpy as np
from scipy.special import ndtri

from forecaster.prefixes import cached_tokens_of, leading_seen
from planner.domain.forecast import Quantiles
from planner.domain.slo import DEFAULT_CLASS
from planner.domain.workload import Floats, Integers, PrefixBlocks, Workload

MOST_REQUESTS = 20_000_000
LARGEST_CV = 50.0
"""The burstiest published hour has 13 (Azure 2023 code)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LognormalLengths:
    """Request lengths known by two percentiles, tokens."""

    p50: float
    p99: float

    def __post_init__(self) -> None:
        if not 1 <= self.p50 <= self.p99 < math.inf:
            raise ValueError(
                f"lengths need 1 <= p50 <= p99, got p50 {self.p50:g} and p99 {self.p99:g}"
            )


Lengths = LognormalLengths | Quantiles
"""Lengths by two percentiles, or by a table of quantiles (log-linear between its levels)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceDescription:
    """What is known of a service's traffic.

    Parameters
    ----------
    source : str
        Where the figures come from.
    request_rate_rps : float
        Mean arrivals per second.
    duration_s : float
    arrival_cv : float
        Coefficient of variation of the gaps between arrivals; 1 is Poisson, 0 a fixed pace.
    isl, osl : LognormalLengths or Quantiles
        Prompt and answer lengths, tokens.
    reuse_ratio : float
        Share of prompt tokens that an unbounded prefix cache would save, 0..1 (1 excluded).
    block_tokens : int
        Size of the shared prefix blocks.
    """

    name: str
    source: str
    request_rate_rps: float
    duration_s: float
    isl: Lengths
    osl: Lengths
    arrival_cv: float = 1.0
    reuse_ratio: float = 0.0
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
        if self.block_tokens < 1:
            raise ValueError(f"block_tokens must be at least 1, got {self.block_tokens}")
        if self.request_rate_rps * self.duration_s > MOST_REQUESTS:
            raise ValueError(f"a synthetic trace may hold {MOST_REQUESTS} requests at most")


def synthesize(
    description: TraceDescription, *, start_at: datetime, rng: np.random.Generator
) -> Workload:
    """Draw one trace that fits the description; the same `rng` state gives the same trace.

    Arrivals are a stationary gamma renewal process. Input and output lengths are independent.
    Prefixes: while less than `reuse_ratio` of the prompt tokens so far were cached, a request
    continues an earlier prompt; otherwise it brings a new one.

    References
    ----------
    Gamma arrivals: ServeGen, arXiv 2505.09999, finds gamma or Weibull gaps per client.
    """
    arrivals = _arrivals(description, rng)
    count = len(arrivals)
    input_tokens = _draw(description.isl, count, rng)
    output_tokens = _draw(description.osl, count, rng)
    cached_tokens = np.zeros(count, dtype=np.int64)
    prefix = None
    if description.reuse_ratio > 0:
        prefix, cached_tokens = _shared_prefixes(description, input_tokens, rng)
    return Workload(
        start_at=start_at,
        arrival_offset_s=arrivals,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached_tokens,
        request_class=np.full(count, description.request_class),
        duration_s=description.duration_s,
        prefix=prefix,
    )


def _arrivals(description: TraceDescription, rng: np.random.Generator) -> Floats:
    """Arrival times in [0, duration), seconds."""
    mean_gap_s = 1.0 / description.request_rate_rps
    cv2 = description.arrival_cv**2
    # Started well before time 0, so that time 0 is not itself an arrival: a renewal process that
    # starts with one has (cv^2 - 1) / 2 requests too many.
    warm_up_s = mean_gap_s * (1.0 + 20.0 * cv2)
    end_s = warm_up_s + description.duration_s
    times = np.empty(0)
    last_s = float(rng.random()) * mean_gap_s
    while last_s < end_s:
        wanted = math.ceil((end_s - last_s) / mean_gap_s * 1.1) + 16
        gaps = (
            rng.gamma(1.0 / cv2, cv2 * mean_gap_s, wanted)
            if cv2 > 0
            else np.full(wanted, mean_gap_s)
        )
        times = np.concatenate([times, last_s + np.cumsum(gaps)])
        last_s = float(times[-1])
    inside: Floats = times[(times >= warm_up_s) & (times < end_s)] - warm_up_s
    return inside


def _draw(lengths: Lengths, count: int, rng: np.random.Generator) -> Integers:
    levels = rng.random(count)
    if isinstance(lengths, LognormalLengths):
        log_sd = math.log(lengths.p99 / lengths.p50) / float(ndtri(0.99))
        logs = math.log(lengths.p50) + log_sd * ndtri(levels)
    else:
        logs = np.interp(levels, lengths.levels, np.log(np.maximum(lengths.values, 1.0)))
    tokens: Integers = np.maximum(np.rint(np.exp(logs)), 1.0).astype(np.int64)
    return tokens


_CANDIDATES = 8


def _shared_prefixes(
    description: TraceDescription, input_tokens: Integers, rng: np.random.Generator
) -> tuple[PrefixBlocks, Integers]:
    block_tokens = description.block_tokens
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
