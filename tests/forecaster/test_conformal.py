import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import norm

from forecaster.conformal import COLD_START_LOG_SD, LEVELS, log_offsets


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


def test_old_errors_are_forgotten():
    errors = np.concatenate([np.full(500, 5.0), np.zeros(200)])
    assert log_offsets(errors, steps_ahead=1)[LEVELS.index(0.9)] == 0.0


@settings(max_examples=60, deadline=None)
@given(
    errors=hnp.arrays(float, st.integers(0, 60), elements=st.floats(-8, 8)),
    steps=st.integers(1, 50),
)
def test_offsets_never_decrease_with_the_level(errors, steps):
    offsets = log_offsets(errors, steps_ahead=steps)
    assert np.all(np.isfinite(offsets))
    assert np.all(np.diff(offsets) >= 0)


def test_the_coverage_of_new_errors_is_the_level():
    rng = np.random.default_rng(7)
    hits = [
        rng.normal(0, 0.3) <= log_offsets(rng.normal(0, 0.3, 60), steps_ahead=1)[6]
        for _ in range(1500)
    ]
    assert LEVELS[6] == 0.9
    assert np.mean(hits) == pytest.approx(0.9, abs=0.03)
