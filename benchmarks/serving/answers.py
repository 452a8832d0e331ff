"""Greedy answers by one engine, by a pair behind each router and the gate, after a flip: equal.

With several requests in flight and compiled steps they are equal but for near ties (`near_ties`).
Where answers differ it is told which prompt, which token and how nearly tied it was, beside what
runs of one engine differ by (`answers_told`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np

from benchmarks.serving.answers_told import Asked, Told, told
from benchmarks.serving.gate import spec_for
from benchmarks.serving.near_ties import Answer, answer_of
from benchmarks.serving.rig import (
    MODEL,
    Say,
    deployed,
    shape,
    site,
    without_prefix_cache,
)
from planner.domain.fleet import Role
from planner.service.fleet.deploying import gate
from planner.service.fleet.gate import GateOptions
from serving.fleet.deployment import LocalDeployment
from serving.routers import RouterKind, start_router
from serving.traffic.load import Completion, LoadClient
from serving.traffic.prompts import PromptWriter, read_words
from serving.workers.launcher import LocalSite

REQUESTS = 500
OUTPUT_TOKENS = 16
LONGEST = 1000
IN_FLIGHT = 8
REPEATS = 3
"""Runs of one engine, whose differences are what others may differ by."""
STREAMED_EVERY = 10
"""Of so many prompts one is asked for as a stream too; its text is compared."""
TIMEOUT_S = 300.0
ROLES = (Role.PREFILL, Role.DECODE)
Note = Callable[[str, str], None]
"""Asks all prompts by the way so named, at that address, and keeps the answers."""


def run(folder: Path, say: Say, *, requests: int = REQUESTS) -> str:
    at = replace(without_prefix_cache(site(folder, cores=None)), endpoints_dir=folder)
    writer = PromptWriter(words=read_words(at.model.directory), seed=77)
    lengths = np.exp(np.random.default_rng(5).uniform(np.log(8), np.log(LONGEST), requests))
    asked = Asked(
        prompts=tuple(writer.unique(int(n), number=i) for i, n in enumerate(lengths)),
        input_tokens=tuple(int(n) for n in lengths),
    )
    return f"{_one_in_flight(at, asked, say)}\n\n{_many_in_flight(at, asked, say)}"


def _one_in_flight(at: LocalSite, asked: Asked, say: Say) -> str:
    """Eager, one request in flight per engine: all ways have to say the same."""
    found = Told()
    with deployed(at, ROLES, say) as (deployment, _):
        first, second = (m.worker for m in deployment.members)

        def note(way: str, url: str) -> None:
            found.ways[way] = asyncio.run(ask_with_logprobs(url, asked.prompts))
            found.streamed[way] = asyncio.run(_ask(url, asked.prompts[::STREAMED_EVERY]))
            say(f"{way}: {_answered(found.ways[way])} of {len(asked.prompts)} answers")

        note("one engine", second.url)
        note("again", second.url)
        found.repeats += [found.ways["one engine"], found.ways["again"]]
        _repeat(found, asked, second.url, say)
        before = deployment.reading(second).counters
        note("smg, KV over NIXL", deployment.router.url)
        moved = deployment.reading(second).counters - before
        _by_the_gate(deployment, note)
        deployment.drain(first, ending=False)
        deployment.flip(second, shape(Role.PREFILL))
        deployment.assign(first, shape(Role.DECODE))
        deployment.route(first)
        note("smg, roles swapped", deployment.router.url)
        other = start_router(RouterKind.VLLM_ROUTER, at.state_dir, name="other-router")
        try:
            other.add(second.url, Role.PREFILL)
            other.add(first.url, Role.DECODE)
            note("vllm-router", other.url)
        finally:
            other.stop()
    return "\n".join(
        [
            f"{len(asked.prompts)} prompts of 8 to {LONGEST} tokens, {OUTPUT_TOKENS} tokens of "
            f"answer, eager, no prefix cache, one request in flight. Runs of one engine: those two "
            f"and {REPEATS} with {IN_FLIGHT} in flight, each in another order.",
            "",
            *told(found, asked),
            "",
            f"Through smg decode computed {moved.prompt_tokens_computed:.0f} prompt tokens (asked: "
            f"0) and got {moved.prompt_tokens_transferred:,.0f} by transfer, "
            f"{moved.failed_transfers:.0f} transfers failed.",
        ]
    )


def _by_the_gate(deployment: LocalDeployment, note: Note) -> None:
    options = GateOptions(
        spec=spec_for(deployment.site.published_in), port=0, anonymous=True, admission=False
    )
    ways = (("gate, straight to decode where it is idle", True), ("gate, smg", False))
    for way, direct in ways:
        with gate(deployment, replace(options, direct=direct)):
            note(way, str(deployment.endpoints().gate))


def _repeat(found: Told, asked: Asked, url: str, say: Say) -> None:
    """Runs of one engine in which prompts meet other batches each time."""
    for seed in range(REPEATS):
        answers = asyncio.run(
            ask_with_logprobs(url, asked.prompts, in_flight=IN_FLIGHT, shuffled_by=seed)
        )
        found.repeats.append(answers)
        say(f"one engine, {IN_FLIGHT} in flight, run {seed + 1}: {_answered(answers)} answers")


def _many_in_flight(at: LocalSite, asked: Asked, say: Say) -> str:
    """Compiled, several requests in flight: ways may differ as runs of one engine do."""
    compiled = replace(at, flags=replace(at.flags, enforce_eager=False))
    found = Told()
    with deployed(compiled, ROLES, say) as (deployment, _):

        def note(way: str, url: str) -> None:
            answers = asyncio.run(ask_with_logprobs(url, asked.prompts, in_flight=IN_FLIGHT))
            found.ways[way] = answers
            say(f"{way}: {_answered(answers)} of {len(asked.prompts)} answers")

        one = deployment.members[1].worker.url
        note("one engine", one)
        found.repeats.append(found.ways["one engine"])
        _repeat(found, asked, one, say)
        note("smg, KV over NIXL", deployment.router.url)
        _by_the_gate(deployment, note)
    return "\n".join(
        [
            f"The same prompts, compiled, {IN_FLIGHT} requests in flight. Runs of one engine: that "
            f"and {REPEATS} more, each in another order.",
            "",
            *told(found, asked),
        ]
    )


async def ask_with_logprobs(
    url: str,
    prompts: tuple[str, ...],
    *,
    in_flight: int = 1,
    shuffled_by: int | None = None,
) -> list[Answer | None]:
    """Answers with their tokens, in order of the prompts; None where there was none.

    Parameters
    ----------
    in_flight : int
        Requests under way at once.
    shuffled_by : int or None
        Seed of the order in which prompts are sent; None: as they stand.
    """
    waiting = asyncio.Semaphore(in_flight)
    order = np.arange(len(prompts))
    if shuffled_by is not None:
        order = np.random.default_rng([7, shuffled_by]).permutation(len(prompts))
    answers: list[Answer | None] = [None] * len(prompts)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:

        async def ask(prompt: int) -> None:
            async with waiting:
                answers[prompt] = await _ask_one(client, prompts[prompt])

        await asyncio.gather(*(ask(int(prompt)) for prompt in order))
    return answers


async def _ask_one(client: httpx.AsyncClient, prompt: str) -> Answer | None:
    body = {"model": MODEL.value, "prompt": prompt, "max_tokens": OUTPUT_TOKENS}
    body |= {"temperature": 0, "ignore_eos": True, "logprobs": 2}
    # Two tokens may be spelled alike, as parts of one letter are: ids tell them apart.
    body |= {"return_tokens_as_token_ids": True}
    try:
        answered = await client.post("/v1/completions", json=body)
        return answer_of(answered.json()) if answered.status_code == 200 else None
    except (httpx.HTTPError, ValueError):
        return None


def _answered(answers: list[Answer | None]) -> int:
    return sum(answer is not None for answer in answers)


async def _ask(url: str, prompts: tuple[str, ...]) -> list[str | None]:
    """Texts of streamed answers; None where there was none, or one of another length."""
    client = LoadClient(url=url, model=MODEL.value)
    try:
        texts: list[str | None] = []
        for prompt in prompts:
            timing = await client.send(Completion(prompt=prompt, output_tokens=OUTPUT_TOKENS))
            whole = not timing.error and timing.output_tokens == OUTPUT_TOKENS
            texts.append(timing.text if whole else None)
        return texts
    finally:
        await client.close()
