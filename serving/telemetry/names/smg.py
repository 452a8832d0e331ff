"""smg 1.13, the default router."""

from serving.telemetry.quantities import Metric, Names, Quantity, Series, named

PREFIXES = ("smg_",)

NAMES: Names = {
    Quantity.REQUESTS: named("smg_router_requests_total"),
    Quantity.FAILED: named("smg_router_request_errors_total"),
    Quantity.TTFT_S: named("smg_pd_ttft_seconds", "smg_router_ttft_seconds"),
    Quantity.TPOT_S: named("smg_router_tpot_seconds"),
    Quantity.E2E_S: named("smg_router_request_duration_seconds"),
    Quantity.PREFILLING_S: named("smg_pd_prefill_duration_seconds"),
    Quantity.TRANSFER_S: named("smg_pd_kv_transfer_duration_seconds"),
    Quantity.TRANSFERS_FAILED: named("smg_pd_kv_transfer_failures_total"),
    Quantity.INPUT_TOKENS: (
        Metric(of=(Series("smg_router_tokens_total", where=(("token_type", ("input",)),)),)),
    ),
    Quantity.OUTPUT_TOKENS: (
        Metric(of=(Series("smg_router_tokens_total", where=(("token_type", ("output",)),)),)),
    ),
}
