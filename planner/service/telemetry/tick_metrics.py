"""What Prometheus reads of the loop itself: its stages, its missed ticks, what people ordered."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from planner.domain.guards import Pause
from planner.domain.spec import LoopMode
from planner.service.loop.directives import Standing
from planner.service.loop.slow_tick import TickReport

_STAGE_BUCKETS_S = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


@dataclass(slots=True)
class TickMetrics:
    """Counters and gauges of the loop, in a registry."""

    registry: CollectorRegistry
    stage_seconds: Histogram = field(init=False)
    stage_failures: Counter = field(init=False)
    missed: Counter = field(init=False)
    fast_ticks: Counter = field(init=False)
    paused: Gauge = field(init=False)
    pins: Gauge = field(init=False)
    mode: Gauge = field(init=False)

    def __post_init__(self) -> None:
        name, registry = ("deployment",), self.registry
        stage = ("deployment", "stage")
        self.stage_seconds = Histogram(
            "poolwise_stage_seconds",
            "How long a tick waited for a stage",
            stage,
            registry=registry,
            buckets=_STAGE_BUCKETS_S,
        )
        self.stage_failures = Counter(
            "poolwise_stage_failures",
            "Stages that failed or overran their deadline; the last good decision counted",
            stage,
            registry=registry,
        )
        self.missed = Counter(
            "poolwise_ticks_missed",
            "Ticks that were due and not run: the one before was still at it, or the process stood",
            ("deployment", "tick", "why"),
            registry=registry,
        )
        self.fast_ticks = Counter(
            "poolwise_fast_ticks",
            "Fast ticks by outcome",
            ("deployment", "outcome"),
            registry=registry,
        )
        self.paused = Gauge(
            "poolwise_paused",
            "1 where people paused scaling in this direction, at run time",
            ("deployment", "direction"),
            registry=registry,
        )
        self.pins = Gauge(
            "poolwise_pinned_pools", "Pools that people pinned at run time", name, registry=registry
        )
        self.mode = Gauge(
            "poolwise_loop_mode",
            "1 for the mode that is in force",
            ("deployment", "mode"),
            registry=registry,
        )

    def record(self, deployment: str, report: TickReport) -> None:
        """Record how a tick went."""
        for stage, took_s in report.took_s.items():
            self.stage_seconds.labels(deployment, stage.value).observe(took_s)
        if report.failed_stage is not None:
            self.stage_failures.labels(deployment, report.failed_stage.value).inc()

    def record_standing(self, deployment: str, standing: Standing, spec_mode: LoopMode) -> None:
        """Show what people ordered."""
        for direction in (Pause.IN, Pause.OUT):
            held = standing.paused in (direction, Pause.ALL)
            self.paused.labels(deployment, direction.value).set(float(held))
        self.pins.labels(deployment).set(len(standing.pins))
        for mode in LoopMode:
            in_force = (standing.mode or spec_mode) is mode
            self.mode.labels(deployment, mode.value).set(float(in_force))
