"""Reports of guidellm."""

import pytest

from planner.domain.errors import ProfileError
from profiler.imports.guidellm import read, read_runs
from tests.profiler.imports.examples import (
    guidellm_benchmark,
    guidellm_report,
    prompt_s,
    step_s,
    write_json,
)


def test_every_strategy_of_a_report_is_a_run(tmp_path):
    report = guidellm_report(
        guidellm_benchmark(),
        guidellm_benchmark(input_tokens=2000),
        guidellm_benchmark(streams=8),
        guidellm_benchmark(streams=32),
    )
    found = read([write_json(tmp_path / "benchmarks.json", report)])
    assert found.model == "tiny"
    assert float(found.prefill.at(2000, 0)) == pytest.approx(prompt_s(2000))
    assert float(found.decode_step.at(32, 0)) == pytest.approx(step_s(32))
    assert found.measured_at.year == 2026


def test_a_model_that_was_asked_for_at_the_server_is_not_known(tmp_path):
    nameless = guidellm_benchmark()
    nameless["config"]["backend"]["model"] = None
    report = guidellm_report(nameless)
    (run,) = read_runs([write_json(tmp_path / "b.json", report)])
    assert run.model is None


def test_a_rate_strategy_has_no_stated_concurrency(tmp_path):
    poisson = guidellm_benchmark(streams=8)
    poisson["config"]["strategy"] = {"type_": "poisson", "rate": 3.0, "max_concurrency": None}
    (run,) = read_runs([write_json(tmp_path / "b.json", guidellm_report(poisson))])
    assert run.max_concurrency is None
    assert run.decoding == pytest.approx(8)


def test_a_benchmark_without_an_answer_is_refused_with_the_reason(tmp_path):
    none = guidellm_benchmark(streams=64)
    none["metrics"]["request_totals"] = {"successful": 0, "errored": 40}
    none["metrics"]["time_to_first_token_ms"] = {"successful": None}
    report = guidellm_report(guidellm_benchmark(), guidellm_benchmark(streams=8), none)
    found = read([write_json(tmp_path / "b.json", report)])
    assert any("benchmarks[2]: no request completed" in note for note in found.notes)


def broken(change):
    benchmark = guidellm_benchmark()
    change(benchmark)
    return guidellm_report(benchmark)


def test_other_versions_and_empty_reports_are_refused(tmp_path):
    old = guidellm_report(guidellm_benchmark(), version=1)
    with pytest.raises(ProfileError, match="metadata: version: 1, but only reports of version 2"):
        read_runs([write_json(tmp_path / "b.json", old)])
    with pytest.raises(ProfileError, match="benchmarks: is empty"):
        read_runs([write_json(tmp_path / "b.json", guidellm_report())])
    with pytest.raises(ProfileError, match="metadata: is missing; give the file of a report"):
        read_runs([write_json(tmp_path / "b.json", {"benchmarks": []})])


BAD = [
    (lambda b: b.pop("metrics"), "metrics: is missing"),
    (lambda b: b["config"].pop("strategy"), "config: strategy: is missing"),
    (lambda b: b.update(start_time=1.8e12), "start_time: 1.8e+12 lies outside"),
    (
        lambda b: b["metrics"]["inter_token_latency_ms"].update(successful=None),
        "inter_token_latency_ms: successful: is missing",
    ),
    (
        lambda b: b["metrics"]["time_to_first_token_ms"]["successful"].update(median=-1),
        "time_to_first_token_ms: successful: median: -1 ms lies outside",
    ),
    (
        lambda b: b["metrics"]["inter_token_latency_ms"]["successful"].update(mean=float("nan")),
        "mean: nan is no measurement",
    ),
    (
        lambda b: b["metrics"]["prompt_token_count"]["successful"].update(mean=0),
        "prompt_token_count: successful: mean: 0 lies outside 1",
    ),
]


@pytest.mark.parametrize(("change", "said"), BAD)
def test_a_broken_benchmark_is_named_with_its_field(tmp_path, change, said):
    with pytest.raises(ProfileError) as caught:
        read_runs([write_json(tmp_path / "b.json", broken(change))])
    assert "b.json: benchmarks[0]" in str(caught.value)
    assert said in str(caught.value)
