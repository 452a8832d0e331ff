"""How far profiles are corrected, and observed beside predicted, as Prometheus reads it."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from planner.domain.errors import PoolwiseError
from planner.service.deployment import Deployment

_LEG = ("deployment", "profile", "leg")
_SIDE = ("deployment", "source")
_FACTOR = ("poolwise_calibration_factor", "Times the profile's seconds that plans count on", _LEG)
_BOUND = ("poolwise_calibration_at_bound", "1 where more would be needed than is allowed", _LEG)
_AGAIN = ("poolwise_profile_again", "1 where a profile should be measured again", _LEG)
_TTFT = (
    "poolwise_compared_ttft_mean_seconds",
    "Mean TTFT of the last tick, observed and predicted for the same load",
    _SIDE,
)
_ITL = (
    "poolwise_compared_itl_mean_seconds",
    "Mean gap between tokens of the last tick, observed and predicted for the same load",
    _SIDE,
)
_TOKENS = (
    "poolwise_compared_output_tokens_per_second",
    "Tokens generated in the last tick, observed and predicted for the same load",
    _SIDE,
)


class CalibrationCollector(Collector):
    """Reads the stored calibrations of the spec's own profiles, and the newest comparison."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    @staticmethod
    def describe() -> list[Metric]:
        """Every metric that there may be."""
        return [_family(*one) for one in (_FACTOR, _BOUND, _AGAIN, _TTFT, _ITL, _TOKENS)]

    def collect(self) -> Iterator[Metric]:
        """What is known; nothing where the store does not answer."""
        name = self.deployment.spec.name
        kept = self.deployment.store.calibrations(name)
        try:
            known, newest = kept.all(), kept.comparisons(limit=1)
        except PoolwiseError:
            return
        factor, bound, again = _family(*_FACTOR), _family(*_BOUND), _family(*_AGAIN)
        own = {profile.profile_id for profile in self.deployment.spec.profiles}
        for one in known:
            correction = one.correction
            if correction.profile_id in own:
                labels = [name, correction.profile_id, correction.leg.value]
                factor.add_metric(labels, correction.factor)
                bound.add_metric(labels, float(correction.at_bound))
                again.add_metric(labels, float(one.profile_again))
        ttft, itl, tokens = _family(*_TTFT), _family(*_ITL), _family(*_TOKENS)
        for compared in newest:
            for source in ("observed", "predicted"):
                means = compared.observed if source == "observed" else compared.predicted
                for family, value in (
                    (ttft, means.ttft_s),
                    (itl, means.itl_s),
                    (tokens, means.output_tokens_per_s),
                ):
                    if value is not None:
                        family.add_metric([name, source], value)
        yield from (f for f in (factor, bound, again, ttft, itl, tokens) if f.samples)


def _family(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=labels)
