"""Summaries of NVIDIA AIPerf."""

import pytest

from planner.domain.errors import ProfileError
from profiler.imports.aiperf import read, read_runs
from tests.profiler.imports.examples import aiperf_summary, metric, prompt_s, step_s, write_json


def test_folders_of_runs_are_a_profile(tmp_path):
    for n in (1, 8, 32):
        write_json(tmp_path / f"c{n}" / "profile_export_aiperf.json", aiperf_summary(concurrency=n))
    write_json(tmp_path / "c1" / "other.json", {})
    found = read([tmp_path])
    assert found.model == "tiny"
    assert found.points == 3
    assert float(found.prefill.at(1000, 0)) == pytest.approx(prompt_s(1000))
    assert float(found.decode_step.at(32, 0)) == pytest.approx(step_s(32))


def test_times_are_converted_by_the_unit_beside_them(tmp_path):
    summary = aiperf_summary(
        time_to_first_token=metric("us", 110_000.0), inter_token_latency=metric("sec", 0.012)
    )
    (run,) = read_runs([write_json(tmp_path / "a.json", summary)])
    assert run.ttft_s == pytest.approx(0.11)
    assert run.tpot_s == pytest.approx(0.012)


def test_the_concurrency_is_that_of_the_measured_phase(tmp_path):
    (run,) = read_runs([write_json(tmp_path / "a.json", aiperf_summary(concurrency=16))])
    assert run.max_concurrency == 16


@pytest.mark.parametrize(("kind", "concurrency"), [("concurrency", 1.0), ("poisson", None)])
def test_a_concurrency_that_was_left_at_its_default_is_not_written(tmp_path, kind, concurrency):
    summary = aiperf_summary()
    phase = {"name": "profiling", "kind": "profiling", "type": kind}
    summary["input_config"]["phases"] = [phase]
    (run,) = read_runs([write_json(tmp_path / "a.json", summary)])
    assert run.max_concurrency == concurrency


def test_without_its_options_the_model_is_not_known(tmp_path):
    (run,) = read_runs([write_json(tmp_path / "a.json", aiperf_summary(input_config=None))])
    assert (run.model, run.max_concurrency) == (None, None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"was_cancelled": True}, "it was cancelled"),
        ({"is_complete": False, "incomplete_reason": "stall"}, "it is not complete: stall"),
        ({"error_request_count": {"unit": "requests", "avg": 40.0}}, "40 of 80 requests failed"),
    ],
)
def test_runs_that_did_not_end_well_are_refused_with_the_reason(tmp_path, changes, said):
    with pytest.raises(ProfileError, match=said):
        read([write_json(tmp_path / "a.json", aiperf_summary(**changes))])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": None}, "schema_version: None, but only 1.x is read"),
        ({"schema_version": "2.0"}, "schema_version: '2.0'"),
        ({"time_to_first_token": None}, "time_to_first_token: is missing"),
        ({"time_to_first_token": {"avg": 3.0}}, "unit: None is none of ns, us, ms, sec"),
        ({"inter_token_latency": metric("ms", 90_000.0)}, "90000 ms lies outside"),
        ({"inter_token_latency": metric("ms", float("nan"))}, "nan"),
        ({"input_sequence_length": metric("tokens", -2)}, "input_sequence_length: avg: -2 lies"),
        ({"request_count": {"unit": "requests"}}, "request_count: avg: is missing"),
        ({"start_time": "yesterday"}, "start_time: 'yesterday' is no instant"),
    ],
)
def test_broken_summaries_are_named_with_the_field(tmp_path, changes, said):
    path = write_json(tmp_path / "a.json", aiperf_summary(**changes))
    with pytest.raises(ProfileError) as caught:
        read_runs([path])
    assert "a.json" in str(caught.value)
    assert said in str(caught.value)


def test_a_folder_without_a_summary_is_named(tmp_path):
    with pytest.raises(ProfileError, match=r"no profile_export_aiperf\.json in this folder"):
        read_runs([tmp_path])
