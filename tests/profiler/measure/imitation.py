"""A server that speaks like vLLM over real sockets and takes its time by a known formula.

It stands for engines in tests of what the profiler does with answers of every kind; how well the
profiler measures is judged on real engines (`benchmarks/bench_profiler.py`).
"""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

MODEL = "imitated"
LONGEST = 600
BLOCK = 16


@dataclass(slots=True)
class Imitation:
    """Its switches, and what it has been asked.

    Prompts are computed one after the other, `prompt_s` a token that its prefix cache does not
    hold in whole blocks; a step takes `step_s + sequence_s x running`. It refuses every
    `refuse_every`-th request, wants `key` where there is one, and closes the connection in the
    middle of the line of the token after `cut_after`. After `hangs_after` requests it answers
    none; where it `holds_back`, an answer leaves it when it is whole. Requests that are longer
    than `longest` are refused with or without saying so.
    """

    prompt_s: float = 2e-4
    step_s: float = 1e-3
    sequence_s: float = 1e-4
    refusals: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    streams: bool = True
    ends_after: int | None = None
    counts: bool = True
    key: str | None = None
    refuse_every: int = 0
    cut_after: int | None = None
    hangs_after: int | None = None
    holds_back: bool = False
    longest: int = LONGEST
    says_longest: bool = True
    version_told: str = "0.0-imitated"
    found: list[tuple[int, int]] = field(default_factory=list)
    """(tokens, of them found in the cache) of every prompt that was computed."""
    started_at: float = 1000.0
    slowness: float = 1.0
    asked: int = 0
    running: int = 0
    generated: int = 0
    url: str = ""
    _prefill: asyncio.Lock = field(default_factory=asyncio.Lock)
    _cache: set[int] = field(default_factory=set)

    async def complete(self, request: Request) -> Response:
        """`POST /v1/completions`."""
        self.asked += 1
        if not self._knows(request):
            return JSONResponse({"error": "Unauthorized"}, status_code=401)
        body = await request.json()
        if self.hangs_after is not None and self.asked > self.hangs_after:
            while not await request.is_disconnected():
                await asyncio.sleep(0.05)
        if self.refuse_every and self.asked % self.refuse_every == 0:
            return JSONResponse({"error": "busy"}, status_code=429, headers={"retry-after": "0"})
        if self.refusals:
            status, headers = self.refusals.pop(0)
            return JSONResponse({"error": "refused"}, status_code=status, headers=headers)
        prompt = body["prompt"].split()
        words, wanted = len(prompt), int(body["max_tokens"])
        if words + wanted > self.longest:
            told = f"This model's maximum context length is {self.longest} tokens"
            text = told if self.says_longest else "the prompt is too long"
            return JSONResponse({"error": {"message": text}}, status_code=400)
        if not self.streams:
            return JSONResponse({"choices": [{"text": "all at once"}]})
        cut = {"connection": "close"} if self.cut_after is not None else {}
        stream = self._stream(prompt, wanted)
        if self.holds_back:
            stream = self._whole(stream)
        return StreamingResponse(stream, media_type="text/event-stream", headers=cut)

    async def _whole(self, stream: AsyncIterator[str]) -> AsyncIterator[str]:
        yield "".join([piece async for piece in stream])

    def _knows(self, request: Request) -> bool:
        return self.key is None or request.headers.get("authorization") == f"Bearer {self.key}"

    def _find(self, prompt: list[str]) -> int:
        """Tokens of a prompt that the cache holds, and put it there; the last is computed."""
        blocks = [hash(tuple(prompt[:end])) for end in range(BLOCK, len(prompt) + 1, BLOCK)]
        held = [block in self._cache for block in blocks]
        hit = held.index(False) if False in held else len(held)
        self._cache.update(blocks)
        return min(hit * BLOCK, len(prompt) - 1)

    async def _stream(self, prompt: list[str], wanted: int) -> AsyncIterator[str]:
        words = len(prompt)
        async with self._prefill:
            found = self._find(prompt)
            self.found.append((words, found))
            await asyncio.sleep(self.slowness * self.prompt_s * (words - found))
        self.running += 1
        try:
            count = wanted if self.ends_after is None else min(self.ends_after, wanted)
            for i in range(count):
                chunk: dict[str, object] = {"choices": [{"text": "x", "index": 0}]}
                if self.counts:
                    chunk["usage"] = {"prompt_tokens": words, "completion_tokens": i + 1}
                line = f"data: {json.dumps(chunk)}\n\n"
                if self.cut_after is not None and i >= self.cut_after:
                    yield line[: len(line) // 2]
                    return
                self.generated += 1
                yield line
                await asyncio.sleep(self.slowness * (self.step_s + self.sequence_s * self.running))
            yield "data: [DONE]\n\n"
        finally:
            self.running -= 1

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        if not self._knows(request):
            return JSONResponse({"error": "Unauthorized"}, status_code=401)
        return JSONResponse({"data": [{"id": MODEL, "max_model_len": LONGEST}]})

    async def version(self, _request: Request) -> Response:
        """`GET /version`."""
        return JSONResponse({"version": self.version_told})

    async def metrics(self, _request: Request) -> Response:
        """`GET /metrics`."""
        return PlainTextResponse(
            f"process_start_time_seconds {self.started_at}\n"
            'vllm:cache_config_info{block_size="16",num_gpu_blocks="512",'
            'enable_prefix_caching="True"} 1.0\n'
            f"vllm:generation_tokens_total {self.generated}\n"
        )


@contextmanager
def imitated_server(imitation: Imitation) -> Iterator[Imitation]:
    """Serve on a free loopback port."""
    app = Starlette(
        routes=[
            Route("/v1/completions", imitation.complete, methods=["POST"]),
            Route("/v1/models", imitation.models),
            Route("/version", imitation.version),
            Route("/metrics", imitation.metrics),
        ]
    )
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        imitation.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            deadline = time.monotonic() + 20
            while not server.started and time.monotonic() < deadline:
                time.sleep(0.01)
            yield imitation
        finally:
            server.should_exit = True
            thread.join(timeout=10)
