"""What Prometheus reads at `/metrics`, in a registry of its own."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from math import inf

from prometheus_client import Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from actuators.metrics import DesiredReplicas
from planner.domain.fleet import Fleet
from planner.domain.plan import Plan
from planner.service.deployment import Deployment
from planner.service.election.leadership import Election
from planner.service.live.observing import classes_of
from planner.service.live.watching import LiveSignals
from planner.service.loop.directives import Standing
from planner.service.loop.falling_back import is_fallback
from planner.service.loop.slow_tick import GOOD, Outcome, TickReport
from planner.service.telemetry.calibration_metrics import CalibrationCollector
from planner.service.telemetry.forecast_metrics import ForecastMetrics
from planner.service.telemetry.metrics_catalogue import KnownRegistry
from planner.service.telemetry.own_metrics import LoopMetrics, SloCounters, StoreCollector
from planner.service.telemetry.several import Several, forget
from planner.service.telemetry.signal_metrics import SignalCollector
from planner.service.telemetry.tick_metrics import TickMetrics

_MOVING = (Outcome.APPLIED, Outcome.APPLYING, Outcome.FELL_BACK)
STALE_AFTER_S = 180.0
"""Decisions by load that was seen longer ago do not confirm exported counts, where no spec says
otherwise."""
_POOL = ("deployment", "model", "role", "accelerator", "tp")


@dataclass(slots=True)
class Metrics:
    """Counters and gauges of one service: all but those of requests have a label `deployment`."""

    registry: KnownRegistry = field(default_factory=KnownRegistry)
    ticks: Counter = field(init=False)
    lowered: Counter = field(init=False)
    tick_seconds: Histogram = field(init=False)
    last_good_tick: Gauge = field(init=False)
    loop: TickMetrics = field(init=False)
    requests: Counter = field(init=False)
    refusals: Counter = field(init=False)
    planned_replicas: Gauge = field(init=False)
    fleet_replicas: Gauge = field(init=False)
    planned_usd_per_hour: Gauge = field(init=False)
    predicted_attainment: Gauge = field(init=False)
    predicted_seconds: Gauge = field(init=False)
    forecasts: ForecastMetrics = field(init=False)
    settings: LoopMetrics = field(init=False)
    slos: SloCounters = field(init=False)
    leader: Gauge = field(init=False)
    leader_term: Gauge = field(init=False)
    _several: dict[type[Collector], Several] = field(init=False)
    _stale_after_s: dict[str, float] = field(default_factory=dict, init=False)
    _ended: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        name, registry = ("deployment",), self.registry
        self._several = {
            kind: Several(described)
            for kind, described in (
                (DesiredReplicas, DesiredReplicas.described),
                (StoreCollector, StoreCollector.describe),
                (CalibrationCollector, CalibrationCollector.describe),
                (SignalCollector, SignalCollector.describe),
            )
        }
        for several in self._several.values():
            registry.register(several)
        self.ticks = Counter(
            "poolwise_ticks", "Ticks by outcome", ("deployment", "outcome"), registry=registry
        )
        self.lowered = Counter(
            "poolwise_lowered_ticks",
            "Ticks that planned for less than they were to, as no fleet serves that",
            name,
            registry=registry,
        )
        self.tick_seconds = Histogram(
            "poolwise_tick_seconds", "Duration of a tick", name, registry=registry
        )
        self.last_good_tick = Gauge(
            "poolwise_last_good_tick_timestamp_seconds",
            "When a tick last came to a decision, Unix time",
            name,
            registry=registry,
        )
        self.requests = Counter(
            "poolwise_http_requests", "API requests", ("method", "status"), registry=registry
        )
        self.refusals = Counter(
            "poolwise_http_refusals", "API requests not let in", ("reason",), registry=registry
        )
        self.planned_replicas = Gauge(
            "poolwise_planned_replicas", "Replicas of the newest plan", _POOL, registry=registry
        )
        self.fleet_replicas = Gauge(
            "poolwise_fleet_replicas",
            "Replicas of the fleet by state",
            (*_POOL, "state"),
            registry=registry,
        )
        self.planned_usd_per_hour = Gauge(
            "poolwise_planned_usd_per_hour", "Cost of the newest plan", name, registry=registry
        )
        self.predicted_attainment = Gauge(
            "poolwise_predicted_attainment_ratio",
            "Predicted share of requests within their objectives, newest plan",
            name,
            registry=registry,
        )
        self.predicted_seconds = Gauge(
            "poolwise_predicted_latency_seconds",
            "Predicted latency, newest plan",
            ("deployment", "metric"),
            registry=registry,
        )

        self.forecasts = ForecastMetrics(registry)
        self.loop = TickMetrics(registry)
        self.settings, self.slos = LoopMetrics(registry), SloCounters(registry)
        self.leader = Gauge(
            "poolwise_leader", "1 where this process moves the fleet", name, registry=registry
        )
        self.leader_term = Gauge(
            "poolwise_leader_term", "Term of the newest leader seen", name, registry=registry
        )

    def watch(self, deployment: str, election: Election) -> None:
        """Show whether this process leads, and in which term; over all processes the sum is 1."""
        self.leader.labels(deployment).set_function(lambda: float(election.term() is not None))
        self.leader_term.labels(deployment).set_function(
            lambda: float(seen.term if (seen := election.seen()) else 0)
        )

    def export(self, desired: DesiredReplicas) -> None:
        """Show counts that an autoscaler of the cluster follows, where it moves the fleet."""
        self._several[DesiredReplicas].of[desired.deployment] = desired

    def show(self, deployment: Deployment, live: LiveSignals) -> None:
        """Show what the store holds, and what is seen of the running deployment."""
        name = deployment.spec.name
        self._ended.discard(name)
        self.settings.start.labels(name).set(deployment.clock().timestamp())
        self.loop.record_standing(name, Standing(), deployment.spec.loop.mode)
        self._several[SignalCollector].of[name] = SignalCollector(name, live.newest)
        self.follow(deployment)
        live.on_signals.append(partial(self.slos.record, name))

    def follow(self, deployment: Deployment) -> None:
        """Show a deployment in the place of the one before: its spec was replaced."""
        spec = deployment.spec
        self._stale_after_s[spec.name] = spec.guards.stale_observation_s
        self.settings.show(spec)
        self._several[StoreCollector].of[spec.name] = StoreCollector(deployment)
        self._several[CalibrationCollector].of[spec.name] = CalibrationCollector(deployment)
        self.slos.begin(spec.name, classes_of(spec, deployment.model))

    def forget(self, deployment: str) -> None:
        """Show nothing of a deployment any more, whatever is under way."""
        self._ended.add(deployment)
        forget(self.registry.collectors, deployment)

    def text(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self.registry)

    def count_request(self, method: str, status: int) -> None:
        """Count one answered API request."""
        self.requests.labels(method, str(status)).inc()

    def count_refusal(self, reason: str) -> None:
        """Count one API request that was not let through to its route."""
        self.refusals.labels(reason).inc()

    def record_tick(
        self, deployment: str, report: TickReport, *, at: datetime, took_s: float
    ) -> None:
        """Record what a tick came to."""
        if deployment in self._ended:
            return
        self.ticks.labels(deployment, report.outcome.value).inc()
        self.tick_seconds.labels(deployment).observe(took_s)
        self.loop.record(deployment, report)
        if report.outcome.value in GOOD:
            self.last_good_tick.labels(deployment).set(at.timestamp())
        self._confirm(deployment, report, at)
        if report.seen is not None:
            self.forecasts.record(deployment, report.seen)
        if report.decision is not None:
            if report.decision.lowered:
                self.lowered.labels(deployment).inc()
            self.record_plan(deployment, report.decision.plan)
            self.record_fleet(deployment, report.decision.diff.from_fleet)

    def _confirm(self, deployment: str, report: TickReport, at: datetime) -> None:
        """The exported counts hold on: this tick decided about them, by fresh load or fallback.

        Else they expire, and whatever follows them holds what it has. A fallback that the spec
        asks for is a decision for when the load cannot be seen, so that its age does not matter.
        """
        decision, desired = report.decision, self._several[DesiredReplicas].of.get(deployment)
        if not isinstance(desired, DesiredReplicas) or decision is None:
            return
        falling_back = is_fallback(decision.plan.plan_id)
        stale_after_s = self._stale_after_s.get(deployment, STALE_AFTER_S)
        fresh = _age_s(report, at) <= stale_after_s
        if not falling_back and not (report.outcome.value in GOOD and fresh):
            return
        if decision.diff.steps and report.outcome in _MOVING:
            desired.confirm()
        else:
            desired.publish(decision.diff.from_fleet)

    def record_plan(self, deployment: str, plan: Plan) -> None:
        """Show the first window of the newest plan."""
        self.planned_usd_per_hour.labels(deployment).set(plan.usd_per_hour)
        self.planned_replicas.remove_by_labels({"deployment": deployment})
        if not plan.windows:
            return
        first = plan.windows[0]
        for pool in first.pools:
            shape = pool.shape
            self.planned_replicas.labels(
                deployment, shape.model, shape.role.value, shape.accelerator, str(shape.tp)
            ).inc(pool.replicas)
        if first.predicted.attainment_ratio is not None:
            self.predicted_attainment.labels(deployment).set(first.predicted.attainment_ratio)
        for metric in ("ttft_p95_s", "tpot_p95_s", "itl_p95_s"):
            value: float | None = getattr(first.predicted, metric)
            if value is not None:
                self.predicted_seconds.labels(deployment, metric.removesuffix("_s")).set(value)

    def record_fleet(self, deployment: str, fleet: Fleet) -> None:
        """Show the fleet by state."""
        self.fleet_replicas.remove_by_labels({"deployment": deployment})
        for pool in fleet.pools:
            shape = pool.shape
            pool_labels = (deployment, shape.model, shape.role.value, shape.accelerator)
            for state in ("ready", "starting", "draining"):
                count: int = getattr(pool, state)
                self.fleet_replicas.labels(*pool_labels, str(shape.tp), state).inc(count)


def _age_s(report: TickReport, at: datetime) -> float:
    """How old the load was that a tick decided by, seconds; infinite where it saw none."""
    return inf if report.seen is None else (at - report.seen.observed_at).total_seconds()
