import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecaster.readers import TraceFile, TraceFormat, read_trace
from forecaster.readers.lines import LONGEST_LINE_BYTES
from planner.domain.errors import TraceError

AZURE = b"TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURSTGPT = b"Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
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
    with pytest.raises(
        TraceError, match=r"none of Mooncake JSONL, Azure CSV, BurstGPT CSV.*'a,b,c'"
    ):
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
    start=st.sampled_from([b"", AZURE, BURSTGPT, MOONCAKE, b"{", b"\xef\xbb\xbf", b"\x1f\x8b"]),
    zipped=st.booleans(),
    junk=st.one_of(
        st.binary(max_size=200),
        st.lists(
            st.sampled_from(
                [b"{}", b"[", b",", b"1e999", b"NaN", b"9" * 50, b"2023-11-16 18:17:03,1,1\n",
                 b"5,ChatGPT,472,18,490,API log\n",
                 b"\n", b'"timestamp":', MOONCAKE, MOONCAKE[:30], b"\xff", b"\0"]
            ),
            max_size=8,
        ).map(b"".join),
    ),
)  # fmt: skip
def test_any_bytes_give_a_trace_or_a_trace_error(tmp_path, start, zipped, junk):
    trace, message = None, ""
    content = start + junk
    try:
        trace = read_bytes(tmp_path, gzip.compress(content) if zipped else content)
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


