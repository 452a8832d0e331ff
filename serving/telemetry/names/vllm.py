"""vLLM engines: vllm/v1/metrics/loggers.py of 0.32, older names as they were until 0.6 to 0.11."""

from serving.telemetry.quantities import Metric, Names, Quantity, Series, named

PREFIXES = ("vllm_num_requests", "vllm_prompt_tokens", "vllm_cache_config_info")

_BY_SOURCE = "vllm:prompt_tokens_by_source_total"
_FINISHED = "vllm:request_success_total"
_FAILURES = (("finished_reason", ("abort", "error")),)


def _from(source: str) -> tuple[Metric, ...]:
    return (Metric(of=(Series(_BY_SOURCE, where=(("source", (source,)),)),)),)


NAMES: Names = {
    Quantity.RUNNING: named("vllm:num_requests_running"),
    Quantity.WAITING: named("vllm:num_requests_waiting"),
    Quantity.WAITING_FOR_KV: (
        # The other stages wait for the worker itself: waiting_to_start for its memory,
        # completed_waiting for a place in its batch.
        Metric(
            of=(
                Series("vllm:num_requests_kv_fetch_by_stage", where=(("stage", ("in_progress",)),)),
            )
        ),
        Metric(
            of=(Series("vllm:num_requests_waiting_by_reason", where=(("reason", ("deferred",)),)),)
        ),
    ),
    Quantity.KV_USAGE_RATIO: named("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    Quantity.KV_CAPACITY_TOKENS: (
        Metric(
            of=(Series("vllm:cache_config_info"),),
            labels=("num_gpu_blocks", "block_size"),
        ),
    ),
    Quantity.HIT_RATIO: named("vllm:gpu_prefix_cache_hit_rate"),
    Quantity.REQUESTS: (Metric(of=(Series(_FINISHED, unless=_FAILURES),)),),
    Quantity.FAILED: (
        Metric(of=(Series(_FINISHED, where=_FAILURES), Series("vllm:admission_rejections_total"))),
    ),
    Quantity.PREEMPTIONS: named("vllm:num_preemptions_total"),
    Quantity.INPUT_TOKENS: named("vllm:prompt_tokens_total"),
    Quantity.OUTPUT_TOKENS: named("vllm:generation_tokens_total"),
    Quantity.COMPUTED_TOKENS: _from("local_compute"),
    Quantity.CACHED_TOKENS: _from("local_cache_hit"),
    Quantity.TRANSFERRED_TOKENS: _from("external_kv_transfer"),
    Quantity.HITS: named("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
    Quantity.LOOKUPS: named(
        "vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"
    ),
    Quantity.EXTERNAL_HITS: named("vllm:external_prefix_cache_hits_total"),
    Quantity.EXTERNAL_LOOKUPS: named("vllm:external_prefix_cache_queries_total"),
    Quantity.TRANSFERS: named("vllm:nixl_xfer_time_seconds_count"),
    Quantity.TRANSFER_BYTES: named("vllm:nixl_bytes_transferred_sum"),
    Quantity.TRANSFERS_FAILED: named("vllm:nixl_num_failed_transfers_total"),
    Quantity.TRANSFERS_EXPIRED: named("vllm:nixl_num_kv_expired_reqs_total"),
    Quantity.TTFT_S: named("vllm:time_to_first_token_seconds"),
    Quantity.ITL_S: named("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
    Quantity.TPOT_S: named("vllm:request_time_per_output_token_seconds"),
    Quantity.E2E_S: named("vllm:e2e_request_latency_seconds"),
    Quantity.QUEUEING_S: named("vllm:request_queue_time_seconds"),
    Quantity.PREFILLING_S: named("vllm:request_prefill_time_seconds"),
    Quantity.DECODING_S: named("vllm:request_decode_time_seconds"),
    Quantity.TRANSFER_S: named("vllm:nixl_xfer_time_seconds"),
    Quantity.STEP_TOKENS: named("vllm:iteration_tokens_total"),
    Quantity.PROMPT_TOKENS: named("vllm:request_prompt_tokens"),
    Quantity.ANSWER_TOKENS: named("vllm:request_generation_tokens"),
}
