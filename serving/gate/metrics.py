"""What Prometheus reads at the gate's `/metrics`, in a registry of its own."""

from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from serving.gate.records import RequestRecord

_SECONDS = (
    0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0,
)  # fmt: skip
_GAPS_S = (
    0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0,
)  # fmt: skip


@dataclass(slots=True)
class GateMetrics:
    """Counters, gauges and histograms of one gate; times in seconds."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    _counters: dict[str, Counter] = field(default_factory=dict)
    _gauges: dict[str, Gauge] = field(default_factory=dict)
    _histograms: dict[str, Histogram] = field(default_factory=dict)
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
            self._histograms[name] = Histogram(
                f"poolwise_gate_{name}_seconds",
                text,
                by_class,
                buckets=buckets,
                registry=self.registry,
            )

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
        counted = "server" if record.tokens_counted else "estimated"
        self.count("tokens", name, "input", counted, amount=record.input_tokens)
        self.count("tokens", name, "output", counted, amount=record.output_tokens)
        if record.cost_usd is not None:
            self.count("cost_usd", name, amount=record.cost_usd)
        if record.met is not None:
            self.count("judged", name, "yes" if record.met else "no")
        if record.outcome != "complete":
            return
        self._histograms["e2e"].labels(name).observe(record.e2e_s)
        for measure, observed, predicted in (
            ("ttft", record.ttft_s, record.predicted_ttft_s),
            ("tpot", record.tpot_s, record.predicted_tpot_s),
        ):
            if observed is None:
                continue
            self._histograms[measure].labels(name).observe(observed)
            if predicted is not None:
                self._histograms[f"predicted_{measure}"].labels(name).observe(predicted)
        itl = self._histograms["itl"].labels(name)
        for gap_s in gaps_s:
            itl.observe(gap_s)
