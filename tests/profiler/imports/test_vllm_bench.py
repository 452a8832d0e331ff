"""Results of `vllm bench serve` and folders of `vllm bench sweep`."""

import json

import pytest

from planner.domain.errors import ProfileError
from profiler.imports.vllm_bench import read, read_runs
from tests.profiler.imports.examples import prompt_s, step_s, vllm_result, write_json


def sweep(folder, *concurrencies, server=""):
    for concurrency in concurrencies:
        name = f"{server}BENCH--max_concurrency={concurrency}"
        result = vllm_result(concurrency=concurrency) | {"run_number": 0}
        write_json(folder / name / "run=0.json", result)
        write_json(folder / name / "summary.json", [result])
        write_json(folder / name / "warmup.json", result)
        write_json(folder / name / "run=1.failure.json", {"error_type": "OSError"})
    return folder


def test_milliseconds_become_seconds_and_totals_means(tmp_path):
    (run,) = read_runs([write_json(tmp_path / "r.json", vllm_result(concurrency=8))])
    assert run.ttft_s == pytest.approx(prompt_s(1000) * 2)
    assert run.tpot_s == pytest.approx(step_s(8))
    assert (run.input_tokens, run.output_tokens) == (1000, 101)
    assert run.decoding == pytest.approx(8)
    assert run.model == "tiny"
    assert run.started_at.isoformat() == "2026-11-01T12:00:00+00:00"


def test_a_folder_of_a_sweep_is_a_profile_of_its_runs(tmp_path):
    found = read([sweep(tmp_path, 1, 4, 16)])
    assert found.decode_step.x.tolist() == pytest.approx([1, 4, 16])
    assert float(found.prefill.at(1000, 0)) == pytest.approx(prompt_s(1000))
    assert found.points == 3
    assert any("are UTC" in note for note in found.notes)


def test_runs_of_several_server_settings_are_several_replicas(tmp_path):
    sweep(tmp_path, 1, 4, server="SERVE--max_num_seqs=8-")
    sweep(tmp_path, 1, 4, server="SERVE--max_num_seqs=64-")
    with pytest.raises(ProfileError, match=r"max_num_seqs=64.*max_num_seqs=8.*several replicas"):
        read([tmp_path])


def test_appended_results_are_one_a_line(tmp_path):
    path = tmp_path / "all.json"
    path.write_text("\n".join(json.dumps(vllm_result(concurrency=n)) for n in (1, 8)))
    assert [run.max_concurrency for run in read_runs([path])] == [1, 8]
    assert read_runs([path])[1].where == f"{path}:2"


def test_unbounded_concurrency_and_an_infinite_rate_are_accepted(tmp_path):
    result = vllm_result(concurrency=8, max_concurrency=None)
    (run,) = read_runs([write_json(tmp_path / "r.json", result)])
    assert run.max_concurrency is None
    assert run.decoding == pytest.approx(8)


def test_answers_of_one_token_count_for_prefill_only(tmp_path):
    result = vllm_result(output_tokens=1, mean_tpot_ms=0.0, mean_itl_ms=0.0, median_itl_ms=0.0)
    (run,) = read_runs([write_json(tmp_path / "r.json", result)])
    assert run.step_s is None
    assert run.ttft_s == pytest.approx(prompt_s(1000))


def without(*names):
    return {k: v for k, v in vllm_result().items() if k not in names}


BAD = [
    ("", "is empty"),
    ('{"completed": 1,', "r.json:1: not JSON"),
    ("[1, 2]", "a list, not an object"),
    (json.dumps({"requests": []}), "no completed, total_input_tokens, request_throughput"),
    (json.dumps(without("median_ttft_ms")), "median_ttft_ms: is missing; run again with"),
    (json.dumps(without("mean_tpot_ms")), "mean_tpot_ms: is missing"),
    (json.dumps(without("date")), "date: None is not as 20261101-120000"),
    (json.dumps(vllm_result(median_ttft_ms=float("nan"))), "median_ttft_ms: nan is no measurement"),
    (json.dumps(vllm_result(median_ttft_ms=-3)), "median_ttft_ms: -3 ms lies outside"),
    (json.dumps(vllm_result(mean_tpot_ms=0.02)), "mean_tpot_ms: 0.02 ms lies outside 0.1"),
    (json.dumps(vllm_result(mean_tpot_ms="20")), "mean_tpot_ms: '20' is no number"),
    (json.dumps(vllm_result(max_concurrency=0)), "max_concurrency: 0 lies outside 1"),
    (json.dumps(vllm_result(total_input_tokens=-5)), "total_input_tokens: -5 lies outside"),
    (json.dumps(vllm_result(total_input_tokens=10**400)), "a number of 401 digits"),
]


@pytest.mark.parametrize(("text", "said"), BAD)
def test_bad_files_are_named_with_the_field_and_what_to_do(tmp_path, text, said):
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(ProfileError, match=r"r\.json") as caught:
        read_runs([path])
    assert said in str(caught.value)


def test_missing_files_empty_folders_and_bytes_are_named(tmp_path):
    with pytest.raises(ProfileError, match=r"gone\.json: no such file"):
        read_runs([tmp_path / "gone.json"])
    with pytest.raises(ProfileError, match="no result in this folder"):
        read_runs([tmp_path])
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match="not a text file"):
        read_runs([tmp_path / "b.json"])


def test_a_run_in_which_nothing_completed_is_refused_not_divided_by(tmp_path):
    nothing = vllm_result(completed=0, failed=20, median_ttft_ms=0.0, mean_tpot_ms=0.0)
    path = write_json(tmp_path / "r.json", nothing)
    with pytest.raises(ProfileError, match="no request completed"):
        read([path])
