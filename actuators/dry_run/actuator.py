"""An actuator that changes nothing: it keeps a fleet in memory and shows what would happen."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

from planner.domain.fleet import Fleet
from planner.domain.rollout import Diff, Step
from planner.rollout import after


@dataclass(slots=True)
class DryRunActuator:
    """Steps take effect on a copy of the fleet only; `shown` keeps what was asked for.

    Parameters
    ----------
    fleet : Fleet
        The fleet to start from.
    """

    fleet: Fleet
    shown: list[Step] = field(default_factory=list)

    def read_fleet(self) -> Fleet:
        """Read the imagined fleet."""
        return self.fleet

    def preflight(self, _diff: Diff) -> tuple[str, ...]:
        """Nothing stands in the way of imagining."""
        return ()

    def apply(self, step: Step) -> None:
        """Imagine one step."""
        self.fleet = after(self.fleet, [step], at=datetime.now(UTC))
        self.shown.append(step)

    def await_ready(self, step: Step) -> None:
        """Return at once: what is imagined is there."""
