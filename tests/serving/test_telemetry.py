"""vLLM's own words, read into seconds, tokens and bytes."""

import pytest

from planner.domain.errors import EngineError
from serving.telemetry import parse_engine

SCRAPE = """
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="128",engine="0",num_gpu_blocks="2048"} 1.0
# TYPE vllm:prompt_tokens_by_source counter
vllm:prompt_tokens_by_source_total{engine="0",model_name="tiny",source="local_compute"} 10.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="tiny",source="local_cache_hit"} 20.0
vllm:prompt_tokens_by_source_total{engine="0",model_name="tiny",source="external_kv_transfer"} 30.0
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{engine="0",model_name="tiny"} 40.0
# TYPE vllm:nixl_xfer_time_seconds histogram
vllm:nixl_xfer_time_seconds_bucket{engine="0",le="+Inf",model_name="tiny"} 5.0
vllm:nixl_xfer_time_seconds_count{engine="0",model_name="tiny"} 5.0
vllm:nixl_xfer_time_seconds_sum{engine="0",model_name="tiny"} 0.5
# TYPE vllm:nixl_bytes_transferred histogram
vllm:nixl_bytes_transferred_bucket{engine="0",le="+Inf",model_name="tiny"} 5.0
vllm:nixl_bytes_transferred_count{engine="0",model_name="tiny"} 5.0
vllm:nixl_bytes_transferred_sum{engine="0",model_name="tiny"} 6000.0
# TYPE vllm:nixl_num_failed_transfers counter
vllm:nixl_num_failed_transfers_total{engine="0",model_name="tiny"} 0.0
# TYPE vllm:nixl_num_kv_expired_reqs counter
vllm:nixl_num_kv_expired_reqs_total{engine="0",model_name="tiny"} 1.0
# TYPE vllm:num_preemptions counter
vllm:num_preemptions_total{engine="0",model_name="tiny"} 0.0
# TYPE vllm:request_success counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="tiny"} 6.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 1.0
"""


def test_scrape_is_read_into_our_units() -> None:
    reading = parse_engine(SCRAPE, source="test")
    assert (reading.running, reading.waiting, reading.kv_usage_ratio) == (3, 2, 0.25)
    assert reading.kv_capacity_tokens == 2048 * 128
    counters = reading.counters
    assert counters.prompt_tokens_computed == 10
    assert counters.prompt_tokens_cached == 20
    assert counters.prompt_tokens_transferred == 30
    assert (counters.transfers, counters.transfer_s, counters.transfer_bytes) == (5, 0.5, 6000)
    assert counters.requests_finished == 7


def test_difference_of_two_readings_is_an_interval() -> None:
    earlier = parse_engine(SCRAPE, source="test").counters
    later = parse_engine(SCRAPE.replace("} 40.0", "} 55.0"), source="test").counters
    assert (later - earlier).generation_tokens == 15
    assert (later - earlier).transfers == 0


@pytest.mark.parametrize("missing", ["num_requests_waiting", "kv_cache_usage_perc"])
def test_missing_metric_is_an_error_and_never_zero(missing: str) -> None:
    without = "\n".join(line for line in SCRAPE.splitlines() if missing not in line)
    with pytest.raises(EngineError, match=f"no metric vllm:{missing}"):
        parse_engine(without, source="http://worker")
