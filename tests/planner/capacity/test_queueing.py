"""Waiting times against published closed forms and tables."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.capacity.queueing import NO_WAIT, Wait, erlang_c, pool_wait, wait_sum_exceeds


def erlang_c_by_sums(servers: int, load: float) -> float:
    """The textbook sum, usable for few servers."""
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (2, 1.0), (5, 4.5), (20, 15.0)])
def test_erlang_c_equals_the_textbook_sum(servers: int, load: float) -> None:
    assert erlang_c(servers, load) == pytest.approx(erlang_c_by_sums(servers, load), rel=1e-9)


def test_erlang_c_stays_finite_for_a_thousand_servers() -> None:
    assert 0 < erlang_c(1000, 990.0) < 1


@given(load=st.floats(0.01, 0.99), cv2=st.floats(0.0, 4.0))
@settings(max_examples=50, deadline=None)
def test_mean_wait_of_one_server_is_pollaczek_khinchine(load: float, cv2: float) -> None:
    wait = pool_wait(
        servers=1, rate_rps=load, service_mean_s=1.0, service_cv2=cv2, arrival_cv2=1.0, window_s=0
    )
    expected = load * (1 + cv2) / (2 * (1 - load))
    assert wait.probability * wait.mean_s == pytest.approx(expected, rel=1e-6)


def test_tail_of_mmc_is_exact() -> None:
    wait = pool_wait(
        servers=3, rate_rps=2.4, service_mean_s=1.0, service_cv2=1.0, arrival_cv2=1.0, window_s=0
    )
    times = np.array([-1.0, 0.0, 0.5, 2.0])
    expected = erlang_c_by_sums(3, 2.4) * np.exp(-0.6 * times)
    np.testing.assert_allclose(wait.exceeds(times), np.where(times < 0, 1.0, expected))


def test_two_waits_in_a_row_agree_with_a_draw() -> None:
    rng = np.random.default_rng(5)
    first, second = Wait(probability=0.6, mean_s=0.3), Wait(probability=0.3, mean_s=1.1)
    drawn = sum(
        np.where(rng.uniform(size=200_000) < w.probability, rng.exponential(w.mean_s, 200_000), 0)
        for w in (first, second)
    )
    for limit in (0.05, 0.5, 2.0):
        exact = float(wait_sum_exceeds(first, second, np.array([limit]))[0])
        assert exact == pytest.approx(float((drawn > limit).mean()), abs=0.005)


@given(mean_a=st.floats(0, 10), mean_b=st.floats(0, 10), p=st.floats(0, 1), q=st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_a_second_wait_never_shortens_the_first(
    mean_a: float, mean_b: float, p: float, q: float
) -> None:
    first, second = Wait(probability=p, mean_s=mean_a), Wait(probability=q, mean_s=mean_b)
    times = np.linspace(0, 20, 41)
    both, alone = wait_sum_exceeds(first, second, times), wait_sum_exceeds(first, NO_WAIT, times)
    assert np.all(both >= alone - 1e-6)
    assert np.all((both >= 0) & (both <= 1 + 1e-9))


def test_overload_waits_grow_with_the_window_and_stay_finite() -> None:
    def missed(window_s: float) -> float:
        wait = pool_wait(
            servers=2,
            rate_rps=4.0,
            service_mean_s=1.0,
            service_cv2=1.0,
            arrival_cv2=1.0,
            window_s=window_s,
        )
        return float(wait.exceeds(np.array([30.0]))[0])

    assert missed(60.0) < missed(600.0) <= 1.0
