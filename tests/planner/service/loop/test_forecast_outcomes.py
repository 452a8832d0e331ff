"""Forecast beside actual: kept by ticks, told once windows were wholly observed, counted once."""

from dataclasses import replace
from datetime import timedelta

import pytest

from planner.service.answers.planning import expected_demand
from planner.service.documents import windows_of
from planner.service.documents.history import WindowDocument
from planner.service.loop.forecast_outcomes import observed_rates
from planner.service.loop.scheduler import tick_once
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.store.forecasts import KEPT_FORECASTS
from planner.service.telemetry.metrics import Metrics
from tests.planner.service.examples import NOON, history, window
from tests.planner.service.imagined import make_deployment, observe


@pytest.fixture
def deployment(tmp_path):
    made = make_deployment(tmp_path, loop={"mode": "advise"})
    yield made
    made.store.close()


def minutes(count):
    return timedelta(minutes=count)


def read(data):
    return windows_of([WindowDocument.model_validate(d) for d in data], where="x")


def test_what_was_observed_is_split_evenly_at_the_ends():
    windows = read([window(0, requests=60), window(1, requests=120)])
    (rates,) = observed_rates(windows, start_at=NOON + timedelta(seconds=30), window_s=60.0)
    assert rates.request_rate_rps == pytest.approx(1.5)
    assert rates.input_tokens_per_s == pytest.approx(1.5 * 800)
    assert rates.reuse_ratio == 0


@pytest.mark.parametrize("seen", [[window(0)], [window(0), window(2)], []])
def test_a_window_that_was_not_wholly_observed_has_no_actual(seen):
    assert observed_rates(read(seen), start_at=NOON, window_s=120.0) == ()


def test_a_class_that_was_not_observed_throughout_is_left_out():
    windows = read([window(0), window(1), window(0, request_class="gold")])
    rates = observed_rates(windows, start_at=NOON, window_s=120.0)
    assert [one.request_class for one in rates] == ["default"]


def test_each_tick_keeps_its_forecast(deployment):
    observe(deployment)
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.UNCHANGED
    kept = deployment.store.newest_forecast("shop", "tiny")
    assert kept.forecast_id == report.seen.forecast.forecast_id
    assert kept.windows[0].demands[0].request_rate_rps.median == pytest.approx(2.0)


def test_the_newest_by_an_instant_is_found(deployment):
    observe(deployment)
    for minute in range(3):
        tick(deployment, now=NOON + minutes(minute))
    store = deployment.store
    assert store.newest_forecast("shop", "tiny").made_at == NOON + minutes(2)
    assert store.newest_forecast("shop", "tiny", by=NOON + minutes(1.5)).made_at == NOON + minutes(
        1
    )
    assert store.newest_forecast("shop", "tiny", by=NOON - minutes(1)) is None
    assert store.newest_forecast("shop", "big") is None


def test_what_came_stands_beside_the_forecast_once_it_was_observed(deployment):
    observe(deployment)
    tick(deployment, now=NOON)
    observe(deployment, [window(0, requests=240)])
    first = tick(deployment, now=NOON + minutes(1)).seen.outcomes
    assert [(o.windows_ahead, o.made_at) for o in first] == [(1, NOON)]
    assert first[0].request_rate_rps == pytest.approx(4.0)
    assert first[0].request_rate_median_rps == pytest.approx(2.0)
    assert not first[0].covered
    assert first[0].error_ratio == pytest.approx(-0.5)
    assert tick(deployment, now=NOON + minutes(1.2)).seen.outcomes == ()
    observe(deployment, [window(1)])
    second = tick(deployment, now=NOON + minutes(2)).seen.outcomes
    assert {(o.windows_ahead, o.made_at) for o in second} == {(1, NOON + minutes(1)), (2, NOON)}
    stored = deployment.store.forecast_outcomes("shop", "tiny", limit=10)
    assert set(stored) == {*first, *second}


def test_late_observations_still_tell_and_very_late_ones_do_not(deployment):
    observe(deployment)
    tick(deployment, now=NOON)
    observe(deployment, [window(1)])
    early = tick(deployment, now=NOON + minutes(2)).seen.outcomes
    assert {o.windows_ahead for o in early} == {2}
    observe(deployment, [window(0)])
    late = tick(deployment, now=NOON + minutes(2.5)).seen.outcomes
    assert {(o.windows_ahead, o.made_at) for o in late} == {(1, NOON)}
    tick(deployment, now=NOON + minutes(3))
    observe(deployment, [window(300)])
    assert tick(deployment, now=NOON + minutes(302)).seen.outcomes == ()


def test_a_window_in_which_nothing_came_has_an_endless_error(deployment):
    observe(deployment)
    tick(deployment, now=NOON)
    observe(deployment, [window(0, requests=0)])
    (outcome,) = tick(deployment, now=NOON + minutes(1)).seen.outcomes
    assert outcome.error_ratio == float("inf")
    assert outcome.covered


def test_forecasts_and_outcomes_are_metrics(deployment):
    metrics = Metrics()
    observe(deployment)
    tick_once(deployment, metrics)
    observe(deployment, [window(0, requests=240)])
    tick_once(replace(deployment, clock=lambda: NOON + minutes(1)), metrics)
    text = metrics.text().decode()
    here = 'class="default",deployment="shop"'
    assert f"poolwise_observed_requests_per_second{{{here}}} 4.0" in text
    assert f'poolwise_forecast_requests_per_second{{{here},level="0.9"}}' in text
    ahead = f'{{{here},windows_ahead="1"}}'
    assert f"poolwise_forecast_error_ratio{ahead} -0.5" in text
    assert f"poolwise_forecast_scored_windows_total{ahead} 1.0" in text
    assert f"poolwise_forecast_covered_windows_total{ahead} 0.0" in text


def test_old_forecasts_go(deployment):
    forecast = expected_demand(deployment.spec, read(history(3)), model="tiny", made_at=NOON)
    for second in range(KEPT_FORECASTS + 5):
        made = replace(forecast, made_at=NOON + timedelta(seconds=second))
        deployment.store.add_forecast("shop", made)
    kept = deployment.store.forecasts_since("shop", "tiny", since=NOON)
    assert len(kept) == KEPT_FORECASTS
    assert kept[0][0].made_at == NOON + timedelta(seconds=5)


def test_a_tick_that_cannot_forecast_fails_and_keeps_nothing(deployment):
    observe(deployment, [window(-1), window(-1, request_class="gold")])
    strict = replace(
        deployment,
        spec=replace(
            deployment.spec,
            slos=(replace(deployment.spec.slos[0], request_class="silver"),),
        ),
    )
    report = tick(strict, now=NOON)
    assert report.outcome is Outcome.FAILED
    assert report.seen is None
    assert deployment.store.newest_forecast("shop", "tiny") is None


def test_a_tick_with_what_it_remembers_expects_the_same(deployment):
    observe(deployment, history(40))
    tick(deployment, now=NOON)
    observe(deployment, [window(0, requests=150)])
    now = NOON + minutes(1)
    remembered = tick(deployment, now=now).seen.forecast
    windows = deployment.observer.observe(now=now).windows
    fresh = expected_demand(deployment.spec, windows, model="tiny", made_at=now)
    assert remembered.forecast_id == fresh.forecast_id
