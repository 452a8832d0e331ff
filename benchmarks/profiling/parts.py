"""TTFT through the P/D path, and the sum of its parts, each measured by itself.

The prefill leg and the decode leg are asked by hand, worker by worker, as a P/D router does:
the prefill worker computes the prompt and keeps its KV cache, the decode worker pulls it and
writes. What is left of the router's TTFT is its own.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import numpy as np

from benchmarks.profiling.engines import MODEL, Engines
from planner.domain.errors import EngineError
from serving.traffic.load import Completion

LENGTHS, REPEATS = (64, 128, 256, 512, 768), 7
BOUND = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Medians at one prompt length, seconds.

    Parameters
    ----------
    prefill_s : float
        The prefill leg, asked directly.
    handed_over_s : float
        The decode leg until its first token: transfer and first decode step.
    transfer_s, step_s : float
        The transfer as the decode engine counts it; a decode step of one sequence.
    routed_s : float
        TTFT through the router.
    """

    tokens: int
    prefill_s: float
    handed_over_s: float
    transfer_s: float
    step_s: float
    routed_s: float

    @property
    def explained_ratio(self) -> float:
        """Prefill, transfer and first decode step over the routed TTFT."""
        return (self.prefill_s + self.transfer_s + self.step_s) / self.routed_s


async def measured(now: Engines) -> list[Parts]:
    """All lengths, in turns."""
    prefill, decode = now.workers
    writer, routed, direct = now.writer(), now.client(), now.client(decode.url)
    number, rows = 0, {n: list[tuple[float, ...]]() for n in LENGTHS}
    legs = httpx.AsyncClient(timeout=120.0)
    try:
        for repeat in range(REPEATS + 1):
            for n in LENGTHS:
                number += 3
                before = now.deployment.reading(decode).counters
                through = await routed.send(
                    Completion(prompt=writer.unique(n, number=number), output_tokens=1)
                )
                moved = now.deployment.reading(decode).counters - before
                prompt = writer.unique(n, number=number + 1)
                leg_s, handle = await _prefill_leg(legs, prefill.url, prompt)
                decode_s = await _decode_leg(legs, decode.url, prompt, handle)
                steps = await direct.send(
                    Completion(prompt=writer.unique(32, number=number + 2), output_tokens=16)
                )
                if through.error or steps.error:
                    raise EngineError(through.error or steps.error)
                transfer_s = moved.transfer_s / max(moved.transfers, 1)
                if repeat:  # the first of each length warms up
                    rows[n].append((leg_s, decode_s, transfer_s, steps.tpot_s, through.ttft_s))
    finally:
        await legs.aclose()
        await routed.close()
        await direct.close()
    return [_parts(n, rows[n]) for n in LENGTHS]


def _parts(tokens: int, rows: Sequence[tuple[float, ...]]) -> Parts:
    prefill, handed, transfer, step, routed = (float(v) for v in np.median(rows, axis=0))
    return Parts(
        tokens=tokens,
        prefill_s=prefill,
        handed_over_s=handed,
        transfer_s=transfer,
        step_s=step,
        routed_s=routed,
    )


async def _prefill_leg(client: httpx.AsyncClient, url: str, prompt: str) -> tuple[float, object]:
    body = {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": 1,
        "temperature": 0,
        "kv_transfer_params": {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "remote_engine_id": None,
            "remote_block_ids": None,
            "remote_host": None,
            "remote_port": None,
        },
    }
    began_s = time.perf_counter()
    answer = await client.post(f"{url}/v1/completions", json=body)
    took_s = time.perf_counter() - began_s
    answer.raise_for_status()
    return took_s, answer.json()["kv_transfer_params"]


async def _decode_leg(client: httpx.AsyncClient, url: str, prompt: str, handle: object) -> float:
    body = {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": 2,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "kv_transfer_params": handle,
    }
    began_s = time.perf_counter()
    async with client.stream("POST", f"{url}/v1/completions", json=body) as answer:
        answer.raise_for_status()
        first_s = float("nan")
        async for line in answer.aiter_lines():
            if line.startswith("data: {") and np.isnan(first_s):
                first_s = time.perf_counter() - began_s
    await asyncio.sleep(0)
    return first_s


def table(found: Sequence[Parts]) -> str:
    """Markdown."""
    lines = [
        "| prompt | prefill leg | transfer | first decode step | sum | routed TTFT | explained "
        "| legs by hand |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for p in found:
        total = p.prefill_s + p.transfer_s + p.step_s
        lines.append(
            f"| {p.tokens} | {1e3 * p.prefill_s:,.0f} ms | {1e3 * p.transfer_s:,.1f} ms "
            f"| {1e3 * p.step_s:,.1f} ms | {1e3 * total:,.0f} ms | {1e3 * p.routed_s:,.0f} ms "
            f"| {p.explained_ratio:.0%} | {1e3 * (p.prefill_s + p.handed_over_s):,.0f} ms |"
        )
    return "\n".join(lines)
