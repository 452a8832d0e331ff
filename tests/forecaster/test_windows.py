from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.readers import read_trace
from forecaster.rescale import spread_ticks
from forecaster.windows import arrival_cv2_of, observe_windows, shape_of
from planner.domain.errors import HistoryError
from planner.domain.workload import Workload

START = datetime(2026, 1, 1, tzinfo=UTC)


def workload(offsets, *, duration_s, classes=None, tokens=100) -> Workload:
    count = len(offsets)
    return Workload(
        start_at=START,
        arrival_offset_s=np.array(offsets, dtype=float),
        input_tokens=np.full(count, tokens),
        output_tokens=np.full(count, 10),
        cached_tokens=np.full(count, 5),
        request_class=np.array(classes or ["default"] * count, dtype=np.str_),
        duration_s=duration_s,
    )


def test_every_class_has_a_window_even_where_it_had_no_request():
    windows = observe_windows(
        workload([0, 1, 10, 25], duration_s=30, classes=["chat", "code", "chat", "chat"]), 10.0
    )
    assert [(w.request_class, w.requests) for w in windows] == [
        ("chat", 1), ("code", 1), ("chat", 1), ("code", 0), ("chat", 1), ("code", 0),
    ]  # fmt: skip
    assert [w.start_at - START for w in windows[::2]] == [timedelta(seconds=s) for s in (0, 10, 20)]
    assert windows[3].shape is None
    assert windows[0].shape is not None
    assert windows[0].shape.isl_mean == 100


def test_a_window_begins_with_its_start_and_ends_before_its_end():
    windows = observe_windows(workload([0, 10, 19.999, 20], duration_s=30), 10.0)
    assert [w.requests for w in windows] == [1, 2, 1]


def test_the_trailing_part_of_a_window_is_left_out():
    windows = observe_windows(workload([0, 5, 14], duration_s=15), 10.0)
    assert [w.requests for w in windows] == [2]


def test_a_trace_shorter_than_a_window_has_none():
    assert observe_windows(workload([0, 1], duration_s=2), 10.0) == ()


def test_time_without_any_request_is_a_real_zero():
    windows = observe_windows(workload([], duration_s=60), 20.0)
    assert [(w.request_class, w.requests) for w in windows] == [("default", 0)] * 3


def test_a_wrong_time_stamp_does_not_make_a_billion_windows():
    with pytest.raises(HistoryError, match="look for a wrong time stamp"):
        observe_windows(workload([0, 4e9], duration_s=4e9), 1.0)


@pytest.mark.parametrize("window_s", [0.0, -1.0, float("nan")])
def test_a_window_needs_a_length(window_s):
    with pytest.raises(HistoryError, match="above 0"):
        observe_windows(workload([0, 1], duration_s=2), window_s)


@settings(max_examples=50, deadline=None)
@given(
    offsets=st.lists(st.floats(0, 600), min_size=1, max_size=60).map(sorted),
    window_s=st.sampled_from([0.1, 7.0, 60.0]),
)
def test_whole_windows_hold_every_request_once(offsets, window_s):
    trace = workload(offsets, duration_s=600.0 + window_s)
    windows = observe_windows(trace, window_s)
    covered_s = len(windows) * window_s
    assert sum(w.requests for w in windows) == sum(x < covered_s for x in offsets)
    for index, window in enumerate(windows):
        inside = trace.between(index * window_s, (index + 1) * window_s)
        assert window.requests == len(inside)
        assert window.input_tokens == inside.input_tokens.sum()


def test_poisson_arrivals_have_a_squared_cv_of_one():
    rng = np.random.default_rng(0)
    offsets = np.cumsum(rng.exponential(1.0, 20_000))
    assert arrival_cv2_of(workload(offsets, duration_s=offsets[-1])) == pytest.approx(1, abs=0.05)


def test_few_arrivals_count_as_poisson():
    assert arrival_cv2_of(workload([0, 0, 9], duration_s=9)) == 1.0


def test_the_windows_of_mooncake_hold_its_tokens(poolwise_data):
    trace = read_trace(poolwise_data / "traces" / "mooncake_conversation_trace.jsonl")
    windows = observe_windows(trace.workload, 60.0)
    assert len(windows) == 58
    inside = trace.workload.between(0.0, 58 * 60.0)
    assert sum(w.requests for w in windows) == len(inside)
    assert sum(w.cached_tokens for w in windows) == inside.cached_tokens.sum()
    shape = shape_of(trace.workload)
    assert shape.isl_mean == pytest.approx(trace.workload.input_tokens.mean(), rel=1e-12)
    assert shape.reuse_ratio == pytest.approx(0.3736, abs=1e-4)
    assert shape.isl_quantile(0.99) == pytest.approx(85_400, rel=0.2)


def test_spreading_the_ticks_of_mooncake_takes_its_false_bursts_away(poolwise_data):
    trace = read_trace(poolwise_data / "traces" / "mooncake_conversation_trace.jsonl")
    assert trace.report.arrival_tick_s is not None
    assert arrival_cv2_of(trace.workload) > 5
    spread = spread_ticks(
        trace.workload, tick_s=trace.report.arrival_tick_s, rng=np.random.default_rng(0)
    )
    assert arrival_cv2_of(spread) == pytest.approx(1.1, abs=0.3)
