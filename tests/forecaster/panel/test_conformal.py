import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm

from forecaster.panel.conformal import (
    COLD_START_LOG_SD,
    LEVELS,
    MEDIAN,
    RECENT_ERRORS,
    Adaptation,
    Conformal,
    offsets_of,
)


def log_offsets(errors, *, steps_ahead: int) -> np.ndarray:
    levels = np.array(LEVELS)[:, None, None]
    column = np.asarray(errors, dtype=float)[:, None, None]
    return offsets_of(column, levels, np.array([steps_ahead]))[:, 0, 0]


def test_without_errors_the_spread_is_the_assumed_one():
    np.testing.assert_allclose(
        log_offsets(np.empty(0), steps_ahead=1), COLD_START_LOG_SD * norm.ppf(LEVELS)
    )


def test_without_errors_the_spread_grows_with_the_distance():
    near, far = (log_offsets(np.empty(0), steps_ahead=h)[-1] for h in (1, 16))
    assert far == pytest.approx(2 * near)


def test_many_errors_give_their_own_quantiles():
    errors = np.random.default_rng(0).permutation(np.linspace(-1, 3, 199))
    offsets = dict(zip(LEVELS, log_offsets(errors, steps_ahead=1), strict=True))
    for level in (0.05, 0.5, 0.9, 0.95):
        # the (n + 1) * level-th smallest of evenly spaced values
        assert offsets[level] == pytest.approx(-1 + 4 * (200 * level - 1) / 198, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    errors=hnp.arrays(float, st.integers(0, 60), elements=st.floats(-8, 8)),
    steps=st.integers(1, 50),
)
def test_offsets_never_decrease_with_the_level(errors, steps):
    offsets = log_offsets(errors, steps_ahead=steps)
    assert np.all(np.isfinite(offsets))
    assert np.all(np.diff(offsets) >= -1e-12)


def run(errors: np.ndarray) -> tuple[Conformal, np.ndarray]:
    """Forecasts of 1 whose outcomes were exp(error), and whether each stayed below its 0.9."""
    conformal = Conformal(furthest=np.array([1]), series=1)
    covered = []
    for error in errors:
        moves, centre = conformal.log_offsets()
        quantiles, actual = np.exp(moves), np.exp(np.full((1, 1), error))
        covered.append(actual[0, 0] <= quantiles[LEVELS.index(0.9), 0, 0])
        conformal.learn(
            np.full((1, 1), error),
            quantiles,
            actual=actual,
            point=np.ones((1, 1)),
            centred=np.exp(centre),
        )
    return conformal, np.array(covered)


def test_old_errors_are_forgotten():
    conformal, _ = run(np.concatenate([np.full(300, 5.0), np.zeros(RECENT_ERRORS)]))
    assert conformal.log_offsets()[0][LEVELS.index(0.9), 0, 0] == pytest.approx(0.0, abs=1e-9)


def test_the_coverage_of_steady_errors_is_the_level():
    _, covered = run(np.random.default_rng(7).normal(0, 0.3, 1500))
    assert covered[100:].mean() == pytest.approx(0.9, abs=0.015)


def test_coverage_returns_when_errors_grow():
    rng = np.random.default_rng(3)
    wide = rng.normal(0, 0.3, 600) * np.linspace(1.0, 6.0, 600)
    _, covered = run(wide)
    assert covered[200:].mean() == pytest.approx(0.9, abs=0.03)


def test_the_median_moves_only_when_that_has_been_better_beyond_doubt():
    rng = np.random.default_rng(0)
    fair, _ = run(rng.normal(0, 0.3, 150))
    low, _ = run(rng.normal(0.5, 0.3, 150))
    assert fair.log_offsets()[0][MEDIAN, 0, 0] == 0.0
    assert low.log_offsets()[0][MEDIAN, 0, 0] == pytest.approx(0.5, abs=0.1)


def test_errors_that_are_not_known_are_left_out():
    conformal, _ = run(np.array([0.1, np.nan, 0.2]))
    assert np.isfinite(conformal.log_offsets()[0]).all()
    assert np.isfinite(conformal.recent_errors()).sum() == 2


def test_levels_that_do_not_move_give_the_split_conformal_quantile():
    errors = np.random.default_rng(1).normal(0, 0.3, 150)
    fixed, usual = (
        Conformal(furthest=np.array([1]), series=1, adaptation=a)
        for a in (Adaptation(step_size=0.0), Adaptation())
    )
    for conformal in (fixed, usual):
        for error in errors:
            one = np.full((1, 1), error)
            below = np.full((len(LEVELS), 1, 1), -9.0)  # every outcome exceeds every quantile
            conformal.learn(one, below, actual=one, point=one, centred=one)
    row = LEVELS.index(0.9)
    expected = log_offsets(errors, steps_ahead=1)[row]
    assert fixed.log_offsets()[0][row, 0, 0] == pytest.approx(expected)
    assert usual.log_offsets()[0][row, 0, 0] > expected
