from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.readers import read_trace
from forecaster.rescale import reblock, rescale, spread_ticks
from forecaster.synthesize import LognormalLengths, TraceDescription, synthesize
from planner.domain.workload import Workload

START = datetime(2026, 1, 1, tzinfo=UTC)


def drawn(seed: int = 0, **fields) -> Workload:
    asked = {
        "name": "t",
        "source": "test",
        "request_rate_rps": 2.0,
        "duration_s": 100.0,
        "isl": LognormalLengths(p50=3000.0, p99=20_000.0),
        "osl": LognormalLengths(p50=200.0, p99=900.0),
        "reuse_ratio": 0.4,
    } | fields
    return synthesize(TraceDescription(**asked), start_at=START, rng=np.random.default_rng(seed))


def scaled(workload: Workload, **options) -> Workload:
    asked = {
        "length_ratio": 1.0,
        "rate_ratio": 1.0,
        "max_input_tokens": 10**6,
        "max_output_tokens": 10**6,
    } | options
    return rescale(workload, **asked)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 5),
    length_ratio=st.floats(1e-4, 5),
    rate_ratio=st.floats(0.01, 100),
    most=st.integers(1, 5000),
)
def test_no_request_is_lost_and_every_bound_is_kept(seed, length_ratio, rate_ratio, most):
    trace = drawn(seed)
    small = scaled(
        trace,
        length_ratio=length_ratio,
        rate_ratio=rate_ratio,
        max_input_tokens=most,
        max_output_tokens=most,
    )
    assert len(small) == len(trace)
    assert small.request_rate_rps == pytest.approx(trace.request_rate_rps * rate_ratio)
    assert small.input_tokens.max() <= most
    assert np.all(small.cached_tokens < small.input_tokens)
    assert small.prefix is not None
    assert small.prefix.block_tokens >= 1
    blocks = np.diff(small.prefix.offsets)
    assert np.all((blocks - 1) * small.prefix.block_tokens < small.input_tokens)


def test_lengths_blocks_and_cached_tokens_shrink_alike():
    trace = drawn()
    small = scaled(trace, length_ratio=1 / 32)
    np.testing.assert_allclose(small.input_tokens, trace.input_tokens / 32, atol=0.51)
    # one token for rounding, one because the last prompt token is never cached
    np.testing.assert_allclose(small.cached_tokens, trace.cached_tokens / 32, atol=2)
    assert small.prefix is not None
    assert small.prefix.block_tokens == 16
    assert trace.prefix is not None
    np.testing.assert_array_equal(small.prefix.of(7), trace.prefix.of(7)[: len(small.prefix.of(7))])


def test_a_ratio_of_one_changes_nothing():
    trace = drawn()
    same = scaled(trace)
    for name in ("arrival_offset_s", "input_tokens", "output_tokens", "cached_tokens"):
        np.testing.assert_array_equal(getattr(same, name), getattr(trace, name))
    assert same.prefix is not None
    assert trace.prefix is not None
    np.testing.assert_array_equal(same.prefix.block_ids, trace.prefix.block_ids)


@pytest.mark.parametrize(
    "options",
    [{"length_ratio": 0.0}, {"rate_ratio": float("inf")}, {"max_input_tokens": 0}],
)
def test_impossible_ratios_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        scaled(drawn(), **options)


def test_spread_arrivals_stay_in_their_tick_and_order():
    trace = drawn()
    ticks = Workload(
        start_at=START,
        arrival_offset_s=np.floor(trace.arrival_offset_s / 3.0) * 3.0,
        input_tokens=trace.input_tokens,
        output_tokens=trace.output_tokens,
        cached_tokens=trace.cached_tokens,
        request_class=trace.request_class,
        duration_s=102.0,
        prefix=trace.prefix,
    )
    spread = spread_ticks(ticks, tick_s=3.0, rng=np.random.default_rng(1))
    moved = spread.arrival_offset_s - ticks.arrival_offset_s
    assert moved.min() >= 0
    assert moved.max() < 3.0
    assert spread.duration_s == 102.0
    np.testing.assert_array_equal(spread.input_tokens, trace.input_tokens)


def test_a_tick_needs_a_length():
    with pytest.raises(ValueError, match="tick_s"):
        spread_ticks(drawn(), tick_s=0.0, rng=np.random.default_rng(0))


def test_mooncake_keeps_its_reuse_when_it_shrinks(poolwise_data):
    trace = read_trace(poolwise_data / "traces" / "mooncake_conversation_trace.jsonl").workload
    small = scaled(trace, length_ratio=0.03, max_input_tokens=10_000)
    reuse = small.cached_tokens.sum() / small.input_tokens.sum()
    assert reuse == pytest.approx(0.37, abs=0.02)
    assert len(small) == 12_031


@pytest.mark.parametrize("block_tokens", [16, 100, 512, 1000])
def test_blocks_of_another_size_share_what_they_shared(block_tokens):
    trace = drawn(block_tokens=64, duration_s=400.0)
    other = reblock(trace, block_tokens=block_tokens)
    assert other.prefix is not None
    assert other.prefix.block_tokens == block_tokens
    assert np.all(np.diff(other.prefix.offsets) == -(-other.input_tokens // block_tokens))
    # at most one block of either size is cut off of what was shared
    lost = trace.cached_tokens - other.cached_tokens
    assert lost.max() <= block_tokens + 64
    assert lost.min() >= -64


def test_blocks_of_the_same_size_are_left_alone():
    trace = drawn(block_tokens=64)
    assert reblock(trace, block_tokens=64) is trace
