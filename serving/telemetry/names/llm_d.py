"""llm-d's endpoint picker: pkg/epp/metrics of llm-d-router, and its two older prefixes.

`llm_d_epp_` is the newest; before it came `llm_d_router_epp_` (renaming the requests' metrics on
the way), and before that the names of the Gateway API inference extension.
"""

from serving.telemetry.quantities import Metric, Names, Quantity, Series, named

PREFIXES = ("llm_d_epp_", "llm_d_router_epp_", "inference_objective_", "inference_pool_")

_NEW, _MIDDLE = "llm_d_epp_", "llm_d_router_epp_"
_OLD, _OLD_POOL, _OLD_EXTENSION = (
    "inference_objective_",
    "inference_pool_",
    "inference_extension_",
)


_WHOLE = (("streaming", ("false",)),)
"""Answers that come whole have no first token of their own."""


def _per_pool(name: str) -> tuple[Metric, ...]:
    """Averages over the endpoints of a pool, times how many there are."""
    counted = ((_NEW, "ready_endpoints"), (_MIDDLE, "ready_endpoints"), (_OLD_POOL, "ready_pods"))
    return tuple(
        Metric(of=(Series(f"{prefix}average_{name}"),), times=(Series(f"{prefix}{count}"),))
        for prefix, count in counted
    )


NAMES: Names = {
    Quantity.RUNNING: (
        *named(f"{_NEW}request_running"),
        *_per_pool("running_requests"),
        *named(f"{_MIDDLE}running_requests", f"{_OLD}running_requests"),
    ),
    Quantity.WAITING: (*named(f"{_NEW}per_endpoint_queue_size"), *_per_pool("queue_size")),
    Quantity.KV_USAGE_RATIO: named(
        *(f"{prefix}average_kv_cache_utilization" for prefix in (_NEW, _MIDDLE, _OLD_POOL))
    ),
    Quantity.HIT_RATIO: (
        Metric(
            of=(Series(f"{_NEW}prefix_indexer_hit_ratio_sum"),),
            over=(Series(f"{_NEW}prefix_indexer_hit_ratio_count"),),
        ),
        Metric(
            of=(Series(f"{_OLD_EXTENSION}prefix_indexer_hit_ratio_sum"),),
            over=(Series(f"{_OLD_EXTENSION}prefix_indexer_hit_ratio_count"),),
        ),
    ),
    Quantity.REQUESTS: named(*(f"{p}request_total" for p in (_NEW, _MIDDLE, _OLD))),
    Quantity.FAILED: named(*(f"{p}request_error_total" for p in (_NEW, _MIDDLE, _OLD))),
    Quantity.INPUT_TOKENS: named(
        f"{_NEW}request_input_tokens_sum", f"{_MIDDLE}input_tokens_sum", f"{_OLD}input_tokens_sum"
    ),
    Quantity.OUTPUT_TOKENS: named(
        f"{_NEW}request_output_tokens_sum",
        f"{_MIDDLE}output_tokens_sum",
        f"{_OLD}output_tokens_sum",
    ),
    Quantity.HITS: named(
        f"{_NEW}request_cached_tokens_sum",
        f"{_MIDDLE}prompt_cached_tokens_sum",
        f"{_OLD}prompt_cached_tokens_sum",
    ),
    Quantity.LOOKUPS: named(
        f"{_NEW}request_input_tokens_sum", f"{_MIDDLE}input_tokens_sum", f"{_OLD}input_tokens_sum"
    ),
    Quantity.TTFT_S: tuple(
        Metric(of=(Series(f"{prefix}request_ttft_seconds", unless=_WHOLE),))
        for prefix in (_NEW, _MIDDLE, _OLD)
    ),
    Quantity.ITL_S: named(f"{_NEW}request_streaming_itl_seconds"),
    Quantity.TPOT_S: named(
        f"{_NEW}request_streaming_tpot_seconds",
        f"{_MIDDLE}request_tpot_seconds",
        f"{_OLD}request_tpot_seconds",
    ),
    Quantity.E2E_S: named(*(f"{p}request_duration_seconds" for p in (_NEW, _MIDDLE, _OLD))),
    Quantity.QUEUEING_S: named(
        *(
            f"{prefix}flow_control_request_queue_duration_seconds"
            for prefix in (_NEW, _MIDDLE, _OLD_EXTENSION)
        )
    ),
    Quantity.PROMPT_TOKENS: named(
        f"{_NEW}request_input_tokens", f"{_MIDDLE}input_tokens", f"{_OLD}input_tokens"
    ),
    Quantity.ANSWER_TOKENS: named(
        f"{_NEW}request_output_tokens", f"{_MIDDLE}output_tokens", f"{_OLD}output_tokens"
    ),
}
