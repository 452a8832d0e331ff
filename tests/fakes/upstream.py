"""A server on loopback that answers with bytes chosen by the test, and notes what it was sent.

Health requests are answered by itself and not noted: a gate sends them whatever its clients do.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Answer = Callable[[asyncio.StreamWriter, "Received"], Awaitable[None]]


@dataclass(frozen=True)
class Received:
    """One request as it came over the wire."""

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)


def whole(body: bytes, *, status: str = "200 OK", headers: tuple[str, ...] = ()) -> bytes:
    """An answer of a known length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"X-Upstream: yes\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def piece(data: bytes) -> bytes:
    """One chunk of a chunked body; empty: the last."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def event(text: str, *, usage: str = "") -> bytes:
    return f'data: {{"choices":[{{"index":0,"text":"{text}"}}]{usage}}}\n\n'.encode()


@dataclass
class StubUpstream:
    """Use as a context manager; `answer` may be exchanged between requests."""

    answer: Answer
    port: int = 0
    received: list[Received] = field(default_factory=list)
    dropped: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None
    _stop: asyncio.Event | None = None
    _ready: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "StubUpstream":
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._stop.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asks_for_health = False
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ")
                pairs = [line.split(": ", 1) for line in head[1:] if line]
                headers = tuple((n, v) for n, v in pairs)
                length = int(next((v for n, v in headers if n.lower() == "content-length"), "0"))
                body = await reader.readexactly(length)
                asks_for_health = path == "/health"
                if asks_for_health:
                    writer.write(whole(b""))
                    continue
                request = Received(method, path, headers, body)
                self.received.append(request)
                watch = asyncio.create_task(self._watch(reader))
                await self.answer(writer, request)
                await writer.drain()
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)
        except (asyncio.IncompleteReadError, ConnectionError):
            if not asks_for_health:
                self.dropped.set()
        finally:
            writer.close()

    async def _watch(self, reader: asyncio.StreamReader) -> None:
        """Notice that the client hangs up while it is being answered."""
        while not reader.at_eof():
            if reader.exception() is not None:
                break
            await asyncio.sleep(0.01)
        self.dropped.set()


def says(data: bytes) -> Answer:
    """Answer with these bytes."""

    async def answer(writer: asyncio.StreamWriter, _request: Received) -> None:
        writer.write(data)

    return answer
