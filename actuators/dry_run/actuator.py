"""An actuator that changes nothing: it keeps a fleet in memory and shows what would happen."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from planner.domain.fleet import Fleet, Pool
from planner.domain.rollout import Diff, Step, StepKind
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

    def preflight(self, diff: Diff) -> tuple[str, ...]:
        """Object to steps that name pools which are not there."""
        return tuple(
            f"step {step.index + 1} takes a replica from {step.shape.label}, which has none"
            for step in diff.steps
            if step.kind in (StepKind.DRAIN, StepKind.FLIP)
            and not any(
                p.shape == step.shape and p.replicas for p in _before(self.fleet, diff, step)
            )
        )

    def apply(self, step: Step) -> None:
        """Imagine one step."""
        self.fleet = after(self.fleet, [step], at=datetime.now(UTC))
        self.shown.append(step)

    def await_ready(self, step: Step) -> None:
        """Return at once: what is imagined is there."""


def _before(fleet: Fleet, diff: Diff, step: Step) -> Sequence[Pool]:
    return after(fleet, diff.steps[: step.index], at=fleet.read_at).pools
