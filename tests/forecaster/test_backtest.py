import numpy as np
import pytest

from forecaster.backtest import backtest_forecast
from forecaster.readers import read_trace
from forecaster.windows import observe_windows
from planner.domain.errors import HistoryError
from tests.forecaster.histories import history, window


def score_of(result, series: str):
    (score,) = [s for s in result.scores if s.series == series]
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
    score = score_of(backtest_forecast(history(counts), first_origin=8), "request_rate_rps")
    # origins end with windows 7 to 14, of which two have no window right after them
    assert score.origins == 5


def test_every_class_is_scored():
    windows = history([3] * 6) + history([4] * 6, request_class="b")
    assert len(backtest_forecast(windows, horizon_windows=2).scores) == 6


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
@pytest.mark.parametrize("horizon_windows", [1, 5])
def test_real_traffic_is_forecast_better_than_by_its_last_value(
    poolwise_data, name, window_s, horizon_windows
):
    trace = read_trace(poolwise_data / "traces" / name)
    result = backtest_forecast(
        observe_windows(trace.workload, window_s), horizon_windows=horizon_windows
    )
    for score in result.scores:
        assert score.mae_ratio < 0.95
        assert 0.8 < score.q90_coverage_ratio < 0.99