GOOD_ROWS = {
    AZURE: [f"2023-11-16 18:{m:02d}:{s:02d},1{s},2{s}" for m in range(5) for s in range(60)],
    BURSTGPT: [f"{s},ChatGPT,4{s},1{s % 7},5{s},API log" for s in range(300)],
    b"": [
        json.dumps({"timestamp": s, "input_length": 600, "output_length": 3, "hash_ids": [s, s]})
        for s in range(300)
    ],
}


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    header=st.sampled_from(list(GOOD_ROWS)),
    changes=st.lists(
        st.tuples(
            st.integers(0, 299),
            st.sampled_from(["drop", "twice", "swap", "cut", "digit", "sign", "junk"]),
            st.text(alphabet='0123456789,-.eE{}[]"x\0', max_size=12),
        ),
        max_size=6,
    ),
)
def test_mutated_rows_are_taken_or_refused_and_counted(tmp_path, header, changes):
    rows = list(GOOD_ROWS[header])
    for place, change, text in changes:
        index = place % len(rows)
        old = rows[index]
        rows[index : index + 1] = {
            "drop": [],
            "twice": [old, old],
            "swap": [old, rows[index - 1]],
            "cut": [old[: len(old) // 2]],
            "digit": [old.replace("1", "19999999", 1)],
            "sign": [old.replace(",", ",-", 1)],
            "junk": [text],
        }[change]
    try:
        trace = read_bytes(tmp_path, header + "\n".join(rows).encode())
    except TraceError as error:
        assert str(tmp_path / "trace") in str(error)  # noqa: PT017
        return
    taken = len(trace.workload) + trace.report.requests_failed
    assert taken + trace.report.rows_refused == trace.report.rows_read


def azure_rows(seconds: list[float]) -> bytes:
    at = datetime(2024, 5, 10, tzinfo=UTC).timestamp()
    stamps = [datetime.fromtimestamp(at + s, UTC).isoformat(sep=" ") for s in seconds]
    return AZURE + b"".join(f"{stamp},100,5\n".encode() for stamp in stamps)


def test_a_gzip_file_is_read_as_its_content(tmp_path):
    content = azure_rows([0.0, 1.0])
    zipped = read_bytes(tmp_path, gzip.compress(content))
    plain = read_bytes(tmp_path, content)
    assert zipped.workload.start_at == plain.workload.start_at
    assert zipped.workload.arrival_offset_s.tolist() == plain.workload.arrival_offset_s.tolist()


def test_half_a_gzip_file_is_refused_with_the_line_and_what_to_do(tmp_path):
    whole = gzip.compress(azure_rows([1.618 * s % 7 + 7 * s for s in range(2000)]))
    with pytest.raises(TraceError, match=r"trace:\d+: the gzip file is cut off .*zcat"):
        read_bytes(tmp_path, whole[: len(whole) // 2])


def test_one_stamp_from_the_future_costs_one_row(tmp_path):
    seconds = [float(s) for s in range(300)]
    seconds[150] = 86_400.0 * 365
    report = read_bytes(tmp_path, azure_rows(seconds)).report
    assert report.rows_refused == 1
    assert report.reasons[0].startswith("line 152: arrives 3.15358e+07 s after the row below")


def test_a_clock_jump_refuses_the_file_or_the_few_rows_beyond_it(tmp_path):
    jump = [float(s) for s in range(300)] + [1e6 + s for s in range(100)]
    with pytest.raises(TraceError, match=r"trace:302: no request for 999,701 s between lines 301"):
        read_bytes(tmp_path, azure_rows(jump))
    kept = read_bytes(tmp_path, azure_rows(jump[:302]))
    assert (len(kept.workload), kept.report.rows_refused) == (300, 2)
    assert "a jump of the clock?" in kept.report.reasons[0]
    late = read_bytes(tmp_path, azure_rows([0.0, *(1e6 + s for s in range(300))]))
    assert (len(late.workload), late.workload.duration_s) == (300, 300.0)


def test_a_clock_jump_may_be_accepted(tmp_path):
    jump = [float(s) for s in range(300)] + [1e6 + s for s in range(100)]
    trace = read_bytes(tmp_path, azure_rows(jump), accept_jump=True)
    assert len(trace.workload) == 400
    assert "longer than all the rest" in trace.report.remarks[0]


def test_a_jump_at_the_start_takes_its_prefix_blocks_along(tmp_path):
    rows = [{"timestamp": 0, "input_length": 512, "output_length": 1, "hash_ids": [7]}] + [
        {"timestamp": 10**9 + 1000 * s, "input_length": 1024, "output_length": 1,
         "hash_ids": [7, s + 10]}
        for s in range(200)
    ]  # fmt: skip
    trace = read_bytes(tmp_path, "\n".join(map(json.dumps, rows)).encode())
    assert trace.workload.cached_tokens.tolist() == [0] + [512] * 199
    assert trace.workload.prefix is not None
    assert trace.workload.prefix.of(0).tolist() == [7, 10]


def test_rows_written_twice_are_kept_and_remarked(tmp_path):
    trace = read_bytes(tmp_path, azure_rows([s // 2 * 1.7 for s in range(100)]))
    assert len(trace.workload) == 100
    assert "50 of 100 rows repeat a row above" in trace.report.remarks[0]


@pytest.mark.parametrize("kind", ["azure", "burstgpt", "mooncake"])
def test_rows_written_twice_are_told_wherever_in_their_instant_they_stand(tmp_path, kind):
    lines = {
        "azure": AZURE,
        "burstgpt": BURSTGPT,
        "mooncake": b"",
    }[kind]
    row = {
        "azure": "2024-05-10 00:00:{s:02d},9,{n}",
        "burstgpt": "{s},m,9,{n},9,API log",
        "mooncake": '{{"timestamp": {s}, "input_length": 600, "output_length": {n}, '
        '"hash_ids": [1, {n}]}}',
    }[kind]
    rows = [row.format(s=s, n=n + 1) for s in range(40) for n in (0, 1, 2, 0, 1, 2)]
    report = read_bytes(tmp_path, lines + "\n".join(rows).encode()).report
    assert "120 of 240 rows repeat a row above" in report.remarks[0]
    first = 4 if kind == "mooncake" else 5
    assert f"first: line {first})" in report.remarks[0]
    once = [row.format(s=s, n=n + 1) for s in range(40) for n in (0, 1, 2)]
    assert read_bytes(tmp_path, lines + "\n".join(once).encode()).report.remarks == ()


def test_classes_are_read_from_their_own_column_or_the_one_named(tmp_path):
    rows = b"TIMESTAMP,ContextTokens,GeneratedTokens,RequestClass,Team\n" + b"".join(
        f"2024-05-10 00:00:{s:02d},9,9,{'gold' if s % 2 else 'free'},t{s}\n".encode()
        for s in range(4)
    )
    assert read_bytes(tmp_path, rows).workload.request_class.tolist() == ["free", "gold"] * 2
    named = read_bytes(tmp_path, rows, class_column="Team")
    assert named.workload.request_class.tolist() == ["t0", "t1", "t2", "t3"]
    with pytest.raises(TraceError, match="lacks the column Plan"):
        read_bytes(tmp_path, rows, class_column="Plan")


def test_a_column_of_ids_is_no_class(tmp_path):
    rows = b"Timestamp,Session ID,Request tokens,Response tokens\n" + b"".join(
        f"{s},id{s},9,9\n".encode() for s in range(1200)
    )
    with pytest.raises(TraceError, match="request class is one more than 1000"):
        read_bytes(tmp_path, rows, class_column="Session ID")


def _mooncake(stamps, path, **fields):
    row = {"input_length": 100, "output_length": 10} | fields
    path.write_text("".join(json.dumps({"timestamp": int(t), **row}) + "\n" for t in stamps))
    return path


@pytest.mark.parametrize(
    "later",
    [
        [],
        [*range(60_500, 90_000, 100)],
        [10**9, 10**9 + 1],
        # far in the future one by one, so that the rest cannot be dated
        [70_000, 10**11, 80_000],
    ],
)
def test_what_comes_after_the_end_of_reading_changes_nothing(tmp_path, later):
    until = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    past = [*range(0, 60_000, 500), 60_100, 60_200]
    alone = read_trace(_mooncake(past, tmp_path / "a.jsonl"), until=until)
    path = _mooncake([*past, *later], tmp_path / "b.jsonl")
    path.write_text(path.read_text() + '{"timestamp": 99}\n' * (50 if later else 0))
    altered = read_trace(path, until=until)
    assert len(altered.workload) == len(alone.workload) == 120
    assert altered.workload.duration_s == alone.workload.duration_s == 60.0
    assert altered.report.arrival_tick_s == alone.report.arrival_tick_s
    assert altered.report.rows_refused == alone.report.rows_refused == 0


def test_a_single_wrong_stamp_does_not_end_the_reading(tmp_path):
    until = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    stamps = [*range(0, 30_000, 100), 10**9, *range(30_000, 80_000, 100)]
    found = read_trace(_mooncake(stamps, tmp_path / "a.jsonl"), until=until)
    assert len(found.workload) == 600
    assert found.report.rows_refused == 1


def test_an_end_before_the_first_request_is_said(tmp_path):
    path = _mooncake([1000, 2000, 3000], tmp_path / "a.jsonl")
    with pytest.raises(TraceError, match="no request arrives before"):
        read_trace(path, until=datetime(1970, 1, 1, tzinfo=UTC))


def test_an_end_is_counted_from_where_the_trace_was_moved_to(tmp_path):
    path = tmp_path / "a.csv"
    rows = [f"2023-11-16 18:15:{s:02d}.0000000,100,10" for s in range(0, 50, 5)]
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "\n".join(rows) + "\n")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    moved = read_trace(path, start_at=start, until=start + timedelta(seconds=20))
    kept = read_trace(path, until=datetime(2023, 11, 16, 18, 15, 20, tzinfo=UTC))
    assert len(moved.workload) == len(kept.workload) == 4
    assert moved.workload.duration_s == kept.workload.duration_s == 20.0


BAD_FUTURE = {
    "lengths": [
        {"timestamp": t, "input_length": -4, "output_length": -5}
        for t in range(60_100, 90_000, 100)
    ],
    "missing": [{"timestamp": t} for t in (60_100, 70_000, 10**9)],
    "then garbage": [{"timestamp": 60_100, "input_length": 0}, *[{"x": 1}] * 30, {"timestamp": 99}],
    "one good row": [
        {"timestamp": 60_100, "input_length": 9, "output_length": 9},
        *[{"x": 1}] * 30,
    ],
    "new classes": [
        {"timestamp": 60_000 + t, "input_length": 9, "output_length": 9, "request_class": str(t)}
        for t in range(1200)
    ],
}


@pytest.mark.parametrize("later", BAD_FUTURE)
def test_bad_rows_from_the_end_of_reading_on_do_not_count(tmp_path, later):
    until = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    path = _mooncake(range(0, 60_000, 500), tmp_path / "a.jsonl")
    path.write_text(path.read_text() + "".join(json.dumps(r) + "\n" for r in BAD_FUTURE[later]))
    found = read_trace(path, until=until)
    assert len(found.workload) == 120
    assert found.workload.duration_s == 60.0
    assert (found.report.rows_read, found.report.rows_refused) == (120, 0)


def test_bad_rows_of_the_future_do_not_count_in_csv_either(tmp_path):
    until = datetime(1970, 1, 1, 0, 5, tzinfo=UTC)
    good = [f"{s},ChatGPT,40,10,50,API log\n" for s in range(300)]
    bad = [f"{s},ChatGPT,-4,-5,50\n" for s in range(300, 600)]
    failed = [f"{s},ChatGPT,40,0,40,API log\n" for s in range(600, 900)]
    text = BURSTGPT + "".join([*good, *bad, *failed]).encode()
    report = read_bytes(tmp_path, text, until=until).report
    assert (report.rows_read, report.rows_refused, report.requests_failed) == (300, 0, 0)
    rows = azure_rows([float(s) for s in range(300)]).replace(b",100,5\n", b",-4,-5\n")
    azure = azure_rows([float(s - 300) for s in range(300)]) + rows.removeprefix(AZURE)
    report = read_bytes(tmp_path, azure, until=datetime(2024, 5, 10, tzinfo=UTC)).report
    assert (report.rows_read, report.rows_refused) == (300, 0)


def test_bad_rows_before_the_end_of_reading_count_whatever_comes_after(tmp_path):
    until = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    rows = [json.dumps({"timestamp": t, "input_length": -4}) for t in range(59_000, 60_000, 100)]
    past = _mooncake(range(0, 59_000, 500), tmp_path / "a.jsonl").read_text() + "\n".join(rows)
    for later in ("", '\n{"timestamp": 60100}\n{"timestamp": 60200}\n'):
        (tmp_path / "a.jsonl").write_text(past + later)
        with pytest.raises(TraceError, match="10 of 128 rows"):
            read_trace(tmp_path / "a.jsonl", until=until)


def test_a_single_wrong_stamp_of_a_bad_row_does_not_end_the_reading(tmp_path):
    until = datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    path = _mooncake(range(0, 30_000, 100), tmp_path / "a.jsonl")
    rest = _mooncake(range(30_000, 80_000, 100), tmp_path / "b.jsonl").read_text()
    path.write_text(path.read_text() + '{"timestamp": 1e9}\n' + rest)
    found = read_trace(path, until=until)
    assert (len(found.workload), found.report.rows_refused) == (600, 1)
