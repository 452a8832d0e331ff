from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.backtest import (
    backtest_forecast,
    last_seen,
    run_panel,
    run_points,
    scored_origins,
)
from forecaster.backtest import score_of as score_of_track
from forecaster.panel.conformal import Adaptation
from forecaster.readers import read_trace
from forecaster.windows import observe_windows
from planner.domain.errors import HistoryError
from tests.forecaster.histories import history, window


def score_of(result, series: str, horizon: int = 1):
    (score,) = [
        s.score for s in result.scores if s.series == series and s.horizon_windows == horizon
    ]
    return score


def test_noise_is_forecast_better_than_by_its_last_value():
    noise = np.random.default_rng(0).poisson(30, 200).tolist()
    score = score_of(backtest_forecast(history(noise)), "request_rate_rps")
    assert score.origins == 100
    assert score.mae_ratio < 0.85
    assert score.q90_coverage_ratio == pytest.approx(0.9, abs=0.07)


def test_a_steady_history_has_no_error_to_compare_with():
    score = score_of(backtest_forecast(history([5] * 10)), "input_tokens_per_s")
    assert score.mae_ratio is None
    assert score.q90_coverage_ratio == 1.0


def test_missing_windows_are_not_scored():
    counts = [10] * 10 + [None] * 2 + [10] * 4
    result = backtest_forecast(history(counts), horizons=[1], first_origin=8)
    score = score_of(result, "request_rate_rps")
    # targets are windows 8 to 15, of which two are missing
    assert score.origins == 6


def test_every_class_is_scored():
    windows = history([3] * 6) + history([4] * 6, request_class="b")
    assert len(backtest_forecast(windows, horizons=[2]).scores) == 6


def test_answers_that_were_not_counted_are_not_scored_as_zeros_of_idle_windows():
    windows = history([0 if i % 3 == 0 else 10 for i in range(30)])
    silent = [replace(w, output_tokens=0) for w in windows]
    scored = {s.series for s in backtest_forecast(silent).scores}
    assert scored == {"request_rate_rps", "input_tokens_per_s"}


def test_too_little_history_is_refused():
    with pytest.raises(HistoryError, match="no origin to score"):
        backtest_forecast(history([5]))


def test_windows_of_several_lengths_are_refused():
    with pytest.raises(HistoryError, match="one length"):
        backtest_forecast([window(0, 5), window(1, 5, window_s=30.0)])


@pytest.mark.parametrize(
    ("name", "window_s"),
    [("mooncake_conversation_trace.jsonl", 30.0), ("AzureLLMInferenceTrace_conv.csv", 10.0)],
)
def test_real_traffic_is_forecast_better_than_by_its_last_value(poolwise_data, name, window_s):
    trace = read_trace(poolwise_data / "traces" / name)
    result = backtest_forecast(observe_windows(trace.workload, window_s))
    assert len(result.scores) == 6
    for found in result.scores:
        assert found.score.mae_ratio < 0.95
        assert 0.8 < found.score.q90_coverage_ratio < 0.99


@settings(max_examples=25, deadline=None)
@given(
    counts=st.lists(st.integers(0, 500), min_size=8, max_size=40),
    other=st.lists(st.integers(0, 500), min_size=8, max_size=40),
    cut=st.integers(4, 30),
)
def test_no_forecast_of_a_backtest_changes_when_the_future_is_altered(counts, other, cut):
    past = counts[:cut]
    whole, altered = (
        run_panel(np.array(past + future, dtype=float)[:, None], [1, 3], step_s=3600.0)[0]
        for future in (counts[cut:], other)
    )
    for one, two in zip(whole, altered, strict=True):
        np.testing.assert_array_equal(one.quantiles[:, : len(past)], two.quantiles[:, : len(past)])


def test_the_conformal_last_value_is_the_reference():
    values = np.random.default_rng(0).poisson(30, 200).astype(float)
    track = run_points(values, last_seen(values), 1)
    score = score_of_track(track, scored_origins(track))
    assert score.mae_ratio == pytest.approx(1.0)
    assert [ratio for _, ratio in score.pinball_ratio] == pytest.approx([1.0] * 4)
    assert score.q90_coverage_low_ratio <= 0.9 <= score.q90_coverage_high_ratio


def test_the_mase_compares_with_the_changes_before_the_scored_part():
    values = np.array([0.0, 2, 0, 2, 0, 2, 10, 10, 10, 10, 10, 10])
    track = run_points(values, np.full(12, 9.0), 1)
    score = score_of_track(track, scored_origins(track))
    assert score.mase == pytest.approx(1.0 / 2.0)


def test_progress_is_told_step_by_step_over_all_classes():
    told = []
    windows = [*history([5, 6, 7, 8] * 5), *history([1, 2] * 10, request_class="gold")]
    backtest_forecast(windows, progress=lambda done, steps: told.append((done, steps)))
    assert told == [(done, 40) for done in range(1, 41)]


def test_quantiles_around_a_tracks_centre_are_those_of_the_panel():
    values = np.random.default_rng(0).poisson(30, 200).astype(float)
    (tracks,) = run_panel(values[:, None], [1, 5], step_s=60.0)
    for track in tracks:
        again = run_points(values, track.centre, track.horizon)
        np.testing.assert_allclose(again.at(0.9), track.at(0.9))


def test_quantiles_follow_as_fast_as_they_are_told_to():
    values = np.concatenate([np.random.default_rng(0).poisson(30, 100), np.full(60, 30)]) * 1.0
    slow, fast = (
        run_points(values, np.full(160, 30.0), 1, adaptation=adaptation).at(0.9)[-1]
        for adaptation in (Adaptation(step_size=0.0), Adaptation(recent_errors=50))
    )
    assert slow > fast == pytest.approx(30.0)
