import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from forecaster.readers import TraceFormat, read_trace
from planner.domain.errors import TraceError


def row(timestamp: float, input_length: int, output_length: int, *hash_ids: int) -> dict:
    return {
        "timestamp": timestamp,
        "input_length": input_length,
        "output_length": output_length,
        "hash_ids": list(hash_ids),
    }


@pytest.fixture
def write(tmp_path: Path):
    def write_rows(*rows: object) -> Path:
        path = tmp_path / "trace.jsonl"
        path.write_text("".join(json.dumps(x) + "\n" for x in rows))
        return path

    return write_rows


def test_milliseconds_become_seconds_and_names_become_ours(write):
    trace = read_trace(write(row(0, 600, 7, 0, 1), row(1500, 20, 3, 2)))
    assert trace.report.trace_format is TraceFormat.MOONCAKE
    assert trace.workload.arrival_offset_s.tolist() == [0.0, 1.5]
    assert trace.workload.input_tokens.tolist() == [600, 20]
    assert trace.workload.output_tokens.tolist() == [7, 3]
    assert trace.workload.start_at == datetime(1970, 1, 1, tzinfo=UTC)
    assert trace.workload.duration_s == 3.0


def test_a_prompt_is_cached_up_to_its_first_new_block(write):
    trace = read_trace(
        write(
            row(0, 1500, 1, 10, 11, 12),
            row(1, 2000, 1, 10, 11, 99, 12),
            row(2, 1024, 1, 11, 10),
        )
    )
    # the third begins with two known blocks: 1024 tokens, of which the last is always computed
    assert trace.workload.cached_tokens.tolist() == [0, 1024, 1023]
    assert trace.workload.prefix is not None
    assert trace.workload.prefix.block_tokens == 512
    assert trace.workload.prefix.of(1).tolist() == [10, 11, 99, 12]


def test_a_repeated_one_token_prompt_has_nothing_cached(write):
    trace = read_trace(write(row(0, 1, 1, 5), row(1, 1, 1, 5)))
    assert trace.workload.cached_tokens.tolist() == [0, 0]


def test_a_trace_that_begins_late_keeps_its_instants(write):
    start_at = datetime(2026, 3, 1, tzinfo=UTC)
    trace = read_trace(write(row(60_000, 5, 5, 1), row(61_000, 5, 5, 2)), start_at=start_at)
    assert trace.workload.start_at == datetime(2026, 3, 1, 0, 1, tzinfo=UTC)
    assert trace.workload.arrival_offset_s.tolist() == [0.0, 1.0]


def test_one_request_is_a_trace(write):
    trace = read_trace(write(row(0, 10, 2, 0)))
    assert len(trace.workload) == 1
    assert trace.workload.duration_s == 1.0


def test_a_trace_without_hash_ids_has_no_prefixes(write):
    rows = ({"timestamp": t, "input_length": 5, "output_length": 1} for t in (0, 10))
    trace = read_trace(write(*rows))
    assert trace.workload.prefix is None
    assert trace.workload.cached_tokens.tolist() == [0, 0]


BAD_ROWS = {
    "input_length is missing": {"timestamp": 0, "output_length": 1, "hash_ids": []},
    "input_length must be at least 1, got -4": row(0, -4, 1),
    "output_length must be at least 1, got 0": row(0, 4, 0),
    "input_length must be at most 10000000": row(0, 10**8, 1),
    "a number of more than 40 digits": row(0, 10**50, 1),
    "input_length must be an integer, got 1.5": row(0, 1.5, 1),  # type: ignore[arg-type]
    "output_length must be an integer, got True": row(0, 1, True),
    "timestamp must lie between": row(-1, 4, 1),
    "timestamp must be a number, got nan": row(float("nan"), 4, 1),
    "hash_ids has 2 blocks of 512 tokens": row(0, 512, 1, 3, 4),
    "hash_ids must hold integers": row(0, 512, 1, -3),
    "hash_ids must be a list": {**row(0, 5, 1), "hash_ids": "abc"},
    "not a JSON object: .1.": [1],
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_a_bad_row_is_refused_with_its_reason_and_line(write, reason):
    good = [row(0, 5, 5, 1)] * 3
    with pytest.raises(TraceError, match=rf"trace\.jsonl:4: .*{reason}"):
        read_trace(write(*good, BAD_ROWS[reason]))


def test_few_bad_rows_are_counted_and_listed_but_do_not_stop_the_reading(write):
    rows: list[object] = [row(t, 5, 5, t) for t in range(300)]
    rows[100] = {"timestamp": 100}
    rows[200] = row(3, 5, 5, 1)
    trace = read_trace(write(*rows))
    assert trace.report.rows_read == 300
    assert trace.report.rows_refused == 2
    assert len(trace.workload) == 298
    assert trace.report.reasons == (
        "line 101: input_length is missing",
        "line 201: arrives 0.196 s before the row above; rows must be in order",
    )


def test_reasons_beyond_the_tenth_are_counted(write):
    rows: list[object] = [row(t, 5, 5, t) for t in range(2000)]
    rows[50:65] = [{}] * 15
    report = read_trace(write(*rows)).report
    assert len(report.reasons) == 11
    assert report.reasons[-1] == "and 5 more rows"


def test_rows_out_of_order_throughout_are_refused(write):
    with pytest.raises(TraceError, match="rows must be in order"):
        read_trace(write(*(row(1000 - t, 5, 5, t) for t in range(100))))


def test_a_row_without_hash_ids_among_rows_with_them_is_refused(write):
    bare = {"timestamp": 2, "input_length": 5, "output_length": 1}
    with pytest.raises(TraceError, match=":2: hash_ids is missing, but earlier rows have it"):
        read_trace(write(row(0, 5, 5, 1), bare))
