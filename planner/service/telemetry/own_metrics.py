"""What Prometheus reads of the service itself, and counters that alert rules take rates of."""

from collections.abc import Iterator
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from planner.domain.errors import PoolwiseError
from planner.domain.spec import Spec
from planner.service.deployment import Deployment
from planner.service.store.glance import glance
from serving.telemetry.signals import DeploymentSignals, SloSignals, TargetKind

LONGEST_GAP_S = 600.0
"""Between two readings; what lay in a longer gap was not seen and is not counted."""

_STORED = (
    (
        "poolwise_plan_moving_since_timestamp_seconds",
        "Since when a plan moves the fleet, Unix time; no sample: none does",
    ),
    (
        "poolwise_plan_waiting_since_timestamp_seconds",
        "Since when the oldest plan waits for a person, Unix time; no sample: none does",
    ),
    (
        "poolwise_observation_timestamp_seconds",
        "Until when the load is known to the loop, Unix time; no sample: nothing was observed",
    ),
    ("poolwise_store_up", "1 where the database answers and can be written"),
)


class StoreCollector(Collector):
    """Reads what a scrape wants to know of the store; a store that is gone is told, not raised."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    @staticmethod
    def describe() -> list[Metric]:
        """Every metric that there may be."""
        return [GaugeMetricFamily(name, text, labels=["deployment"]) for name, text in _STORED]

    def collect(self) -> Iterator[Metric]:
        """What is known now."""
        values: list[float | None]
        try:
            values = [*self._stored(), self._writable()]
        except PoolwiseError:
            values = [None, None, None, 0.0]
        for (name, text), value in zip(_STORED, values, strict=True):
            if value is not None:
                family = GaugeMetricFamily(name, text, labels=["deployment"])
                family.add_metric([self.deployment.spec.name], value)
                yield family

    def _writable(self) -> float:
        try:
            self.deployment.store.access.check_written()
        except PoolwiseError:
            return 0.0
        return 1.0

    def _stored(self) -> tuple[float | None, float | None, float | None]:
        one = self.deployment
        found = glance(one.store.access, one.spec.name, one.model)
        moving, waiting, known = found.moving_since, found.waiting_since, found.known_until
        return (
            None if moving is None else moving.timestamp(),
            None if waiting is None else waiting.timestamp(),
            None if known is None else known.timestamp(),
        )


class LoopMetrics:
    """What changes only with the spec, so that rules can be relative to it."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.interval = Gauge(
            "poolwise_loop_interval_seconds",
            "Seconds between slow ticks",
            ("deployment",),
            registry=registry,
        )
        self.stale = Gauge(
            "poolwise_stale_after_seconds",
            "Seconds after which a load that was seen is too old to take capacity away by",
            ("deployment",),
            registry=registry,
        )
        self.start = Gauge(
            "poolwise_start_timestamp_seconds",
            "When this process started to serve the deployment, Unix time",
            ("deployment",),
            registry=registry,
        )

    def show(self, spec: Spec) -> None:
        """Show a spec's settings."""
        self.interval.labels(spec.name).set(spec.loop.slow_interval_s)
        self.stale.labels(spec.name).set(spec.guards.stale_observation_s)


class SloCounters:
    """Arrivals and misses per class, added up from the readings: what burn rates are made of."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("deployment", "class")
        self.arrived = Counter(
            "poolwise_slo_requests", "Requests that were judged", labels, registry=registry
        )
        self.missed = Counter(
            "poolwise_slo_missed_requests",
            "Those of them that missed an objective; the middle of its bounds where requests are "
            "not seen singly",
            labels,
            registry=registry,
        )
        self._until: dict[str, datetime] = {}

    def begin(self, deployment: str, classes: tuple[str, ...]) -> None:
        """Have the series of a deployment's classes, from now on."""
        for name in classes:
            self.arrived.labels(deployment, name)
            self.missed.labels(deployment, name)

    def record(self, deployment: str, signals: DeploymentSignals) -> None:
        """Add what came since the last reading."""
        before = self._until.get(deployment)
        self._until[deployment] = signals.looked_at
        if before is None:
            return
        seconds = (signals.looked_at - before).total_seconds()
        if not 0 < seconds <= LONGEST_GAP_S:
            return
        for slo in signals.slos:
            rate, met = arrivals_of(signals, slo), slo.attainment_ratio.value
            if rate is not None and met is not None:
                labels = (deployment, slo.request_class)
                self.arrived.labels(*labels).inc(max(rate, 0.0) * seconds)
                self.missed.labels(*labels).inc(max(rate * (1 - met), 0.0) * seconds)


def arrivals_of(signals: DeploymentSignals, slo: SloSignals) -> float | None:
    """Requests/s of a class: those that a gate judged, else all where there is one class only."""
    judged = [
        one.judged_per_s.value
        for target in signals.targets
        if target.kind is TargetKind.GATE and target.answers
        for one in target.activity.judged
        if one.request_class == slo.request_class
    ]
    if judged:
        return sum(rate for rate in judged if rate is not None)
    return signals.requests_per_s.value if len(signals.slos) == 1 else None
