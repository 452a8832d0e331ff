from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from scipy.stats import spearmanr

from forecaster.readers import read_trace
from forecaster.synthesize import LognormalLengths, TraceDescription, synthesize
from forecaster.trace_statistics import rank_correlation, trace_statistics
from planner.domain.workload import PrefixBlocks, Workload

START = datetime(2026, 1, 1, tzinfo=UTC)


def drawn(seed: int = 0, **fields) -> Workload:
    asked = {
        "name": "t",
        "source": "test",
        "request_rate_rps": 5.0,
        "duration_s": 3000.0,
        "isl": LognormalLengths(p50=900.0, p99=9000.0),
        "osl": LognormalLengths(p50=20.0, p99=200.0),
    } | fields
    return synthesize(TraceDescription(**asked), start_at=START, rng=np.random.default_rng(seed))


def arriving(seconds: np.ndarray) -> Workload:
    ones = np.ones(len(seconds), dtype=np.int64)
    return Workload(
        start_at=START,
        arrival_offset_s=seconds,
        input_tokens=9 * ones,
        output_tokens=ones,
        cached_tokens=0 * ones,
        request_class=np.full(len(seconds), "default"),
        duration_s=float(seconds[-1]) + 1.0,
    )


def test_poisson_arrivals_have_cv_and_dispersion_1_and_no_hole():
    found = trace_statistics(drawn(), tick_s=None)
    assert found.arrival_cv == pytest.approx(1.0, abs=0.05)
    assert [peak.window_s for peak in found.peaks] == [1.0, 60.0, 300.0]
    assert found.peaks[0].dispersion == pytest.approx(1.0, abs=0.1)
    assert found.gaps == ()
    assert found.rate_rps == pytest.approx(5.0, rel=0.05)
    assert found.isl.quantiles[2] == pytest.approx(900, rel=0.05)


@pytest.mark.parametrize("cv", [3.0, 10.0])
def test_bursty_arrivals_have_no_hole_either(cv):
    assert trace_statistics(drawn(arrival_cv=cv), tick_s=None).gaps == ()


def test_holes_are_listed_longest_first():
    times = drawn().arrival_offset_s
    times = times + 100.0 * (times > 1000.0) + 60.0 * (times > 2000.0)
    found = trace_statistics(arriving(times), tick_s=None).gaps
    assert [round(gap.length_s, -1) for gap in found] == [100.0, 60.0]
    assert found[0].start_s == pytest.approx(1000, abs=2)
    assert found[0].expected_requests == pytest.approx(500, rel=0.3)


def test_nothing_shorter_than_ten_ticks_is_told():
    found = trace_statistics(drawn(), tick_s=3.0)
    assert [peak.window_s for peak in found.peaks] == [60.0, 300.0]
    assert found.arrival_cv is None


def test_one_request_is_described():
    found = trace_statistics(arriving(np.array([0.0])), tick_s=None)
    assert (found.requests, found.arrival_cv, found.peaks, found.gaps) == (1, None, (), ())
    assert found.length_correlation == 0.0
    assert found.joint.share.sum() == 1.0


def test_the_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    one, other = rng.integers(1, 30, 500), rng.integers(1, 30, 500)
    other += one
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one, other).statistic)


def test_a_cache_saves_what_fits_into_it():
    # two prompts of two blocks in turn: a cache of two blocks holds only the last one
    trace = replace(
        arriving(np.arange(8.0)),
        input_tokens=np.full(8, 20),
        cached_tokens=np.array([0, 0] + [19] * 6),
        prefix=PrefixBlocks(
            block_tokens=10,
            offsets=np.arange(9) * 2,
            block_ids=np.tile([1, 2, 3, 4], 4),
        ),
    )
    found = trace_statistics(trace, tick_s=None)
    assert found.reuse_ratio == 6 * 19 / 160
    assert found.unique_tokens == 40
    saved = {one.cache_tokens: one.reuse_ratio for one in found.cache_reuse}
    assert saved == {10: 0.0, 20: 0.0, 40: 6 * 19 / 160}


def test_mooncake_is_described_as_published(poolwise_data):
    trace = read_trace(poolwise_data / "traces" / "mooncake_conversation_trace.jsonl")
    found = trace_statistics(trace.workload, tick_s=trace.report.arrival_tick_s)
    assert found.reuse_ratio == pytest.approx(0.374, abs=0.001)
    assert found.cache_reuse[-1].reuse_ratio == pytest.approx(found.reuse_ratio)
    assert all(
        a.reuse_ratio <= b.reuse_ratio
        for a, b in zip(found.cache_reuse, found.cache_reuse[1:], strict=False)
    )
    assert [peak.window_s for peak in found.peaks] == [60.0, 300.0]
    assert found.gaps == ()


def test_azure_code_has_the_peaks_that_it_is_known_for(poolwise_data):
    trace = read_trace(poolwise_data / "traces" / "AzureLLMInferenceTrace_code.csv")
    found = trace_statistics(trace.workload, tick_s=None)
    assert found.peaks[0].peak_to_mean == pytest.approx(26, abs=0.5)
    assert found.arrival_cv == pytest.approx(13.15, abs=0.05)
