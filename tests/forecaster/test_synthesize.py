from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from scipy.stats import spearmanr

from forecaster.pace_profiles import DailySine, HourlyFactors, WindowRates
from forecaster.prefixes import cached_tokens_of, leading_seen
from forecaster.sessions import Sessions
from forecaster.synthesize import (
    PUBLISHED,
    HistogramLengths,
    LognormalLengths,
    TraceDescription,
    mix_workloads,
    synthesize,
    synthesize_classes,
)
from forecaster.windows import arrival_cv2_of
from planner.domain.errors import TraceError
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


DAY_S = 86_400.0


def hourly_rates(trace) -> np.ndarray:
    """(24,) requests/s by hour of the day."""
    hour = (trace.arrival_offset_s // 3600).astype(int) % 24
    return np.bincount(hour, minlength=24) / (trace.duration_s / 24)


def test_a_daily_sine_has_its_peak_where_and_as_high_as_asked_for():
    trace = draw(described(profile=DailySine(peak_hour=15.0, peak_to_trough=4.0),
                           request_rate_rps=2.0, duration_s=4 * DAY_S))  # fmt: skip
    rates = hourly_rates(trace)
    assert trace.request_rate_rps == pytest.approx(2.0, rel=0.02)
    assert abs(int(np.argmax(rates)) - 14.5) <= 1.5
    assert rates.max() / rates.min() == pytest.approx(4.0, rel=0.1)


def test_the_day_begins_at_the_midnight_before_the_start():
    profile = HourlyFactors(factors=(*[1.0] * 12, *[3.0] * 12))
    trace = synthesize(
        described(profile=profile, duration_s=7200.0, arrival_cv=0.0, request_rate_rps=1.0),
        start_at=START.replace(hour=11),
        rng=np.random.default_rng(0),
    )
    counts = np.histogram(trace.arrival_offset_s, [0, 3600, 7200])[0]
    np.testing.assert_allclose(counts, [1800, 5400], atol=1)


def test_hourly_factors_keep_the_mean_of_the_day():
    factors = tuple(float(hour % 6) for hour in range(24))
    trace = draw(described(profile=HourlyFactors(factors=factors), duration_s=DAY_S,
                           request_rate_rps=1.0))  # fmt: skip
    np.testing.assert_allclose(hourly_rates(trace), np.array(factors) / 2.5, rtol=0.1, atol=0.01)


def test_a_correlation_is_that_of_the_ranks():
    trace = draw(described(length_correlation=0.6))
    found = spearmanr(trace.input_tokens, trace.output_tokens).statistic
    assert found == pytest.approx(0.6, abs=0.03)
    assert np.median(trace.input_tokens) == pytest.approx(1000, rel=0.05)


def test_a_histogram_is_drawn_as_it_is():
    trace = draw(described(osl=HistogramLengths(tokens=(1, 7, 900), weight=(1, 2, 1))))
    values, counts = np.unique(trace.output_tokens, return_counts=True)
    assert values.tolist() == [1, 7, 900]
    np.testing.assert_allclose(counts / counts.sum(), [0.25, 0.5, 0.25], atol=0.02)


SESSIONS = Sessions(
    turns=4.0,
    growth=LognormalLengths(p50=50.0, p99=200.0),
    think_time_p50_s=20.0,
    think_time_p99_s=100.0,
    system_prompt_tokens=1000,
)


def conversing(**fields):
    return described(
        **{
            "sessions": SESSIONS,
            "isl": LognormalLengths(p50=300.0, p99=1000.0),
            "osl": LognormalLengths(p50=100.0, p99=400.0),
            "block_tokens": 16,
            "request_rate_rps": 5.0,
            **fields,
        }
    )


def test_sessions_keep_the_rate_from_the_first_second_on():
    counts = [
        np.histogram(draw(conversing(duration_s=400.0), seed).arrival_offset_s, 4, (0, 400))[0]
        for seed in range(12)
    ]
    np.testing.assert_allclose(np.mean(counts, axis=0), 500.0, rtol=0.08)


def test_sessions_share_the_system_prompt_and_all_that_was_said_before():
    trace = draw(conversing(duration_s=2000.0))
    uncached = trace.input_tokens - trace.cached_tokens
    # three turns in four go on: what is new is an answer and the growth, not the prompt
    go_on = uncached < trace.input_tokens - 1000 - 16
    assert np.mean(go_on) == pytest.approx(0.75, abs=0.04)
    settled = trace.arrival_offset_s > 100
    assert np.all(trace.cached_tokens[settled] >= 1000 // 16 * 16)
    assert np.mean(uncached[go_on]) == pytest.approx(128 + 57 + 8, rel=0.12)


def test_a_session_that_grows_too_long_begins_anew():
    short = Sessions(
        turns=50.0,
        growth=LognormalLengths(p50=500.0, p99=900.0),
        think_time_p50_s=1.0,
        think_time_p99_s=2.0,
        most_input_tokens=4000,
    )
    trace = draw(conversing(sessions=short, duration_s=500.0))
    assert trace.input_tokens.max() <= 4000
    assert trace.request_rate_rps == pytest.approx(5.0, rel=0.3)


def test_classes_are_mixed_and_share_nothing():
    parts = [
        conversing(request_class="chat", duration_s=300.0),
        described(request_class="batch", duration_s=300.0, reuse_ratio=0.3, block_tokens=16),
        described(request_class="plain", duration_s=300.0),
    ]
    trace = synthesize_classes(parts, start_at=START, rng=np.random.default_rng(0))
    assert sorted(set(trace.request_class.tolist())) == ["batch", "chat", "plain"]
    assert np.all(np.diff(trace.arrival_offset_s) >= 0)
    assert trace.prefix is not None
    owner: dict[int, str] = {}
    for index, name in enumerate(trace.request_class.tolist()):
        for block in trace.prefix.of(index).tolist():
            assert owner.setdefault(block, name) == name
    assert trace.cached_tokens[trace.request_class == "plain"].sum() == 0


def test_what_cannot_be_mixed_is_refused():
    with pytest.raises(ValueError, match="same instant"):
        mix_workloads([])
    one, other = draw(conversing(block_tokens=16)), draw(conversing(block_tokens=32))
    with pytest.raises(ValueError, match="blocks of one size"):
        mix_workloads([one, other])


def test_window_rates_replace_rate_and_cv():
    rates = WindowRates(window_s=500.0, rate_rps=(2.0, 8.0), arrival_cv=(0.0, 0.0))
    trace = draw(described(profile=rates))
    np.testing.assert_allclose(
        np.histogram(trace.arrival_offset_s, [0, 500, 1000])[0], [1000, 4000], atol=2
    )


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"sessions": SESSIONS, "reuse_ratio": 0.5}, "reuse_ratio follows from sessions"),
        ({"sessions": SESSIONS, "length_correlation": 0.5}, "uncorrelated"),
        ({"isl": None}, "either isl and osl, or lengths"),
        ({"length_correlation": 1.5}, "length_correlation"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, reason):
    with pytest.raises(ValueError, match=reason):
        described(**fields)


