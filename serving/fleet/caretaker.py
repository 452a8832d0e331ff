"""Keeps a deployment as it is meant to be: replaces workers and routers that end by themselves.

What hangs instead of ending is killed (`serving.fleet.health`), and replaced like the others.

A worker that died is taken out of its router first, then started anew at fresh addresses, and
routed after it has generated a token; a standby worker of its cell takes its place meanwhile. A
router that died comes back at its own address with its workers. Both are tried again and again
with growing pauses, and given up after too many deaths in a while.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from planner.domain.errors import PoolwiseError, WithdrawnError
from planner.domain.fleet import ReplicaShape
from serving.fleet.deployment import LocalDeployment
from serving.fleet.health import HangLimits, HealthWatch
from serving.fleet.members import Member, WorkerState

POLL_S = 0.25
RECONCILE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartLimits:
    """How often something that dies is started again.

    Parameters
    ----------
    attempts : int
        Given up after so many deaths within `window_s`.
    window_s : float
        Older deaths are forgotten, seconds.
    first_pause_s, longest_pause_s : float
        Pause before the first restart, doubled at each further death, seconds.
    """

    attempts: int = 5
    window_s: float = 600.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0


@dataclass(slots=True)
class Deaths:
    """When something that is kept alive died, and when it may be started again."""

    limits: RestartLimits
    at_s: list[float] = field(default_factory=list)

    def pause_s(self, now_s: float) -> float | None:
        """Note a death; seconds to wait before the next start, None: given up."""
        self.at_s = [t for t in self.at_s if now_s - t < self.limits.window_s] + [now_s]
        if len(self.at_s) > self.limits.attempts:
            return None
        pause_s = self.limits.first_pause_s * 2 ** (len(self.at_s) - 1)
        return float(min(pause_s, self.limits.longest_pause_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """What a dead worker was to its deployment; its successors inherit it."""

    lineage: str
    shape: ReplicaShape
    cell: str
    standby: bool


@dataclass(slots=True)
class Caretaker:
    """Watches one deployment in a thread of its own. Use as a context manager inside it."""

    deployment: LocalDeployment
    progress: Callable[[str], None] = lambda _line: None
    limits: RestartLimits = field(default_factory=RestartLimits)
    hangs: HangLimits = field(default_factory=HangLimits)
    given_up: list[str] = field(default_factory=list)
    _health: HealthWatch = field(init=False)
    _deaths: dict[str, Deaths] = field(default_factory=dict)
    _lineage: dict[str, str] = field(default_factory=dict)
    _reconciled_s: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._health = HealthWatch(self.deployment, self.progress, self.hangs)

    def __enter__(self) -> Self:
        self._health.__enter__()
        self._begin(self._watch, "poolwise-caretaker")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._health.__exit__(kind, error, trace)
        for thread in list(self._threads):
            # A start under way notices only when its worker is ended, by the deployment's exit.
            thread.join(timeout=2.0)

    def look(self) -> None:
        """Look once at all processes and begin what is to be done about them."""
        for cell in self.deployment.site.cells:
            if not self.deployment.router_of(cell.name).is_alive():
                self._replace_router(cell.name)
        for worker in self.deployment.launcher.dead():
            with suppress(PoolwiseError):  # taken away by whoever started it
                self._replace(self.deployment.member(worker.name))
        if time.monotonic() - self._reconciled_s > RECONCILE_S:
            self._reconciled_s = time.monotonic()
            if self.deployment.published.behind:
                self.deployment.publish()
            self._route_lost()
            self._unclaim()

    def _watch(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                self.look()
            except PoolwiseError as error:
                if not self._stop.is_set():
                    self.progress(f"caretaker: {_first_line(error)}")
            except Exception as error:  # the last resort: nobody else looks after the rest
                self.progress(f"caretaker: {error!r}; this is a fault of Poolwise")

    def _replace(self, member: Member) -> None:
        starting = member.state is WorkerState.STARTING
        if starting and (not member.awaits_route or self.deployment.is_awaited(member.worker)):
            return  # whoever waits for it is told
        if starting and not member.is_claimed:
            self.progress(
                f"{member.name} died before a plan routed it; its log is {member.worker.log_path}"
            )
            self.deployment.forget(member.worker)
            return
        leaving = member.state is WorkerState.DRAINING and not member.returns
        place = _Place(
            lineage=self._lineage.pop(member.name, member.name),
            shape=member.shape,
            cell=member.cell,
            standby=member.state is WorkerState.STANDBY or member.is_claimed,
        )
        self.progress(f"{member.name} died; its log is {member.worker.log_path}")
        # The substitute comes first: a router that knows nobody refuses at once, one whose worker
        # is dead tries again.
        promoted = not leaving and not place.standby and self._promote(place)
        if not leaving:
            with suppress(PoolwiseError):  # a dead router forgets by itself
                self.deployment.router_of(member.cell).remove(member.worker.url)
        self.deployment.forget(member.worker)
        if not leaving:
            self._start_again(place, promoted=promoted)

    def _promote(self, place: _Place) -> bool:
        """Let a standby worker take the place; whether there was one."""
        for member in self.deployment.members:
            if member.state is WorkerState.STANDBY and _may_stand_in(member, place):
                try:
                    seconds = self.deployment.promote(member.worker, place.shape)
                except PoolwiseError as error:
                    self.progress(f"standby {member.name} could not be promoted: {error}")
                    continue
                self.progress(f"standby {member.name} took its place after {seconds:.1f} s")
                return True
        return False

    def _start_again(self, place: _Place, *, promoted: bool = False) -> None:
        pause_s = self._deaths_of(place.lineage).pause_s(time.monotonic())
        if pause_s is None:
            self._give_up(f"{place.shape.role} worker {place.lineage} of cell {place.cell}")
            return
        standby = place.standby or promoted
        wanted = _Place(lineage=place.lineage, shape=place.shape, cell=place.cell, standby=standby)
        self._begin(lambda: self._bring_up(wanted, pause_s), f"poolwise-restart-{place.lineage}")

    def _bring_up(self, place: _Place, pause_s: float) -> None:
        if self._stop.wait(pause_s):
            return
        deployment = self.deployment
        try:
            worker = deployment.start(place.shape, place.cell, spare=place.standby)
            self._lineage[worker.name] = place.lineage
            seconds = deployment.await_ready(worker)
            if place.standby:
                deployment.keep_as_standby(worker)
            else:
                deployment.route(worker)
        except PoolwiseError as error:
            if self._stop.is_set():
                return
            if isinstance(error, WithdrawnError):
                self.progress(f"{place.lineage} is not started again: {error}")
                return
            self.progress(f"{place.lineage} could not be started again: {_first_line(error)}")
            self._start_again(place)
            return
        how = "is on standby" if place.standby else f"serves as {place.shape.role}"
        self.progress(f"{worker.name}, started for {place.lineage}, {how} after {seconds:.0f} s")

    def _replace_router(self, cell: str) -> None:
        key = f"router of cell {cell}"
        if key in self.given_up:
            return
        pause_s = self._deaths_of(key).pause_s(time.monotonic())
        if pause_s is None:
            self._give_up(key)
            return
        began = time.monotonic()
        deaths = len(self._deaths_of(key).at_s)
        if deaths > 1 and self._stop.wait(pause_s):
            return
        try:
            self.deployment.restart_router(cell)
        except PoolwiseError as error:
            self.progress(f"the {key} could not be started again: {_first_line(error)}")
            return
        self.progress(f"the {key} ended and is back after {time.monotonic() - began:.1f} s")

    def _route_lost(self) -> None:
        for member in self.deployment.unrouted():
            try:
                self.deployment.route(member.worker)
            except PoolwiseError as error:
                self.progress(f"{member.name} could not be routed again: {_first_line(error)}")
            else:
                self.progress(f"{member.name} was missing in its router and is routed again")

    def _unclaim(self) -> None:
        """Put back on standby whom a plan's step claimed, and none has routed for too long."""
        deployment = self.deployment
        latest_s = time.monotonic() - deployment.site.ready_timeout_s
        for member in deployment.members:
            worker = member.worker
            if not member.is_claimed or (member.held_since_s or 0.0) > latest_s:
                continue
            if deployment.launcher.is_alive(worker) and not deployment.is_awaited(worker):
                deployment.keep_as_standby(worker)
                self.progress(f"{member.name} is on standby again: the plan did not route it")

    def _deaths_of(self, key: str) -> Deaths:
        return self._deaths.setdefault(key, Deaths(self.limits))

    def _give_up(self, what: str) -> None:
        self.given_up.append(what)
        self.progress(
            f"gave up on the {what}: it died more than {self.limits.attempts} times within "
            f"{self.limits.window_s:.0f} s; look at its log, then add a worker by hand"
        )

    def _begin(self, act: Callable[[], None], name: str) -> None:
        self._threads = [t for t in self._threads if t.is_alive()]
        thread = threading.Thread(target=act, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()


def _may_stand_in(member: Member, place: _Place) -> bool:
    return member.cell == place.cell and member.shape.engine == place.shape.engine


def _first_line(error: PoolwiseError) -> str:
    return str(error).splitlines()[0]
