"""Futures drawn from a forecast keep its rate, burstiness and lengths."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.forecast import Demand, ForecastWindow, Quantiles
from planner.domain.workload import Shape
from planner.simulate import sample_workload
from tests.fakes.workloads import START_AT, point_shape

SHAPE = Shape(
    input_tokens=np.array([100.3, 900.7]),
    output_tokens=np.array([10.5, 80.25]),
    cached_tokens=np.array([0.0, 400.5]),
    weight=np.array([0.75, 0.25]),
)


def window_of(*demands: Demand) -> ForecastWindow:
    return ForecastWindow(start_at=START_AT, window_s=300.0, demands=demands)


def demand(
    *, median_rps: float = 10.0, cv2: float = 1.0, name: str = "default", shape: Shape = SHAPE
) -> Demand:
    rate = Quantiles(levels=(0.1, 0.5, 0.9), values=(median_rps / 2, median_rps, median_rps * 2))
    return Demand(
        request_class=name,
        request_rate_rps=rate,
        input_tokens_per_s=rate,
        output_tokens_per_s=rate,
        shape=shape,
        arrival_cv2=cv2,
    )


@pytest.mark.parametrize("cv2", [0.0, 0.5, 1.0, 4.0])
def test_rate_and_burstiness_are_the_forecasts(cv2: float) -> None:
    drawn = sample_workload(
        window_of(demand(cv2=cv2)), level=0.5, duration_s=4_000.0, rng=np.random.default_rng(1)
    )
    gaps = np.diff(drawn.arrival_offset_s)
    assert drawn.request_rate_rps == pytest.approx(10.0, rel=0.05)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(cv2, rel=0.1, abs=0.01)


def test_lengths_keep_the_means_of_the_shape() -> None:
    drawn = sample_workload(
        window_of(demand()), level=0.5, duration_s=4_000.0, rng=np.random.default_rng(2)
    )
    assert drawn.input_tokens.mean() == pytest.approx(SHAPE.isl_mean, rel=0.03)
    assert drawn.output_tokens.mean() == pytest.approx(SHAPE.osl_mean, rel=0.03)
    assert drawn.cached_tokens.sum() / drawn.input_tokens.sum() == pytest.approx(
        SHAPE.reuse_ratio, rel=0.05
    )


def test_a_higher_level_brings_more_requests() -> None:
    few, many = (
        len(
            sample_workload(
                window_of(demand()), level=x, duration_s=500.0, rng=np.random.default_rng(3)
            )
        )
        for x in (0.1, 0.9)
    )
    assert many > 3 * few


def test_without_a_level_futures_differ_in_rate() -> None:
    rng = np.random.default_rng(4)
    rates = [
        sample_workload(
            window_of(demand(median_rps=50.0)), level=None, duration_s=60.0, rng=rng
        ).request_rate_rps
        for _ in range(40)
    ]
    assert max(rates) > 1.8 * min(rates)


def test_classes_are_merged_in_order_of_arrival() -> None:
    chat = demand(name="chat", shape=point_shape(isl=10, osl=5))
    batch = demand(name="batch", median_rps=5.0, shape=point_shape(isl=2_000, osl=100))
    drawn = sample_workload(
        window_of(chat, batch), level=0.5, duration_s=400.0, rng=np.random.default_rng(5)
    )
    assert set(drawn.input_tokens[drawn.request_class == "chat"]) == {10}
    assert set(drawn.input_tokens[drawn.request_class == "batch"]) == {2_000}
    assert (drawn.request_class == "chat").mean() == pytest.approx(2 / 3, abs=0.05)


def test_no_demand_draws_no_requests() -> None:
    drawn = sample_workload(window_of(), level=0.5, duration_s=60.0, rng=np.random.default_rng(0))
    assert len(drawn) == 0
    assert drawn.duration_s == 60.0


@given(
    seed=st.integers(0, 2**20),
    duration_s=st.floats(0.1, 100.0),
    rate_rps=st.floats(0.0, 50.0),
    cv2=st.floats(0.0, 20.0),
)
@settings(max_examples=60, deadline=None)
def test_equal_seeds_give_equal_workloads(
    seed: int, duration_s: float, rate_rps: float, cv2: float
) -> None:
    window = window_of(demand(median_rps=rate_rps, cv2=cv2))
    first, second = (
        sample_workload(window, level=0.5, duration_s=duration_s, rng=np.random.default_rng(seed))
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.arrival_offset_s, second.arrival_offset_s)
    np.testing.assert_array_equal(first.input_tokens, second.input_tokens)


def test_a_duration_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="duration_s"):
        sample_workload(window_of(), level=0.5, duration_s=0.0, rng=np.random.default_rng(0))
