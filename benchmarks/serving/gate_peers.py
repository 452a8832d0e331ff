"""Processes of the gate's benchmark: a stub worker, a bare pass-through, a load generator.

Run as `python -m benchmarks.serving.gate_peers stub|bare|load ...`. The stub streams tokens without
computing any; the bare pass-through uses the gate's HTTP client and server, and does nothing else.
"""

import asyncio
import json
import os
import socket
import sys
import time
from dataclasses import dataclass, field

import aiohttp
import httptools
import uvicorn

from serving.gate.asgi import Receive, Scope, Send
from serving.gate.refusals import Headers

CHUNK = (
    b'data: {"id":"cmpl-0123456789abcdef","object":"text_completion","created":1700000000,'
    b'"model":"tiny","choices":[{"index":0,"text":" word","logprobs":null,"finish_reason":null,'
    b'"stop_reason":null}],"usage":null}\n\n'
)
DONE = b"data: [DONE]\n\n"
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
MODELS = b'{"object":"list","data":[{"id":"tiny","object":"model","max_model_len":16384}]}'
METRICS = b"".join(
    line + b"\n"
    for line in (
        b"vllm:num_requests_running 0",
        b"vllm:num_requests_waiting 0",
        b"vllm:kv_cache_usage_perc 0.1",
        b'vllm:cache_config_info{block_size="16",num_gpu_blocks="20000"} 1',
        b'vllm:prompt_tokens_by_source_total{source="local_compute"} 1000',
        b"vllm:generation_tokens_total 100",
        b"vllm:nixl_xfer_time_seconds_count 1",
        b"vllm:nixl_xfer_time_seconds_sum 0.1",
        b"vllm:nixl_bytes_transferred_sum 4096",
        b"vllm:nixl_num_failed_transfers_total 0",
        b"vllm:nixl_num_kv_expired_reqs_total 0",
        b"vllm:num_preemptions_total 0",
        b"vllm:request_success_total 10",
    )
)
ONE_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"host", b"content-length"}


