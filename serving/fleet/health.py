"""Finds what hangs: processes that live and take connections, and answer nothing any more."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

import httpx

from planner.domain.errors import PoolwiseError
from serving.fleet.deployment import LocalDeployment
from serving.fleet.members import WorkerState

MOST_AT_ONCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class HangLimits:
    """When something that does not answer counts as hanging.

    Parameters
    ----------
    every_s : float
        Between two rounds of health requests, seconds.
    timeout_s : float
        What one of them is given, seconds.
    router_s, worker_s : float
        Hangs when it has answered nothing for so long after the first request in vain, seconds.
        A worker's server shares its processors with its engine, and may be slow for a while.
    """

    every_s: float = 2.0
    timeout_s: float = 3.0
    router_s: float = 5.0
    worker_s: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Something that is asked for its health, and how to end it."""

    what: str
    url: str
    limit_s: float
    kill: Callable[[], None]


@dataclass(slots=True)
class HealthWatch:
    """Asks all routers and workers again and again, and kills what hangs.

    It replaces nothing: whoever watches for deaths does. Use as a context manager.
    """

    deployment: LocalDeployment
    progress: Callable[[str], None] = lambda _line: None
    limits: HangLimits = field(default_factory=HangLimits)
    _silent_since_s: dict[str, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, name="poolwise-health", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * self.limits.timeout_s)

    def _watch(self) -> None:
        with (
            ThreadPoolExecutor(MOST_AT_ONCE, thread_name_prefix="poolwise-health") as pool,
            httpx.Client(
                timeout=self.limits.timeout_s,
                limits=httpx.Limits(max_keepalive_connections=0),
                trust_env=False,
            ) as client,
        ):
            while not self._stop.wait(self.limits.every_s):
                with suppress(PoolwiseError):  # the deployment is ending
                    self._look(client, pool)

    def _look(self, client: httpx.Client, pool: ThreadPoolExecutor) -> None:
        """Ask all at the same time, and kill those that have been silent for too long."""
        asked = (*self._routers(), *self._workers())
        answered = tuple(pool.map(lambda one: _answers(client, one.url), asked))
        # Counted from the end of the first request in vain: time in which we ourselves stood
        # still is nobody's silence.
        now_s = time.monotonic()
        silent = [one for one, told in zip(asked, answered, strict=True) if not told]
        since_s = {one.what: self._silent_since_s.get(one.what, now_s) for one in silent}
        self._silent_since_s = since_s
        for one in silent:
            silent_s = now_s - since_s[one.what]
            if silent_s < one.limit_s or self._stop.is_set():
                continue
            del since_s[one.what]
            waited_s = silent_s + self.limits.timeout_s
            self.progress(f"{one.what} hangs: no answer for {waited_s:.0f} s; it is killed")
            one.kill()

    def _routers(self) -> Iterator[_Asked]:
        for cell in self.deployment.site.cells:
            router = self.deployment.router_of(cell.name)
            if router.is_alive():
                what = f"the router of cell {cell.name}"
                limit_s = self.limits.router_s
                yield _Asked(what=what, url=router.url, limit_s=limit_s, kill=router.kill)

    def _workers(self) -> Iterator[_Asked]:
        """Those that have answered before: whoever starts a worker waits for it with a limit."""
        launcher = self.deployment.launcher
        for member in self.deployment.members:
            if member.state is not WorkerState.STARTING and launcher.is_alive(member.worker):
                yield _Asked(
                    what=member.name,
                    url=member.worker.url,
                    limit_s=self.limits.worker_s,
                    kill=partial(launcher.kill, member.worker),
                )


def _answers(client: httpx.Client, url: str) -> bool:
    """Whether there is any answer: a router without workers calls itself unhealthy, and lives."""
    try:
        client.get(f"{url}/health")
    except httpx.HTTPError:
        return False
    return True
