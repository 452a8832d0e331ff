import numpy as np
import pytest

from forecaster.readers.ticks import arrival_tick_s


def test_a_three_second_clock_with_jitter_is_found():
    rng = np.random.default_rng(1)
    ticks = np.sort(rng.integers(0, 1000, 3000)) * 3.0 + rng.choice([-0.001, 0.0, 0.001], 3000)
    assert arrival_tick_s(np.sort(ticks)) == pytest.approx(3.0, rel=1e-3)


def test_a_coarse_clock_with_sparse_arrivals_is_found():
    rng = np.random.default_rng(2)
    seconds = np.sort(rng.choice(500, 150, replace=False)).astype(float)
    assert arrival_tick_s(seconds) == pytest.approx(1.0)


def test_poisson_arrivals_have_no_tick():
    rng = np.random.default_rng(3)
    assert arrival_tick_s(np.cumsum(rng.exponential(5.0, 2000))) is None


def test_a_regular_pace_is_no_tick():
    assert arrival_tick_s(np.arange(100) * 2.0) is None


def test_a_millisecond_clock_is_fine_enough():
    rng = np.random.default_rng(4)
    assert arrival_tick_s(np.sort(rng.integers(0, 5000, 4000)) * 1e-3) is None


def test_a_few_requests_tell_no_tick():
    assert arrival_tick_s(np.array([0.0, 3.0, 3.0, 6.0])) is None
