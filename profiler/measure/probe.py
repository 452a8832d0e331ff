"""How one sample of a point is taken: which requests are sent, and what is read off them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import numpy as np

from profiler.fitting.forms import Floats
from profiler.measure.requests import Sender, UnmeasurableError, Write
from profiler.samples import Kind, Point, Sample
from serving.telemetry import EngineCounters
from serving.traffic.load import Timing
from serving.traffic.prompts import PromptWriter

CHEAP_S = 0.5
"""A prompt that takes less is sent more often: it is disturbed most and costs little."""
BURST, BURST_CHEAP = 2, 4
"""Prompts sent at once to saturate prefill."""
ALONE, ALONE_CHEAP = 1, 4
LEAST_BUSY_RATIO = 0.2
"""A prompt occupies prefill for at least this share of its TTFT on an idle deployment; less is
noise of a disturbed measurement."""
RATIOS, LEAST_RATIO = 40, 0.01
"""Ratios of a step to its mean that are kept of a sample, and the smallest that may be."""
GAPS_WANTED = 24
"""Steps that are averaged while all sequences of a batch run."""
OWN_TOKENS = 32
"""Of every context at least so many tokens are its own; the rest is a prefix that all share."""
SHARED_NOTE = (
    "decode steps were measured on sequences that share most of their context: the caches of a GPU "
    "may have served what it reads from memory where contexts differ, so that large batches of "
    "long contexts may take longer"
)
SETTLE_S = 0.6
"""Long enough for a batch of short prompts to be under way."""
FIRST_OUTPUT, MOST_OUTPUT = 32, 2048
SENTINEL_PROMPT, SENTINEL_ANSWER = 128, 12

ReadCounters = Callable[[], Awaitable[EngineCounters]]
"""Reads the counters of the engine that writes the answers."""


@dataclass(slots=True, kw_only=True)
class Probe:
    """Takes samples. Every prompt is new unless a shared prefix is the point.

    Parameters
    ----------
    block_tokens : int
        Prefixes are found in the cache in whole blocks of so many tokens.
    counters : ReadCounters or None
        None: the engine's counters are out of reach, and transfers are not seen.
    """

    sender: Sender
    writer: PromptWriter
    block_tokens: int
    counters: ReadCounters | None = None
    _number: int = field(default=0, init=False)
    _seen: set[Point] = field(default_factory=set, init=False)
    _outputs: dict[Point, int] = field(default_factory=dict, init=False)
    _per_sequence: float = field(default=2.0, init=False)
    """Tokens by which a batch must write longer for each sequence, until all of them run."""

    async def sample(self, point: Point, *, held_out: bool = False) -> Sample:
        """Take one sample.

        The first burst of a length is thrown away: an engine makes room for steps of a size when
        it first sees them, which costs a quarter more (CPU build of vLLM 0.32).

        Raises
        ------
        TooLongError, UnmeasurableError
            When this point cannot be measured; others may.
        MeasurementError
        """
        began = time.perf_counter()
        take = {Kind.PREFILL: self._prefill, Kind.DECODE: self._decode, Kind.MIXED: self._mixed}
        values, ratios = await take[point.kind](point)
        self._seen.add(point)
        return Sample(
            point=point,
            values=values,
            ratios=ratios,
            measured_at=datetime.now(UTC),
            took_s=time.perf_counter() - began,
            held_out=held_out,
        )

    async def sentinel(self) -> tuple[float, float]:
        """TTFT and mean gap of one short request: the same work every time, seconds."""
        answer = await self.sender.one(self._new(SENTINEL_PROMPT), SENTINEL_ANSWER)
        return answer.ttft_s, answer.tpot_s

    def _new(self, tokens: int, *, prefix_tokens: int = 0) -> Write:
        """Write another prompt each time, never used before, after a prefix that all share."""
        return partial(self._fresh, tokens, prefix_tokens=prefix_tokens)

    def _fresh(self, tokens: int, *, prefix_tokens: int = 0) -> str:
        self._number += 1
        if prefix_tokens == 0:
            return self.writer.unique(tokens, number=self._number)
        return self.writer.with_prefix(
            prefix_tokens, prefix_tokens + tokens, prefix=0, number=self._number
        )

    async def _prefill(self, point: Point) -> tuple[dict[str, float], tuple[float, ...]]:
        """One prompt alone, then a burst of them.

        What each further prompt adds to the burst is what a prompt occupies while prefill is
        saturated, however the engine batches them; TTFT alone holds the fixed parts, too.
        """
        new, cached = point.x, point.y
        if cached and point not in self._seen:
            await self.sender.one(self._new(1, prefix_tokens=cached), 1)
        before = await self._read()
        alone = [await self._alone_s(new, cached)]
        cheap = alone[0] < CHEAP_S
        burst = BURST_CHEAP if cheap else BURST
        alone += [await self._alone_s(new, cached) for _ in range(ALONE_CHEAP - 1 if cheap else 0)]
        between = await self._read()
        if point not in self._seen:
            await self._burst_s(new, cached, burst)
        burst_s = await self._burst_s(new, cached, burst)
        after = await self._read()
        # The mean, as of the burst: taken from it, the least would leave the processor's own
        # variation in `busy_s` and take it out of what is left for the first token.
        alone_s = float(np.mean(alone))
        busy_s = max((burst_s - alone_s) / (burst - 1), LEAST_BUSY_RATIO * alone_s)
        values = {
            "busy_s": busy_s,
            "alone_ttft_s": alone_s,
            "burst": float(burst),
            "alone_count": float(len(alone)),
        }
        if before is not None and between is not None and after is not None:
            idle, loaded = between - before, after - between
            if idle.transfers:
                values["transfer_s"] = idle.transfer_s / idle.transfers
                values["transfer_bytes"] = idle.transfer_bytes / idle.transfers
            if loaded.transfers:
                values["loaded_transfer_s"] = loaded.transfer_s / loaded.transfers
        return values, ()

    async def _alone_s(self, new: int, cached: int) -> float:
        return (await self.sender.one(self._new(new, prefix_tokens=cached), 1)).ttft_s

    async def _burst_s(self, new: int, cached: int, burst: int) -> float:
        """Seconds from sending a burst of prompts to the last first token."""
        prompts = [self._new(new, prefix_tokens=cached)] * burst
        answers = await self.sender.together(prompts, 1)
        return max(t.token_at_s[-1] for t in answers) - min(t.sent_at_s for t in answers)

    async def _read(self) -> EngineCounters | None:
        return None if self.counters is None else await self.counters()

    async def _decode(self, point: Point) -> tuple[dict[str, float], tuple[float, ...]]:
        """Run a batch of sequences together; average the gaps while all of them run.

        Most of each context comes from a shared prefix, so that the batch fills quickly.
        """
        batch, context = point.x, point.y
        prefix = max(context - OWN_TOKENS, 0) // self.block_tokens * self.block_tokens
        if prefix and point not in self._seen:
            await self.sender.one(self._new(1, prefix_tokens=prefix), 1)
        guessed = FIRST_OUTPUT + int(self._per_sequence * batch)
        output = min(self._outputs.get(point, guessed), MOST_OUTPUT)
        while True:
            prompts = [self._new(context - prefix, prefix_tokens=prefix)] * batch
            answers = await self.sender.together(prompts, output)
            gaps = gaps_while_all_run(answers)
            if len(gaps) >= GAPS_WANTED * batch:
                break
            if output >= MOST_OUTPUT:
                raise UnmeasurableError(
                    f"{batch} sequences of {context} tokens never ran together long enough to "
                    "measure a decode step: a smaller batch (--max-batch) may"
                )
            output = min(self._enough(answers, output, batch), MOST_OUTPUT)
        self._outputs[point] = output
        self._per_sequence = max((output - FIRST_OUTPUT) / batch, 1.0)
        return (
            {
                "step_s": float(gaps.mean()),
                "context_tokens": context + _mean_written(answers),
                "first_s": float(np.mean([t.ttft_s for t in answers])),
            },
            ratios_of(gaps),
        )

    @staticmethod
    def _enough(answers: Sequence[Timing], output: int, batch: int) -> int:
        """Tokens after which the last sequence will have run long enough beside the first."""
        begin = max(t.token_at_s[0] for t in answers)
        first = min(answers, key=lambda t: t.token_at_s[0])
        before = sum(at < begin for at in first.token_at_s)
        return max(before + GAPS_WANTED + 12, output + output // 2 + batch)

    async def _mixed(self, point: Point) -> tuple[dict[str, float], tuple[float, ...]]:
        """A prompt that comes while answers are being written by the same engine.

        What it costs them is how much longer they took than the same number of undisturbed steps.
        """
        new, batch = point.x, point.y
        output = self._outputs.get(point, 4 * FIRST_OUTPUT)
        shorts = [self._new(OWN_TOKENS)] * batch

        async def come_later() -> Timing:
            await asyncio.sleep(SETTLE_S)
            return await self.sender.one(self._new(new), 1)

        answers, prompt = await asyncio.gather(self.sender.together(shorts, output), come_later())
        sent, first = prompt.sent_at_s, prompt.token_at_s[0]
        inside, alone = _gaps_around(answers, sent, first)
        if len(inside) == 0 or len(alone) < GAPS_WANTED:
            if output >= MOST_OUTPUT:
                raise UnmeasurableError(
                    f"{point.text}: the answers were over before the prompt had been computed"
                )
            self._outputs[point] = 2 * output
            return await self._mixed(point)
        step_s = float(np.mean(alone))
        extra = [float(np.sum(gaps - step_s)) for gaps in inside]
        return (
            {
                "beside_s": max(float(np.mean(extra)), 1e-6),
                "stall_s": float(np.mean([gaps.max() for gaps in inside])),
                "ttft_s": prompt.ttft_s,
                "step_s": step_s,
            },
            (),
        )


def _mean_written(answers: Sequence[Timing]) -> float:
    """Tokens that a sequence has written on average while all of them run."""
    begin = max(t.token_at_s[0] for t in answers)
    end = min(t.token_at_s[-1] for t in answers)
    written = [
        np.interp([begin, end], t.token_at_s, np.array(t.tokens, dtype=np.float64)).mean()
        for t in answers
    ]
    return float(np.mean(written))


def _gaps_around(
    answers: Sequence[Timing], sent_s: float, first_s: float
) -> tuple[list[Floats], Floats]:
    """Gaps of each answer that a prompt fell into, and those after it."""
    inside, alone = [], []
    for timing in answers:
        at = np.array(timing.token_at_s)
        gaps = np.diff(at)
        # A step that ends just after the prompt's first token is the one that computed it.
        touched = (at[1:] > sent_s) & (at[:-1] < first_s)
        if touched.any():
            inside.append(gaps[touched])
        alone.append(gaps[at[:-1] >= first_s])
    return inside, np.concatenate(alone) if alone else np.empty(0)


def ratios_of(gaps: Floats) -> tuple[float, ...]:
    """`RATIOS` equally likely ratios of a gap to the mean; chunks of several tokens count once."""
    levels = (np.arange(RATIOS) + 0.5) / RATIOS
    ratios = np.maximum(np.quantile(gaps, levels) / gaps.mean(), LEAST_RATIO)
    return tuple((ratios / ratios.mean()).tolist())


def gaps_while_all_run(answers: Sequence[Timing]) -> Floats:
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
