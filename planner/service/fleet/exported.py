"""The fleet of a deployment that an autoscaler of the cluster moves: what was exported last."""

from dataclasses import dataclass
from datetime import UTC, datetime

from planner.domain.rollout import Diff, Step
from planner.domain.spec import LoopMode
from planner.rollout import after
from planner.service.fleet.recorded import RecordedFleetActuator


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFleetActuator(RecordedFleetActuator):
    """Keeps the desired fleet in the store, so that it survives a restart.

    Whoever sees what really runs may hand that in by `PUT /v1/deployments/{name}/fleet`.
    """

    def preflight(self, diff: Diff) -> tuple[str, ...]:
        """Object where nobody would confirm the counts: they would expire soon after."""
        if self.spec.loop.mode is LoopMode.OFF:
            return (
                "loop.mode is off, so that nothing is exported: set advise, approve or auto, whose "
                "ticks confirm the counts",
            )
        return RecordedFleetActuator.preflight(self, diff)

    def apply(self, step: Step) -> None:
        """Want one step more."""
        now = datetime.now(UTC)
        wanted = after(self.read_fleet(), [step], at=now)
        self.store.put_fleet(self.spec.name, wanted, received_at=now, actor="metrics")
