"""What Prometheus reads at the gate's `/metrics`, in a registry of its own."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from serving.gate.records import RequestRecord

_SECONDS = (
    0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0,
)  # fmt: skip
_GAPS_S = (
    0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0,
)  # fmt: skip


class Durations(Collector):
    """A histogram of seconds by request class that takes many values at once.

    Every token of every answer is a value: the library's own takes ten times as long for one.
    """

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self._name, self._text, self._bounds = name, text, tuple(bounds)
        self._counts: dict[str, list[int]] = {}
        self._sums: dict[str, float] = {}

    def observe(self, request_class: str, seconds: Sequence[float]) -> None:
        """Count values."""
        counts = self._counts.get(request_class)
        if counts is None:
            counts = self._counts[request_class] = [0] * (len(self._bounds) + 1)
        for value in seconds:
            counts[bisect_left(self._bounds, value)] += 1
        self._sums[request_class] = self._sums.get(request_class, 0.0) + sum(seconds)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram as the library's registry wants it."""
        family = HistogramMetricFamily(self._name, self._text, labels=("request_class",))
        ends = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        for name, counts in self._counts.items():
            buckets = list(zip(ends, accumulate(counts), strict=True))
            family.add_metric((name,), buckets=buckets, sum_value=self._sums[name])
        yield family


@dataclass(slots=True)
class GateMetrics:
    """Counters, gauges and histograms of one gate; times in seconds."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    _counters: dict[str, Counter] = field(default_factory=dict)
    _gauges: dict[str, Gauge] = field(default_factory=dict)
    _durations: dict[str, Durations] = field(default_factory=dict)
    _children: dict[tuple[str, ...], Counter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        by_class = ("request_class",)
        for name, text, labels in (
            ("requests", "Requests let in, by how they ended", (*by_class, "outcome", "status")),
            ("decisions", "What became of requests, and why", (*by_class, "way", "why")),
            ("refused", "Requests refused before admission, by reason", ("reason",)),
            ("tokens", "Tokens of prompts and answers", (*by_class, "direction", "counted")),
            ("judged", "Requests with objectives, by whether all were met", (*by_class, "met")),
            ("cost_usd", "Price of the accelerator time that requests took", by_class),
            ("stale", "Decisions without fresh readings of all workers", ("cell",)),
            ("extrapolated", "Estimates beyond what the profile measured", ("cell",)),
            ("upstream_errors", "Upstreams that failed, by what happened", ("cell", "error")),
        ):
            self._counters[name] = Counter(
                f"poolwise_gate_{name}", text, labels, registry=self.registry
            )
        for name, text in (
            ("in_flight", "Requests under way"),
            ("waiting", "Requests under way without their first token"),
            ("kv_usage_ratio", "KV cache of the fullest decode worker in use, 0 to 1"),
            ("cached_ratio", "Share of prompt tokens found in prefix caches, 0 to 1"),
        ):
            self._gauges[name] = Gauge(
                f"poolwise_gate_{name}", text, ("cell",), registry=self.registry
            )
        self._gauges["records"] = Gauge(
            "poolwise_gate_records",
            "Records of requests since the start: written to the store, or dropped",
            ("result",),
            registry=self.registry,
        )
        for name, text, buckets in (
            ("ttft", "Time to first token of streamed answers", _SECONDS),
            ("tpot", "Mean gap between tokens of one answer", _GAPS_S),
            ("itl", "Gap between two tokens", _GAPS_S),
            ("e2e", "From the request's arrival to the end of its answer", _SECONDS),
            ("predicted_ttft", "Estimate beside ttft, of the same requests", _SECONDS),
            ("predicted_tpot", "Estimate beside tpot, of the same requests", _GAPS_S),
        ):
            self._durations[name] = Durations(f"poolwise_gate_{name}_seconds", text, buckets)
            self.registry.register(self._durations[name])

    def text(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self.registry)

    def count(self, name: str, *labels: str, amount: float = 1.0) -> None:
        """Add to a counter."""
        key = name, *labels
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._counters[name].labels(*labels)
        child.inc(amount)

    def show(self, name: str, cell: str, value: float | None) -> None:
        """Set a gauge; what is not known disappears, it does not become 0."""
        if value is None:
            if (cell,) in getattr(self._gauges[name], "_metrics", {}):
                self._gauges[name].remove(cell)
            return
        self._gauges[name].labels(cell).set(value)

    def show_records(self, written: int, dropped: int) -> None:
        """Show what became of records so far."""
        self._gauges["records"].labels("written").set(written)
        self._gauges["records"].labels("dropped").set(dropped)

    def record(self, record: RequestRecord, gaps_s: list[float]) -> None:
        """Count a request that was let in and is over."""
        name = record.request_class
        self.count("requests", name, record.outcome, str(record.status))
        if record.computed:
            counted = "server" if record.tokens_counted else "estimated"
            self.count("tokens", name, "input", counted, amount=record.input_tokens)
            self.count("tokens", name, "output", counted, amount=record.output_tokens)
        if record.cost_usd is not None:
            self.count("cost_usd", name, amount=record.cost_usd)
        if record.met is not None:
            self.count("judged", name, "yes" if record.met else "no")
        if record.outcome != "complete":
            return
        durations = self._durations
        durations["e2e"].observe(name, (record.e2e_s,))
        durations["itl"].observe(name, gaps_s)
        for measure, observed, predicted in (
            ("ttft", record.ttft_s, record.predicted_ttft_s),
            ("tpot", record.tpot_s, record.predicted_tpot_s),
        ):
            if observed is None:
                continue
            durations[measure].observe(name, (observed,))
            if predicted is not None:
                durations[f"predicted_{measure}"].observe(name, (predicted,))
