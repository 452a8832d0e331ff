from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecaster.readers import TraceFile, TraceFormat, read_trace
from forecaster.readers.lines import LONGEST_LINE_BYTES
from planner.domain.errors import TraceError

AZURE = b"TIMESTAMP,ContextTokens,GeneratedTokens\n"
MOONCAKE = b'{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": [0]}\n'


def read_bytes(folder: Path, content: bytes, **options) -> TraceFile:
    path = folder / "trace"
    path.write_bytes(content)
    return read_trace(path, **options)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(TraceError, match=r"absent\.jsonl: there is no such trace file"):
        read_trace(tmp_path / "absent.jsonl")


def test_a_folder_is_no_trace(tmp_path):
    with pytest.raises(TraceError, match="this is a folder"):
        read_trace(tmp_path)


def test_an_impossible_path_is_refused():
    with pytest.raises(TraceError, match="cannot be opened"):
        read_trace(Path("a\0b"))


@pytest.mark.parametrize("content", [b"", b"\n\n \n"])
def test_an_empty_file_is_refused(tmp_path, content):
    with pytest.raises(TraceError, match="the file is empty"):
        read_bytes(tmp_path, content)


def test_another_format_is_refused_with_what_was_found(tmp_path):
    with pytest.raises(TraceError, match=r"neither Mooncake JSONL nor Azure CSV.*'a,b,c'"):
        read_bytes(tmp_path, b"a,b,c\n1,2,3\n")


def test_a_format_asked_for_must_be_the_one_found(tmp_path):
    with pytest.raises(TraceError, match=r"not Azure CSV.*looks like Mooncake JSONL"):
        read_bytes(tmp_path, MOONCAKE, trace_format=TraceFormat.AZURE)


def test_a_start_without_zone_is_refused(tmp_path):
    with pytest.raises(TraceError, match="start_at needs a time zone"):
        read_bytes(tmp_path, MOONCAKE, start_at=datetime(2026, 1, 1))  # noqa: DTZ001


def test_a_start_at_the_end_of_time_is_refused(tmp_path):
    late = MOONCAKE.replace(b'"timestamp": 0', b'"timestamp": 999999999')
    with pytest.raises(TraceError, match="too late"):
        read_bytes(tmp_path, late, start_at=datetime(9999, 12, 31, tzinfo=UTC))


def test_an_endless_line_is_refused_without_reading_it_as_one(tmp_path):
    content = MOONCAKE + b"x" * (3 * LONGEST_LINE_BYTES) + b"\n" + MOONCAKE * 200
    trace = read_bytes(tmp_path, content)
    assert trace.report.reasons == (f"line 2: line is longer than {LONGEST_LINE_BYTES} bytes",)
    assert len(trace.workload) == 201


def test_a_line_that_never_ends_is_given_up(tmp_path):
    path = tmp_path / "trace"
    path.write_bytes(MOONCAKE)
    with path.open("r+b") as file:
        file.truncate(80 * LONGEST_LINE_BYTES)  # sparse: zeros that take no disk
    with pytest.raises(TraceError, match="trace:2: a line without end"):
        read_trace(path)


def test_deep_nesting_is_refused(tmp_path):
    with pytest.raises(TraceError, match="nested too deeply"):
        read_bytes(tmp_path, b'{"a":' + b"[" * 200_000)


def test_half_a_mooncake_line_is_refused(tmp_path):
    with pytest.raises(TraceError, match="is it cut off"):
        read_bytes(tmp_path, MOONCAKE * 3 + MOONCAKE[:40])


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.sampled_from([b"", AZURE, MOONCAKE, b"{", b"\xef\xbb\xbf"]),
    junk=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from(
                [b"{}", b"[", b",", b"1e999", b"NaN", b"9" * 50, b"2023-11-16 18:17:03,1,1\n",
                 b"\n", b'"timestamp":', MOONCAKE, MOONCAKE[:30], b"\xff", b"\0"]
            ),
            max_size=8,
        ).map(b"".join),
    ),
)  # fmt: skip
def test_any_bytes_give_a_trace_or_a_trace_error(tmp_path, start, junk):
    trace, message = None, ""
    try:
        trace = read_bytes(tmp_path, start + junk)
    except TraceError as error:
        message = str(error)
    read_whole = trace is not None and len(trace.workload) + trace.report.rows_refused > 0
    assert read_whole or str(tmp_path / "trace") in message


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(junk=st.binary(min_size=1, max_size=400).filter(lambda b: not b.startswith(b"{")))
def test_random_bytes_are_no_trace(tmp_path, junk):
    with pytest.raises(TraceError):
        read_bytes(tmp_path, junk)
