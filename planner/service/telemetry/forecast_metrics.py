"""Forecast beside actual, as Prometheus reads it."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from planner.service.loop.slow_tick import Seen

SHOWN_LEVELS = (0.1, 0.5, 0.9, 0.95)
_AHEAD = ("deployment", "class", "windows_ahead")


class ForecastMetrics:
    """Gauges of the newest forecast and observation, counters of how earlier ones came out."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.expected = Gauge(
            "poolwise_forecast_requests_per_second",
            "Request rate of the newest forecast's first window, by quantile level",
            ("deployment", "class", "level"),
            registry=registry,
        )
        self.observed = Gauge(
            "poolwise_observed_requests_per_second",
            "Request rate of the newest observed window",
            ("deployment", "class"),
            registry=registry,
        )
        self.error = Gauge(
            "poolwise_forecast_error_ratio",
            "Median forecast over observed request rate minus 1, of the newest window known; "
            "above 0: too many were expected",
            _AHEAD,
            registry=registry,
        )
        self.scored = Counter(
            "poolwise_forecast_scored_windows",
            "Forecast windows that have been observed",
            _AHEAD,
            registry=registry,
        )
        self.covered = Counter(
            "poolwise_forecast_covered_windows",
            "Those of them whose request rate was at or below the 90 % quantile",
            _AHEAD,
            registry=registry,
        )

    def record(self, deployment: str, seen: Seen) -> None:
        """Show what a tick expects, saw and learned."""
        for demand in seen.forecast.windows[0].demands:
            for level in SHOWN_LEVELS:
                gauge = self.expected.labels(deployment, demand.request_class, f"{level:g}")
                gauge.set(demand.request_rate_rps.at(level))
        newest = {window.request_class: window for window in seen.windows}
        for name, window in newest.items():
            rate = window.requests / window.window_s
            self.observed.labels(deployment, name).set(rate)
        for outcome in sorted(seen.outcomes, key=lambda one: one.start_at):
            labels = (deployment, outcome.request_class, str(outcome.windows_ahead))
            self.error.labels(*labels).set(outcome.error_ratio)
            self.scored.labels(*labels).inc()
            self.covered.labels(*labels).inc(int(outcome.covered))
