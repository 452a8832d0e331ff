"""vLLM's own words, read into seconds, tokens and bytes."""

import pytest

from planner.domain.errors import EngineError
from serving.telemetry import parse_engine, parse_traffic
from tests.serving.metrics import Served, page

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


def test_traffic_of_any_vllm_is_read_with_its_histograms() -> None:
    reading = parse_traffic(page(Served(requests=10, isl=300, osl=51)), source="test")
    assert (reading.model, reading.running, reading.started_at_s) == ("tiny", 4.0, 1000.0)
    assert reading.total.prompt_tokens == reading.total.computed_tokens == 3000
    assert reading.total.itl_s.count == 500
    assert reading.total.itl_s.mean == pytest.approx(0.012)
    lengths = reading.total.prompt_lengths
    assert dict(zip(lengths.upper, lengths.counts, strict=True))[500.0] == 10
    assert sum(lengths.counts) == 10


def test_gaps_under_their_older_name_are_read() -> None:
    older = page(Served(requests=10), itl_name="vllm:time_per_output_token_seconds")
    assert parse_traffic(older, source="test").total.itl_s.count == 490


def test_an_interval_holds_what_came_in_it_and_a_restart_is_noticed() -> None:
    first, second = (parse_traffic(page(Served(requests=n)), source="test").total for n in (10, 25))
    assert (second - first).ttft_s.count == 15
    assert sum((second - first).itl_s.counts) == 15 * 49
    assert not (second - first).went_back
    assert (first - second).went_back


@pytest.mark.parametrize("text", ["<html>", "", "# TYPE up gauge\nup 1\n"])
def test_what_is_no_vllm_is_an_error(text: str) -> None:
    with pytest.raises(EngineError, match="is it a vLLM worker"):
        parse_traffic(text, source="http://x")
