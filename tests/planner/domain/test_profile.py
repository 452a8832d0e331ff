"""Interpolation is exact at measured points, and never goes beyond them unnoticed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.errors import OutsideProfileError
from planner.domain.profile import TimeTable, TransferTime

TABLE = TimeTable(
    x_name="new tokens",
    y_name="cached tokens",
    x=np.array([10.0, 100.0, 1000.0]),
    y=np.array([0.0, 500.0]),
    seconds=np.array([[0.1, 0.2], [0.5, 0.7], [4.0, 5.0]]),
)


def test_measured_points_come_back_exactly() -> None:
    x, y = np.meshgrid(TABLE.x, TABLE.y, indexing="ij")
    assert TABLE.at(x, y) == pytest.approx(TABLE.seconds)


def test_between_points_it_is_bilinear() -> None:
    assert float(TABLE.at(55.0, 250.0)) == pytest.approx((0.1 + 0.2 + 0.5 + 0.7) / 4)


def test_below_the_first_point_its_value_is_held() -> None:
    assert float(TABLE.at(1.0, 0.0)) == pytest.approx(0.1)


@pytest.mark.parametrize(("x", "y"), [(1001.0, 0.0), (10.0, 501.0)])
def test_beyond_the_last_point_is_refused_by_name(x: float, y: float) -> None:
    with pytest.raises(OutsideProfileError, match="1000 new tokens and 500 cached tokens"):
        TABLE.at(x, y)


def test_extension_continues_the_last_segment() -> None:
    slope = (4.0 - 0.5) / 900
    assert float(TABLE.extended_at(1900.0, 0.0)) == pytest.approx(4.0 + 900 * slope)


def test_single_point_axis_makes_no_difference() -> None:
    flat = TimeTable(
        x_name="x", y_name="y", x=TABLE.x, y=np.array([0.0]), seconds=TABLE.seconds[:, :1]
    )
    assert float(flat.at(100.0, 9e9)) == 0.5


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 1000), st.floats(0, 1000), st.floats(0, 500))
def test_more_work_is_never_faster_in_a_monotone_table(a: float, b: float, y: float) -> None:
    low, high = sorted((a, b))
    assert float(TABLE.at(low, y)) <= float(TABLE.at(high, y)) + 1e-12


@pytest.mark.parametrize(
    "seconds", [[[1.0], [float("nan")]], [[1.0], [0.0]], [[1.0], [-1.0]], [[1.0]]]
)
def test_impossible_tables_are_refused(seconds: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="seconds"):
        TimeTable(
            x_name="x",
            y_name="y",
            x=np.array([1.0, 2.0]),
            y=np.array([0.0]),
            seconds=np.array(seconds),
        )


def test_transfer_is_base_plus_bytes_over_bandwidth() -> None:
    transfer = TransferTime(base_s=0.01, bandwidth_bytes_per_s=1e9)
    assert float(transfer.seconds(5e8)) == pytest.approx(0.51)
