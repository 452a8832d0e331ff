"""What Prometheus reads at `/metrics`, in a registry of its own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import Counter, Gauge, Histogram, generate_latest

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
from planner.service.telemetry.signal_metrics import SignalCollector
from planner.service.telemetry.tick_metrics import TickMetrics

_MOVING = (Outcome.APPLIED, Outcome.APPLYING, Outcome.FELL_BACK)
_POOL = ("deployment", "model", "role", "accelerator", "tp")


@dataclass(slots=True)
class Metrics:
    """Counters and gauges of one service.

    Parameters
    ----------
    desired : DesiredReplicas or None
        Counts that an autoscaler of the cluster follows, where it moves the fleet.
    stale_after_s : float
        Decisions by load that was seen longer ago do not confirm them, seconds.
    """

    desired: DesiredReplicas | None = None
    stale_after_s: float = 180.0
    registry: KnownRegistry = field(default_factory=KnownRegistry)
    ticks: Counter = field(init=False)
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
    _followers: list[Callable[[Deployment], None]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        name, registry = ("deployment",), self.registry
        if self.desired is not None:
            registry.register(self.desired)
        self.ticks = Counter(
            "poolwise_ticks", "Ticks by outcome", ("deployment", "outcome"), registry=registry
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

    def watch(self, deployment: str, election: Election) -> None:
        """Show whether this process leads, and in which term; over all processes the sum is 1."""
        name = ("deployment",)
        leads = Gauge(
            "poolwise_leader", "1 where this process moves the fleet", name, registry=self.registry
        )
        leads.labels(deployment).set_function(lambda: float(election.term() is not None))
        term = Gauge(
            "poolwise_leader_term", "Term of the newest leader seen", name, registry=self.registry
        )
        term.labels(deployment).set_function(
            lambda: float(seen.term if (seen := election.seen()) else 0)
        )

    def show(self, deployment: Deployment, live: LiveSignals) -> None:
        """Show what the store holds, and what is seen of the running deployment."""
        spec = deployment.spec
        settings = LoopMetrics(self.registry, spec, at=deployment.clock())
        self.loop.record_standing(spec.name, Standing(), spec.loop.mode)
        stored, calibrations = StoreCollector(deployment), CalibrationCollector(deployment)
        self.registry.register(stored)
        self.registry.register(calibrations)
        self.registry.register(SignalCollector(spec.name, live.newest))
        counters = SloCounters(self.registry, spec.name, classes_of(spec, deployment.model))
        live.on_signals.append(counters.record)

        def follow(made: Deployment) -> None:
            settings.show(made.spec)
            stored.deployment = calibrations.deployment = made
            counters.begin(classes_of(made.spec, made.model))

        self._followers.append(follow)

    def follow(self, deployment: Deployment) -> None:
        """Show a deployment in the place of the one before: its spec was replaced."""
        self.stale_after_s = deployment.spec.guards.stale_observation_s
        for follower in self._followers:
            follower(deployment)

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
        self.ticks.labels(deployment, report.outcome.value).inc()
        self.tick_seconds.labels(deployment).observe(took_s)
        self.loop.record(deployment, report)
        if report.outcome.value in GOOD:
            self.last_good_tick.labels(deployment).set(at.timestamp())
        self._confirm(report, at)
        if report.seen is not None:
            self.forecasts.record(deployment, report.seen)
        if report.decision is not None:
            self.record_plan(deployment, report.decision.plan)
            self.record_fleet(deployment, report.decision.diff.from_fleet)

    def _confirm(self, report: TickReport, at: datetime) -> None:
        """The exported counts hold on: this tick decided about them, by fresh load or fallback.

        Else they expire, and whatever follows them holds what it has. A fallback that the spec
        asks for is a decision for when the load cannot be seen, so that its age does not matter.
        """
        decision = report.decision
        if self.desired is None or decision is None:
            return
        falling_back = is_fallback(decision.plan.plan_id)
        if not falling_back and not (report.outcome.value in GOOD and self._is_fresh(report, at)):
            return
        if decision.diff.steps and report.outcome in _MOVING:
            self.desired.confirm()
        else:
            self.desired.publish(decision.diff.from_fleet)

    def _is_fresh(self, report: TickReport, at: datetime) -> bool:
        seen = report.seen
        return seen is not None and (at - seen.observed_at).total_seconds() <= self.stale_after_s

    def record_plan(self, deployment: str, plan: Plan) -> None:
        """Show the first window of the newest plan."""
        self.planned_usd_per_hour.labels(deployment).set(plan.usd_per_hour)
        self.planned_replicas.clear()
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
        self.fleet_replicas.clear()
        for pool in fleet.pools:
            shape = pool.shape
            pool_labels = (deployment, shape.model, shape.role.value, shape.accelerator)
            for state in ("ready", "starting", "draining"):
                count: int = getattr(pool, state)
                self.fleet_replicas.labels(*pool_labels, str(shape.tp), state).inc(count)
