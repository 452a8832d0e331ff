"""Changes of a running deployment as people ask for them: one at a time, undone when they fail."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from planner.domain.errors import (
    EngineError,
    GuardRefusedError,
    NoFreeDeviceError,
    NotEnoughMemoryError,
    PoolwiseError,
)
from planner.domain.fleet import ReplicaShape, Role
from serving.fleet.deployment import LocalDeployment
from serving.fleet.members import Member, WorkerState, check_leaving
from serving.workers.engine import EngineFlags

Say = Callable[[str], None]


@dataclass(slots=True)
class Changes:
    """Carries out changes of one deployment.

    Parameters
    ----------
    shape : ReplicaShape
        Of every worker, but for its role.
    """

    deployment: LocalDeployment
    shape: ReplicaShape
    _busy: threading.Lock = field(default_factory=threading.Lock)
    _what: str = ""

    def add(
        self,
        role: Role,
        *,
        cell: str | None = None,
        standby: bool = False,
        say: Say = lambda _line: None,
    ) -> Member:
        """Start a worker, wait for its first token, and route it or keep it on standby.

        Raises
        ------
        OperationError
            When it cannot be started; nothing is left of it.
        """
        with self.alone(f"adding a {role} worker"):
            return self._add(role, cell=cell, standby=standby, say=say)

    def remove(self, name: str, *, say: Say = lambda _line: None) -> float:
        """Drain a worker and end it; return seconds.

        Raises
        ------
        GuardRefusedError
            When its cell's other workers need it.
        EngineError
            When it does not become idle; it is routed again.
        """
        with self.alone(f"removing {name}"):
            began = time.monotonic()
            self._remove(self.deployment.member(name), say)
            return time.monotonic() - began

    def flip(self, name: str, role: Role, *, say: Say = lambda _line: None) -> float:
        """Give a worker another role without restarting it; return seconds.

        Raises
        ------
        GuardRefusedError
            When its cell's other workers need it where it is.
        OperationError
            When it fails; the worker is back in its old role where it can be.
        """
        with self.alone(f"flipping {name}"):
            member = self.deployment.member(name)
            if member.state is not WorkerState.READY:
                raise EngineError(f"{name} is {member.state}, only a ready worker can be flipped")
            if member.role is role:
                raise EngineError(f"{name} is a {role} worker already")
            check_leaving(member, self.deployment.members, to=role)
            say(f"draining {name}, which stays running")
            return self.deployment.flip(member.worker, replace(member.shape, role=role))

    def promote(self, name: str, role: Role) -> float:
        """Let a worker take traffic that is on standby, or that a plan left unrouted.

        Returns seconds.

        Raises
        ------
        OperationError
        """
        with self.alone(f"promoting {name}"):
            member = self.deployment.member(name)
            if member.awaits_route:
                self.deployment.await_ready(member.worker)
            elif member.state is not WorkerState.STANDBY:
                raise EngineError(f"{name} is {member.state}, only a standby can be promoted")
            return self.deployment.promote(member.worker, replace(member.shape, role=role))

    def replace_all(self, flags: EngineFlags, *, say: Say = lambda _line: None) -> int:
        """Replace every worker, one at a time, by one with other flags; return how many.

        The new one is started and routed before the old one leaves; where memory or GPUs do not
        suffice for both, the old one leaves first.

        Raises
        ------
        OperationError
            When a new worker does not come up. Those that were not replaced yet keep running;
            workers that start from then on have the old flags again.
        """
        with self.alone("replacing all workers"):
            old = self.deployment.site.flags
            settled = (WorkerState.READY, WorkerState.STANDBY)
            members = [m for m in self.deployment.members if m.state in settled]
            self._use(flags)
            for count, member in enumerate(members):
                try:
                    self._replace(member, old, say)
                except PoolwiseError as error:
                    self._use(old)
                    raise EngineError(
                        f"{count} of {len(members)} workers were replaced, then {member.name} "
                        f"could not be: {error}"
                    ) from error
            return len(members)

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Hold off every other change meanwhile.

        Raises
        ------
        EngineError
            When another one is under way.
        """
        if not self._busy.acquire(blocking=False):
            raise EngineError(f"another change is under way ({self._what}): try again after it")
        self._what = what
        try:
            yield
        finally:
            self._busy.release()

    def _add(self, role: Role, *, cell: str | None, standby: bool, say: Say) -> Member:
        deployment = self.deployment
        home = cell or deployment.neediest(role)
        if not standby:
            deployment.check_role(role, home)
        worker = deployment.start(replace(self.shape, role=role), home, spare=standby)
        say(f"{worker.name} starts in cell {worker.cell}")
        seconds = deployment.await_ready(worker)
        say(f"{worker.name} generated its first token after {seconds:.0f} s")
        if standby:
            deployment.keep_as_standby(worker)
            return deployment.member(worker.name)
        try:
            deployment.route(worker)
        except PoolwiseError:
            deployment.forget(worker)
            raise
        return deployment.member(worker.name)

    def _remove(self, member: Member, say: Say) -> None:
        deployment = self.deployment
        awaited = not member.awaits_route or deployment.is_awaited(member.worker)
        if member.state is WorkerState.STARTING and awaited:
            raise EngineError(f"{member.name} is still starting: remove it when it is ready")
        if member.state is WorkerState.READY:
            check_leaving(member, deployment.members, to=None)
            say(f"draining {member.name}")
            try:
                deployment.drain(member.worker)
            except PoolwiseError as error:
                raise self._kept(member, error) from error
        deployment.forget(member.worker)

    def _kept(self, member: Member, error: PoolwiseError) -> EngineError:
        """Route a worker again that could not be drained; say how that went."""
        self.deployment.restore(member)
        try:
            self.deployment.route(member.worker)
        except PoolwiseError as second:
            return EngineError(
                f"{error}; nor could {member.name} be routed again ({second}): that is tried "
                "until it succeeds"
            )
        return EngineError(f"{error}; {member.name} is routed again")

    def _replace(self, member: Member, old: EngineFlags, say: Say) -> None:
        standby = member.state is WorkerState.STANDBY
        try:
            new = self._add(member.role, cell=member.cell, standby=standby, say=say)
        except (NotEnoughMemoryError, NoFreeDeviceError) as error:
            say(f"{member.name} leaves before its successor starts: {error}")
            self._replace_in_place(member, old, standby=standby, say=say)
            return
        self._remove(member, say)
        say(f"{new.name} took the place of {member.name}")

    def _replace_in_place(
        self, member: Member, old: EngineFlags, *, standby: bool, say: Say
    ) -> None:
        try:
            self._remove(member, say)
        except GuardRefusedError as error:
            raise EngineError(
                f"{error}; and there is no memory for its successor beside it"
            ) from error
        new = self.deployment.site.flags
        try:
            added = self._add(member.role, cell=member.cell, standby=standby, say=say)
        except PoolwiseError:
            say(f"the successor of {member.name} did not come up: starting one as it was")
            self._use(old)
            self._add(member.role, cell=member.cell, standby=standby, say=say)
            raise
        finally:
            self._use(new)
        say(f"{added.name} took the place of {member.name}")

    def _use(self, flags: EngineFlags) -> None:
        """Workers that start from now on have these flags."""
        site = replace(self.deployment.site, flags=flags)
        self.deployment.site = site
        self.deployment.launcher.site = site
