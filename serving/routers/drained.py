"""When a worker that takes no new requests may be ended."""

import time
from collections.abc import Callable, Iterable

from planner.domain.errors import EngineError
from serving.telemetry import EngineReading

DRAIN_TIMEOUT_S = 120.0
HANDOVER_TIMEOUT_S = 30.0
"""A prefill worker drops KV caches that nobody fetched after this (vLLM's lease), seconds."""
POLL_S = 0.2

Read = Callable[[str], EngineReading]
"""Scrapes the worker of a URL; raises EngineError when it does not answer."""


def wait_idle(url: str, read: Read, *, timeout_s: float | None = None) -> None:
    """Wait until the worker itself has no request running or waiting.

    The router's own word is not enough: smg lets a fixed time pass, vllm-router forgets at once.

    Parameters
    ----------
    timeout_s : float or None
        None: DRAIN_TIMEOUT_S.

    Raises
    ------
    EngineError
        When it is not idle in time, or does not answer.
    """
    allowed_s = DRAIN_TIMEOUT_S if timeout_s is None else timeout_s
    deadline = time.monotonic() + allowed_s
    while not _is_idle(read(url)):
        if time.monotonic() > deadline:
            raise EngineError(
                f"worker {url} still has requests {allowed_s:.0f} s after it was taken out of the "
                "rotation; it was left running"
            )
        time.sleep(POLL_S)


def wait_handed_over(url: str, decode_urls: Iterable[str], read: Read) -> None:
    """Wait until nobody can want KV caches of an idle prefill worker any more.

    That is when its cache is empty, or every decode worker has had no request waiting since: one
    that waits may not have fetched its prompt's cache yet. At the latest when the lease ends.

    Parameters
    ----------
    decode_urls : iterable of str
        Workers that it handed requests to.
    """
    waiting = set(decode_urls)
    deadline = time.monotonic() + HANDOVER_TIMEOUT_S
    while time.monotonic() < deadline:
        time.sleep(POLL_S)  # what was handed over a moment ago has reached decode by then
        waiting -= {d for d in waiting if _fetched_all(d, read)}
        if not waiting or read(url).kv_usage_ratio == 0:
            return


def _fetched_all(url: str, read: Read) -> bool:
    try:
        return read(url).waiting == 0
    except EngineError:  # gone: it fetches nothing more
        return True


def _is_idle(reading: EngineReading) -> bool:
    return reading.running == 0 and reading.waiting == 0
