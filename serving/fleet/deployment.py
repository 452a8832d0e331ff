"""A disaggregated deployment on this machine: workers behind P/D routers, one for each cell.

Roles live in the router, not in the engines, so a role flip moves a running worker from one
side to the other: remove, wait until idle, add. Methods may be called from several threads; a
change of one worker is up to one of them.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import httpx

from planner.domain.errors import EngineError, PoolwiseError, RouterError, WithdrawnError
from planner.domain.fleet import Fleet, ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from serving.fleet.endpoints import Endpoints, EndpointsFile, RouterEndpoint, forget_endpoints
from serving.fleet.members import (
    CellReport,
    Member,
    WorkerState,
    emptiest,
    fleet_of,
    neediest,
    report_cells,
    worker_endpoints,
)
from serving.routers import RoutedWorker, Router, RouterKind, start_router
from serving.routers.drained import wait_handed_over, wait_idle
from serving.routers.policies import USUAL, Policies
from serving.telemetry import EngineReading, read_engine
from serving.workers.launcher import EVERYTHING, Launcher, LocalSite, Worker

__all__ = ["LocalDeployment", "Member", "RouterSettings", "WorkerState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """Which router is put before the workers of a cell.

    Parameters
    ----------
    mixed : bool
        Aggregated workers may stand beside prefill and decode workers of a cell.
    port : int or None
        Loopback port of the first cell's router; further cells take the ports after it. None:
        free ones.
    """

    kind: RouterKind = RouterKind.SMG
    mixed: bool = False
    port: int | None = None
    policies: Policies = USUAL


@dataclass(slots=True)
class LocalDeployment:
    """Workers and routers of one state directory. Use as a context manager.

    Leaving the context ends everything that was started here, also after an error.
    """

    site: LocalSite
    purchase_option: PurchaseOption = PurchaseOption.ON_DEMAND
    progress: Callable[[str], None] = lambda _line: None
    routing: RouterSettings = field(default_factory=RouterSettings)
    launcher: Launcher = field(init=False)
    published: EndpointsFile = field(init=False)
    _routers: dict[str, Router] = field(default_factory=dict)
    _members: dict[str, Member] = field(default_factory=dict)
    _gate: str | None = None
    _client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=10.0))
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _awaited: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.launcher = Launcher(self.site, self.progress)
        self.published = EndpointsFile(self.site.published_in, self.progress)

    def __enter__(self) -> Self:
        self.launcher.__enter__()
        try:
            for index, cell in enumerate(self.site.cells):
                port = None if self.routing.port is None else self.routing.port + index
                self._routers[cell.name] = self._start_router(cell.name, port)
            self.publish()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with self._lock:
                routers = list(self._routers.values())
                self._routers.clear()
                self._members.clear()
            forget_endpoints(self.site.published_in)
            for router in routers:
                router.stop()
        finally:
            self._client.close()
            self.launcher.__exit__(kind, error, trace)

    @property
    def router(self) -> Router:
        """The running router of the first cell."""
        return self.router_of(self.site.cells[0].name)

    def router_of(self, cell: str) -> Router:
        """The running router of a cell.

        Raises
        ------
        EngineError
            When the deployment does not run, or has no such cell.
        """
        router = self._routers.get(cell)
        if router is None:
            self.site.cell(cell)
            raise EngineError("the deployment is not running: enter its context first")
        return router

    @property
    def members(self) -> tuple[Member, ...]:
        """All workers with what they do, oldest first."""
        with self._lock:
            return tuple(self._members.values())

    def member(self, name: str) -> Member:
        """One of them.

        Raises
        ------
        EngineError
            When there is none of this name.
        """
        member = self._members.get(name)
        if member is None:
            known = ", ".join(m.name for m in self.members) or "none at all"
            raise EngineError(f"there is no worker {name} here; there is {known}")
        return member

    def cells(self) -> tuple[CellReport, ...]:
        """Who serves in each cell, and what it lacks."""
        return report_cells((c.name for c in self.site.cells), self.members)

    def start(
        self,
        shape: ReplicaShape,
        cell: str | None = None,
        *,
        spare: bool = False,
        held: bool = False,
    ) -> Worker:
        """Start a worker; it takes no traffic before `route`.

        Parameters
        ----------
        cell : str or None
            None: see `neediest`.
        spare, held : bool
            See `Member`: it is to be on standby; it waits for a plan's step.
        """
        worker = self.launcher.start(shape, cell or self.neediest(shape.role))
        starting = Member(worker=worker, shape=shape, state=WorkerState.STARTING, spare=spare)
        self._set(starting.held() if held else starting)
        return worker

    def await_ready(self, worker: Worker) -> float:
        """Wait until a started worker generates tokens; return seconds since its start.

        A worker that fails is ended and forgotten first; one that was claimed from standby is left
        to whoever replaces those.

        Raises
        ------
        WithdrawnError
            When somebody takes it away meanwhile, and ends it.
        EngineError
            When it fails.
        """
        self._awaited[worker.name] += 1
        try:
            seconds = self.launcher.await_ready(worker)
        except BaseException:
            self._check_kept(worker)
            if not self.member(worker.name).is_claimed:
                self.forget(worker)
            raise
        else:
            self._check_kept(worker)
            return seconds
        finally:
            self._awaited[worker.name] -= 1

    def is_awaited(self, worker: Worker) -> bool:
        """Whether somebody waits for its first token, and is told if it fails."""
        return self._awaited[worker.name] > 0

    def keep_as_standby(self, worker: Worker) -> None:
        """Keep a proven worker without traffic, to be promoted in the time of a router add."""
        with self._lock:
            member = self.member(worker.name)
            if member.state is WorkerState.STARTING:
                self._set(member.settled(WorkerState.STANDBY))

    def claim_standby(self, shape: ReplicaShape, cell: str | None = None) -> Worker | None:
        """Take a standby worker that can be of this shape, to be routed; None where there is none.

        Parameters
        ----------
        cell : str or None
            None: any, the one that lacks the role most before the others.
        """
        with self._lock:
            spare = [
                m
                for m in self.members
                if m.state is WorkerState.STANDBY
                and m.shape.engine == shape.engine
                and cell in (None, m.cell)
            ]
            home = self.neediest(shape.role)
            spare.sort(key=lambda m: m.cell != home)
            if not spare:
                return None
            self._set(replace(spare[0], shape=shape, state=WorkerState.STARTING).held())
            return spare[0].worker

    def promote(self, worker: Worker, shape: ReplicaShape) -> float:
        """Let a standby worker take traffic in a role; return seconds."""
        began = time.monotonic()
        self.assign(worker, shape)
        self.route(worker)
        return time.monotonic() - began

    def route(self, worker: Worker) -> None:
        """Let a started worker take traffic."""
        member = self.member(worker.name)
        self.check_role(member.role, member.cell)
        self.router_of(member.cell).add(worker.url, member.role)
        self._set(self.member(worker.name).settled(WorkerState.READY))

    def drain(self, worker: Worker, *, ending: bool = True) -> float:
        """Take a worker out of the rotation; wait until it is idle; return seconds.

        Parameters
        ----------
        ending : bool
            Its process is to end: also wait until decode has fetched what it computed.

        Raises
        ------
        EngineError
            When it still has requests after two minutes; it is left running without new traffic.
        """
        began = time.monotonic()
        member = self.member(worker.name)
        self._set(replace(member, state=WorkerState.DRAINING, returns=not ending))
        if member.state is WorkerState.STARTING:  # it has served nobody
            return 0.0
        router = self.router_of(member.cell)
        router.remove(worker.url)
        router.wait_drained(worker.url)
        wait_idle(worker.url, self._read)
        if ending and member.role is Role.PREFILL:
            ready = (m for m in self.members if m.state is WorkerState.READY)
            fetching = [
                m.worker.url for m in ready if (m.cell, m.role) == (member.cell, Role.DECODE)
            ]
            wait_handed_over(worker.url, fetching, self._read)
        return time.monotonic() - began

    def stop(self, worker: Worker) -> None:
        """End a worker's processes."""
        self.member(worker.name)
        self.forget(worker)

    def forget(self, worker: Worker) -> None:
        """End what is left of a worker, and take it off the list."""
        with self._lock:
            self._members.pop(worker.name, None)
        with suppress(EngineError):  # stopped by another thread
            self.launcher.stop(worker)
        self.publish()

    def restore(self, before: Member) -> bool:
        """Note a worker as it was before a change that failed; False: it is not there any more.

        Ready by our books, it is routed again or restarted by whoever watches.
        """
        with self._lock:
            if before.name not in self._members:
                return False
            self._set(before)
        return True

    def assign(self, worker: Worker, shape: ReplicaShape) -> None:
        """Give a drained worker another role; `route` lets it take traffic again."""
        self._set(replace(self.member(worker.name), shape=shape))

    def neediest(self, role: Role) -> str:
        """The cell with the fewest workers of a role; of equal ones one whose others need it."""
        return neediest((c.name for c in self.site.cells), self.members, role)

    def emptiest(self) -> str:
        """The cell that serves with the fewest workers, for a spare; the first where none does."""
        return emptiest((c.name for c in self.site.cells), self.members)

    def check_role(self, role: Role, cell: str) -> None:
        """Refuse a role that the cell's router could not send requests to.

        Raises
        ------
        RouterError
        """
        if self.routing.mixed:
            return
        routed = [m for m in self.members if m.state is WorkerState.READY]
        others = {m.role for m in routed if m.cell == cell} - {role}
        beside = bool(others) and Role.AGGREGATED in (role, *others)
        if beside or (role is Role.AGGREGATED and self.routing.kind is RouterKind.SMG):
            raise RouterError(
                f"the router of cell {cell} was started without room for {role} workers beside "
                "the others: start the deployment with aggregated workers, behind smg"
            )

    def flip(self, worker: Worker, to_shape: ReplicaShape) -> float:
        """Move a routed worker into another role without restarting it; return seconds.

        Raises
        ------
        OperationError
            When that fails; the worker then is back in its old role where it can be.
        """
        began = time.monotonic()
        before = self.member(worker.name)
        self.check_role(to_shape.role, before.cell)
        try:
            self.drain(worker, ending=False)
            self.assign(worker, to_shape)
            self.route(worker)
        except PoolwiseError as error:
            raise self._brought_back(before, to_shape, error) from error
        return time.monotonic() - began

    def workers(
        self, shape: ReplicaShape, state: WorkerState, cell: str | None = None
    ) -> tuple[Worker, ...]:
        """Workers of a pool in a state, in one cell or in all, oldest first."""
        return tuple(
            m.worker
            for m in self.members
            if (m.shape, m.state) == (shape, state) and cell in (None, m.cell)
        )

    def fleet(self) -> Fleet:
        """What runs now, from the processes and from the routers' own lists.

        `serving.fleet.members.fleet_of` says what counts as what.
        """
        healthy = {
            (w.url, w.role)
            for router in list(self._routers.values())
            for w in router.workers()
            if w.healthy
        }
        return fleet_of(
            self.members,
            healthy,
            purchase_option=self.purchase_option,
            in_cells=self.site.cells != (EVERYTHING,),
        )

    def reading(self, worker: Worker) -> EngineReading:
        """Scrape a worker's metrics."""
        return self._read(worker.url)

    def readings(self) -> tuple[tuple[Worker, ReplicaShape, EngineReading], ...]:
        """Scrape all workers that have started, with the pool that each is in now."""
        return tuple(
            (m.worker, m.shape, self.reading(m.worker))
            for m in self.members
            if m.state is not WorkerState.STARTING
        )

    def restart_router(self, cell: str) -> None:
        """Put a new router in the place of one that ended, at its address, with its workers.

        Raises
        ------
        OperationError
        """
        ended = self.router_of(cell)
        ended.stop()
        port = int(ended.url.rpartition(":")[2])
        started = self._start_router(cell, port)
        with self._lock:
            self._routers[cell] = started
        self.publish()
        for member in self.unrouted():
            if member.cell == cell:
                self.route(member.worker)

    def unrouted(self) -> tuple[Member, ...]:
        """Ready workers with a live process that their router does not list."""
        lost = []
        for cell in self.site.cells:
            known = {w.url: w for w in self.router_of(cell.name).workers()}
            lost += [m for m in self.members if m.cell == cell.name and self._is_lost(m, known)]
        return tuple(lost)

    def tell_gate(self, url: str | None) -> None:
        """Note where a gate stands before this deployment; None: nowhere any more."""
        self._gate = url
        self.publish()

    def endpoints(self) -> Endpoints:
        """Where all parts answer now."""
        return Endpoints(
            pid=os.getpid(),
            model=self.site.model.name,
            routers=tuple(
                RouterEndpoint(cell=cell, url=router.url, metrics_url=router.metrics_url)
                for cell, router in list(self._routers.items())
            ),
            workers=worker_endpoints(self.members),
            gate=self._gate,
        )

    def publish(self) -> None:
        """Write the endpoints file anew."""
        with self._lock:
            if self._routers:
                self.published.write(self.endpoints())

    def _start_router(self, cell: str, port: int | None) -> Router:
        name = "router" if len(self.site.cells) == 1 else f"router-{cell}"
        how = self.routing
        return start_router(
            how.kind,
            self.site.state_dir,
            name=name,
            port=port,
            mixed=how.mixed,
            policies=how.policies,
        )

    def _read(self, url: str) -> EngineReading:
        return read_engine(self._client, url)

    def _set(self, member: Member) -> None:
        with self._lock:
            self._members[member.name] = member
        self.publish()

    def _check_kept(self, worker: Worker) -> None:
        """Raise WithdrawnError where somebody has taken a starting worker away."""
        member = self._members.get(worker.name)
        if member is None or member.state is WorkerState.DRAINING:
            raise WithdrawnError(f"worker {worker.name} was taken away while it started")

    def _is_lost(self, member: Member, known: dict[str, RoutedWorker]) -> bool:
        return (
            member.state is WorkerState.READY
            and member.worker.url not in known
            and self.launcher.is_alive(member.worker)
        )

    def _brought_back(
        self, before: Member, to_shape: ReplicaShape, error: PoolwiseError
    ) -> EngineError:
        """Put a worker whose flip failed back into its old role; say how that went."""
        worker = before.worker
        what = f"{worker.name} could not become {to_shape.role}: {error}"
        if not self.restore(before) or not self.launcher.is_alive(worker):
            return EngineError(f"{what}; its process is gone")
        try:
            router = self.router_of(before.cell)
            router.remove(worker.url)
            router.wait_drained(worker.url)
            router.add(worker.url, before.role)
        except PoolwiseError as second:
            return EngineError(f"{what}; nor could it be brought back as {before.role}: {second}")
        return EngineError(f"{what}; it is back as {before.role}")
