"""smg 1.13, the default router: recorded from its own page.

Over HTTP its `smg_pd_ttft_seconds` and its request durations end with the head of a streamed
answer, which vLLM sends before the KV cache has come and before the first token: they are neither
time to first token nor end-to-end time, and are not read as such. What it counts over gRPC is.
"""

from serving.telemetry.quantities import Metric, Names, Quantity, Series, named

PREFIXES = ("smg_",)


def _tokens(direction: str) -> tuple[Metric, ...]:
    series = Series("smg_router_tokens_total", where=(("token_type", (direction,)),))
    return (Metric(of=(series,)),)


NAMES: Names = {
    Quantity.RUNNING: named("smg_http_connections_active"),
    Quantity.WAITING: (
        Metric(
            of=(
                Series("smg_admission_queue_depth"),
                Series("smg_scheduler_queue_depth"),
                Series("smg_pd_prefill_admission_queued"),
            )
        ),
    ),
    Quantity.REQUESTS: named("smg_router_requests_total"),
    Quantity.FAILED: named("smg_router_request_errors_total"),
    Quantity.TTFT_S: named("smg_router_ttft_seconds"),
    Quantity.TPOT_S: named("smg_router_tpot_seconds"),
    Quantity.E2E_S: named("smg_router_generation_duration_seconds"),
    Quantity.PREFILLING_S: named("smg_pd_prefill_duration_seconds"),
    Quantity.TRANSFER_S: named("smg_pd_kv_transfer_duration_seconds"),
    Quantity.TRANSFERS_FAILED: named("smg_pd_kv_transfer_failures_total"),
    Quantity.INPUT_TOKENS: _tokens("input"),
    Quantity.OUTPUT_TOKENS: _tokens("output"),
}
