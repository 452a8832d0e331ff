"""The fleet of a deployment that an autoscaler of the cluster moves: what was exported last."""

from dataclasses import dataclass
from datetime import UTC, datetime

from planner.domain.rollout import Step
from planner.rollout import after
from planner.service.recorded import RecordedFleetActuator


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFleetActuator(RecordedFleetActuator):
    """Keeps the desired fleet in the store, so that it survives a restart.

    Whoever sees what really runs may hand that in by `PUT /v1/deployments/{name}/fleet`.
    """

    def apply(self, step: Step) -> None:
        """Want one step more."""
        now = datetime.now(UTC)
        wanted = after(self.read_fleet(), [step], at=now)
        self.store.put_fleet(self.spec.name, wanted, received_at=now, actor="metrics")
