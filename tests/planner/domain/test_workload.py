"""Workloads, shapes and windows hold what they promise."""

from datetime import UTC, datetime

import numpy as np
import pytest

from planner.domain.workload import ObservedWindow, PrefixBlocks, Shape, Workload

START = datetime(2026, 1, 1, tzinfo=UTC)


def workload(**changes: object) -> Workload:
    values = {
        "start_at": START,
        "arrival_offset_s": np.array([0.0, 1.0, 2.5]),
        "input_tokens": np.array([10, 20, 30]),
        "output_tokens": np.array([1, 2, 3]),
        "cached_tokens": np.array([0, 4, 8]),
        "request_class": np.array(["default"] * 3),
        "duration_s": 4.0,
        "prefix": PrefixBlocks(
            block_tokens=4, offsets=np.array([0, 1, 3, 6]), block_ids=np.array([1, 1, 2, 1, 2, 3])
        ),
    }
    return Workload(**(values | changes))


def test_between_is_half_open_and_counts_from_its_start() -> None:
    part = workload().between(1.0, 2.5)
    assert part.arrival_offset_s.tolist() == [0.0]
    assert part.input_tokens.tolist() == [20]
    assert part.prefix is not None
    assert part.prefix.of(0).tolist() == [1, 2]
    assert (part.start_at - START).total_seconds() == 1.0
    assert part.duration_s == 1.5


def test_parts_make_up_the_whole() -> None:
    whole = workload()
    parts = [whole.between(0.0, 1.0), whole.between(1.0, 4.0)]
    assert sum(len(p) for p in parts) == len(whole)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arrival_offset_s": np.array([0.0, 2.0, 1.0])}, "must not decrease"),
        ({"input_tokens": np.array([10, 20])}, "input_tokens has 2 rows, not 3"),
        ({"output_tokens": np.array([1, 0, 3])}, "at least 1"),
        ({"cached_tokens": np.array([11, 0, 0])}, "between 0 and input_tokens"),
        ({"duration_s": 2.0}, "before the last arrival"),
        ({"start_at": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001
    ],
)
def test_impossible_workloads_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        workload(**changes)


def test_shape_quantiles_are_weighted() -> None:
    shape = Shape(
        input_tokens=np.array([100.0, 1000.0]),
        output_tokens=np.array([50.0, 5.0]),
        cached_tokens=np.array([0.0, 500.0]),
        weight=np.array([0.9, 0.1]),
    )
    assert shape.isl_mean == pytest.approx(190)
    assert shape.isl_quantile(0.5) == 100
    assert shape.isl_quantile(0.95) == 1000
    assert shape.reuse_ratio == pytest.approx(50 / 190)


def test_window_with_tokens_but_no_requests_is_refused() -> None:
    with pytest.raises(ValueError, match="without requests cannot have tokens"):
        ObservedWindow(
            start_at=START,
            window_s=60,
            requests=0,
            input_tokens=5,
            output_tokens=0,
            cached_tokens=0,
        )
