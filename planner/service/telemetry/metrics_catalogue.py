"""Which metrics there are: for the documentation, dashboards and alert rules to be checked by."""

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

_UNITS = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One metric as it is exported.

    Parameters
    ----------
    name : str
        With `_total` where it counts.
    series : tuple of str
        Names of its series; a histogram has several.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str
    series: tuple[str, ...]


class KnownRegistry(CollectorRegistry):
    """A registry that tells what is registered, also of what has no sample yet."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """Take a collector in."""
        super().register(collector)
        self.collectors.append(collector)

    def described(self) -> tuple[Described, ...]:
        """Every metric there may be, by name."""
        found = [one for collector in self.collectors for one in _described(collector)]
        return tuple(sorted(found, key=lambda one: one.name))


def _described(collector: Collector) -> Iterator[Described]:
    describe = getattr(collector, "describe", None)
    metrics: list[Metric] = list(describe() if describe is not None else collector.collect())
    for metric in metrics:
        labels: tuple[str, ...] = tuple(
            getattr(metric, "_labelnames", None) or getattr(collector, "_labelnames", ()) or ()
        )
        series = tuple(f"{metric.name}{end}" for end in _UNITS.get(metric.type, ("",)))
        yield Described(
            name=f"{metric.name}_total" if metric.type == "counter" else metric.name,
            kind=metric.type,
            labels=labels,
            text=metric.documentation,
            series=series,
        )


def metrics_table(registry: KnownRegistry) -> str:
    """All metrics as a table in Markdown, as `docs/metrics.md` has it."""
    rows = [
        f"| `{one.name}` | {one.kind} | {', '.join(one.labels) or '-'} | {one.text} |"
        for one in registry.described()
    ]
    return "\n".join(["| metric | type | labels | what it says |", "|---|---|---|---|", *rows])
