"""How single steps vary around their mean, and how much busy neighbours slow workers down."""

import asyncio
import itertools
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.real_engines.recording import write_atomically
from planner.domain.errors import MeasurementError
from profiler.measure.probe import gaps_while_all_run
from serving.traffic.load import Completion, LoadClient, Timing
from serving.traffic.prompts import PromptWriter

BATCHES = (1, 2, 4, 8, 16)
PROMPT_TOKENS = 160
OUTPUT_TOKENS = 80
BESIDE_TOKENS = 320
BESIDE_BATCH = 3
BESIDE_OUTPUT_TOKENS = 200
BESIDE_PROMPTS = 6
BESIDE_ROUNDS = 4
SETTLED = 5
"""Tokens of an answer that are left out: others are still joining."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Gaps between tokens, seconds, at one batch; one gap a sequence and step."""

    batch: int
    context_tokens: int
    gaps_s: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A prefill and a decode worker, asked directly, alone and beside each other; means, seconds.

    Parameters
    ----------
    prompt_alone_s, prompt_beside_s : float
        TTFT of a prompt while the decode worker is idle, and while it decodes.
    step_alone_s, step_beside_s : float
        Gap between tokens while the prefill worker is idle, and while it computes prompts.
    """

    prompt_alone_s: float
    prompt_beside_s: float
    step_alone_s: float
    step_beside_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFile:
    """What is kept of one deployment; nothing beside where there is one worker."""

    steps: tuple[Steps, ...]
    beside: Beside | None


async def measure_steps(client: LoadClient, writer: PromptWriter) -> tuple[Steps, ...]:
    """Measure every batch.

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
    return tuple(measured)


async def measure_beside(prefill: LoadClient, decode: LoadClient, writer: PromptWriter) -> Beside:
    """Send prompts to one worker while the other is idle, and while it decodes; and back.

    Alone and beside take turns, so that a machine that drifts changes both.

    Raises
    ------
    MeasurementError
        When a request fails.
    """
    alone, beside = [], []
    steps: dict[bool, list[float]] = {False: [], True: []}
    numbers = itertools.count(10_000)

    async def prompts() -> list[float]:
        texts = [writer.unique(BESIDE_TOKENS, number=next(numbers)) for _ in range(BESIDE_PROMPTS)]
        return [(await _send(prefill, text, 1)).ttft_s for text in texts]

    await prompts()  # the first steps of a size are dearer
    for _ in range(BESIDE_ROUNDS):
        alone += await prompts()
        texts = [writer.unique(64, number=next(numbers)) for _ in range(BESIDE_BATCH)]
        decoding = [asyncio.create_task(_send(decode, t, BESIDE_OUTPUT_TOKENS)) for t in texts]
        await asyncio.sleep(3 * alone[-1])
        beside += await prompts()
        until_s = time.perf_counter()
        for answer in await asyncio.gather(*decoding):
            at = np.array(answer.token_at_s)[SETTLED:]
            for was_beside in (False, True):
                steps[was_beside] += np.diff(at)[(at[1:] < until_s) == was_beside].tolist()
    if not all(steps.values()):
        raise MeasurementError("the decode worker was never alone, or never beside: ask for more")
    return Beside(
        prompt_alone_s=float(np.mean(alone)),
        prompt_beside_s=float(np.mean(beside)),
        step_alone_s=float(np.mean(steps[False])),
        step_beside_s=float(np.mean(steps[True])),
    )


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
    beside = data["beside"]
    return StepFile(
        steps=tuple(Steps(**(s | {"gaps_s": tuple(s["gaps_s"])})) for s in data["steps"]),
        beside=None if beside is None else Beside(**beside),
    )
