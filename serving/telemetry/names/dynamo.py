"""Dynamo's frontend and its router: lib/runtime/src/metrics/prometheus_names.rs of 1.6.

Its workers also serve their engine's own metrics, which are read as vLLM's or SGLang's.
"""

from serving.telemetry.quantities import Metric, Names, Quantity, Series, named

PREFIXES = ("dynamo_frontend_",)

_REQUESTS = "dynamo_frontend_requests_total"
_ERRORS = (("status", ("error",)),)
_BLOCKS = Series("dynamo_frontend_model_total_kv_blocks")

NAMES: Names = {
    Quantity.RUNNING: named("dynamo_frontend_inflight_requests", "dynamo_frontend_active_requests"),
    Quantity.WAITING: named("dynamo_frontend_queued_requests"),
    Quantity.KV_USAGE_RATIO: (
        Metric(of=(Series("dynamo_frontend_worker_active_decode_blocks"),), over=(_BLOCKS,)),
        *named(
            "dynamo_component_gpu_cache_usage_percent",
            "dynamo_component_kvstats_gpu_cache_usage_percent",
        ),
    ),
    Quantity.KV_CAPACITY_TOKENS: (
        Metric(of=(_BLOCKS,), times=(Series("dynamo_frontend_model_kv_cache_block_size"),)),
    ),
    Quantity.HIT_RATIO: (
        Metric(
            of=(Series("dynamo_component_router_kv_hit_rate_sum"),),
            over=(Series("dynamo_component_router_kv_hit_rate_count"),),
        ),
        *named("dynamo_component_kvstats_gpu_prefix_cache_hit_rate"),
    ),
    Quantity.REQUESTS: (Metric(of=(Series(_REQUESTS, unless=_ERRORS),)),),
    Quantity.FAILED: (Metric(of=(Series(_REQUESTS, where=_ERRORS),)),),
    Quantity.INPUT_TOKENS: named("dynamo_frontend_input_sequence_tokens_sum"),
    Quantity.OUTPUT_TOKENS: named(
        "dynamo_frontend_output_tokens_total", "dynamo_frontend_output_sequence_tokens_sum"
    ),
    Quantity.HITS: named("dynamo_frontend_cached_tokens_sum"),
    Quantity.LOOKUPS: named("dynamo_frontend_input_sequence_tokens_sum"),
    Quantity.CACHED_TOKENS: named("dynamo_frontend_cached_tokens_sum"),
    Quantity.TTFT_S: named("dynamo_frontend_time_to_first_token_seconds"),
    Quantity.ITL_S: named("dynamo_frontend_inter_token_latency_seconds"),
    Quantity.E2E_S: named("dynamo_frontend_request_duration_seconds"),
    Quantity.TRANSFERS: named(
        "dynamo_component_router_kv_transfer_estimated_latency_seconds_count"
    ),
    Quantity.TRANSFER_S: named("dynamo_component_router_kv_transfer_estimated_latency_seconds"),
    Quantity.PROMPT_TOKENS: named("dynamo_frontend_input_sequence_tokens"),
    Quantity.ANSWER_TOKENS: named("dynamo_frontend_output_sequence_tokens"),
}
