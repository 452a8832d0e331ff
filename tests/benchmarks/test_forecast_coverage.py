"""What `bench_forecast --only coverage` says of series whose truth is known."""

import numpy as np
import pytest

from benchmarks.forecasting import accuracy, coverage
from benchmarks.forecasting.series import SeriesGroup


@pytest.fixture(scope="module")
def cases():
    """White noise about one rate, with a second half that is calmer, and one that is alike."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, (240, 2))
    size = np.stack([np.repeat([0.5, 0.1], 120), np.full(240, 0.2)], axis=1)
    values = 100 * np.exp(size * noise)
    group = SeriesGroup(service="made", names=("calmer", "alike"), values=values, step_s=60.0)
    return [case for case in accuracy.run([group]) if case.track.horizon == 1]


def test_a_calmer_second_half_shows_when_the_order_is_taken_away(cases):
    calmer, alike = coverage.reordered(cases)
    assert calmer.second_above_ratio < 0.02
    assert calmer.covered["halves swapped"][0] < 0.9 < calmer.case.score.q90_coverage_ratio
    assert np.median(calmer.covered["shuffled one by one"]) == pytest.approx(0.9, abs=0.03)
    assert alike.second_above_ratio == pytest.approx(0.1, abs=0.06)
    assert alike.covered["halves swapped"][0] == pytest.approx(0.9, abs=0.06)


def test_every_remedy_is_measured_on_the_panels_own_forecasts(cases):
    found = {remedy.name: remedy for remedy in coverage.remedies(cases)}
    assert found.keys() == {*coverage.ADAPTATIONS, coverage.SCALED}
    as_it_is = found["step 0.1 / k^0.5 (as it is)"]
    assert as_it_is.of_series["made calmer"] == cases[0].score.q90_coverage_ratio
    assert as_it_is.coverage_ratio == pytest.approx(coverage.pooled([c.score for c in cases]))
    spread = {name: remedy.of_series["made calmer"] for name, remedy in found.items()}
    assert spread["last 50 errors, not 200"] < spread["none (split conformal)"]
