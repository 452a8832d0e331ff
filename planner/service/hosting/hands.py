"""What moves the fleet of a spec's target."""

import logging
import os
from dataclasses import dataclass
from functools import partial

from actuators.actuator import Actuator
from actuators.metrics import DesiredReplicas, MetricsActuator
from planner.domain.spec import Spec, TargetKind
from planner.service.election.leadership import Election, Reign
from planner.service.fleet.exported import ExportedFleetActuator
from planner.service.fleet.recorded import RecordedFleetActuator
from planner.service.store import Store

LOG = logging.getLogger("poolwise.serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What moves the fleet of a spec's target.

    Parameters
    ----------
    desired : DesiredReplicas or None
        Counts that an autoscaler of the cluster follows, where it moves the fleet.
    """

    spec: Spec
    desired: DesiredReplicas | None

    def on(self, store: Store, reign: Reign | None = None) -> Actuator:
        """An actuator that writes to a store; one that waits gives up with its reign."""
        spec = self.spec
        if spec.target is TargetKind.KUBERNETES:
            from planner.service.fleet.kubernetes_target import kubernetes_actuator

            actuator = kubernetes_actuator(spec, instance=store.instance())
            if reign is not None:
                actuator.sleep = partial(reign.sleep_then_check, actuator.sleep)
                actuator.before_write = reign.check
            return actuator
        if spec.target is TargetKind.LOCAL:
            from planner.service.fleet.deploying import client_of
            from planner.service.fleet.local_target import RunningDeployment

            running = RunningDeployment(control=client_of(os.environ, LOG.info), spec=spec)
            if reign is not None:
                running.before_write = reign.check
            return running
        if self.desired is None:
            return RecordedFleetActuator(store=store, spec=spec)
        record = ExportedFleetActuator(store=store, spec=spec)
        return MetricsActuator(record=record, desired=self.desired)


def desired_of(spec: Spec, election: Election) -> DesiredReplicas | None:
    """Counts for an autoscaler of the cluster to follow; None where none moves the fleet."""
    if spec.target is not TargetKind.METRICS:
        return None
    return DesiredReplicas(
        deployment=spec.name,
        valid_for_s=valid_for_s(spec),
        speaks=lambda: election.term() is not None,
    )


def valid_for_s(spec: Spec) -> float:
    """Two ticks in a row may fail before an autoscaler is left to hold what it has."""
    return 3 * spec.loop.slow_interval_s
