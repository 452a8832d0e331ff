"""What a process may do while it leads, and what stops it the moment it does not."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from actuators.actuator import Actuator
from planner.domain.errors import NotLeaderError
from planner.domain.fleet import Fleet
from planner.domain.rollout import Diff, Step
from planner.service.deployment import Deployment
from planner.service.election.lease import Lease
from planner.service.fleet import rollouts
from planner.service.store import Store
from planner.service.store.leases import Fence


class Election(Protocol):
    """Who leads: an `Elector`, or `NoElection`."""

    @property
    def identity(self) -> str:
        """Name of this process."""

    def start(self, on_gain: Callable[[], None]) -> None:
        """Begin to take part."""

    def stop(self) -> None:
        """Take part no longer."""

    def term(self) -> int | None:
        """The term in which this process may act now; None: it may not."""

    def holds(self, term: int) -> bool:
        """Whether a term still lasts, and is this process's."""

    def seen(self) -> Lease | None:
        """The lease as it was seen last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reign:
    """One term of this process: asked before every step, and while waiting for one.

    Parameters
    ----------
    over : Event
        Set when the deployment is served here no longer.
    """

    election: Election
    term: int
    over: threading.Event = field(default_factory=threading.Event)

    def lasts(self) -> bool:
        """Whether this process may still act."""
        return not self.over.is_set() and self.election.holds(self.term)

    def check(self) -> None:
        """Raise NotLeaderError when it may not."""
        if not self.lasts():
            raise NotLeaderError(
                f"{self.election.identity} does not lead any more (term {self.term}): no further "
                "step is begun; the next leader carries on"
            )

    def sleep_then_check(self, sleep: Callable[[float], None], seconds: float) -> None:
        """Wait as `sleep` does; whoever leads no longer has nothing to wait for."""
        sleep(seconds)
        self.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadersActuator:
    """An actuator that begins no step unless its process leads."""

    actuator: Actuator
    reign: Reign

    def read_fleet(self) -> Fleet:
        """Read what runs now; anybody may."""
        return self.actuator.read_fleet()

    def preflight(self, diff: Diff) -> tuple[str, ...]:
        """Say what stands in the way; anybody may."""
        return self.actuator.preflight(diff)

    def apply(self, step: Step) -> None:
        """Set one step going. Raises NotLeaderError too."""
        self.reign.check()
        self.actuator.apply(step)

    def await_ready(self, step: Step) -> None:
        """Wait until the step's effect is observed."""
        self.actuator.await_ready(step)


ActuatorOf = Callable[[Store, Reign | None], Actuator]
"""Makes the hands of a deployment on a store; None: for looking only."""


@dataclass(slots=True)
class Leadership:
    """The deployment as the leader has it; made anew for every term.

    Parameters
    ----------
    deployment : Deployment
        As everybody has it: for reading, proposing and deciding.
    lease : str or None
        Name of the lease that is elected by, where several deployments share one; None: the
        deployment's own. Under a shared one every deployment has terms of its own beside it, so
        that a server with other specs, and so another lease, shuts this one out, or is shut out.
    """

    election: Election
    deployment: Deployment
    actuator_of: ActuatorOf
    lease: str | None = None
    _over: threading.Event = field(default_factory=threading.Event, init=False)
    _fence: tuple[int, Fence] | None = field(default=None, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _leading: tuple[int, Deployment] | None = field(default=None, init=False)

    def leading(self) -> Deployment | None:
        """The deployment that this process may move, None while another one leads.

        Its store refuses to write, and its actuator to begin a step, once the term is over. The
        first call in a term settles what the leader before left half-done.
        """
        term = self.election.term()
        if term is None or self._over.is_set():
            return None
        with self._lock:
            if self._leading is None or self._leading[0] != term:
                made = self._under(Reign(election=self.election, term=term, over=self._over))
                rollouts.settle_interrupted(made, at=made.clock())
                self._leading = (term, made)
            return self._leading[1]

    def replace(self, deployment: Deployment, actuator_of: ActuatorOf) -> None:
        """Have another spec's deployment in the place of this one.

        What moves the fleet at present ends as it began.
        """
        with self._lock:
            self.deployment, self.actuator_of, self._leading = deployment, actuator_of, None

    def end(self) -> None:
        """Move the fleet no more: no further step is begun, whoever leads."""
        self._over.set()

    def somebody_leads(self) -> bool:
        """Whether another process does, as this one saw last."""
        lease = self.election.seen()
        return lease is not None and lease.holder not in ("", self.election.identity)

    def who_leads(self) -> str:
        """Who does, as a sentence."""
        lease, here = self.election.seen(), self.election.identity
        if lease is None or not self.somebody_leads():
            return f"{here} does not lead, and nobody else does yet: try again in a few seconds"
        return f"{here} does not lead: only {lease.holder} (term {lease.term}) moves the fleet"

    def _under(self, reign: Reign) -> Deployment:
        deployment = self.deployment
        store = deployment.store
        if reign.term > 0:  # term 0: no election, and nobody to be shut out
            store = store.fenced(self._fence_of(reign.term))
        actuator = LeadersActuator(actuator=self.actuator_of(store, reign), reign=reign)
        return replace(deployment, store=store, actuator=actuator, leads=reign.lasts)

    def _fence_of(self, term: int) -> Fence:
        """What a term's writes carry; the same one for as long as the term lasts.

        Raises
        ------
        NotLeaderError
            When another server begins to lead the deployment at this very moment.
        """
        name = self.deployment.spec.name
        if self.lease in (None, name):
            return Fence(name=name, term=term)
        if self._fence is None or self._fence[0] != term:
            own = self.deployment.store.lease(name)
            begun = own.newest_term() + 1
            if not own.begin_term(begun, self.election.identity, at=self.deployment.clock()):
                raise NotLeaderError(f"another server begins to lead {name} at this moment")
            self._fence = (term, Fence(name=name, term=begun))
        return self._fence[1]
