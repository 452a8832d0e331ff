"""What the serving benchmark calls a gap during a change, and a failure of what was in flight."""

from datetime import UTC, datetime

import numpy as np
import pytest

from benchmarks.serving.admission import profiling
from benchmarks.serving.kills import _judged
from benchmarks.serving.rig import Span, gaps_within, kinds_of
from planner.domain.workload import Workload
from serving.traffic.load import Replay, Timing


def timing(sent: float, *tokens: float, error: str = "") -> Timing:
    counts = tuple(range(1, len(tokens) + 1))
    return Timing(sent_at_s=sent, token_at_s=tokens, tokens=counts, input_tokens=1, error=error)


def replay(*timings: Timing) -> Replay:
    count = len(timings)
    workload = Workload(
        start_at=datetime(2026, 1, 1, tzinfo=UTC),
        arrival_offset_s=np.array([t.sent_at_s for t in timings]),
        input_tokens=np.ones(count, dtype=np.int64),
        output_tokens=np.ones(count, dtype=np.int64),
        cached_tokens=np.zeros(count, dtype=np.int64),
        request_class=np.full(count, "default"),
        duration_s=100.0,
    )
    return Replay(workload=workload, timings=timings, began_at_s=0.0, late_s=0.0)


def test_a_gap_belongs_to_the_span_in_which_it_ends() -> None:
    span = Span(what="flip", began_s=2.0, ended_s=3.0)
    gaps = gaps_within(replay(timing(0.0, 1.0, 2.5, 4.0)), [span])
    assert gaps.tolist() == [1.5]


def test_failures_are_told_apart_by_when_they_were_sent() -> None:
    judged = _judged(
        "decode",
        replay(
            timing(1.0, 2.0),  # over before
            timing(4.0, 5.0, 6.0, error="ReadError: cut"),  # in flight, cut off
            timing(4.5, 6.0, 7.0),  # in flight elsewhere
            timing(6.0, error="HTTP 502: none"),  # sent later
            timing(8.0, 9.0),
        ),
        5.5,
        whole_s=4.0,
    )
    assert (judged.in_flight, judged.failed_in_flight, judged.failed_after) == (2, 1, 1)
    assert judged.answers_again_s == pytest.approx(3.5)
    assert judged.errors == "1 x HTTP 502; 1 x ReadError"


def test_admission_profiles_a_pair_of_workers_under_its_quota(tmp_path) -> None:
    asked = profiling(tmp_path / "profile.json")
    assert (asked.is_pair, asked.url, asked.cores) == (True, None, 0.5)


def test_no_errors_read_as_none() -> None:
    assert kinds_of([]) == "none"
