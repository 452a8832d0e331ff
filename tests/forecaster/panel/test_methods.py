"""The single methods: what each of them is, against its own definition."""

import numpy as np
import pytest

from forecaster.panel import seasonal, smoothing
from forecaster.panel.record import Record, Span, Spans
from forecaster.panel.regression import FORGETTING, RIDGE, Features, Regression
from forecaster.panel.seasonal import Seasons
from forecaster.panel.smoothing import Smoothing

nan = float("nan")


def smoothed(values, *spans: tuple[int, int]) -> dict[str, np.ndarray]:
    record, state = Record(series=1, kept_steps=500), Smoothing(1)
    for step, value in enumerate(values):
        record.add(np.array([value]), np.array([0.0]))
        state.add(np.array([value]), step)
    asked = Spans.of([Span(first=a, last=b) for a, b in spans or [(1, 1)]])
    points = state.points(record, asked)[:, :, 0]
    return dict(zip(smoothing.NAMES, points, strict=True))


def test_the_ewma_is_its_weighted_sum():
    a = 0.4
    expected = (1 - a) ** 2 * 4 + a * (1 - a) * 8 + a * 1
    assert smoothed([4.0, nan, 8.0, 1.0])["EWMA 0.4"][0] == pytest.approx(expected)


def test_averages_skip_gaps():
    made = smoothed([100.0, 1, 2, 3, nan, 5, 6])
    assert made["mean of 6"][0] == pytest.approx(np.mean([1, 2, 3, 5, 6]))
    assert made["mean of all"][0] == pytest.approx(np.mean([100, 1, 2, 3, 5, 6]))


def test_a_damped_trend_ahead_is_the_mean_of_its_path():
    name = "damped trend 0.5/0.8"
    values = np.arange(50.0)
    level = {h: smoothed(values, (h, h))[name][0] for h in (1, 2, 3, 4, 5, 30, 31)}
    assert smoothed(values, (3, 5))[name][0] == pytest.approx(
        np.mean([level[h] for h in (3, 4, 5)])
    )
    assert level[1] < level[2]
    assert level[31] - level[30] < 0.01


def test_theta_goes_on_with_half_of_the_lines_slope():
    near, far = smoothed(2.0 * np.arange(40), (1, 1), (11, 11))["Theta"]
    assert far - near == pytest.approx(10.0)


def hourly(days: int) -> np.ndarray:
    return np.tile(100.0 + np.arange(24), days)


def test_yesterday_is_the_same_hour_of_yesterday():
    seasons = Seasons(step_s=3600.0, most_steps=500)
    record = Record(series=1, kept_steps=seasons.kept_steps(30))
    for value in hourly(3):
        record.add(np.array([value]), np.array([0.0]))
    spans = Spans.of([Span(first=1, last=1), Span(first=5, last=6), Span(first=30, last=30)])
    yesterday, levelled, week = seasonal.points(
        record, seasonal.look_back(record, seasons, spans), spans
    )[:, :, 0]
    assert yesterday == pytest.approx([100.0, 104.5, 105.0])
    assert levelled == pytest.approx(yesterday)
    assert np.isnan(week).all()


def test_a_recursive_regression_equals_the_ridge_regression_of_all_it_saw():
    rng = np.random.default_rng(1)
    features, target = rng.normal(size=(40, 3)), rng.normal(size=40)
    regression = Regression(spans=1, series=1, columns=3)
    for x, y in zip(features, target, strict=True):
        regression.learn(x[None, None], np.array([[y]]))
    now = rng.normal(size=3) * 0.1
    found = regression.log_changes(now[None, None], np.array([0]))[:, 0, 0]
    for weight, log_change in zip(FORGETTING, found, strict=True):
        age = weight ** np.arange(40)[::-1]
        # The ridge itself is forgotten, too.
        ridge = RIDGE * weight**40 * np.eye(3)
        solved = np.linalg.solve((features.T * age) @ features + ridge, (features.T * age) @ target)
        assert log_change == pytest.approx(now @ solved)


def test_what_is_not_known_yet_teaches_nothing():
    regression = Regression(spans=1, series=2, columns=2)
    x = np.array([[[1.0, nan], [1.0, 1.0]]])
    regression.learn(x, np.array([[0.5, 0.5]]))
    found = regression.log_changes(np.ones((1, 2, 2)), np.array([0]))
    assert found[0, 0, 0] == 0.0
    assert found[0, 0, 1] > 0.0


def test_the_features_know_the_time_of_day():
    seasons = Seasons(step_s=3600.0, most_steps=500)
    features = Features(step_s=3600.0)
    record = Record(series=1, kept_steps=seasons.kept_steps(24))
    for value in hourly(4):
        record.add(np.array([value]), np.log([value + 5.0]))
    spans = Spans.of([Span(first=24, last=24), Span(first=1, last=1)])
    past = seasonal.look_back(record, seasons, spans)
    _, now = features.of(record, past, spans, np.array([5.0]), end_s=96 * 3600.0)
    _, a_day_on = features.of(record, past, spans, np.array([5.0]), end_s=120 * 3600.0)
    week = [features.all_columns - 1, features.all_columns - 1 - 5]
    assert np.isfinite(now).all()
    kept = np.delete(np.arange(features.all_columns), week)
    np.testing.assert_allclose(now[:, :, kept], a_day_on[:, :, kept], atol=1e-9)
    assert not np.allclose(now[0], now[1])
