"""A disaggregated deployment on this machine: workers behind a P/D router.

Roles live in the router, not in the engines, so a role flip moves a running worker from one
side to the other: remove, wait until idle, add.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from types import TracebackType
from typing import Self

import httpx

from planner.domain.errors import EngineError
from planner.domain.fleet import Fleet, Pool, ReplicaShape, version_of
from planner.domain.hardware import PurchaseOption
from serving.launcher import Launcher, LocalSite, Worker
from serving.router import Router
from serving.smg import start_smg
from serving.telemetry import EngineReading, read_engine

DRAIN_TIMEOUT_S = 120.0
POLL_S = 0.2


class WorkerState(StrEnum):
    """Where a worker is between its start and its end."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(slots=True)
class _Member:
    worker: Worker
    shape: ReplicaShape
    state: WorkerState


@dataclass(slots=True)
class LocalDeployment:
    """Workers and router of one state directory. Use as a context manager.

    Leaving the context ends everything that was started here, also after an error.
    """

    site: LocalSite
    purchase_option: PurchaseOption = PurchaseOption.ON_DEMAND
    progress: Callable[[str], None] = lambda _line: None
    launcher: Launcher = field(init=False)
    _router: Router | None = None
    _members: dict[str, _Member] = field(default_factory=dict)
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=10.0))

    def __post_init__(self) -> None:
        self.launcher = Launcher(self.site, self.progress)

    def __enter__(self) -> Self:
        self.launcher.__enter__()
        try:
            self._router = start_smg(self.site.state_dir)
        except BaseException:
            self.launcher.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._router is not None:
                self._router.stop()
        finally:
            self._router = None
            self._client.close()
            self._members.clear()
            self.launcher.__exit__(kind, error, trace)

    @property
    def router(self) -> Router:
        """The running router."""
        if self._router is None:
            raise EngineError("the deployment is not running: enter its context first")
        return self._router

    def start(self, shape: ReplicaShape) -> Worker:
        """Start a worker; it takes no traffic before `route`."""
        worker = self.launcher.start(shape)
        self._members[worker.name] = _Member(worker, shape, WorkerState.STARTING)
        return worker

    def await_ready(self, worker: Worker) -> float:
        """Wait until a started worker generates tokens; return seconds since its start.

        A worker that fails is ended and forgotten before the error is raised.
        """
        try:
            return self.launcher.await_ready(worker)
        except BaseException:
            self._members.pop(worker.name, None)
            self.launcher.stop(worker)
            raise

    def route(self, worker: Worker) -> None:
        """Let a started worker take traffic."""
        member = self._members[worker.name]
        self.router.add(worker.url, member.shape.role)
        member.state = WorkerState.READY

    def drain(self, worker: Worker) -> float:
        """Take a worker out of the rotation; wait until it is idle; return seconds."""
        began = time.monotonic()
        member = self._members[worker.name]
        member.state = WorkerState.DRAINING
        self.router.remove(worker.url)
        while not self._is_idle(worker):
            if time.monotonic() - began > DRAIN_TIMEOUT_S:
                raise EngineError(
                    f"worker {worker.name} still has requests {DRAIN_TIMEOUT_S:.0f} s after it "
                    "was taken out of the rotation; it was left running and without new traffic"
                )
            time.sleep(POLL_S)
        return time.monotonic() - began

    def stop(self, worker: Worker) -> None:
        """End a worker's processes."""
        self._members.pop(worker.name)
        self.launcher.stop(worker)

    def assign(self, worker: Worker, shape: ReplicaShape) -> None:
        """Give a drained worker another role; `route` lets it take traffic again."""
        self._members[worker.name].shape = shape

    def flip(self, worker: Worker, to_shape: ReplicaShape) -> float:
        """Move a routed worker into another role without restarting it; return seconds."""
        began = time.monotonic()
        self.drain(worker)
        self.assign(worker, to_shape)
        self.route(worker)
        return time.monotonic() - began

    def workers(self, shape: ReplicaShape, state: WorkerState) -> tuple[Worker, ...]:
        """Workers of a pool in a state, oldest first."""
        return tuple(
            m.worker for m in self._members.values() if (m.shape, m.state) == (shape, state)
        )

    def fleet(self) -> Fleet:
        """What runs now, from the processes and from the router's own list.

        A ready worker that the router no longer lists as healthy counts as draining: it takes
        no traffic.
        """
        healthy = {(w.url, w.role) for w in self.router.workers() if w.healthy}
        pools: dict[ReplicaShape, Pool] = {}
        for member in self._members.values():
            state = member.state
            routed = (member.worker.url, member.shape.role) in healthy
            if state is WorkerState.READY and not routed:
                state = WorkerState.DRAINING
            pools[member.shape] = self._counted(pools.get(member.shape), member.shape, state)
        ordered = tuple(pools[shape] for shape in sorted(pools))
        return Fleet(pools=ordered, read_at=datetime.now(UTC), version=version_of(ordered))

    def reading(self, worker: Worker) -> EngineReading:
        """Scrape a worker's metrics."""
        return read_engine(self._client, worker.url)

    def readings(self) -> tuple[tuple[Worker, ReplicaShape, EngineReading], ...]:
        """Scrape all workers that have started, with the pool that each is in now."""
        return tuple(
            (m.worker, m.shape, self.reading(m.worker))
            for m in self._members.values()
            if m.state is not WorkerState.STARTING
        )

    def _is_idle(self, worker: Worker) -> bool:
        reading = self.reading(worker)
        return reading.running == 0 and reading.waiting == 0

    def _counted(self, pool: Pool | None, shape: ReplicaShape, state: WorkerState) -> Pool:
        pool = pool or Pool(shape=shape, purchase_option=self.purchase_option)
        if state is WorkerState.STARTING:
            return replace(pool, starting=pool.starting + 1)
        if state is WorkerState.READY:
            return replace(pool, ready=pool.ready + 1)
        return replace(pool, draining=pool.draining + 1)
