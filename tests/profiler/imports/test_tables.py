"""Points become rectangles; what is filled or lifted is said."""

import numpy as np
import pytest

from planner.domain.profile import TimeTable
from profiler.imports.tables import Point, decode_table, left_out_error_ratio, prefill_table


def points(*rows):
    return [Point(x=x, y=y, seconds=s) for x, y, s in rows]


def test_every_measured_point_is_found_again():
    rows = [(1, 0, 0.1), (8, 0, 0.2), (1, 100, 0.3), (16, 100, 0.6)]
    made = prefill_table(points(*rows))
    for x, y, seconds in rows:
        assert float(made.table.at(x, y)) == pytest.approx(seconds)


def test_cells_without_a_measurement_are_filled_and_counted():
    made = decode_table(points((1, 10, 0.01), (9, 10, 0.05), (1, 99, 0.02), (5, 99, 0.04)))
    assert float(made.table.at(5, 10)) == pytest.approx(0.03)
    assert float(made.table.at(9, 99)) == pytest.approx(0.06)  # its last segment, continued
    assert made.notes == (
        "decode step: 1 of 6 cells were interpolated between measured ones or held below the "
        "first, 1 continued beyond the largest measured sequences at their context tokens",
    )


def test_falls_are_lifted_and_named_with_how_much():
    made = prefill_table(points((128, 0, 0.058), (256, 0, 0.0522), (512, 0, 0.06)))
    assert made.table.seconds[:, 0].tolist() == [0.058, 0.058, 0.06]
    (note,) = made.notes
    assert "256 new tokens at 0 cached tokens from 0.0522 to 0.058 s (+11.1%)" in note


def test_many_lifted_points_are_counted():
    made = prefill_table(points((1, 0, 1.0), *((x, 0, 0.5) for x in range(2, 22))))
    assert "and 8 more, by at most 100.0%" in made.notes[0]


def test_repeats_count_with_their_median():
    made = decode_table(points((1, 0, 0.1), (1, 0, 0.9), (1, 0, 0.2)))
    assert made.table.seconds.tolist() == [[0.2]]


def test_a_straight_line_has_no_error_at_points_left_out():
    x = np.array([1.0, 2.0, 7.0])
    table = TimeTable(x_name="x", y_name="y", x=x, y=np.zeros(1), seconds=x[:, None])
    assert left_out_error_ratio(table) == pytest.approx(0.0)
    short = TimeTable(x_name="x", y_name="y", x=x[:2], y=np.zeros(1), seconds=x[:2, None])
    assert left_out_error_ratio(short) is None
