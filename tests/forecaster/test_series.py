import numpy as np
import pytest

from forecaster.panel import MOST_STEPS
from forecaster.series import rate_table, span_of, usable_history
from planner.domain.errors import HistoryError
from tests.forecaster.histories import history, minute, window


def requests(w):
    return w.requests


def test_gaps_are_masked_and_zeros_stay_zeros():
    series = rate_table(history([6, None, 0, 12]), [requests])
    np.testing.assert_allclose(series.values[:, 0], [0.1, np.nan, 0.0, 0.2])
    assert series.observed_s[0] == 180.0
    assert series.end_at == minute(4)


def test_windows_of_other_lengths_give_rates_in_the_step_of_their_middle():
    mixed = [window(0, 60, window_s=180.0), window(3, 6), window(4, 6)]
    series = rate_table(mixed, [requests])
    np.testing.assert_allclose(series.values[:, 0], [1 / 3, np.nan, 0.1, 0.1])


def test_a_very_old_window_does_not_make_an_endless_series():
    series = rate_table([window(0, 1), window(10_000_000, 2)], [requests])
    assert len(series.values) == MOST_STEPS
    assert np.count_nonzero(~np.isnan(series.values)) == 1


def test_a_total_that_a_window_does_not_tell_is_masked_in_its_column_only():
    table = rate_table(history([6, 12]), [requests, lambda w: np.nan if w.requests < 10 else 60.0])
    np.testing.assert_allclose(table.values, [[0.1, np.nan], [0.2, 1.0]])


def test_windows_that_end_later_are_not_used():
    past = usable_history(history([1, 2, 3]), minute(2))
    assert [w.requests for w in past["default"]] == [1, 2]


def test_an_empty_history_is_refused():
    with pytest.raises(HistoryError, match="holds no window"):
        usable_history([], minute(0))


def test_a_history_of_the_future_only_is_refused():
    with pytest.raises(HistoryError, match=r"no window of the history has ended by 2026-01-01"):
        usable_history(history([None, 5]), minute(1))


def test_overlapping_windows_of_one_class_are_refused():
    with pytest.raises(HistoryError, match="overlap"):
        usable_history([window(0, 1), window(0.5, 1)], minute(9))


def test_windows_of_two_classes_may_overlap():
    past = usable_history([window(0, 1), window(0, 1, request_class="b")], minute(9))
    assert sorted(past) == ["b", "default"]


@pytest.mark.parametrize(
    ("start", "window_s", "span"),
    [
        (3, 60.0, (1, 1)),
        (4, 60.0, (2, 2)),
        (3, 300.0, (1, 5)),
        (5, 20.0, (3, 3)),
        (3.5, 60, (1, 2)),
    ],
)
def test_a_forecast_window_covers_the_steps_it_touches(start, window_s, span):
    series = rate_table(history([1, 1, 1]), [requests])
    found = span_of(series, minute(start), window_s)
    assert (found.first, found.last) == span
