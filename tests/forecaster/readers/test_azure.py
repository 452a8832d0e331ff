from datetime import UTC, datetime
from pathlib import Path

import pytest

from forecaster.readers import TraceFormat, read_trace
from planner.domain.errors import TraceError

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


@pytest.fixture
def write(tmp_path: Path):
    def write_lines(*lines: str, end: str = "\r\n") -> Path:
        path = tmp_path / "trace.csv"
        path.write_bytes(end.join(lines).encode())
        return path

    return write_lines


def test_windows_line_ends_and_seven_digits_are_read(write):
    path = write(HEADER, "2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.0319609,3,8")
    trace = read_trace(path)
    assert trace.report.trace_format is TraceFormat.AZURE
    assert trace.workload.start_at == datetime(2023, 11, 16, 18, 17, 3, 979960, tzinfo=UTC)
    assert trace.workload.arrival_offset_s == pytest.approx([0.0, 0.052], abs=1e-6)
    assert trace.workload.input_tokens.tolist() == [4808, 3]
    assert trace.workload.output_tokens.tolist() == [10, 8]
    assert trace.workload.prefix is None


def test_a_start_moves_the_trace(write):
    start_at = datetime(2026, 1, 1, tzinfo=UTC)
    path = write(HEADER, "2023-11-16 18:17:03.0,5,5", "2023-11-16 18:17:05.0,5,5", end="\n")
    trace = read_trace(path, start_at=start_at)
    assert trace.workload.start_at == start_at
    assert trace.workload.arrival_offset_s.tolist() == [0.0, 2.0]


def test_columns_may_stand_in_any_order_with_zones_and_a_byte_order_mark(write):
    path = write(
        "\ufeffContextTokens,Model,TIMESTAMP,GeneratedTokens",
        "5,x,2024-05-10 02:00:00.5+02:00,7",
        "",
        "6,x,2024-05-10 00:00:01.5+00:00,8",
        end="\n",
    )
    trace = read_trace(path)
    assert trace.workload.start_at == datetime(2024, 5, 10, 0, 0, 0, 500000, tzinfo=UTC)
    assert trace.workload.arrival_offset_s.tolist() == [0.0, 1.0]
    assert trace.report.rows_read == 2


def test_a_missing_column_is_named(write):
    with pytest.raises(TraceError, match=r"trace\.csv:1: the header lacks the column Generated"):
        read_trace(write("TIMESTAMP,ContextTokens", "2023-11-16 18:17:03,1"))


def test_a_header_alone_is_no_trace(write):
    with pytest.raises(TraceError, match="header but no request"):
        read_trace(write(HEADER, ""))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2023-11-16 18:17:03,5", "2 columns instead of 3"),
        ("yesterday,5,5", "TIMESTAMP must look like"),
        ("2023-11-16 18:17:03,5x,5", "ContextTokens must be an integer, got '5x'"),
        ("2023-11-16 18:17:03,1_0,5", "ContextTokens must be an integer"),
        ("2023-11-16 18:17:03,5,-5", "GeneratedTokens must be at least 1, got -5"),
        ("2023-11-16 18:17:03,5," + "9" * 5000, "GeneratedTokens must be an integer"),
        ("1923-11-16 18:17:03,5,5", "TIMESTAMP must lie between"),
    ],
)
def test_a_bad_row_is_refused_with_its_reason_and_line(write, line, reason):
    with pytest.raises(TraceError) as raised:
        read_trace(write(HEADER, "2023-11-16 18:17:03,5,5", line))
    assert "trace.csv:3: " in str(raised.value)
    assert reason in str(raised.value)


def test_a_file_that_was_cut_says_so(write):
    rows = [f"2023-11-16 18:17:{s:02d},5,5" for s in range(60)] * 2
    path = write(HEADER, *sorted(rows), "2023-11-16 18:1", end="\n")
    report = read_trace(path).report
    assert report.rows_refused == 1
    assert "is it cut off?" in report.reasons[0]
