"""The deployments that this process serves, by name."""

from dataclasses import dataclass, field

from actuators.metrics import DesiredReplicas, Labels
from planner.domain.errors import InputError, UnknownDeploymentError
from planner.service.deployment import Deployment
from planner.service.election.leadership import Leadership
from planner.service.live.watching import LiveSignals
from planner.service.spec.versions import Specs
from planner.service.telemetry.events import EventWatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One deployment of this process.

    Parameters
    ----------
    leadership : Leadership
        The deployment, and what moves its fleet.
    specs : Specs or None
        How its spec is replaced; None: it stays.
    live : LiveSignals or None
        What is seen of it; None: nothing.
    events : EventWatch or None
        Tells people what happens to it; None: nobody.
    desired : DesiredReplicas or None
        Counts that an autoscaler of the cluster follows, where it moves the fleet.
    """

    leadership: Leadership
    specs: Specs | None = None
    live: LiveSignals | None = None
    events: EventWatch | None = None
    desired: DesiredReplicas | None = None

    @property
    def deployment(self) -> Deployment:
        """The one in force: another one takes its place when its spec is replaced."""
        return self.leadership.deployment

    @property
    def name(self) -> str:
        """Of the deployment."""
        return self.deployment.spec.name


@dataclass(slots=True)
class Registry:
    """What is served now; it may change at any time, what was asked for stays as it is."""

    _served: dict[str, Served] = field(default_factory=dict)

    def add(self, served: Served) -> None:
        """Serve one more."""
        self._served = {**self._served, served.name: served}

    def remove(self, name: str) -> None:
        """Serve one no longer."""
        self._served = {key: one for key, one in self._served.items() if key != name}

    def __contains__(self, name: str) -> bool:
        """Whether a deployment of this name is served."""
        return name in self._served

    def names(self) -> tuple[str, ...]:
        """Names, sorted."""
        return tuple(sorted(self._served))

    def all(self) -> tuple[Served, ...]:
        """Every one, sorted by name."""
        served = self._served
        return tuple(served[name] for name in sorted(served))

    def get(self, name: str) -> Served:
        """The one of this name.

        Raises
        ------
        UnknownDeploymentError
            When none of this name is served here.
        """
        found = self._served.get(name)
        if found is None:
            raise UnknownDeploymentError(f"no deployment {name}; {self._plans()}")
        return found

    def sole(self, name: str | None) -> Served:
        """The one of this name; where none is named, the only one there is.

        Raises
        ------
        UnknownDeploymentError
            When none of this name is served here, or none at all.
        InputError
            When several are and none is named.
        """
        if name is not None:
            return self.get(name)
        if len(self._served) == 1:
            return next(iter(self._served.values()))
        if not self._served:
            raise UnknownDeploymentError("this server plans no deployment")
        raise InputError(f"which deployment? {self._plans()}: name one by `deployment`")

    def desired(self) -> dict[Labels, int]:
        """Counts of all of them that autoscalers of a cluster follow, by labels."""
        shown = [one.desired.current() for one in self.all() if one.desired is not None]
        return {labels: count for counts in shown for labels, count in counts.items()}

    def _plans(self) -> str:
        return f"this server plans {', '.join(self.names()) or 'none'}"
