"""Export desired replicas as a metric, for an autoscaler of the cluster to act on."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from actuators.actuator import Actuator
from planner.domain.errors import DeadlineMissedError
from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.rollout import Diff, Step, StepKind

NAME = "poolwise_desired_replicas"
LABELS = ("deployment", "model", "role", "accelerator", "tp")
_TEXT = "Replicas that are to run; missing when they are not known"
Labels = tuple[str, ...]
"""Values of `LABELS`, in their order."""


def label_values(deployment: str, shape: ReplicaShape) -> Labels:
    """What a pool's series is labelled with."""
    return (deployment, shape.model, shape.role.value, shape.accelerator, str(shape.tp))


@dataclass(slots=True, eq=False)
class DesiredReplicas(Collector):
    """The newest approved counts; no series at all once nobody confirms them.

    A missing external metric makes an HPA hold; an old one would make it act on the past.

    Parameters
    ----------
    valid_for_s : float
        Counts that were not confirmed for so long are not shown, seconds.
    speaks : callable
        Whether this process may say what is to run: of several, only the one that leads.
    clock : callable
        Seconds, monotonic.
    """

    deployment: str
    valid_for_s: float
    speaks: Callable[[], bool] = lambda: True
    clock: Callable[[], float] = time.monotonic
    _counts: dict[Labels, int] = field(default_factory=dict)
    _read_at: datetime | None = None
    _confirmed_at: float | None = None
    _lock: Lock = field(default_factory=Lock)

    def publish(self, fleet: Fleet) -> None:
        """Show this fleet's counts from now on; the decision behind them is current.

        A fleet that was read before the one that is shown confirms that one only: what was
        applied meanwhile must not be taken back.
        """
        counts: dict[Labels, int] = {}
        for pool in fleet.pools:
            key = label_values(self.deployment, pool.shape)
            counts[key] = counts.get(key, 0) + pool.replicas
        with self._lock:
            self._confirmed_at = self.clock()
            if self._read_at is not None and fleet.read_at < self._read_at:
                return
            self._read_at = fleet.read_at
            # A pool that is gone is wanted at zero: without its series the HPA would keep it.
            self._counts = {**dict.fromkeys(self._counts, 0), **counts}

    def confirm(self) -> None:
        """The counts that are shown are still wanted."""
        with self._lock:
            self._confirmed_at = self.clock()

    def current(self) -> dict[Labels, int]:
        """Counts by labels; empty when they are too old, or not this process's to tell."""
        if not self.speaks():
            return {}
        with self._lock:
            confirmed = self._confirmed_at
            if confirmed is None or self.clock() - confirmed > self.valid_for_s:
                return {}
            return dict(self._counts)

    @staticmethod
    def described() -> list[Metric]:
        """The metric without any count."""
        return [GaugeMetricFamily(NAME, _TEXT, labels=LABELS)]

    def collect(self) -> Iterator[Metric]:
        """The metric as Prometheus reads it."""
        family = GaugeMetricFamily(NAME, _TEXT, labels=LABELS)
        for labels, count in sorted(self.current().items()):
            family.add_metric(labels, count)
        yield family


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsActuator:
    """Applies a step by exporting the count that follows from it.

    Parameters
    ----------
    record : Actuator
        Keeps the desired fleet between steps and restarts.
    observe : callable or None
        Reads what really runs. None: recommend only, a step counts as done when it is exported.
    deadline_s, poll_s : float
        How long to wait for what was exported, and between looks, seconds.
    """

    record: Actuator
    desired: DesiredReplicas
    observe: Callable[[], Fleet] | None = None
    deadline_s: float = 1800.0
    poll_s: float = 5.0

    def read_fleet(self) -> Fleet:
        """Read what runs; without a reader, what was exported last."""
        return self.record.read_fleet() if self.observe is None else self.observe()

    def preflight(self, diff: Diff) -> tuple[str, ...]:
        """Object as the record does."""
        return self.record.preflight(diff)

    def apply(self, step: Step) -> None:
        """Export the counts that follow from the step."""
        self.record.apply(step)
        self.desired.publish(self.record.read_fleet())

    def await_ready(self, step: Step) -> None:
        """Wait until as many replicas are ready as were exported for the step's pools."""
        self.record.await_ready(step)
        if self.observe is None:
            return
        ends_at = time.monotonic() + self.deadline_s
        while (missing := self._missing(step, self.observe())) is not None:
            if time.monotonic() >= ends_at:
                raise DeadlineMissedError(
                    f"{missing} after {self.deadline_s:g} s: does the autoscaler act on {NAME}?"
                )
            time.sleep(self.poll_s)

    def _missing(self, step: Step, observed: Fleet) -> str | None:
        if step.kind in (StepKind.ROUTE, StepKind.STOP):
            return None
        wanted = self.record.read_fleet()
        for shape in (step.shape, step.to_shape):
            if shape is None:
                continue
            count = sum(p.replicas for p in wanted.pools if p.shape == shape)
            ready = sum(p.ready for p in observed.pools if p.shape == shape)
            enough = ready >= count if step.kind is StepKind.START else ready == count
            if not enough:
                return f"{shape.label} has {ready} ready replicas, {count} were exported"
        return None