def chunked(data: bytes) -> bytes:
    """One chunk of HTTP's chunked coding."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Stub(asyncio.Protocol):
    """One connection to the stub: `max_tokens` pieces, `gap_s` seconds apart."""

    gap_s = 0.0

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""
        self.path = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """A request begins."""
        self.path, self.body = url, b""

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self.body += body

    def on_message_complete(self) -> None:
        """Answer."""
        if self.path.startswith((b"/v1/completions", b"/v1/chat")):
            self.answering = asyncio.ensure_future(self._stream(json.loads(self.body)))
            return
        known = {b"/v1/models": MODELS, b"/health": b"", b"/metrics": METRICS}
        body = known.get(self.path.split(b"?")[0], b'{"model_path":"tiny","is_generation":true}')
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self.transport.write(head.encode() + b"\r\n\r\n" + body)

    async def _stream(self, asked: dict[str, object]) -> None:
        self.transport.write(HEAD)
        for _ in range(int(str(asked.get("max_tokens", 1)))):
            if self.gap_s > 0:
                await asyncio.sleep(self.gap_s)
            else:
                await asyncio.sleep(0)
            self.transport.write(chunked(CHUNK))
        self.transport.write(chunked(DONE) + chunked(b""))


def listen(port: int) -> socket.socket:
    """A socket on loopback."""
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(("127.0.0.1", port))
    one.listen(2048)
    return one


async def stub(port: int, gap_s: float) -> None:
    """Serve stub answers until killed."""
    Stub.gap_s = gap_s
    server = await asyncio.get_running_loop().create_server(Stub, sock=listen(port))
    await server.serve_forever()


async def bare(port: int, upstream: str, client: str) -> None:
    """Pass everything through with aiohttp or httpx, and do nothing else."""
    if client == "httpx":
        import httpx

        http = httpx.AsyncClient(
            timeout=None, limits=httpx.Limits(max_connections=None, max_keepalive_connections=None)
        )
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), auto_decompress=False)

    async def start(send: Send, status: int, raw: Headers) -> None:
        headers = [(n.lower(), v) for n, v in raw if n.lower() not in ONE_HOP - {b"content-length"}]
        await send({"type": "http.response.start", "status": status, "headers": headers})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        passed = [(n.decode(), v.decode()) for n, v in scope["headers"] if n not in ONE_HOP]
        url = upstream + scope["path"]
        if client == "httpx":
            async with http.stream(scope["method"], url, headers=passed, content=body) as answer:
                headers = [(n.lower(), v) for n, v in answer.headers.raw]
                await start(send, answer.status_code, headers)
                async for data in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        else:
            async with session.request(scope["method"], url, headers=passed, data=body) as answer:
                await start(send, answer.status, answer.raw_headers)
                async for data in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    config = uvicorn.Config(
        app,
        http="httptools",
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="critical",
        server_header=False,
        date_header=False,
    )
    await uvicorn.Server(config).serve(sockets=[listen(port)])


@dataclass(slots=True)
class Client(asyncio.Protocol):
    """One keep-alive connection of the generator: one request after the other."""

    body: bytes
    until_s: float
    first_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    failed: int = 0
    done: "asyncio.Future[None] | None" = None
    transport: asyncio.Transport | None = None
    sent_s: float = 0.0
    tail: bytes = b""
    began: bool = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._next()

    def _next(self) -> None:
        if time.perf_counter() > self.until_s:
            self._finish()
            return
        assert self.transport is not None
        self.sent_s, self.tail, self.began = time.perf_counter(), b"", False
        self.transport.write(self.body)

    def data_received(self, data: bytes) -> None:
        """Note the first piece with a token, and the end."""
        now_s = time.perf_counter()
        if not self.began and b'"text"' in data:
            self.began = True
            self.first_s.append(now_s - self.sent_s)
        self.tail = (self.tail + data)[-64:]
        if self.tail.endswith(b"0\r\n\r\n"):
            if not self.began:
                self.failed += 1
            self.whole_s.append(now_s - self.sent_s)
            self._next()

    def connection_lost(self, _error: Exception | None) -> None:
        """The other side closed it."""
        self.failed += 1 if self.done is not None and not self.done.done() else 0
        self._finish()

    def _finish(self) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_result(None)
            assert self.transport is not None
            self.transport.close()


async def load(port: int, streams: int, tokens: int, seconds: float) -> dict[str, object]:
    """Closed loop of so many connections; seconds to first token of every request."""
    asked = {"model": "tiny", "prompt": "a word " * 100, "max_tokens": tokens, "stream": True}
    body = json.dumps(asked).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n"
    request = head.encode() + b"content-type: application/json\r\n\r\n" + body
    loop = asyncio.get_running_loop()
    began_s, cpu_s = time.perf_counter(), time.process_time()
    clients = []
    for _ in range(streams):
        client = Client(body=request, until_s=began_s + seconds, done=loop.create_future())
        await loop.create_connection(lambda client=client: client, "127.0.0.1", port)
        clients.append(client)
    await asyncio.wait([c.done for c in clients if c.done is not None], timeout=seconds + 30)
    span_s = time.perf_counter() - began_s
    return {
        "requests": sum(len(c.whole_s) for c in clients),
        "span_s": span_s,
        "failed": sum(c.failed for c in clients),
        "cpu_share": (time.process_time() - cpu_s) / span_s,
        "first_s": [s for c in clients for s in c.first_s],
    }


def main(argv: list[str]) -> None:
    """Run one of the processes."""
    match argv:
        case ["stub", port, gap_s]:
            asyncio.run(stub(int(port), float(gap_s)))
        case ["bare", port, upstream, client]:
            asyncio.run(bare(int(port), upstream, client))
        case ["load", port, streams, tokens, seconds]:
            found = asyncio.run(load(int(port), int(streams), int(tokens), float(seconds)))
            sys.stdout.write(json.dumps(found))
        case _:
            os._exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