@pytest.mark.parametrize(
    ("kind", "fields", "reason"),
    [
        (HourlyFactors, {"factors": (1.0,) * 23}, "24 hourly factors"),
        (HourlyFactors, {"factors": (0.0,) * 24}, "not all 0"),
        (DailySine, {"peak_hour": 25.0, "peak_to_trough": 2.0}, "peak_hour"),
        (DailySine, {"peak_hour": 5.0, "peak_to_trough": 0.5}, "peak_to_trough"),
        (WindowRates, {"window_s": 1.0, "rate_rps": (), "arrival_cv": ()}, "equally many"),
        (HistogramLengths, {"tokens": (5, 5), "weight": (1, 1)}, "increase"),
        (HistogramLengths, {"tokens": (5,), "weight": (0,)}, "not all 0"),
    ],
)
def test_impossible_parts_are_refused(kind, fields, reason):
    with pytest.raises(ValueError, match=reason):
        kind(**fields)


@pytest.mark.parametrize(
    "fields",
    [{"reuse_ratio": 0.5}, {"sessions": replace(SESSIONS, most_input_tokens=10_000_000)}],
)
def test_more_blocks_than_memory_holds_are_refused(fields):
    huge = LognormalLengths(p50=9e6, p99=9e6)
    with pytest.raises(TraceError, match="prefix blocks, more than"):
        draw(described(isl=huge, block_tokens=1, duration_s=50.0, **fields))
