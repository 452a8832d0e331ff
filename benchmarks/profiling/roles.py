"""The same engine role by role, and TTFT through the P/D path as the sum of its parts.

Every turn asks all of these at one prompt length, so that a machine that drifts changes all of
them alike:

* prefill-only: the prefill worker computes the prompt and keeps its KV cache for another;
* decode-only: the decode worker pulls that cache and writes;
* aggregated: the decode worker computes a prompt and writes, as if it were alone;
* end to end: the router does both legs.

The legs are asked by hand, worker by worker, as a P/D router asks them. What is left of the
router's TTFT is its own.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks.profiling.engines import MODEL, Engines, Say
from planner.domain.errors import EngineError
from serving.telemetry import EngineCounters, read_engine_async
from serving.traffic.load import Completion, LoadClient
from serving.traffic.prompts import PromptWriter

LENGTHS, MOST_TURNS, LEAST_TURNS = (64, 128, 256, 512, 768), 7, 3
BUDGET_S, REQUEST_TIMEOUT_S = 120.0, 60.0
ANSWER_TOKENS = 16
MOST_FAILURES = 3
COUNTED_WITHIN_S, LOOK_EVERY_S = 3.0, 0.1
"""An engine counts a transfer with its next step, which may be a moment after the answer."""
BOUND = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where the legs of one P/D path are asked.

    Parameters
    ----------
    counters : callable
        Of the decode engine.
    """

    prefill_url: str
    decode_url: str
    routed_url: str
    model: str
    writer: PromptWriter
    counters: Callable[[], Awaitable[EngineCounters]]


