"""The benchmark of roles against a prefill worker, a decode worker and a router over sockets."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from benchmarks.profiling.roles import LEAST_TURNS, Roles, Turn, Way, medians, table
from planner.domain.errors import EngineError
from serving.telemetry import EngineCounters, read_engine_async
from serving.traffic.prompts import PromptWriter
from tests.profiler.measure.imitation import MODEL, Imitation, imitated_server

TRANSFER_S = 0.02
WORDS = tuple(f"w{i}" for i in range(200))


@dataclass(slots=True)
class Worker(Imitation):
    """Keeps and pulls KV caches; counts a pull only when somebody has looked `late` times."""

    pulled: int = 0
    late: int = 0
    connected: bool = True

    async def complete(self, request: Request) -> Response:
        """`POST /v1/completions`, one leg or both."""
        body = await request.json()
        params = body.get("kv_transfer_params") or {}
        prompt = body["prompt"].split()
        if params.get("do_remote_decode"):
            async for _line in self._stream(prompt, 1):
                pass
            handle = {"do_remote_prefill": True, "remote_block_ids": [1]}
            return JSONResponse({"kv_transfer_params": handle if self.connected else None})
        if params.get("do_remote_prefill"):
            return StreamingResponse(
                self._pull(int(body["max_tokens"])), media_type="text/event-stream"
            )
        return await Imitation.complete(self, request)

    async def _pull(self, wanted: int) -> AsyncIterator[str]:
        await asyncio.sleep(TRANSFER_S + self.step_s)
        self.pulled += 1
        async for line in self._stream([], wanted):
            yield line

    async def metrics(self, _request: Request) -> Response:
        """`GET /metrics`."""
        counted = self.pulled if self.late == 0 else 0
        self.late = max(self.late - 1, 0)
        zeros = (
            *("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"),
            *("prompt_tokens_by_source_total", "generation_tokens_total"),
            *("nixl_bytes_transferred_sum", "nixl_num_failed_transfers_total"),
            *("nixl_num_kv_expired_reqs_total", "num_preemptions_total", "request_success_total"),
        )
        return PlainTextResponse(
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="512"} 1.0\n'
            f"vllm:nixl_xfer_time_seconds_count {counted}\n"
            f"vllm:nixl_xfer_time_seconds_sum {counted * TRANSFER_S}\n"
            + "".join(f"vllm:{name} 0\n" for name in zeros)
        )


@dataclass(slots=True)
class Router(Imitation):
    """Asks one worker for the cache, the other for the answer; refuses some."""

    prefill: str = ""
    decode: str = ""
    slow_s: float = 0.0

    async def complete(self, request: Request) -> Response:
        """`POST /v1/completions`."""
        self.asked += 1
        if self.refusals:
            return JSONResponse({"error": "refused"}, status_code=self.refusals.pop(0)[0])
        await asyncio.sleep(self.slow_s)
        body = await request.json()
        first = {"prompt": body["prompt"], "max_tokens": 1}
        first["kv_transfer_params"] = {"do_remote_decode": True}
        async with httpx.AsyncClient(verify=False) as client:
            leg = await client.post(f"{self.prefill}/v1/completions", json=first)
        handle = leg.json()["kv_transfer_params"]
        return StreamingResponse(
            self._answer(body | {"kv_transfer_params": handle}), media_type="text/event-stream"
        )

    async def _answer(self, body: dict[str, object]) -> AsyncIterator[bytes]:
        async with (
            httpx.AsyncClient(verify=False) as client,
            client.stream("POST", f"{self.decode}/v1/completions", json=body) as answer,
        ):
            async for piece in answer.aiter_bytes():
                yield piece


@contextmanager
def pair(decode: Worker, router: Router) -> Iterator[Way]:
    """Run all three."""
    slow = Worker(prompt_s=1e-3, step_s=5e-3)
    with imitated_server(slow), imitated_server(decode):
        router.prefill, router.decode = slow.url, decode.url
        with imitated_server(router):

            async def counters() -> EngineCounters:
                return (await read_engine_async(decode.url)).counters

            yield Way(
                prefill_url=slow.url,
                decode_url=decode.url,
                routed_url=router.url,
                model=MODEL,
                writer=PromptWriter(words=WORDS, seed=1),
                counters=counters,
            )


def decode_worker() -> Worker:
    return Worker(prompt_s=1e-3, step_s=5e-3)


def test_every_part_is_what_the_servers_take() -> None:
    with pair(decode_worker(), Router()) as way:
        roles = Roles(way=way, lengths=(64, 256), budget_s=0.0)
        assert asyncio.run(roles.measure())
    assert {n: len(t) for n, t in roles.turns.items()} == {64: LEAST_TURNS, 256: LEAST_TURNS}
    found = medians(roles.turns[256])
    assert found.transfer_s == pytest.approx(TRANSFER_S)
    assert found.prefill_s >= 0.256
    assert found.aggregated_s >= 0.256
    assert found.step_s >= 5e-3
    assert "| 256 | 3 |" in table(roles.turns)


def test_time_of_the_router_itself_is_not_explained() -> None:
    with pair(decode_worker(), Router(slow_s=1.0)) as way:
        roles = Roles(way=way, lengths=(64,), budget_s=0.0)
        asyncio.run(roles.measure())
    assert medians(roles.turns[64]).explained_ratio < 0.9
    assert "MISSED" in table(roles.turns)


def test_transfer_that_is_counted_late_is_waited_for() -> None:
    decode = decode_worker()
    with pair(decode, Router()) as way:
        decode.late = 4
        roles = Roles(way=way, lengths=(64,), budget_s=0.0)
        asyncio.run(roles.measure())
    assert all(t.transfer_s == pytest.approx(TRANSFER_S) for t in roles.turns[64])


def test_failed_turn_is_left_out_and_said() -> None:
    with pair(decode_worker(), Router(refusals=[(503, {})])) as way:
        roles = Roles(way=way, lengths=(64, 128), budget_s=0.0)
        assert asyncio.run(roles.measure())
    assert len(roles.failures) == 1
    assert "prompt of 64 tokens" in roles.failures[0]
    assert "503" in roles.failures[0]


def test_pair_that_keeps_failing_ends_with_what_there_is() -> None:
    router = Router()
    with pair(decode_worker(), router) as way:
        roles = Roles(way=way, lengths=(64,), budget_s=0.0)

        def say(text: str) -> None:
            if text.startswith("turn 1 "):
                router.refusals = [(500, {})] * 9

        roles.say = say
        assert not asyncio.run(roles.measure())
    assert len(roles.turns[64]) == 1
    assert len(roles.failures) == 3


def test_worker_without_a_connector_is_said() -> None:
    decode = decode_worker()
    with pair(decode, Router()) as way:
        plain = Worker(connected=False)
        with imitated_server(plain):
            roles = Roles(way=replace(way, prefill_url=plain.url), lengths=(64,), budget_s=0.0)
            with pytest.raises(EngineError, match="named no KV cache"):
                asyncio.run(roles.measure())


def test_transfers_that_nobody_counted_are_no_zeros() -> None:
    turn = Turn(
        prefill_s=0.1,
        handed_over_s=0.05,
        step_s=0.04,
        transfer_s=float("nan"),
        aggregated_s=0.1,
        aggregated_step_s=0.04,
        routed_s=0.15,
    )
    assert medians([turn, replace(turn, transfer_s=0.01)]).transfer_s == 0.01
    text = table({64: [turn, turn, turn]})
    assert "not counted" in text
    assert "| met |" not in text
