"""The fleet of a dry run: what was handed in through the API. Nothing is ever changed."""

from dataclasses import dataclass

from planner.domain.errors import HistoryError
from planner.domain.fleet import Fleet
from planner.domain.rollout import Diff, Step
from planner.domain.spec import Spec
from planner.service.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFleetActuator:
    """An actuator that reads the fleet from the store and leaves the world alone.

    Whoever moves the fleet hands in its new state by `PUT /v1/deployments/{name}/fleet`.
    """

    store: Store
    spec: Spec

    def read_fleet(self) -> Fleet:
        """Read the fleet that was handed in last.

        Raises
        ------
        HistoryError
            When none was: an unknown fleet is not an empty one.
        """
        stored = self.store.fleet(self.spec)
        if stored is None:
            raise HistoryError(
                f"the fleet of {self.spec.name} is not known: hand it in by "
                f'PUT /v1/deployments/{self.spec.name}/fleet (an empty one is {{"pools": []}})'
            )
        return stored.fleet

    def preflight(self, _diff: Diff) -> tuple[str, ...]:
        """Nothing stands in the way of showing steps."""
        return ()

    def apply(self, _step: Step) -> None:
        """Change nothing."""

    def await_ready(self, _step: Step) -> None:
        """Wait for nothing."""
