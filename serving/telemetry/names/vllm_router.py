"""vllm-router 0.1.17: recorded from its own page, and src/metrics.rs.

It tells nothing of first tokens or gaps, and its request durations end with the head of a streamed
answer, so they are no end-to-end time.
"""

from serving.telemetry.quantities import Metric, Names, Quantity, Series, named

PREFIXES = ("vllm_router_",)

NAMES: Names = {
    Quantity.RUNNING: named(
        "vllm_router_pd_active_decode_requests",
        "vllm_router_running_requests",
        "vllm_router_worker_load",
    ),
    Quantity.WAITING: named("vllm_router_pd_pending_decode_requests"),
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
}
