"""Fit a trace to what this machine can do: shorter requests, a slower clock, one short stretch."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from forecaster.readers import read_trace
from forecaster.rescale import rescale, spread_ticks
from forecaster.synthesize import PUBLISHED, synthesize
from planner.domain.errors import TraceError
from planner.domain.profile import Profile
from planner.domain.workload import Workload

CACHE_BLOCK_TOKENS = 128
"""vLLM's CPU attention stores KV in blocks of this many tokens; prefixes hit in whole blocks."""
MAX_INPUT_TOKENS = 1024
MAX_OUTPUT_TOKENS = 192
FITTED_LEVEL = 0.9
"""This share of prompts and of answers keeps its relative length; longer ones are cut."""
BUSY_RATIO = 0.58
"""How busy the best split of this machine's slots may get. The trace is slowed down to this,
never sped up, so an idle trace stays idle. It leaves any split that leans the wrong way short."""
REPLAYED_REQUESTS = 600
"""About as many are sent in two windows and a rollout between them."""
BUILT_IN = "mooncake_conversation"
BUSIER = 3.0
"""The built-in trace starts from this multiple of the published rate, so that its rate, too, is
decided by what the machine can do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoTraffic:
    """The stretch of traffic that the demo replays.

    Parameters
    ----------
    workload : Workload
        Fitted to this machine; the warm-up window comes first, then what arrives while the plan
        is applied, then the window that is compared with the prediction.
    length_ratio, rate_ratio : float
        Fitted over original.
    notes : tuple of str
        What was changed, for people.
    """

    source: str
    workload: Workload
    length_ratio: float
    rate_ratio: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotSeconds:
    """What one mean request occupies: seconds of a prefill slot, and of a decode slot."""

    prefill_s: float
    decode_s: float

    def best_split_rps(self, slots: int) -> float:
        """Requests/s at which the best split of `slots` into two pools is fully busy."""
        return max(
            min(prefill / self.prefill_s, (slots - prefill) / self.decode_s)
            for prefill in range(1, slots)
        )


def slot_seconds(workload: Workload, profile: Profile) -> SlotSeconds:
    """Work of the mean request, by the profile.

    Prefill: time of the prompt without the whole cache blocks that an earlier one had. Decode:
    output tokens x step time of a full batch / sequences in it, because a full decode slot
    shares every step among them.
    """
    cached = workload.cached_tokens // CACHE_BLOCK_TOKENS * CACHE_BLOCK_TOKENS
    new = np.maximum(workload.input_tokens - cached, 1)
    prefill_s = profile.prefill.extended_at(new.astype(float), cached.astype(float))
    batch = profile.limits.max_num_seqs
    context = workload.input_tokens + workload.output_tokens / 2
    step_s = profile.decode_step.extended_at(batch, context)
    return SlotSeconds(
        prefill_s=float(np.mean(prefill_s)),
        decode_s=float(np.mean(workload.output_tokens * step_s / batch)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTraffic:
    """A trace before it is fitted; `tick_s` is the clock its arrivals sit on, if a coarse one."""

    source: str
    workload: Workload
    tick_s: float | None


def read_traffic(path: Path | None, *, rng: np.random.Generator) -> RawTraffic:
    """Read a trace file, or synthesize the built-in one from published statistics.

    Raises
    ------
    TraceError
        When the file is not usable or holds no request.
    """
    if path is None:
        published = PUBLISHED[BUILT_IN]
        described = replace(published, request_rate_rps=BUSIER * published.request_rate_rps)
        workload = synthesize(described, start_at=datetime.now(UTC), rng=rng)
        source = (
            "built-in, synthesized from published statistics (lengths, reuse, Poisson arrivals): "
            f"{described.source}"
        )
        return RawTraffic(source=source, workload=workload, tick_s=None)
    trace = read_trace(path)
    if len(trace.workload) == 0:
        raise TraceError(f"{path} holds no request: give a trace with some")
    return RawTraffic(source=str(path), workload=trace.workload, tick_s=trace.report.arrival_tick_s)


def fit_to_machine(
    raw: RawTraffic, profile: Profile, *, slots: int, rng: np.random.Generator
) -> DemoTraffic:
    """Fit a trace's lengths and pace to the profile."""
    workload, tick_s = raw.workload, raw.tick_s
    notes = []
    if tick_s is not None:
        workload = spread_ticks(workload, tick_s=tick_s, rng=rng)
        notes.append(f"arrivals sit on a {tick_s:.1f} s clock: spread evenly inside each tick")
    length_ratio = _length_ratio(workload)
    shorter = rescale(
        workload,
        length_ratio=length_ratio,
        rate_ratio=1.0,
        max_input_tokens=MAX_INPUT_TOKENS,
        max_output_tokens=MAX_OUTPUT_TOKENS,
    )
    rate_ratio = _rate_ratio(shorter, profile, slots)
    fitted = rescale(
        shorter,
        length_ratio=1.0,
        rate_ratio=rate_ratio,
        max_input_tokens=MAX_INPUT_TOKENS,
        max_output_tokens=MAX_OUTPUT_TOKENS,
    )
    cut = np.mean(
        (workload.input_tokens * length_ratio > MAX_INPUT_TOKENS)
        | (workload.output_tokens * length_ratio > MAX_OUTPUT_TOKENS)
    )
    if length_ratio < 1:
        notes.append(f"lengths x {length_ratio:.3g}; {cut:.1%} of requests cut at the limits")
    if rate_ratio < 1:
        notes.append(
            f"rate x {rate_ratio:.3g} ({workload.request_rate_rps:.2f} to "
            f"{fitted.request_rate_rps:.2f} requests/s): the best split of {slots} slots is then "
            f"{BUSY_RATIO:.0%} busy on average"
        )
    return DemoTraffic(
        source=raw.source,
        workload=fitted,
        length_ratio=length_ratio,
        rate_ratio=rate_ratio,
        notes=tuple(notes),
    )


def _length_ratio(workload: Workload) -> float:
    isl = float(np.quantile(workload.input_tokens, FITTED_LEVEL))
    osl = float(np.quantile(workload.output_tokens, FITTED_LEVEL))
    return min(1.0, MAX_INPUT_TOKENS / isl, MAX_OUTPUT_TOKENS / osl)


def _rate_ratio(workload: Workload, profile: Profile, slots: int) -> float:
    """Slow the clock down for the requests that will be replayed, the first of the trace."""
    if len(workload) > REPLAYED_REQUESTS:
        until_s = float(workload.arrival_offset_s[REPLAYED_REQUESTS])
        workload = workload.head(REPLAYED_REQUESTS, duration_s=max(until_s, 1e-3))
    bearable = BUSY_RATIO * slot_seconds(workload, profile).best_split_rps(slots)
    return min(1.0, bearable / workload.request_rate_rps)


def with_observed_reuse(workload: Workload, reuse_ratio: float) -> Workload:
    """Scale cached tokens so that their share is what the engines were seen to find.

    A trace tells what an unbounded shared cache would find; engines find whole blocks, in their
    own cache only.
    """
    ideal = float(workload.cached_tokens.sum()) / max(float(workload.input_tokens.sum()), 1.0)
    factor = min(reuse_ratio / ideal, 1.0) if ideal > 0 else 0.0
    return Workload(
        start_at=workload.start_at,
        arrival_offset_s=workload.arrival_offset_s,
        input_tokens=workload.input_tokens,
        output_tokens=workload.output_tokens,
        cached_tokens=np.floor(workload.cached_tokens * factor).astype(np.int64),
        request_class=workload.request_class,
        duration_s=workload.duration_s,
        prefix=workload.prefix,
    )
