"""Greedy answers by one engine, by a pair behind each router and the gate, after a flip: equal.

With several requests in flight and compiled steps they are equal but for near ties (`near_ties`).
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np

from benchmarks.serving.gate import spec_for
from benchmarks.serving.near_ties import Answer, answer_of, is_within, noise, parting
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
TIMEOUT_S = 300.0
ROLES = (Role.PREFILL, Role.DECODE)


def run(folder: Path, say: Say, *, requests: int = REQUESTS) -> str:
    at = replace(without_prefix_cache(site(folder, cores=None)), endpoints_dir=folder)
    writer = PromptWriter(words=read_words(at.model.directory), seed=77)
    lengths = np.exp(np.random.default_rng(5).uniform(np.log(8), np.log(LONGEST), requests))
    prompts = [writer.unique(int(n), number=i) for i, n in enumerate(lengths)]
    return f"{_one_in_flight(at, prompts, say)}\n\n{_many_in_flight(at, prompts, say)}"


def _one_in_flight(at: LocalSite, prompts: list[str], say: Say) -> str:
    """Eager, one request in flight per engine: all ways have to say the same."""
    answers: dict[str, list[str | None]] = {}
    with deployed(at, ROLES, say) as (deployment, _):
        first, second = (m.worker for m in deployment.members)

        def note(way: str, url: str) -> None:
            answers[way] = asyncio.run(_ask(url, prompts))
            say(f"{way}: {_answered(answers[way])} of {len(prompts)} answers")

        note("one engine", second.url)
        note("again", second.url)
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
    reference = answers["one engine"]
    lines = [
        f"{len(prompts)} prompts of 8 to {LONGEST} tokens, {OUTPUT_TOKENS} tokens of answer, "
        "eager, no prefix cache, one request in flight. An answer may be without text: its tokens "
        "are then special ones.",
        "",
        "| way | answers | equal to one engine's (asked: all) |",
        "|---|---|---|",
    ]
    for way, texts in answers.items():
        equal = sum(a == b and a is not None for a, b in zip(texts, reference, strict=True))
        lines.append(f"| {way} | {_answered(texts)} | {equal} |")
    lines += [
        "",
        f"Through smg decode computed {moved.prompt_tokens_computed:.0f} prompt tokens (asked: 0) "
        f"and got {moved.prompt_tokens_transferred:,.0f} by transfer, {moved.failed_transfers:.0f} "
        "transfers failed.",
    ]
    return "\n".join(lines)


def _by_the_gate(deployment: LocalDeployment, note: Callable[[str, str], None]) -> None:
    options = GateOptions(
        spec=spec_for(deployment.site.published_in), port=0, anonymous=True, admission=False
    )
    ways = (("gate, straight to decode where it is idle", True), ("gate, smg", False))
    for way, direct in ways:
        with gate(deployment, replace(options, direct=direct)):
            note(way, str(deployment.endpoints().gate))


def _many_in_flight(at: LocalSite, prompts: list[str], say: Say) -> str:
    """Compiled, several requests in flight: ways may differ as runs of one engine do."""
    compiled = replace(at, flags=replace(at.flags, enforce_eager=False))
    answers: dict[str, list[Answer | None]] = {}
    with deployed(compiled, ROLES, say) as (deployment, _):
        second = deployment.members[1].worker

        def note(way: str, url: str) -> None:
            answers[way] = asyncio.run(_ask_with_logprobs(url, prompts))
            said = sum(a is not None for a in answers[way])
            say(f"{way}: {said} of {len(prompts)} answers with log-probabilities")

        for run_number in range(1, REPEATS + 1):
            note(f"one engine, run {run_number}", second.url)
        runs = list(answers.values())
        note("smg, KV over NIXL", deployment.router.url)
        _by_the_gate(deployment, note)
    noise_gap = noise(runs)
    lines = [
        f"The same prompts, compiled, {IN_FLIGHT} requests in flight. At the first differing "
        "token: the gap between the two likeliest tokens' log-probabilities; asked: at most that "
        f"of one engine's {REPEATS} runs among themselves, {noise_gap:.4f}.",
        "",
        "| way | answers compared | equal to one engine's | largest gap where they part | met |",
        "|---|---|---|---|---|",
    ]
    for way, tokens in answers.items():
        found = parting(runs[0], tokens)
        met = "yes" if is_within(found, noise_gap) else "NO"
        figures = f"{found.compared} | {found.equal} | {found.largest_gap:.4f}"
        lines.append(f"| {way} | {figures} | {met} |")
    return "\n".join(lines)


async def _ask_with_logprobs(url: str, prompts: list[str]) -> list[Answer | None]:
    """Answers with their tokens; None where there was none."""
    waiting = asyncio.Semaphore(IN_FLIGHT)
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:

        async def ask(prompt: str) -> Answer | None:
            body = {"model": MODEL.value, "prompt": prompt, "max_tokens": OUTPUT_TOKENS}
            body |= {"temperature": 0, "ignore_eos": True, "logprobs": 2}
            async with waiting:
                try:
                    answered = await client.post("/v1/completions", json=body)
                except httpx.HTTPError:
                    return None
            return answer_of(answered.json()) if answered.status_code == 200 else None

        return list(await asyncio.gather(*(ask(prompt) for prompt in prompts)))


def _answered(texts: list[str | None]) -> int:
    return sum(text is not None for text in texts)


async def _ask(url: str, prompts: list[str]) -> list[str | None]:
    """Texts of answers; None where there was none, or one of another length."""
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
