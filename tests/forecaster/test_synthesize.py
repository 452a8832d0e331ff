from datetime import UTC, datetime

import numpy as np
import pytest

from forecaster.prefixes import cached_tokens_of, leading_seen
from forecaster.synthesize import PUBLISHED, LognormalLengths, TraceDescription, synthesize
from forecaster.windows import arrival_cv2_of
from planner.domain.forecast import Quantiles

START = datetime(2026, 1, 1, tzinfo=UTC)


def described(**fields) -> TraceDescription:
    return TraceDescription(
        **{
            "name": "t",
            "source": "test",
            "request_rate_rps": 10.0,
            "duration_s": 1000.0,
            "isl": LognormalLengths(p50=1000.0, p99=8000.0),
            "osl": Quantiles(levels=(0.0, 0.5, 1.0), values=(10.0, 100.0, 1000.0)),
            **fields,
        }
    )


def draw(description: TraceDescription, seed: int = 0):
    return synthesize(description, start_at=START, rng=np.random.default_rng(seed))


def test_the_same_seed_draws_the_same_trace():
    first, second = draw(described(reuse_ratio=0.3)), draw(described(reuse_ratio=0.3))
    for name in ("arrival_offset_s", "input_tokens", "output_tokens", "cached_tokens"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert len(draw(described(), seed=1)) != len(first)


@pytest.mark.parametrize("arrival_cv", [0.0, 0.5, 1.0, 3.0])
def test_arrivals_have_the_rate_and_variation_asked_for(arrival_cv):
    trace = draw(described(arrival_cv=arrival_cv, duration_s=5000.0))
    assert trace.request_rate_rps == pytest.approx(10.0, rel=0.06)
    assert np.sqrt(arrival_cv2_of(trace)) == pytest.approx(arrival_cv, abs=0.15)
    assert trace.duration_s == 5000.0


def test_bursty_arrivals_do_not_begin_with_a_burst():
    description = described(arrival_cv=4.0, duration_s=20.0)
    counts = [len(draw(description, seed)) for seed in range(400)]
    # a process that began with an arrival would have (16 - 1) / 2 = 7.5 more
    assert np.mean(counts) == pytest.approx(200.0, abs=12.0)


def test_lengths_have_the_quantiles_asked_for():
    trace = draw(described())
    assert np.median(trace.input_tokens) == pytest.approx(1000, rel=0.05)
    assert np.quantile(trace.input_tokens, 0.99) == pytest.approx(8000, rel=0.12)
    assert np.median(trace.output_tokens) == pytest.approx(100, rel=0.05)
    assert trace.output_tokens.min() >= 10
    assert trace.output_tokens.max() <= 1000


@pytest.mark.parametrize("reuse_ratio", [0.1, 0.37, 0.8])
@pytest.mark.parametrize("block_tokens", [16, 512])
def test_prompts_share_as_many_tokens_as_asked_for(reuse_ratio, block_tokens):
    trace = draw(described(reuse_ratio=reuse_ratio, block_tokens=block_tokens, duration_s=200.0))
    reused = trace.cached_tokens.sum() / trace.input_tokens.sum()
    assert reused == pytest.approx(reuse_ratio, abs=0.05)


def test_cached_tokens_are_those_of_the_prefix_blocks():
    trace = draw(described(reuse_ratio=0.5, duration_s=50.0))
    assert trace.prefix is not None
    seen: set[int] = set()
    for index, tokens in enumerate(trace.input_tokens.tolist()):
        ids = trace.prefix.of(index).tolist()
        assert len(ids) == -(-tokens // 512)
        assert trace.cached_tokens[index] == cached_tokens_of(
            leading_seen(ids, seen), block_tokens=512, input_tokens=tokens
        )
        seen.update(ids)


@pytest.mark.parametrize(
    ("name", "isl_p50", "osl_p50", "reuse"),
    [
        ("mooncake_conversation", 6909, 350, 0.37),
        ("conversation", 1020, 129, 0),
        ("code", 1469, 13, 0),
    ],
)
def test_a_published_description_draws_its_own_statistics(name, isl_p50, osl_p50, reuse):
    trace = draw(PUBLISHED[name])
    assert np.median(trace.input_tokens) == pytest.approx(isl_p50, rel=0.06)
    assert np.median(trace.output_tokens) == pytest.approx(osl_p50, rel=0.06)
    assert trace.cached_tokens.sum() / trace.input_tokens.sum() == pytest.approx(reuse, abs=0.02)
    assert PUBLISHED[name].source


@pytest.mark.parametrize(
    "fields",
    [
        {"request_rate_rps": 0.0},
        {"duration_s": float("inf")},
        {"arrival_cv": -1.0},
        {"reuse_ratio": 1.0},
        {"block_tokens": 0},
    ],
)
def test_an_impossible_description_is_refused(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        described(**fields)


def test_lengths_must_be_in_order():
    with pytest.raises(ValueError, match="p50 <= p99"):
        LognormalLengths(p50=10.0, p99=5.0)


def test_a_trace_that_would_not_fit_is_refused():
    with pytest.raises(ValueError, match="20000000 requests at most"):
        described(request_rate_rps=1e6, duration_s=1e6)
