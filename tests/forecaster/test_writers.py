from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecaster.readers import TraceFormat, read_trace
from forecaster.synthesize import LognormalLengths, TraceDescription, synthesize
from forecaster.writers import losses, write_trace
from planner.domain.errors import TraceError
from planner.domain.workload import Workload

START = datetime(2026, 1, 1, 12, 30, tzinfo=UTC)


def drawn(seed: int = 0, **fields) -> Workload:
    asked = {
        "name": "t",
        "source": "test",
        "request_rate_rps": 1.0,
        "duration_s": 60.0,
        "isl": LognormalLengths(p50=900.0, p99=9000.0),
        "osl": LognormalLengths(p50=20.0, p99=200.0),
    } | fields
    return synthesize(TraceDescription(**asked), start_at=START, rng=np.random.default_rng(seed))


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 1000), reuse_ratio=st.sampled_from([0.0, 0.4]))
@pytest.mark.parametrize("trace_format", TraceFormat)
def test_what_is_written_is_read_back(tmp_path, trace_format, seed, reuse_ratio):
    trace = drawn(seed, reuse_ratio=reuse_ratio)
    path = tmp_path / "trace"
    write_trace(trace, path, trace_format)
    back = read_trace(path, start_at=START)
    assert back.report.trace_format is trace_format
    assert back.report.rows_refused == 0
    since_first = trace.arrival_offset_s - trace.arrival_offset_s[0]
    np.testing.assert_allclose(back.workload.arrival_offset_s, since_first, atol=1.1e-3)
    np.testing.assert_array_equal(back.workload.input_tokens, trace.input_tokens)
    np.testing.assert_array_equal(back.workload.output_tokens, trace.output_tokens)


def test_mooncake_keeps_prefixes(tmp_path):
    trace = drawn(reuse_ratio=0.5)
    write_trace(trace, tmp_path / "t.jsonl", TraceFormat.MOONCAKE)
    back = read_trace(tmp_path / "t.jsonl").workload
    np.testing.assert_array_equal(back.cached_tokens, trace.cached_tokens)
    assert back.prefix is not None
    assert trace.prefix is not None
    np.testing.assert_array_equal(back.prefix.block_ids, trace.prefix.block_ids)


def test_azure_keeps_the_date(tmp_path):
    trace = drawn()
    write_trace(trace, tmp_path / "t.csv", TraceFormat.AZURE)
    back = read_trace(tmp_path / "t.csv").workload
    first_s = (back.start_at - START).total_seconds()
    assert first_s == pytest.approx(trace.arrival_offset_s[0], abs=1e-6)


@pytest.mark.parametrize("trace_format", TraceFormat)
def test_several_classes_come_back(tmp_path, trace_format):
    trace = drawn()
    classes = np.where(np.arange(len(trace)) % 2, "gold", "free")
    write_trace(replace(trace, request_class=classes), tmp_path / "t", trace_format)
    back = read_trace(tmp_path / "t").workload
    assert back.request_class.tolist() == classes.tolist()


def test_a_class_with_a_comma_is_refused_and_nothing_is_written(tmp_path):
    trace = drawn()
    odd = replace(trace, request_class=np.full(len(trace), "a,b"))
    with pytest.raises(TraceError, match="'a,b' cannot stand in a CSV cell"):
        write_trace(odd, tmp_path / "t.csv", TraceFormat.AZURE)
    assert list(tmp_path.iterdir()) == []


def test_a_name_in_gz_is_written_gzipped_and_the_same_each_time(tmp_path):
    trace = drawn(reuse_ratio=0.5)
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_trace(trace, tmp_path / name, TraceFormat.MOONCAKE)
    packed = [(tmp_path / name).read_bytes() for name in ("a.jsonl.gz", "b.jsonl.gz")]
    assert packed[0] == packed[1]
    assert packed[0][:2] == b"\x1f\x8b"
    back = read_trace(tmp_path / "a.jsonl.gz").workload
    np.testing.assert_array_equal(back.cached_tokens, trace.cached_tokens)


@pytest.mark.parametrize(
    ("trace_format", "said"),
    [
        (TraceFormat.MOONCAKE, ["the date is lost", "rounded to 1 ms", "`request_class`"]),
        (TraceFormat.AZURE, ["prefix blocks", "`RequestClass`"]),
        (TraceFormat.BURSTGPT, ["prefix blocks", "the date is lost", "`RequestClass`"]),
    ],
)
def test_what_a_format_cannot_hold_is_said(trace_format, said):
    trace = drawn(reuse_ratio=0.5, request_class="gold")
    lost = losses(trace, trace_format)
    assert len(lost) == len(said)
    assert all(part in text for part, text in zip(said, lost, strict=True))


def test_nothing_is_lost_of_what_the_format_holds():
    assert losses(drawn(), TraceFormat.AZURE) == ()


def test_blocks_of_another_size_are_refused(tmp_path):
    trace = drawn(reuse_ratio=0.5, block_tokens=16)
    with pytest.raises(TraceError, match="blocks of 16"):
        write_trace(trace, tmp_path / "t.jsonl", TraceFormat.MOONCAKE)


def test_no_request_is_no_trace(tmp_path):
    with pytest.raises(TraceError, match="without requests"):
        write_trace(drawn().between(0.0, 0.0), tmp_path / "t.csv", TraceFormat.AZURE)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TraceError, match=r"absent.*cannot be written"):
        write_trace(drawn(), tmp_path / "absent" / "t.csv", TraceFormat.AZURE)


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    taken = tmp_path / "t.csv"
    taken.mkdir()
    with pytest.raises(TraceError, match="cannot be written"):
        write_trace(drawn(), taken, TraceFormat.AZURE)
    assert list(tmp_path.iterdir()) == [taken]
