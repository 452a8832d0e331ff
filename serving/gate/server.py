"""Runs a gate: its HTTP server, and beside it what follows workers, keys and records."""

import asyncio
import gc
import logging
import math
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import uvicorn

from planner.domain.errors import KeyFileError
from serving.gate.app import Gate
from serving.gate.connections import Connection
from serving.gate.keys import read_keys

LOG = logging.getLogger("poolwise.gate")
KEYS_POLL_S = 1.0
BACKLOG = 2048
GC_ALLOCATIONS = 10_000
"""Between two looks at young objects; Python's own 700 are a few requests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a gate is served.

    Parameters
    ----------
    keys : Path or None
        The file of API keys, followed while it changes; None: there are none.
    drain_s : float
        Answers under way may take so long after a signal to stop, seconds.
    """

    listener: socket.socket
    keys: Path | None = None
    drain_s: float = 30.0


def run(gate: Gate, serving: Serving, *, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until a signal ends it; what is under way is finished first.

    Parameters
    ----------
    ready : callable
        Called when requests are taken.
    """
    # uvicorn stops on SIGTERM and then raises it again; by then everything is to be closed.
    signal.signal(signal.SIGTERM, _ignore)
    # What was imported and read stays: looking through it again and again would hold up answers.
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    asyncio.run(serve(gate, serving, ready=ready))


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    """Do nothing: the signal has had its effect."""


async def serve(
    gate: Gate,
    serving: Serving,
    *,
    ready: Callable[[], None] = lambda: None,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve in a running event loop until a signal, or `stop`, ends it."""
    # An answer that an upstream breaks off is left unfinished on purpose, which it would log.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    config = uvicorn.Config(
        gate,
        http=Connection,
        lifespan="off",
        ws="none",
        access_log=False,
        log_level="critical",
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=math.ceil(serving.drain_s),
    )
    gate.cells.refresh()
    await gate.open()
    beside = [
        asyncio.create_task(gate.cells.watch()),
        asyncio.create_task(gate.books.records.run()),
        asyncio.create_task(_follow_keys(gate, serving.keys)),
    ]
    for task in beside:
        task.add_done_callback(_told)
    try:
        asyncio.get_running_loop().call_soon(ready)
        server = uvicorn.Server(config)
        if stop is not None:
            beside.append(asyncio.create_task(_stop(server, stop)))
        await server.serve(sockets=[serving.listener])
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await gate.close()
        await gate.books.records.flush()


def _told(task: "asyncio.Task[None]") -> None:
    """Say when something that should run as long as the gate does has ended."""
    if not task.cancelled() and (error := task.exception()) is not None:
        LOG.error("the gate goes on, but no longer follows its deployment: %r", error)


async def _stop(server: uvicorn.Server, stop: asyncio.Event) -> None:
    await stop.wait()
    server.should_exit = True


async def _follow_keys(gate: Gate, path: Path | None) -> None:
    """Take changed keys in; while the file cannot be read, the keys before go on."""
    seen = None if path is None else _changed_at(path)
    while path is not None:
        await asyncio.sleep(KEYS_POLL_S)
        now = _changed_at(path)
        if now == seen:
            continue
        seen = now
        try:
            gate.use_keys(read_keys(path))
        except KeyFileError as error:
            LOG.warning("keys stay as they were: %s", error)


def _changed_at(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
