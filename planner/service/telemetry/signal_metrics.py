"""What is seen of the deployment, as Prometheus reads it: what is not known is left out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from planner.domain.plan import Bottleneck
from serving.telemetry.signals import (
    Activity,
    DeploymentSignals,
    ForecastBeside,
    HardwareSignals,
    Latency,
    Signal,
    SloSignals,
)

Sample = tuple[tuple[str, ...], Signal]
Read = Callable[[DeploymentSignals], Iterable[Sample]]


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name, what it says, its labels after `deployment`, and where it is read."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Read


def _one(of: Callable[[DeploymentSignals], Signal]) -> Read:
    return lambda signals: [((), of(signals))]


def _quantiles(of: Callable[[DeploymentSignals], Latency]) -> Read:
    def read(signals: DeploymentSignals) -> list[Sample]:
        latency = of(signals)
        return [(("0.5",), latency.p50_s), (("0.95",), latency.p95_s), (("0.99",), latency.p99_s)]

    return read


def _roles(of: Callable[[Activity], Signal]) -> Read:
    return lambda signals: [((role.role.value,), of(role.activity)) for role in signals.roles]


def _hardware(of: Callable[[HardwareSignals], Signal]) -> Read:
    return _roles(lambda activity: of(activity.hardware))


def _classes(of: Callable[[SloSignals], Signal]) -> Read:
    return lambda signals: [((slo.request_class,), of(slo)) for slo in signals.slos]


def _expected_ttft(signals: DeploymentSignals) -> list[Sample]:
    expected = signals.expected
    if expected is None:
        return []
    return [(("0.5",), expected.ttft_p50_s), (("0.95",), expected.ttft_p95_s)]


def _expected_itl(signals: DeploymentSignals) -> list[Sample]:
    return [(("0.95",), signals.expected.itl_p95_s)] if signals.expected else []


def _expected_attainment(signals: DeploymentSignals) -> list[Sample]:
    return [((), signals.expected.attainment_ratio)] if signals.expected else []


def _forecast(
    median: Callable[[ForecastBeside], Signal], high: Callable[[ForecastBeside], Signal]
) -> Read:
    def read(signals: DeploymentSignals) -> list[Sample]:
        beside = signals.forecast
        return [] if beside is None else [(("0.5",), median(beside)), (("0.9",), high(beside))]

    return read


def _kv_usage(signals: DeploymentSignals) -> Iterator[Sample]:
    for role in signals.roles:
        yield (role.role.value, "mean"), role.activity.kv_usage_ratio
        yield (role.role.value, "max"), role.activity.kv_usage_most_ratio


def _workers(signals: DeploymentSignals) -> Iterator[Sample]:
    for role in signals.roles:
        down = role.workers - role.answering
        yield (role.role.value, "answering"), Signal(value=float(role.answering))
        yield (role.role.value, "down"), Signal(value=float(down))


def _bottleneck(signals: DeploymentSignals) -> list[Sample]:
    """One of them is 1; none at all where it is not known."""
    found = signals.bottleneck
    if found is None:
        return []
    return [((one.value,), Signal(value=float(one is found))) for one in Bottleneck]


def _bound(end: str) -> Callable[[SloSignals], Signal]:
    def of(slo: SloSignals) -> Signal:
        told = slo.attainment_ratio
        value: float | None = getattr(told, end) if slo.from_bounds else told.value
        return Signal(value=value) if value is not None else Signal.lacking("no bound")

    return of


FAMILIES: tuple[Family, ...] = (
    Family(
        "poolwise_ttft_seconds",
        "Time to first token as users have it over the last interval, by quantile level",
        ("level",),
        _quantiles(lambda s: s.ttft),
    ),
    Family(
        "poolwise_itl_seconds",
        "Gap between two tokens over the last interval, by quantile level",
        ("level",),
        _quantiles(lambda s: s.itl),
    ),
    Family(
        "poolwise_e2e_seconds",
        "End-to-end time of a request over the last interval, by quantile level",
        ("level",),
        _quantiles(lambda s: s.e2e),
    ),
    Family(
        "poolwise_expected_ttft_seconds",
        "TTFT that the profiles predict for the load and workers observed, by quantile level",
        ("level",),
        _expected_ttft,
    ),
    Family(
        "poolwise_expected_itl_seconds",
        "ITL that the profiles predict for the load and workers observed, by quantile level",
        ("level",),
        _expected_itl,
    ),
    Family(
        "poolwise_expected_attainment_ratio",
        "Share of requests in time that the profiles predict for the load and workers observed",
        (),
        _expected_attainment,
    ),
    Family(
        "poolwise_served_requests_per_second",
        "Requests that were answered, each counted once",
        (),
        _one(lambda s: s.requests_per_s),
    ),
    Family(
        "poolwise_input_tokens_per_second",
        "Prompt tokens taken in",
        (),
        _one(lambda s: s.input_tokens_per_s),
    ),
    Family(
        "poolwise_output_tokens_per_second",
        "Tokens generated",
        (),
        _one(lambda s: s.output_tokens_per_s),
    ),
    Family(
        "poolwise_forecast_now_requests_per_second",
        "Request rate that had been forecast for now, by quantile level",
        ("level",),
        _forecast(lambda f: f.expected_rps, lambda f: f.expected_high_rps),
    ),
    Family(
        "poolwise_forecast_now_input_tokens_per_second",
        "Prompt tokens that had been forecast for now, by quantile level",
        ("level",),
        _forecast(
            lambda f: f.expected_input_tokens_per_s, lambda f: f.expected_high_input_tokens_per_s
        ),
    ),
    Family(
        "poolwise_forecast_now_output_tokens_per_second",
        "Answer tokens that had been forecast for now, by quantile level",
        ("level",),
        _forecast(
            lambda f: f.expected_output_tokens_per_s, lambda f: f.expected_high_output_tokens_per_s
        ),
    ),
    Family(
        "poolwise_accelerator_utilization_ratio",
        "Share of time in which a kernel ran, mean over the role's accelerators",
        ("role",),
        _hardware(lambda h: h.accelerator_ratio),
    ),
    Family(
        "poolwise_accelerator_memory_used_ratio",
        "Accelerator memory (HBM) in use",
        ("role",),
        _hardware(lambda h: h.memory_used_ratio),
    ),
    Family(
        "poolwise_accelerator_power_watts",
        "Power that the role's accelerators take",
        ("role",),
        _hardware(lambda h: h.power_w),
    ),
    Family(
        "poolwise_worker_cpu_cores",
        "Processor cores that the role's workers keep busy",
        ("role",),
        _hardware(lambda h: h.cpu_cores),
    ),
    Family(
        "poolwise_worker_resident_memory_bytes",
        "Main memory that the role's workers hold",
        ("role",),
        _hardware(lambda h: h.resident_bytes),
    ),
    Family(
        "poolwise_kv_usage_ratio",
        "KV cache in use: mean over the role's KV memory, and of the fullest worker",
        ("role", "statistic"),
        _kv_usage,
    ),
    Family(
        "poolwise_preemptions_per_second",
        "Requests put back for want of KV memory",
        ("role",),
        _roles(lambda a: a.preemptions_per_s),
    ),
    Family(
        "poolwise_running_requests",
        "Requests in the batches",
        ("role",),
        _roles(lambda a: a.running),
    ),
    Family(
        "poolwise_queued_requests",
        "Requests that wait at the role's workers",
        ("role",),
        _roles(lambda a: a.waiting),
    ),
    Family(
        "poolwise_queued_for_kv_requests",
        "Those that wait for a KV cache from another worker",
        ("role",),
        _roles(lambda a: a.waiting_for_kv),
    ),
    Family(
        "poolwise_prefix_hit_ratio",
        "Prompt tokens found in a prefix cache",
        (),
        _one(lambda s: s.prefix_hit_ratio),
    ),
    Family(
        "poolwise_kv_transfer_seconds",
        "Time of one KV transfer over the last interval, by quantile level",
        ("level",),
        _quantiles(lambda s: s.transfer.latency),
    ),
    Family(
        "poolwise_kv_transfer_bytes_per_second",
        "KV cache moved between workers",
        (),
        _one(lambda s: s.transfer.bytes_per_s),
    ),
    Family(
        "poolwise_kv_transfer_failures_per_second",
        "KV transfers that failed",
        (),
        _one(lambda s: s.transfer.failed_per_s),
    ),
    Family(
        "poolwise_fleet_usd_per_hour",
        "Price of all workers, USD/h",
        (),
        _one(lambda s: s.usd_per_hour),
    ),
    Family(
        "poolwise_usd_per_million_output_tokens",
        "Price of a million generated tokens at the observed rate, USD",
        (),
        _one(lambda s: s.usd_per_million_tokens),
    ),
    Family(
        "poolwise_slo_target_ratio",
        "Share of arrivals that the class was promised in time",
        ("class",),
        _classes(lambda slo: Signal(value=slo.target_ratio)),
    ),
    Family(
        "poolwise_slo_attainment_ratio",
        "Share of arrivals in time; the middle of its bounds where requests are not seen singly",
        ("class",),
        _classes(lambda slo: slo.attainment_ratio),
    ),
    Family(
        "poolwise_slo_attainment_low_ratio",
        "The least that share can be",
        ("class",),
        _classes(_bound("low")),
    ),
    Family(
        "poolwise_slo_attainment_high_ratio",
        "The most that share can be",
        ("class",),
        _classes(_bound("high")),
    ),
    Family(
        "poolwise_goodput_requests_per_second",
        "Requests in time",
        ("class",),
        _classes(lambda slo: slo.goodput_rps),
    ),
    Family(
        "poolwise_slo_error_budget_used_ratio",
        "Misses as a share of those that the promise allows, over the last interval",
        ("class",),
        _classes(lambda slo: slo.error_budget_used_ratio),
    ),
    Family(
        "poolwise_bottleneck",
        "1 for what the deployment is short of now by measurement; no sample: not known",
        ("bottleneck",),
        _bottleneck,
    ),
    Family("poolwise_workers", "Workers by whether they answer", ("role", "state"), _workers),
    Family(
        "poolwise_signals_timestamp_seconds",
        "When the deployment was last looked at, Unix time",
        (),
        _one(lambda s: Signal(value=s.looked_at.timestamp())),
    ),
)


class SignalCollector(Collector):
    """Exports the newest signals at every scrape; what is not known is left out.

    Parameters
    ----------
    newest : callable
        The signals, None where there are none of now.
    """

    def __init__(self, deployment: str, newest: Callable[[], DeploymentSignals | None]) -> None:
        self.deployment = deployment
        self.newest = newest

    @staticmethod
    def describe() -> list[Metric]:
        """Every metric that there may be."""
        return [SignalCollector._empty(family) for family in FAMILIES]

    def collect(self) -> Iterator[Metric]:
        """Every metric of which something is known."""
        signals = self.newest()
        if signals is None:
            return
        for family in FAMILIES:
            metric = self._empty(family)
            for labels, signal in family.read(signals):
                if signal.value is not None:
                    metric.add_metric([self.deployment, *labels], signal.value)
            if metric.samples:
                yield metric

    @staticmethod
    def _empty(family: Family) -> GaugeMetricFamily:
        return GaugeMetricFamily(family.name, family.help, labels=["deployment", *family.labels])
