"""What histograms say for certain: checked against the values they were made from."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.telemetry.histogram import Histogram

ENDS = (0.1, 0.5, 1.0, 2.5, 10.0)
VALUES = st.lists(st.floats(0.0, 50.0), min_size=1, max_size=60)
SUBSETS = st.sets(st.sampled_from(ENDS), min_size=1)


def made(values: list[float], ends: tuple[float, ...] = ENDS) -> Histogram:
    upper = (*sorted(ends), math.inf)
    below = {end: float(sum(v <= end for v in values)) for end in upper}
    return Histogram.of(below, count=len(values), total=sum(values))


def true_quantile(values: list[float], level: str) -> float:
    """The smallest value that at least so large a share does not exceed, in exact arithmetic."""
    rank = math.ceil(Fraction(level) * len(values))
    return sorted(values)[max(rank, 1) - 1]


@given(VALUES, st.sampled_from(["0.5", "0.95", "0.99", "0.2"]))
def test_a_quantile_lies_in_the_bucket_that_is_named(values: list[float], level: str) -> None:
    found = made(values).quantile(float(level))
    assert found is not None
    truth = true_quantile(values, level)
    assert found.low <= truth <= found.high
    assert found.low <= found.value <= found.high


@given(VALUES, st.floats(0.0, 60.0))
def test_the_share_within_a_limit_lies_between_its_bounds(
    values: list[float], limit: float
) -> None:
    share = made(values).within(limit)
    assert share is not None
    truth = sum(v <= limit for v in values) / len(values)
    assert share.low - 1e-9 <= truth <= share.high + 1e-9


@given(VALUES)
def test_the_share_within_a_bucket_end_is_exact(values: list[float]) -> None:
    share = made(values).within(1.0)
    assert share is not None
    assert share.low == share.high == sum(v <= 1.0 for v in values) / len(values)


@given(VALUES, VALUES)
def test_what_came_in_between_is_the_difference(before: list[float], then: list[float]) -> None:
    grown = made(before + then) - made(before)
    assert grown.counts == made(then).counts
    assert grown.count == len(then)
    assert grown.total == pytest.approx(sum(then), abs=1e-6)


@given(VALUES, VALUES, SUBSETS, SUBSETS)
def test_buckets_that_differ_are_joined_to_those_in_common(
    one: list[float], two: list[float], ends: set[float], others: set[float]
) -> None:
    both = made(one, tuple(ends)) + made(two, tuple(others))
    assert both.counts == made(one + two, tuple(ends & others)).counts
    assert both.count == len(one) + len(two)


def test_a_quantile_in_the_last_bucket_has_no_upper_end() -> None:
    found = made([20.0, 30.0]).quantile(0.5)
    assert found is not None
    assert (found.value, found.low, found.high) == (10.0, 10.0, math.inf)


def test_interpolation_is_that_of_prometheus() -> None:
    # histogram_quantile(0.5) over 4 values in (0.1, 0.5] alone: the middle of the bucket.
    found = made([0.2, 0.3, 0.4, 0.45]).quantile(0.5)
    assert found is not None
    assert found.value == pytest.approx(0.3)


def test_without_values_there_is_no_quantile_share_or_mean() -> None:
    nothing = made([1.0]) - made([1.0])
    assert (nothing.quantile(0.5), nothing.within(1.0), nothing.mean) == (None, None, None)


def test_a_restart_is_less_than_nothing() -> None:
    assert (made([1.0]) - made([1.0, 2.0])).went_back
    assert not (made([1.0, 2.0]) - made([1.0])).went_back
