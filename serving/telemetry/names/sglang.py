"""SGLang engines: python/sglang/srt/observability/metrics_collector.py, main of 2026-11."""

from serving.telemetry.quantities import Metric, Names, Quantity, Series, named

PREFIXES = ("sglang_",)

_FETCHING = (
    Series("sglang:num_decode_prealloc_queue_reqs"),
    Series("sglang:num_decode_transfer_queue_reqs"),
)

NAMES: Names = {
    Quantity.RUNNING: named("sglang:num_running_reqs"),
    Quantity.WAITING: (
        Metric(
            of=(
                Series("sglang:num_queue_reqs"),
                Series("sglang:num_prefill_bootstrap_queue_reqs"),
                *_FETCHING,
            )
        ),
    ),
    Quantity.WAITING_FOR_KV: (Metric(of=_FETCHING),),
    Quantity.KV_USAGE_RATIO: named("sglang:token_usage"),
    Quantity.KV_CAPACITY_TOKENS: named("sglang:max_total_num_tokens"),
    Quantity.HIT_RATIO: named("sglang:cache_hit_rate"),
    Quantity.REQUESTS: named(
        "sglang:num_requests_total", "sglang:e2e_request_latency_seconds_count"
    ),
    Quantity.FAILED: named("sglang:num_aborted_requests_total"),
    Quantity.PREEMPTIONS: named("sglang:num_retracted_requests_total"),
    Quantity.INPUT_TOKENS: named("sglang:prompt_tokens_total"),
    Quantity.OUTPUT_TOKENS: named("sglang:generation_tokens_total"),
    Quantity.COMPUTED_TOKENS: named("sglang:uncached_prompt_tokens_histogram_sum"),
    Quantity.CACHED_TOKENS: named("sglang:cached_tokens_total"),
    Quantity.HITS: named("sglang:cached_tokens_total"),
    Quantity.LOOKUPS: named("sglang:prompt_tokens_total"),
    Quantity.TRANSFERS: named("sglang:kv_transfer_latency_ms_count"),
    Quantity.TRANSFER_BYTES: named("sglang:kv_transfer_total_mb_sum", scale=1e6),
    Quantity.TRANSFERS_FAILED: named("sglang:num_transfer_failed_reqs_total"),
    Quantity.TTFT_S: (
        Metric(
            of=(
                Series(
                    "sglang:time_to_first_token_seconds", unless=(("is_streaming", ("false",)),)
                ),
            )
        ),
    ),
    Quantity.ITL_S: named(
        "sglang:inter_token_latency_seconds", "sglang:time_per_output_token_seconds"
    ),
    Quantity.E2E_S: named("sglang:e2e_request_latency_seconds"),
    Quantity.QUEUEING_S: named("sglang:queue_time_seconds"),
    Quantity.TRANSFER_S: named("sglang:kv_transfer_latency_ms", scale=1e-3),
    Quantity.PROMPT_TOKENS: named("sglang:prompt_tokens_histogram"),
    Quantity.ANSWER_TOKENS: named("sglang:generation_tokens_histogram"),
}
