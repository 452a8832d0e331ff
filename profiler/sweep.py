"""Measure a running 1P1D deployment through its router: the quick sweep.

Every request goes the way that traffic goes (router, prefill, KV transfer, decode), so that
what the path costs is in the numbers.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from planner.domain.errors import MeasurementError
from serving.load import Completion, LoadClient, Timing
from serving.prompts import PromptWriter
from serving.telemetry import EngineCounters

CACHE_BLOCK_TOKENS = 128
"""vLLM's CPU attention stores KV in blocks of this many tokens; prefixes hit in whole blocks."""
CHEAP_TOKENS = 256
REPEATS = 3
"""A prompt alone is measured so many times, and bursts of short ones: they cost little and are
disturbed most."""
FEW_REPEATS = 2
"""So many times bursts of long ones."""
LEAST_BUSY_RATIO = 0.2
"""A prompt occupies prefill for at least this share of its TTFT on an idle deployment; less is
noise of a disturbed measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """Points to measure.

    Parameters
    ----------
    new_tokens : tuple of int
        Prompt tokens that prefill computes.
    cached_tokens : tuple of int
        Prompt tokens found in the prefix cache, multiples of the cache block; 0 first.
    batches : tuple of int
        Sequences decoded together.
    context_tokens : tuple of int
        Context of each of them.
    burst : int
        Prompts sent at once to saturate prefill.
    check_new_tokens : int
        A point that the tables do not contain, for the held-out error.
    """

    new_tokens: tuple[int, ...] = (48, 192, 640, 1600)
    cached_tokens: tuple[int, ...] = (0, 1536)
    batches: tuple[int, ...] = (1, 4, 8, 16)
    context_tokens: tuple[int, ...] = (64, 1920)
    burst: int = 4
    check_new_tokens: int = 400

    @property
    def points(self) -> int:
        """Measurements to make, the held-out one included."""
        return (
            len(self.new_tokens) * len(self.cached_tokens)
            + len(self.batches) * len(self.context_tokens)
            + 1
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPoint:
    """Prefill measured at one (new, cached) point.

    Parameters
    ----------
    alone_ttft_s : float
        Mean TTFT of a prompt sent to an idle deployment.
    busy_s : float
        What one prompt occupies while prefill is saturated: the time that each further prompt of
        a burst adds to the burst, however the engine batches them. Seconds.
    transfer_s, transfer_bytes : float
        Per prompt, as the decode engine counts them.
    """

    new_tokens: int
    cached_tokens: int
    alone_ttft_s: float
    busy_s: float
    transfer_s: float
    transfer_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodePoint:
    """Decode measured at one (batch, context) point while all sequences run.

    Parameters
    ----------
    step_s : float
        Mean gap, seconds.
    step_ratios : tuple of float
        Equally likely ratios of a gap to the mean.
    """

    batch: int
    context_tokens: int
    step_s: float
    step_ratios: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Everything that a sweep measured."""

    prefill: tuple[PrefillPoint, ...]
    decode: tuple[DecodePoint, ...]
    check: PrefillPoint


RATIOS, LEAST_RATIO = 40, 0.01
"""Ratios of a step to its mean that are kept of a point, and the smallest that may be."""

Progress = Callable[[int, int, str], None]
"""Called with (points done, points in all, what comes next)."""
ReadCounters = Callable[[], Awaitable[EngineCounters]]
"""Reads the decode engine's counters."""


async def sweep(
    client: LoadClient,
    writer: PromptWriter,
    plan: SweepPlan,
    *,
    decode_counters: ReadCounters,
    progress: Progress = lambda _done, _all, _next: None,
) -> Measurements:
    """Measure every point of the plan.

    Raises
    ------
    MeasurementError
        When requests fail: nothing is fitted to half a measurement.
    """
    probe = _Probe(client, writer, decode_counters)
    await _warm_up(probe)
    done = 0

    def note(text: str) -> None:
        nonlocal done
        progress(done, plan.points, text)
        done += 1

    prefill = []
    for cached in plan.cached_tokens:
        for new in plan.new_tokens:
            note(f"prefill {new} new + {cached} cached tokens")
            prefill.append(await probe.prefill(new, cached, plan.burst))
    decode = []
    for context in plan.context_tokens:
        for batch in plan.batches:
            note(f"decode {batch} sequences of {context} tokens")
            decode.append(await probe.decode(batch, context))
    note(f"held-out point: prefill {plan.check_new_tokens} tokens")
    check = await probe.prefill(plan.check_new_tokens, 0, plan.burst)
    progress(plan.points, plan.points, "done")
    return Measurements(prefill=tuple(prefill), decode=tuple(decode), check=check)


async def _warm_up(probe: "_Probe") -> None:
    for _ in range(2):
        await probe.send(probe.fresh(96), 8)


