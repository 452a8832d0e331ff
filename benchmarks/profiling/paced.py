"""A server whose times are known: what two clients differ by when the engine cannot differ.

It streams completions as an engine does, but computes nothing: when the tokens of a request come is
drawn once, by its place in the load, so that the clients compared get the very same times, and it
notes when it wrote each of them. What is left between clients and these notes is their own error.

    python -m benchmarks.profiling.paced --port 0 --requests 400
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from benchmarks.profiling.client import Taken
from benchmarks.profiling.engines import MODEL, Say, site_in
from serving.traffic.load import LoadClient
from serving.traffic.prompts import PromptWriter, read_words
from serving.workers.launcher import LocalSite

TTFT_S, TTFT_SIGMA = 0.25, 0.5
"""Median and log-sd of the first token's wait."""
GAP_S, GAP_SIGMA = 0.03, 0.2
STALL_RATIO, STALL_S = 0.03, 0.15
"""Share of gaps that a prompt of somebody else makes longer, and by how much; no percentile that is
compared lies where one kind of gap ends and the other begins."""
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"


@dataclass
class Paced:
    """What was asked and written so far.

    Parameters
    ----------
    requests : int
        Of one client's round: the times begin anew after so many.
    written : list of (float, list of float)
        When a request had come and when each of its tokens was written, `time.perf_counter`.
    """

    requests: int
    places: dict[str, int] = field(default_factory=dict)
    written: list[tuple[float, list[float]]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept open."""
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                came_s = time.perf_counter()
                length = head.partition("content-length:")[2].strip().split("\r\n")[0]
                body = await reader.readexactly(int(length or 0))
                if head.startswith("post"):
                    await self._stream(json.loads(body), came_s, writer)
                else:
                    await self._tell(head.split()[1], writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def _tell(self, path: str, writer: asyncio.StreamWriter) -> None:
        """What was written; or the list of models, and anything else that is asked at first."""
        told: object = {"data": [{"id": MODEL, "object": "model"}]}
        if path == "/written":
            told, self.written = self.written, []
        text = json.dumps(told).encode()
        length = b"content-length: %d\r\n\r\n" % len(text)
        writer.write(HEAD % b"application/json" + length + text)
        await writer.drain()

    async def _stream(
        self, body: dict[str, object], came_s: float, writer: asyncio.StreamWriter
    ) -> None:
        place = self.places.setdefault(str(body["prompt"]), len(self.places))
        tokens = int(str(body["max_tokens"]))
        writer.write(HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n")
        at_s: list[float] = []
        for due_s in came_s + _times(place % self.requests, tokens):
            await asyncio.sleep(max(due_s - time.perf_counter(), 0.0))
            at_s.append(time.perf_counter())
            _event(writer, {"choices": [{"index": 0, "text": f" {place}", "logprobs": None}]})
        usage = {"prompt_tokens": 96, "completion_tokens": tokens, "total_tokens": 96 + tokens}
        _event(writer, {"choices": [], "usage": usage})
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        self.written.append((came_s, at_s))


def _event(writer: asyncio.StreamWriter, content: dict[str, object]) -> None:
    writer.write(_chunk(b"data: " + json.dumps({"id": "paced", **content}).encode() + b"\n\n"))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _times(place: int, tokens: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Seconds from a request to each of its tokens, the same at the same place of every round."""
    rng = np.random.default_rng(place)
    first_s = TTFT_S * np.exp(TTFT_SIGMA * rng.standard_normal())
    gaps_s = GAP_S * np.exp(GAP_SIGMA * rng.standard_normal(tokens - 1))
    gaps_s += STALL_S * (rng.random(tokens - 1) < STALL_RATIO)
    return np.cumsum(np.concatenate([[first_s], gaps_s]))


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedTarget:
    """The server as what clients ask, in a process of its own."""

    url: str
    site: LocalSite

    def client(self) -> LoadClient:
        """Our client of it."""
        return LoadClient(url=self.url, model=MODEL, timeout_s=300.0)

    def writer(self) -> PromptWriter:
        """Writes prompts that nobody wrote before."""
        words = read_words(self.site.model.directory)
        return PromptWriter(words=words, seed=time.time_ns() % 2**31)

    def written(self, tokens: int) -> Taken:
        """When it wrote, for whole answers of so many tokens, since it was asked last."""
        taken = Taken()
        for came_s, at_s in httpx.get(f"{self.url}/written", timeout=60.0).json():
            if len(at_s) == tokens:
                taken.ttft_s.append(np.array([at_s[0] - came_s]))
                taken.gaps_s.append(np.diff(at_s))
        return taken


@contextmanager
def paced(folder: Path, say: Say, *, requests: int) -> Iterator[PacedTarget]:
    """Start the server, and end it."""
    site = site_in(folder, say)
    line = [sys.executable, "-m", "benchmarks.profiling.paced", "--requests", str(requests)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            yield PacedTarget(url=f"http://127.0.0.1:{port}", site=site)
        finally:
            process.terminate()


async def _serve(port: int, requests: int) -> None:
    server = await asyncio.start_server(Paced(requests).serve, "127.0.0.1", port, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--requests", type=int, required=True)
    asked = parser.parse_args()
    asyncio.run(_serve(asked.port, asked.requests))


if __name__ == "__main__":
    main()
