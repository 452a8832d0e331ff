"""How single steps vary around their mean at fixed batches, and what a joining request costs."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.real_engines.recording import write_atomically
from planner.domain.errors import MeasurementError
from profiler.sweep import gaps_while_all_run
from serving.load import Completion, LoadClient, Timing
from serving.prompts import PromptWriter

BATCHES = (1, 2, 4, 8, 16)
PROMPT_TOKENS = 160
OUTPUT_TOKENS = 80
JOINED_BATCH = 6
JOINS = 16
JOIN_EVERY_S = 1.6
LONGEST_OUTPUT_TOKENS = 1_800
AROUND_S = 0.25
"""Steps from so long before a request is sent until so long after its answer count as touched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Gaps between tokens, seconds, at one batch; one gap a sequence and step."""

    batch: int
    context_tokens: int
    gaps_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Joins:
    """What requests of one token, sent into a running batch, cost the others.

    Parameters
    ----------
    step_s : float
        Mean gap of the batch while nobody comes.
    extra_s : tuple of float
        Per request: how much longer the gaps around it were in all than so many mean gaps.
    """

    batch: int
    prompt_tokens: int
    step_s: float
    extra_s: tuple[float, ...]

    @property
    def mean_s(self) -> float:
        """Mean cost, not below 0."""
        return max(float(np.mean(self.extra_s)), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFile:
    """What is kept of one deployment; no joins where prompts are computed in the same steps."""

    steps: tuple[Steps, ...]
    joins: Joins | None


async def measure_steps(client: LoadClient, writer: PromptWriter, *, joins: bool) -> StepFile:
    """Measure every batch, then what joining costs.

    Raises
    ------
    MeasurementError
        When a request fails.
    """
    measured, number = [], 0
    for batch in BATCHES:
        prompts = [writer.unique(PROMPT_TOKENS, number=number + i) for i in range(batch)]
        number += batch
        output = OUTPUT_TOKENS + 4 * batch  # the first ones wait for the last one's prompt
        answers = await asyncio.gather(*(_send(client, p, output) for p in prompts))
        gaps = gaps_while_all_run(answers)
        context = PROMPT_TOKENS + output // 2
        measured.append(Steps(batch=batch, context_tokens=context, gaps_s=tuple(gaps.tolist())))
    if not joins:
        return StepFile(steps=tuple(measured), joins=None)
    step_s = float(np.mean(measured[-2].gaps_s))
    found = await _measure_joins(client, writer, number, step_s)
    return StepFile(steps=tuple(measured), joins=found)


async def _measure_joins(
    client: LoadClient, writer: PromptWriter, number: int, about_step_s: float
) -> Joins:
    every_s = min(JOIN_EVERY_S, LONGEST_OUTPUT_TOKENS * about_step_s / (JOINS + 4))
    output = round((JOINS + 4) * every_s / about_step_s)
    prompts = [writer.unique(PROMPT_TOKENS, number=number + i) for i in range(JOINED_BATCH + JOINS)]
    batch = [asyncio.create_task(_send(client, p, output)) for p in prompts[:JOINED_BATCH]]
    await asyncio.sleep(3 * every_s)
    joined = []
    for prompt in prompts[JOINED_BATCH:]:
        joined.append(asyncio.create_task(_send(client, prompt, 1)))
        await asyncio.sleep(every_s)
    answers = await asyncio.gather(*batch)
    return _join_costs(answers, await asyncio.gather(*joined))


def _join_costs(batch: Sequence[Timing], joined: Sequence[Timing]) -> Joins:
    """Sum the gaps around every joined request, less the mean gap of all others."""
    began = max(t.token_at_s[0] for t in batch) + AROUND_S
    ended = min(t.token_at_s[-1] for t in batch)
    ends, gaps = [], []
    for timing in batch:
        at = np.array(timing.token_at_s)
        inside = (at[:-1] >= began) & (at[1:] <= ended)
        ends += at[1:][inside].tolist()
        gaps += np.diff(at)[inside].tolist()
    end, gap = np.array(ends), np.array(gaps)
    spans = [
        (j.sent_at_s - AROUND_S, j.token_at_s[-1] + AROUND_S)
        for j in joined
        if j.sent_at_s - AROUND_S >= began and j.token_at_s[-1] + AROUND_S <= ended
    ]
    near = [(end >= low) & (end - gap <= high) for low, high in spans]
    alone = ~np.any(near, axis=0)
    if not spans or not alone.any():
        raise MeasurementError("no request joined a running batch: measure with longer answers")
    step_s = float(gap[alone].mean())
    extra = [float((gap[n] - step_s).sum()) / len(batch) for n in near]
    return Joins(batch=len(batch), prompt_tokens=PROMPT_TOKENS, step_s=step_s, extra_s=tuple(extra))


async def _send(client: LoadClient, prompt: str, output_tokens: int) -> Timing:
    timing = await client.send(Completion(prompt=prompt, output_tokens=output_tokens))
    if timing.error:
        raise MeasurementError(f"a measuring request failed: {timing.error}")
    return timing


def write_steps(path: Path, measured: StepFile) -> None:
    """Write what was measured."""
    write_atomically(path, json.dumps(asdict(measured)).encode())


def read_steps(path: Path) -> StepFile:
    """Read it back."""
    data = json.loads(path.read_text())
    joins = data["joins"]
    return StepFile(
        steps=tuple(Steps(**(s | {"gaps_s": tuple(s["gaps_s"])})) for s in data["steps"]),
        joins=None if joins is None else Joins(**(joins | {"extra_s": tuple(joins["extra_s"])})),
    )