class _Probe:
    """Sends measuring requests; every prompt is new unless a shared prefix is the point."""

    def __init__(
        self, client: LoadClient, writer: PromptWriter, decode_counters: ReadCounters
    ) -> None:
        self._client = client
        self._writer = writer
        self._decode_counters = decode_counters
        self._number = 0

    def fresh(self, tokens: int, *, prefix_tokens: int = 0) -> str:
        """Write a prompt never used before, after a prefix that all share."""
        self._number += 1
        if prefix_tokens == 0:
            return self._writer.unique(tokens, number=self._number)
        return self._writer.with_prefix(
            prefix_tokens, prefix_tokens + tokens, prefix=0, number=self._number
        )

    async def send(self, prompt: str, output_tokens: int) -> Timing:
        """Send one request."""
        timing = await self._client.send(Completion(prompt=prompt, output_tokens=output_tokens))
        if timing.error:
            raise MeasurementError(
                f"a measuring request of the profile failed: {timing.error}; look at the "
                "workers' logs and run it again"
            )
        return timing

    async def prefill(self, new: int, cached: int, burst: int) -> PrefillPoint:
        """Measure one prompt alone, then a burst of them.

        The first burst of a length is discarded: the engine makes room for steps of that size
        then, which cost a quarter more (CPU build of vLLM 0.32).
        """
        if cached:
            await self.send(self.fresh(1, prefix_tokens=cached), 1)
        await self._burst_s(new, cached, burst)
        before = await self._decode_counters()
        repeats = REPEATS if new <= CHEAP_TOKENS else FEW_REPEATS
        alone = [await self.send(self.fresh(new, prefix_tokens=cached), 1) for _ in range(REPEATS)]
        # The mean, as of the bursts below: taken from it, the least would leave the processor's
        # own variation in `busy_s` and take it out of what is left for the first token.
        alone_s = float(np.mean([t.ttft_s for t in alone]))
        bursts_s = [await self._burst_s(new, cached, burst) for _ in range(repeats)]
        moved = await self._decode_counters() - before
        transfers = max(moved.transfers, 1.0)
        return PrefillPoint(
            new_tokens=new,
            cached_tokens=cached,
            alone_ttft_s=alone_s,
            busy_s=max(
                (sum(bursts_s) / repeats - alone_s) / (burst - 1), LEAST_BUSY_RATIO * alone_s
            ),
            transfer_s=moved.transfer_s / transfers,
            transfer_bytes=moved.transfer_bytes / transfers,
        )

    async def _burst_s(self, new: int, cached: int, burst: int) -> float:
        """Seconds from sending a burst of prompts to the last first token."""
        prompts = [self.fresh(new, prefix_tokens=cached) for _ in range(burst)]
        answers = await asyncio.gather(*(self.send(p, 1) for p in prompts))
        return max(t.token_at_s[-1] for t in answers) - min(t.sent_at_s for t in answers)

    async def decode(self, batch: int, context: int) -> DecodePoint:
        """Run `batch` sequences together; average the gaps while all of them run."""
        prefix = max(context - 32, 0) // CACHE_BLOCK_TOKENS * CACHE_BLOCK_TOKENS
        if prefix:
            await self.send(self.fresh(1, prefix_tokens=prefix), 1)
        output = 16 + 4 * batch
        gaps = np.empty(0)
        for _attempt in range(4):
            prompts = [self.fresh(context - prefix, prefix_tokens=prefix) for _ in range(batch)]
            answers = await asyncio.gather(*(self.send(p, output) for p in prompts))
            gaps = gaps_while_all_run(answers)
            if len(gaps) >= 8 * batch:
                return DecodePoint(
                    batch=batch,
                    context_tokens=context,
                    step_s=float(gaps.mean()),
                    step_ratios=ratios_of(gaps),
                )
            output *= 2
        raise MeasurementError(
            f"{batch} sequences of {context} tokens never ran together long enough to measure a "
            "decode step; try a smaller batch or a faster prefill"
        )


def ratios_of(gaps: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, ...]:
    """`RATIOS` equally likely ratios of a gap to the mean; chunks of several tokens count once."""
    levels = (np.arange(RATIOS) + 0.5) / RATIOS
    ratios = np.maximum(np.quantile(gaps, levels) / gaps.mean(), LEAST_RATIO)
    return tuple((ratios / ratios.mean()).tolist())


def gaps_while_all_run(answers: list[Timing]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Gaps of all answers between the last first token and the first last token, seconds."""
    begin = max(t.token_at_s[0] for t in answers)
    end = min(t.token_at_s[-1] for t in answers)
    kept = []
    for timing in answers:
        at = np.array(timing.token_at_s)
        inside = (at >= begin) & (at <= end)
        spans = np.diff(at[inside])
        tokens = np.diff(np.array(timing.tokens)[inside])
        kept.append(np.repeat(spans / np.maximum(tokens, 1), np.maximum(tokens, 1)))
    return np.concatenate(kept)
