"""One metric of several deployments, which each of them has a collector of."""

from collections.abc import Callable, Iterator

from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector


class Several(Collector):
    """The collectors of deployments, by name, told as one: a metric's series stand together.

    Parameters
    ----------
    described : callable
        Every metric that there may be.
    """

    def __init__(self, described: Callable[[], list[Metric]]) -> None:
        self.of: dict[str, Collector] = {}
        self._described = described

    def describe(self) -> list[Metric]:
        """Every metric that there may be."""
        return self._described()

    def collect(self) -> Iterator[Metric]:
        """What is known of any of them."""
        found: dict[str, Metric] = {}
        for one in tuple(self.of.values()):
            for metric in one.collect():
                if metric.name in found:
                    found[metric.name].samples.extend(metric.samples)
                else:
                    found[metric.name] = metric
        yield from found.values()


def forget(collectors: list[Collector], deployment: str) -> None:
    """Take away every series of a deployment."""
    for one in collectors:
        if isinstance(one, Several):
            one.of.pop(deployment, None)
        elif isinstance(one, MetricWrapperBase) and "deployment" in one._labelnames:
            one.remove_by_labels({"deployment": deployment})
