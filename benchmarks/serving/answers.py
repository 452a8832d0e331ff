"""Greedy answers by one engine, by a pair behind each router and the gate, after a flip: equal."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.serving.gate import spec_for
from benchmarks.serving.rig import (
    MODEL,
    Say,
    deployed,
    shape,
    site,
    without_prefix_cache,
)
from planner.domain.fleet import Role
from planner.service.deploying import gate
from planner.service.gate import GateOptions
from serving.routers import RouterKind, start_router
from serving.traffic.load import Completion, LoadClient
from serving.traffic.prompts import PromptWriter, read_words

REQUESTS = 500
OUTPUT_TOKENS = 16
LONGEST = 1000


def run(folder: Path, say: Say, *, requests: int = REQUESTS) -> str:
    at = replace(without_prefix_cache(site(folder, cores=None)), endpoints_dir=folder)
    writer = PromptWriter(words=read_words(at.model.directory), seed=77)
    lengths = np.exp(np.random.default_rng(5).uniform(np.log(8), np.log(LONGEST), requests))
    prompts = [writer.unique(int(n), number=i) for i, n in enumerate(lengths)]
    answers: dict[str, list[str | None]] = {}
    roles = (Role.PREFILL, Role.DECODE)
    with deployed(at, roles, say) as (deployment, _):
        first, second = (m.worker for m in deployment.members)

        def note(way: str, url: str) -> None:
            answers[way] = asyncio.run(_ask(url, prompts))
            say(f"{way}: {_answered(answers[way])} of {requests} answers")

        note("one engine", second.url)
        note("again", second.url)
        before = deployment.reading(second).counters
        note("smg, KV over NIXL", deployment.router.url)
        moved = deployment.reading(second).counters - before
        options = GateOptions(spec=spec_for(folder), port=0, anonymous=True, admission=False)
        for way, direct in (
            ("gate, straight to decode where it is idle", True),
            ("gate, smg", False),
        ):
            with gate(deployment, replace(options, direct=direct)):
                note(way, str(deployment.endpoints().gate))
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
        f"{requests} prompts of 8 to {LONGEST} tokens, {OUTPUT_TOKENS} tokens of answer, eager, no "
        "prefix cache, one request in flight. An answer may be without text: its tokens are then "
        "special ones.",
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
