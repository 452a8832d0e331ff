from datetime import UTC, datetime

import numpy as np
import pytest

from forecaster.fit import fitted
from forecaster.readers import read_trace
from forecaster.synthesize import (
    LognormalLengths,
    TraceDescription,
    mix_workloads,
    synthesize,
    synthesize_classes,
)
from forecaster.trace_statistics import trace_statistics
from planner.domain.errors import TraceError

START = datetime(2026, 1, 1, tzinfo=UTC)


def drawn_like(workload, tick_s=None, seed=0):
    descriptions = fitted(workload, tick_s=tick_s, name="t")
    return synthesize_classes(
        descriptions, start_at=workload.start_at, rng=np.random.default_rng(seed)
    )


def test_classes_are_fitted_one_by_one():
    parts = [
        synthesize(
            TraceDescription(
                name="t",
                source="test",
                request_rate_rps=rate,
                duration_s=2000.0,
                isl=LognormalLengths(p50=isl, p99=4 * isl),
                osl=LognormalLengths(p50=20.0, p99=50.0),
                arrival_cv=cv,
                reuse_ratio=reuse,
                request_class=name,
            ),
            start_at=START,
            rng=np.random.default_rng(int(isl)),
        )
        for name, rate, isl, cv, reuse in [
            ("a", 3.0, 500.0, 1.0, 0.0),
            ("b", 1.0, 5000.0, 3.0, 0.4),
        ]
    ]
    source = mix_workloads(parts)
    drawn = drawn_like(source)
    for name in ("a", "b"):
        was, now = source.request_class == name, drawn.request_class == name
        assert now.sum() == pytest.approx(was.sum(), rel=0.15)
        assert np.median(drawn.input_tokens[now]) == pytest.approx(
            np.median(source.input_tokens[was]), rel=0.1
        )
    reused = drawn.cached_tokens.sum() / drawn.input_tokens.sum()
    assert reused == pytest.approx(source.cached_tokens.sum() / source.input_tokens.sum(), abs=0.03)


def test_one_request_is_too_little_to_fit():
    lengths = LognormalLengths(p50=9.0, p99=9.0)
    one = synthesize(
        TraceDescription(
            name="t", source="t", request_rate_rps=1.0, duration_s=1.0, isl=lengths, osl=lengths,
            arrival_cv=0.0,
        ),
        start_at=START,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    with pytest.raises(TraceError, match="one request tells no rate"):
        fitted(one.between(0.0, 1.0), tick_s=None, name="t")


@pytest.mark.parametrize(
    ("name", "cv_error", "rate_error"),
    [
        ("AzureLLMInferenceTrace_conv.csv", 0.05, 0.03),
        ("AzureLLMInferenceTrace_code.csv", 0.35, 0.25),
    ],
)
def test_what_is_drawn_has_the_statistics_of_its_source(poolwise_data, name, cv_error, rate_error):
    trace = read_trace(poolwise_data / "traces" / name)
    source = trace_statistics(trace.workload, tick_s=None)
    drawn = trace_statistics(drawn_like(trace.workload), tick_s=None)
    assert drawn.rate_rps == pytest.approx(source.rate_rps, rel=rate_error)
    assert drawn.arrival_cv == pytest.approx(source.arrival_cv, rel=cv_error)
    assert drawn.length_correlation == pytest.approx(source.length_correlation, abs=0.04)
    for was, now in ((source.isl, drawn.isl), (source.osl, drawn.osl)):
        assert now.mean == pytest.approx(was.mean, rel=0.05)
        np.testing.assert_allclose(now.quantiles[1:7], was.quantiles[1:7], rtol=0.1)


def test_the_rate_over_time_and_the_reuse_are_those_of_the_source(poolwise_data):
    trace = read_trace(poolwise_data / "traces" / "mooncake_conversation_trace.jsonl")
    drawn = drawn_like(trace.workload, tick_s=trace.report.arrival_tick_s)
    reused = drawn.cached_tokens.sum() / drawn.input_tokens.sum()
    assert reused == pytest.approx(0.374, abs=0.005)
    edges = np.arange(0, 3541, 295)
    was, now = (np.histogram(w.arrival_offset_s, edges)[0] for w in (trace.workload, drawn))
    assert np.corrcoef(was, now)[0, 1] > 0.5
    np.testing.assert_allclose(now, was, rtol=0.12)
