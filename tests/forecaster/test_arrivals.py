import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.arrivals import Pace, arrivals, steady


def counts(pace: Pace, runs: int) -> np.ndarray:
    """(runs, intervals) arrivals in each interval."""
    rng = np.random.default_rng(0)
    return np.stack([np.histogram(arrivals(pace, rng), pace.edges_s)[0] for _ in range(runs)])


def pace(rates: list[float], cvs: list[float], width_s: float = 10.0) -> Pace:
    return Pace(
        edges_s=np.arange(len(rates) + 1) * width_s,
        rate_rps=np.array(rates),
        arrival_cv=np.array(cvs),
    )


def test_every_interval_has_its_rate_in_the_mean_whatever_the_cvs():
    asked = pace([2.0, 0.5, 0.0, 4.0, 1.0, 1.0], [1.0, 4.0, 1.0, 3.0, 0.0, 2.0])
    drawn = counts(asked, 4000)
    error = drawn.std(axis=0) / np.sqrt(len(drawn))
    # starting intervals with an arrival would add (cv^2 - 1) / 2: 7.5 to the second
    assert np.all(np.abs(drawn.mean(axis=0) - 10.0 * asked.rate_rps) <= 4 * error + 1e-9)
    assert drawn[:, 2].max() == 0


def test_gaps_go_on_over_the_edge_between_two_rates():
    drawn = counts(pace([0.3, 0.6], [0.0, 0.0]), 500)
    assert set(np.unique(drawn.sum(axis=1))) <= {8, 9, 10}
    assert drawn.sum(axis=1).mean() == pytest.approx(9.0, abs=0.05)


@pytest.mark.parametrize("cv", [0.0, 0.3, 1.0, 2.5, 8.0])
def test_gaps_have_the_cv_asked_for(cv):
    gaps = np.diff(arrivals(steady(50.0, 4000.0, cv), np.random.default_rng(1)))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, abs=0.02 + 0.06 * cv)
    assert gaps.mean() == pytest.approx(1 / 50.0, rel=0.02 + 0.02 * cv)


@settings(max_examples=60, deadline=None)
@given(
    windows=st.lists(
        st.tuples(st.sampled_from([0.0, 1e-6, 0.1, 3.0]), st.floats(0, 50)),
        min_size=1,
        max_size=8,
    ),
    seed=st.integers(0, 99),
)
def test_arrivals_lie_in_their_interval_in_order(windows, seed):
    asked = pace([rate for rate, _ in windows], [cv for _, cv in windows])
    times = arrivals(asked, np.random.default_rng(seed))
    assert np.all(np.diff(times) >= 0)
    assert np.all((times >= 0) & (times < asked.edges_s[-1]))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"edges_s": [0.0, 0.0]}, "edges_s"),
        ({"rate_rps": [-1.0]}, "rate_rps"),
        ({"arrival_cv": [51.0]}, "arrival_cv"),
        ({"rate_rps": [1.0, 2.0]}, "one rate"),
    ],
)
def test_an_impossible_pace_is_refused(fields, reason):
    given = {"edges_s": [0.0, 1.0], "rate_rps": [1.0], "arrival_cv": [1.0]} | fields
    with pytest.raises(ValueError, match=reason):
        Pace(**{name: np.array(values) for name, values in given.items()})
