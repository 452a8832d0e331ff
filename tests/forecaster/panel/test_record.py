import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.panel.record import Record

nan = float("nan")
values = st.lists(st.one_of(st.just(nan), st.floats(0, 1e6)), min_size=1, max_size=60)


def recorded(rows, kept_steps: int = 100) -> Record:
    record = Record(series=1, kept_steps=kept_steps)
    for value in rows:
        record.add(np.array([value]), np.log1p([value]))
    return record


def test_the_last_value_holds_over_a_gap():
    assert recorded([2.0, nan]).last[0] == 2.0
    assert np.isnan(recorded([nan]).last[0])


@settings(max_examples=80, deadline=None)
@given(rows=values, kept=st.integers(4, 12), first=st.integers(0, 60), more=st.integers(0, 3))
def test_means_are_those_of_a_plain_loop_as_far_back_as_steps_are_kept(rows, kept, first, more):
    record = recorded(rows, kept)
    last = first + more
    observed = record.observed_mean(np.array([first]), np.array([last]))[0, 0]
    filled = record.filled_mean(np.array([first]), np.array([last]))[0, 0]
    known = last < len(rows) and bool(record.knows(np.array([first]))[0])
    assert known or last >= len(rows) or first < len(rows) - kept
    seen = [v for v in rows[first : last + 1] if not np.isnan(v)] if known else []
    if 2 * len(seen) <= more + 1:
        assert np.isnan(observed)
    else:
        assert observed == pytest.approx(np.mean(seen), abs=1e-6)
    before = [next((v for v in rows[t::-1] if not np.isnan(v)), nan) for t in range(len(rows))]
    expected = np.mean(before[first : last + 1]) if known else nan
    assert filled == pytest.approx(expected, abs=1e-6, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(rows=values, count=st.integers(1, 8))
def test_recent_means_leave_gaps_out(rows, count):
    mean, log_mean = recorded(rows, 10).recent_means(np.array([count]))
    seen = [v for v in rows[-count:] if not np.isnan(v)]
    expected = (np.mean(seen), np.mean(np.log1p(seen))) if seen else (nan, nan)
    assert (mean[0, 0], log_mean[0, 0]) == pytest.approx(expected, abs=1e-6, nan_ok=True)
