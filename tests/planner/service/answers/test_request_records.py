"""Records: one row per simulated request, true to the answer."""

import json

import numpy as np
import pytest
from pyarrow import parquet

from planner.domain.fleet import ReplicaShape, Role
from planner.service.answers.circumstances import Replicas
from planner.service.answers.request_records import write_records
from planner.service.answers.simulation import Sampling, replay, sample, window_like
from planner.service.documents.circumstances import CircumstancesDocument
from planner.service.spec.file import read_spec
from planner.simulate.futures import Kept, Stopping
from tests.fakes.workloads import START_AT, poisson_workload
from tests.planner.service.examples import write_spec

REQUESTS = poisson_workload(requests=60, rate_rps=4.0, isl=400, osl=20)


@pytest.fixture
def spec(tmp_path):
    return read_spec(write_spec(tmp_path))


@pytest.fixture
def pools():
    return tuple(
        Replicas(shape=ReplicaShape(role=role, model="tiny", accelerator="cpu"), replicas=1)
        for role in (Role.PREFILL, Role.DECODE)
    )


def test_rows_are_the_requests_in_order_with_units_and_pools(spec, pools, tmp_path):
    seen = replay(spec, pools, REQUESTS, model="tiny")
    assert write_records(seen, tmp_path / "run.parquet") == 60
    table = parquet.read_table(tmp_path / "run.parquet")
    np.testing.assert_array_equal(table["input_tokens"], REQUESTS.input_tokens)
    np.testing.assert_array_equal(table["ttft_s"], seen.results[0].ttft_s)
    assert table.schema.field("ttft_s").metadata == {b"unit": b"seconds"}
    assert table.schema.field("input_tokens").metadata == {b"unit": b"tokens"}
    about = json.loads(table.schema.metadata[b"poolwise"])
    assert about["pools"] == ["prefill:cpu:tp1", "decode:cpu:tp1"]
    assert about["start_at"] == START_AT.isoformat()
    assert set(table["prompt_pool"].to_pylist()) == {0}
    assert set(table["decode_pool"].to_pylist()) == {1}
    assert set(table["outcome"].to_pylist()) == {"finished"}


def test_what_did_not_happen_is_null_never_a_number(spec, pools, tmp_path):
    leave = CircumstancesDocument(patience_s=0.02)
    seen = replay(spec, pools, REQUESTS, model="tiny", circumstances=leave)
    write_records(seen, tmp_path / "run.parquet")
    table = parquet.read_table(tmp_path / "run.parquet")
    aborted = [outcome == "aborted" for outcome in table["outcome"].to_pylist()]
    assert any(aborted)
    for name in ("tpot_s", "e2e_s"):
        nulls = [value is None for value in table[name].to_pylist()]
        assert all(null for null, gone in zip(nulls, aborted, strict=True) if gone)
    numbers = [n for n in table["ttft_s"].to_pylist() if n is not None]
    assert np.isfinite(numbers).all()
    assert sum(table["met"].to_pylist()) == seen.total.met


def test_of_futures_all_that_were_kept_are_written(spec, pools, tmp_path):
    sampling = Sampling(window=window_like(REQUESTS), duration_s=10.0)
    seen = sample(spec, pools, sampling, Stopping(most_futures=3), model="tiny", kept=Kept.ALL)
    rows = write_records(seen, tmp_path / "run.parquet")
    table = parquet.read_table(tmp_path / "run.parquet")
    assert rows == seen.total.requests
    assert sorted(set(table["future"].to_pylist())) == [0, 1, 2]
    assert max(table["arrival_s"].to_pylist()) <= 10.0


def test_a_run_without_requests_is_a_file_without_rows(spec, pools, tmp_path):
    sampling = Sampling(window=window_like(REQUESTS), duration_s=1e-6)
    seen = sample(spec, pools, sampling, Stopping(most_futures=1), model="tiny")
    assert write_records(seen, tmp_path / "run.parquet") == 0
    assert parquet.read_table(tmp_path / "run.parquet").num_rows == 0
