import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.methods import (
    AVERAGE_STEPS,
    EWMA_WEIGHT,
    MEAN_OF_METHODS,
    METHODS,
    Panel,
    Track,
    ewma,
    last_value,
    moving_average,
)
from forecaster.series import Span

NEXT = Span(first=1, last=1)
rates = st.lists(st.floats(0, 1e6), min_size=1, max_size=40).map(np.array)


def test_the_last_value_holds_over_a_gap():
    np.testing.assert_allclose(
        last_value(np.array([np.nan, 2.0, np.nan, 5.0])).level, [np.nan, 2.0, 2.0, 5.0]
    )


def test_the_ewma_is_its_weighted_sum():
    values = np.array([4.0, 8.0, 1.0])
    a = EWMA_WEIGHT
    expected = (1 - a) ** 2 * 4 + a * (1 - a) * 8 + a * 1
    assert ewma(values).level[-1] == pytest.approx(expected)


def test_the_moving_average_skips_gaps():
    values = np.array([100.0, *range(1, AVERAGE_STEPS + 1), np.nan])
    mean = np.mean(np.arange(1, AVERAGE_STEPS + 1))
    assert moving_average(values).level[-2:] == pytest.approx([mean, mean])


def test_a_track_ahead_is_the_mean_of_its_damped_path():
    track = Track(level=np.array([10.0]), slope=np.array([2.0]), damping=0.8)
    path = [10 + 2 * sum(0.8**i for i in range(1, h + 1)) for h in (3, 4, 5)]
    assert track.ahead(Span(first=3, last=5))[0] == pytest.approx(np.mean(path))


def test_the_damped_trend_goes_on_but_less_and_less():
    track = METHODS["damped trend"](np.arange(50.0))
    ahead = [track.ahead(Span(first=h, last=h))[-1] for h in (1, 2, 30, 31)]
    assert ahead[0] < ahead[1]
    assert ahead[3] - ahead[2] < 0.01


@settings(max_examples=40, deadline=None)
@given(values=rates, cut=st.integers(1, 40))
@pytest.mark.parametrize("name", METHODS)
def test_no_method_looks_ahead(name, values, cut):
    whole = METHODS[name](values).ahead(NEXT)[:cut]
    np.testing.assert_allclose(METHODS[name](values[:cut]).ahead(NEXT), whole)


@settings(max_examples=40, deadline=None)
@given(values=rates, span=st.sampled_from([NEXT, Span(first=3, last=3), Span(first=1, last=4)]))
def test_the_leader_has_the_least_error_of_a_plain_loop(values, span):
    offset = 0.05 * values.mean() + 1e-9
    choice = Panel(values).follow_the_leader(span, log_offset=offset)
    ahead = [method(values).ahead(span) for method in METHODS.values()]
    ahead.append(np.mean(ahead, axis=0))
    origins = range(len(values) - span.last)
    actual = [values[t + span.first : t + span.last + 1].mean() for t in origins]
    errors = [sum(abs(f[t] - actual[t]) for t in origins) for f in ahead]
    names = [*METHODS, MEAN_OF_METHODS]
    if len(origins) < 4:
        assert choice.method == MEAN_OF_METHODS
    else:
        assert errors[names.index(choice.method)] <= min(errors) + 1e-6 * (1 + max(errors))
    assert choice.point == pytest.approx(ahead[names.index(choice.method)][-1])


def test_the_last_value_leads_on_level_shifts():
    values = np.repeat(np.random.default_rng(0).lognormal(3, 1, 12), 20)
    assert Panel(values).follow_the_leader(NEXT, log_offset=0.1).method == "last value"


def test_a_smoother_leads_on_noise():
    values = np.random.default_rng(0).poisson(20, 300).astype(float)
    choice = Panel(values).follow_the_leader(NEXT, log_offset=1.0)
    assert choice.method in {"EWMA", "moving average"}
    assert choice.point == pytest.approx(20, rel=0.2)
