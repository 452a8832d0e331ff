"""Numbers in sentences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.domain.wording import counted, interval, percent, with_interval


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (counted(0, "step"), "0 steps"),
        (counted(1, "window"), "1 window"),
        (counted(1204, "request"), "1,204 requests"),
        (counted(1, "entry", "entries"), "1 entry"),
        (counted(2, "entry", "entries"), "2 entries"),
        (counted(1.0, "second"), "1 second"),
        (percent(0.9521), "95.2%"),
        (percent(1.0), "100.0%"),
        (percent(0.99963), "99.96%"),
        (percent(0.9999), "99.99%"),
        (percent(0.9999999), "99.999%"),
        (percent(1 - 1e-15), "100.0%"),
        (percent(0.0), "0.0%"),
        (percent(0.00004), "0.004%"),
        (percent(1e-12), "0.0%"),
        (percent(1.0003), "100.03%"),
        (percent(-0.25), "-25.0%"),
        (interval(0.994, 0.998), "99.4% to 99.8%"),
        (interval(0.9981, 0.9983), "99.81% to 99.83%"),
        (interval(0.99978, 0.99992), "99.98% to 99.99%"),
        (interval(0.9976, 1.0), "at least 99.7%"),
        (interval(0.99989, 1.0), "at least 99.98%"),
        (interval(0.99998, 1.0), "at least 99.998%"),
        (interval(0.0, 0.0009), "at most 0.09%"),
        (interval(0.0, 1.0), "anything"),
        (with_interval(1.0, 0.9976, 1.0), "100.0% (at least 99.7%)"),
        (with_interval(0.997, 0.994, 0.998), "99.7% (99.4% to 99.8%)"),
        (with_interval(0.5, None, None), "50.0%"),
    ],
)
def test_numbers_are_written_for_people(written, text):
    assert written == text


@given(st.integers(1, 10**5), st.integers(1, 10**5))
def test_a_share_of_some_is_neither_all_nor_nothing_unless_it_is(met, missed):
    assert float(percent(met / (met + missed))[:-1]) not in (0.0, 100.0)


@given(st.floats(0, 0.99999))
def test_a_bound_claims_no_more_than_was_found(low):
    text = interval(low, 1.0)
    claimed = float(text.removeprefix("at least ")[:-1]) if low else 0.0
    assert claimed <= 100 * low + 1e-5
    assert claimed >= 100 * low - 0.1001
