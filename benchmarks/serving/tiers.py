"""What this machine can run of the KV tiers: NIXL inside MultiConnector beside NIXL alone.

A tier rides in MultiConnector; its tiers proper need an accelerator. What can be measured here is
the wrapper: the same pair of CPU workers with it and without, one request at a time through smg.
"""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.profiling.engines import MODEL, Engines, engines
from planner.domain.errors import PoolwiseError
from planner.domain.fleet import ReplicaShape, Role
from serving.kv.tiers import EngineSite, Tier, TierKind, tier_flags
from serving.traffic.load import Completion, Timing

REQUESTS, PROMPT_TOKENS, ANSWER_TOKENS = 16, 512, 8
BOUND = 1.1
Say = Callable[[str], None]


def run(folder: Path, say: Say) -> str:
    """Both pairs, and what is refused; Markdown."""
    nixl = json.loads(tier_flags(EngineSite(has_accelerator=False)).transfer_config)
    wrapped = {
        "kv_connector": "MultiConnector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": "fail",
        "kv_connector_extra_config": {"connectors": [nixl]},
    }
    flags = ("--kv-transfer-config", json.dumps(wrapped))
    with engines((Role.PREFILL, Role.DECODE), folder, say) as now:
        alone = _measure(now, say)
        moved_alone = now.deployment.reading(now.workers[1]).counters
        for worker in now.workers:
            now.deployment.drain(worker)
            now.deployment.stop(worker)
        fresh = []
        for role in (Role.PREFILL, Role.DECODE):
            shape = ReplicaShape(role=role, model=MODEL, accelerator="cpu-slot", engine_flags=flags)
            fresh.append(now.deployment.start(shape))
        for worker in fresh:
            now.deployment.await_ready(worker)
            now.deployment.route(worker)
        multi = _measure(now, say)
        moved = now.deployment.reading(fresh[1]).counters
    ratio = float(np.median(multi) / np.median(alone))
    return "\n".join(
        [
            f"{REQUESTS} requests of {PROMPT_TOKENS} tokens, one at a time, through smg:",
            "",
            "| connector | TTFT p50 | prompt tokens moved | computed at decode |",
            "|---|---:|---:|---:|",
            *(
                f"| {name} | {np.median(ttft) * 1000:.0f} ms | "
                f"{c.prompt_tokens_transferred:.0f} | {c.prompt_tokens_computed:.0f} |"
                for name, ttft, c in (
                    ("NixlConnector", alone, moved_alone),
                    ("MultiConnector [NixlConnector]", multi, moved),
                )
            ),
            "",
            f"With the wrapper TTFT is {ratio:.2f} of that without (bound: {BOUND}).",
            "",
            "Refused here:",
            *_refused(),
        ]
    )


def _measure(now: Engines, say: Say) -> list[float]:
    writer = now.writer()

    async def send() -> list[Timing]:
        client = now.client(now.deployment.router.url)
        try:
            return [
                await client.send(
                    Completion(
                        prompt=writer.unique(PROMPT_TOKENS, number=i), output_tokens=ANSWER_TOKENS
                    )
                )
                for i in range(REQUESTS)
            ]
        finally:
            await client.close()

    began = time.monotonic()
    answers = asyncio.run(send())
    failed = [a.error for a in answers if a.error]
    say(f"{len(answers)} requests in {time.monotonic() - began:.0f} s, {len(failed)} failed")
    if failed:
        raise RuntimeError(f"requests failed: {failed[0]}")
    return [a.ttft_s for a in answers[1:]]


def _refused() -> list[str]:
    lines = []
    for kind in TierKind:
        tier = Tier(kind=kind, folder="/kv", server="h:1", metadata_server="http://h/metadata")
        site = EngineSite(has_accelerator=False, packages=frozenset({"vllm", "nixl"}))
        try:
            tier_flags(site, tier=tier)
        except PoolwiseError as error:
            lines.append(f"- {kind}: {error}")
    return lines