def way_of(now: Engines) -> Way:
    """The routed pair."""
    prefill, decode = now.workers

    async def counters() -> EngineCounters:
        return (await read_engine_async(decode.url)).counters

    return Way(
        prefill_url=prefill.url,
        decode_url=decode.url,
        routed_url=now.url,
        model=MODEL,
        writer=now.writer(),
        counters=counters,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What was asked at one length, seconds; of several turns, their medians.

    Parameters
    ----------
    prefill_s : float
        Prefill-only: the leg until it is answered.
    handed_over_s : float
        Decode-only: the leg until its first token, so transfer and first decode step.
    step_s : float
        Decode-only: mean gap of one answer after the prompt.
    transfer_s : float
        A transfer as the decode engine counts it; NaN: it counted none.
    aggregated_s, aggregated_step_s : float
        TTFT and mean gap of the decode worker that computes the prompt itself.
    routed_s : float
        TTFT through the router.
    """

    prefill_s: float
    handed_over_s: float
    step_s: float
    transfer_s: float
    aggregated_s: float
    aggregated_step_s: float
    routed_s: float

    @property
    def sum_s(self) -> float:
        """Prefill, transfer and first decode step."""
        return self.prefill_s + self.transfer_s + self.step_s

    @property
    def explained_ratio(self) -> float:
        """Their sum over the routed TTFT."""
        return self.sum_s / self.routed_s


Turns = Mapping[int, Sequence[Turn]]
"""By prompt length."""


@dataclass(slots=True, kw_only=True)
class Roles:
    """Measures in turns; every finished turn stays in `turns`, whatever comes after it.

    Parameters
    ----------
    budget_s : float
        After `LEAST_TURNS` at each length none is begun that would end later than this.
    """

    way: Way
    lengths: tuple[int, ...] = LENGTHS
    budget_s: float = BUDGET_S
    say: Say = lambda _text: None
    turns: dict[int, list[Turn]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    _number: int = 0

    async def measure(self) -> bool:
        """Take turns at all lengths; return whether every length had `LEAST_TURNS`.

        Raises
        ------
        EngineError
            When nothing at all was measured.
        """
        self.turns = {n: [] for n in self.lengths}
        began_s = time.monotonic()
        way = self.way
        routed, decode = (
            LoadClient(url=url, model=way.model, timeout_s=REQUEST_TIMEOUT_S)
            for url in (way.routed_url, way.decode_url)
        )
        legs = httpx.AsyncClient(timeout=REQUEST_TIMEOUT_S)
        try:
            for turn in range(MOST_TURNS + 1):
                round_s = time.monotonic()
                for n in self.lengths:
                    taken = await self._again_after_failure(n, routed, decode, legs)
                    if taken is not None and turn:  # the first of each length warms up
                        self.turns[n].append(taken)
                    if len(self.failures) >= MOST_FAILURES:
                        return self._ended()
                now_s = time.monotonic()
                self.say(f"turn {turn} of {MOST_TURNS} took {now_s - round_s:.0f} s")
                if self._enough and 2 * now_s - round_s - began_s > self.budget_s:
                    break
        finally:
            await legs.aclose()
            await routed.close()
            await decode.close()
        return self._ended()

    @property
    def _enough(self) -> bool:
        return all(len(t) >= LEAST_TURNS for t in self.turns.values())

    def _ended(self) -> bool:
        if not any(self.turns.values()):
            raise EngineError(f"nothing was measured: {'; '.join(self.failures)}")
        return self._enough

    async def _again_after_failure(
        self, n: int, routed: LoadClient, decode: LoadClient, legs: httpx.AsyncClient
    ) -> Turn | None:
        try:
            return await self._turn(n, routed, decode, legs)
        except (httpx.HTTPError, EngineError) as error:
            self.failures.append(f"prompt of {n} tokens: {type(error).__name__} {error}")
            self.say(f"failed: {self.failures[-1]}")
            return None

    def _prompt(self, tokens: int) -> str:
        self._number += 1
        return self.way.writer.unique(tokens, number=self._number)

    async def _turn(
        self, n: int, routed: LoadClient, decode: LoadClient, legs: httpx.AsyncClient
    ) -> Turn:
        before = await self.way.counters()
        through = await routed.send(Completion(prompt=self._prompt(n), output_tokens=1))
        prompt = self._prompt(n)
        prefill_s, handle = await _prefill_leg(legs, self.way, prompt)
        handed = await decode.send(
            Completion(prompt=prompt, output_tokens=ANSWER_TOKENS, kv_transfer_params=handle)
        )
        alone = await decode.send(Completion(prompt=self._prompt(n), output_tokens=ANSWER_TOKENS))
        for what, answer in (
            ("through the router", through),
            ("decode leg", handed),
            ("decode worker alone", alone),
        ):
            if answer.error:
                raise EngineError(f"{what}: {answer.error}")
        return Turn(
            prefill_s=prefill_s,
            handed_over_s=handed.ttft_s,
            step_s=handed.tpot_s,
            transfer_s=await self._transfer_s(before),
            aggregated_s=alone.ttft_s,
            aggregated_step_s=alone.tpot_s,
            routed_s=through.ttft_s,
        )

    async def _transfer_s(self, before: EngineCounters) -> float:
        """Mean of both transfers of a turn, once the engine has counted them."""
        deadline_s = time.monotonic() + COUNTED_WITHIN_S
        while True:
            moved = await self.way.counters() - before
            if moved.transfers >= 2 or time.monotonic() > deadline_s:
                return moved.transfer_s / moved.transfers if moved.transfers else float("nan")
            await asyncio.sleep(LOOK_EVERY_S)


async def _prefill_leg(
    client: httpx.AsyncClient, way: Way, prompt: str
) -> tuple[float, Mapping[str, object]]:
    """Seconds until it is answered, and what names the KV cache."""
    body = {
        "model": way.model,
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
    answer = await client.post(f"{way.prefill_url}/v1/completions", json=body)
    took_s = time.perf_counter() - began_s
    answer.raise_for_status()
    handle = answer.json().get("kv_transfer_params")
    if not isinstance(handle, dict):
        raise EngineError(f"{way.prefill_url} named no KV cache: is it started with a connector?")
    return took_s, handle


def medians(turns: Sequence[Turn]) -> Turn:
    """One value of each over the turns; turns whose transfers were not counted count without."""
    values = np.array([astuple(t) for t in turns], dtype=np.float64)
    middle = [
        float(np.nanmedian(column)) if np.isfinite(column).any() else np.nan for column in values.T
    ]
    return Turn(**dict(zip(asdict(turns[0]), middle, strict=True)))


def table(turns: Turns) -> str:
    """Markdown: the sum against the routed TTFT, then the roles against the aggregated worker."""
    found = {n: (medians(t), t) for n, t in turns.items() if t}
    sums = [
        "| prompt | turns | prefill leg | transfer | first decode step | sum | routed TTFT "
        f"| its spread | explained | within {BOUND:.0%} | legs by hand |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    roles = [
        "| prompt | TTFT aggregated | prefill-only | over it | step aggregated | decode-only "
        "| over it |",
        "|---|---|---|---|---|---|---|",
    ]
    for n, (m, taken) in found.items():
        routed = [t.routed_s for t in taken]
        spread = (max(routed) - min(routed)) / m.routed_s
        transfer = "not counted" if np.isnan(m.transfer_s) else f"{1e3 * m.transfer_s:,.1f} ms"
        verdict = "met" if abs(m.explained_ratio - 1) <= BOUND else "MISSED"
        sums.append(
            f"| {n} | {len(taken)} | {1e3 * m.prefill_s:,.0f} ms | {transfer} "
            f"| {1e3 * m.step_s:,.1f} ms | {1e3 * m.sum_s:,.0f} ms | {1e3 * m.routed_s:,.0f} ms "
            f"| {spread:.0%} | {m.explained_ratio:.0%} | {verdict} "
            f"| {1e3 * (m.prefill_s + m.handed_over_s):,.0f} ms |"
        )
        roles.append(
            f"| {n} | {1e3 * m.aggregated_s:,.0f} ms | {1e3 * m.prefill_s:,.0f} ms "
            f"| {m.prefill_s / m.aggregated_s:.0%} | {1e3 * m.aggregated_step_s:,.1f} ms "
            f"| {1e3 * m.step_s:,.1f} ms | {m.step_s / m.aggregated_step_s:.0%} |"
        )
    return "\n".join([*sums, "", *roles])


def of_pair(now: Engines, folder: Path, say: Say) -> str:
    """Measure a routed pair, keep every turn in `roles.json`, and tell."""
    roles = Roles(way=way_of(now), say=say)
    whole = False
    try:
        whole = asyncio.run(roles.measure())
    finally:
        kept = {n: [asdict(t) for t in turns] for n, turns in roles.turns.items()}
        (folder / "roles.json").write_text(json.dumps(kept))
    marks = [] if whole else [f"INCOMPLETE: fewer than {LEAST_TURNS} turns at some length."]
    marks += [f"Failed and left out: {f}." for f in roles.failures]
    return "\n".join([table(roles.turns), *(["", *marks] if marks else [])])
