from datetime import UTC, datetime
from pathlib import Path

import pytest

from forecaster.readers import TraceFormat, read_trace
from planner.domain.errors import TraceError

HEADER = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"


@pytest.fixture
def write(tmp_path: Path):
    def write_lines(*lines: str) -> Path:
        path = tmp_path / "burst.csv"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write_lines


def test_seconds_and_both_lengths_are_read(write):
    trace = read_trace(
        write(
            HEADER,
            "5,ChatGPT,472,18,490,Conversation log",
            "45,ChatGPT,1087,230,1317,Conversation log",
            "118.5,GPT-4,417,276,693,API log",
        ),
        start_at=datetime(2026, 3, 2, tzinfo=UTC),
    )
    assert trace.report.trace_format is TraceFormat.BURSTGPT
    assert trace.workload.start_at == datetime(2026, 3, 2, 0, 0, 5, tzinfo=UTC)
    assert trace.workload.arrival_offset_s.tolist() == [0.0, 40.0, 113.5]
    assert trace.workload.input_tokens.tolist() == [472, 1087, 417]
    assert trace.workload.output_tokens.tolist() == [18, 230, 276]
    assert trace.workload.prefix is None


def test_columns_of_later_releases_are_accepted(write):
    trace = read_trace(
        write(
            "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,"
            "Total tokens,Log Type",
            "5,81,3.2,ChatGPT,472,18,490,Conversation log",
            "45,,,ChatGPT,10,2,12,Conversation log",
        )
    )
    assert trace.workload.input_tokens.tolist() == [472, 10]


def test_failed_requests_are_counted_apart(write):
    rows = [f"{s},ChatGPT,10,{0 if s % 3 == 0 else 7},17,API log" for s in range(30)]
    trace = read_trace(write(HEADER, *rows))
    assert len(trace.workload) == 20
    assert (trace.report.requests_failed, trace.report.rows_refused) == (10, 0)
    assert trace.report.left_out == ("10 requests that failed (no answer)",)


def test_a_trace_of_failures_only_is_refused(write):
    with pytest.raises(TraceError, match="all 2 requests failed"):
        read_trace(write(HEADER, "1,ChatGPT,10,0,10,API log", "2,ChatGPT,10,0,10,API log"))


def test_the_log_type_can_be_the_class(write):
    trace = read_trace(
        write(HEADER, "1,ChatGPT,10,5,15,API log", "2,GPT-4,10,5,15,Conversation log"),
        class_column="Log Type",
    )
    assert trace.workload.request_class.tolist() == ["API log", "Conversation log"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("5,ChatGPT,472,18,490", "5 columns instead of 6"),
        ("soon,ChatGPT,472,18,490,API log", "Timestamp must be a number of seconds, got 'soon'"),
        ("1e3,ChatGPT,472,18,490,API log", "Timestamp must be a number of seconds"),
        ("-5,ChatGPT,472,18,490,API log", "Timestamp must be a number of seconds"),
        ("5000000000,ChatGPT,472,18,490,API log", "Timestamp must lie between"),
        ("5,ChatGPT,0,18,18,API log", "Request tokens must be at least 1, got 0"),
        ("5,ChatGPT,472,-18,490,API log", "Response tokens must be at least 1, got -18"),
        ("5,ChatGPT,472,18.0,490,API log", "Response tokens must be an integer, got '18.0'"),
        ("5,ChatGPT,99999999999,18,490,API log", "Request tokens must be at most"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason_and_line(write, line, reason):
    with pytest.raises(TraceError) as raised:
        read_trace(write(HEADER, "1,ChatGPT,472,18,490,API log", line))
    assert "burst.csv:3: " in str(raised.value)
    assert reason in str(raised.value)


def test_a_missing_column_is_named(write):
    with pytest.raises(TraceError, match=r"burst\.csv:1: the header lacks the column Response"):
        read_trace(write("Timestamp,Model,Request tokens", "1,ChatGPT,5"))
