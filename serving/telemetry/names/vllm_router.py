"""vllm-router: src/metrics.rs of 0.1.17. It tells nothing of first tokens or gaps."""

from serving.telemetry.quantities import Metric, Names, Quantity, Series, named

PREFIXES = ("vllm_router_",)

NAMES: Names = {
    Quantity.RUNNING: named("vllm_router_running_requests", "vllm_router_worker_load"),
    Quantity.REQUESTS: named("vllm_router_pd_requests_total", "vllm_router_requests_total"),
    Quantity.FAILED: (
        Metric(
            of=(
                Series("vllm_router_request_errors_total"),
                Series("vllm_router_pd_errors_total"),
                Series("vllm_router_pd_stream_errors_total"),
            )
        ),
    ),
    Quantity.E2E_S: named(
        "vllm_router_pd_request_duration_seconds",
        "vllm_router_generate_duration_seconds",
        "vllm_router_request_duration_seconds",
    ),
}
