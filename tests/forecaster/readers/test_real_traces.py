"""The readers against the published traces; their counts and medians are known."""

import time

import numpy as np
import pytest

from forecaster.readers import read_trace


@pytest.mark.parametrize(
    ("name", "requests", "isl_p50", "osl_p50"),
    [
        ("mooncake_conversation_trace.jsonl", 12_031, 6909, 350),
        ("AzureLLMInferenceTrace_conv.csv", 19_366, 1020, 129),
        ("AzureLLMInferenceTrace_code.csv", 8_819, 1469, 13),
    ],
)
def test_a_published_trace_reads_whole_and_fast(poolwise_data, name, requests, isl_p50, osl_p50):
    began = time.process_time()
    trace = read_trace(poolwise_data / "traces" / name)
    assert time.process_time() - began < 2.0
    assert len(trace.workload) == trace.report.rows_read == requests
    assert trace.report.rows_refused == 0
    assert np.median(trace.workload.input_tokens) == isl_p50
    assert np.median(trace.workload.output_tokens) == osl_p50


def test_mooncake_reuses_37_percent_of_its_prompt_tokens_on_a_3_s_clock(poolwise_data):
    trace = read_trace(poolwise_data / "traces" / "mooncake_conversation_trace.jsonl")
    cached = trace.workload.cached_tokens.sum() / trace.workload.input_tokens.sum()
    assert cached == pytest.approx(0.37, abs=0.005)
    assert np.quantile(trace.workload.input_tokens, 0.99) == pytest.approx(85_400, rel=0.01)
    assert trace.report.arrival_tick_s == pytest.approx(3.0, rel=1e-3)
    assert trace.workload.request_rate_rps == pytest.approx(3.4, abs=0.01)


@pytest.mark.parametrize("name", ["conv", "code"])
def test_azure_arrivals_have_a_fine_clock(poolwise_data, name):
    trace = read_trace(poolwise_data / "traces" / f"AzureLLMInferenceTrace_{name}.csv")
    assert trace.report.arrival_tick_s is None
    assert trace.workload.start_at.date().isoformat() == "2023-11-16"
