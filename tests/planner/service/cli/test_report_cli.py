"""`poolwise report`: from every source, whole files or none, and sentences for bad input."""

import json
from pathlib import Path

import pytest
import yaml

from planner.service.documents.capacity_report import read_capacity_report
from planner.service.documents.workload_template import (
    TEMPLATES,
    workload_template,
    workload_template_text,
)
from planner.service.spec.file import read_spec
from planner.service.store import open_store
from tests.planner.service.answers.test_capacity import windows
from tests.planner.service.examples import NOON, history, write_json, write_trace

REPORT = ("report", "--spec", "spec.yaml", "--quick", "--time-limit", "0.001")
"""A forecast, a plan and nothing else: what comes then is left out."""
FILES = ["r-scenarios.csv", "r.csv", "r.html", "r.json"]


def made():
    return sorted(path.name for path in Path().glob("r*") if path.suffix != ".yaml")


def test_a_trace_becomes_a_page_with_its_figures_beside_it(poolwise):
    status, out, err = poolwise(*REPORT, "--trace", "trace.jsonl", "-o", "r.html")
    assert status == 0, err
    assert made() == FILES
    report = read_capacity_report(Path("r.json"))
    assert "tiny needs" in out
    assert "r-scenarios.csv" in out
    assert f"{report.effort.left_out} questions left out" in err


def test_json_is_what_lies_in_the_file(poolwise):
    status, out, _ = poolwise(*REPORT, "--trace", "trace.jsonl", "-o", "r.html", "--json")
    assert status == 0
    assert json.loads(out) == json.loads(Path("r.json").read_text())


def test_stored_windows_with_a_hole_make_a_report_that_tells_of_the_hole(
    poolwise, tmp_path, monkeypatch
):
    url = f"sqlite:///{tmp_path / 'poolwise.db'}"
    monkeypatch.setenv("POOLWISE_DATABASE_URL", url)
    spec = read_spec(Path("spec.yaml"))
    store = open_store(url)
    seen = windows(history(30)[:10] + history(30)[20:])
    store.add_windows(spec.name, "tiny", seen, received_at=NOON, actor="test")
    store.close()
    status, _, err = poolwise(*REPORT, "--store", "-o", "r.html")
    assert status == 0, err
    report = read_capacity_report(Path("r.json"))
    assert any("600 s are not covered" in note for note in report.workload.notes)
    assert report.workload.duration_s == 20 * 60
    assert "600 s are not covered" in Path("r.html").read_text()


def test_an_empty_store_is_told_not_planned_for(poolwise, tmp_path, monkeypatch):
    monkeypatch.setenv("POOLWISE_DATABASE_URL", f"sqlite:///{tmp_path / 'poolwise.db'}")
    status, _, err = poolwise(*REPORT, "--store", "-o", "r.html")
    assert status == 2
    assert "no data is not zero traffic" in err
    assert made() == []


def test_observed_windows_of_a_file_are_a_source(poolwise):
    write_json(Path("windows.json"), {"history": history()})
    status, _, err = poolwise(*REPORT, "--history", "windows.json", "-o", "r.html")
    assert status == 0, err
    report = read_capacity_report(Path("r.json"))
    assert report.workload.request_rate_rps == pytest.approx(2.0)


def test_a_described_workload_says_that_nobody_saw_it(poolwise):
    description = {
        "name": "launch",
        "duration_s": 600,
        "classes": [
            {
                "request_rate_rps": 9,
                "isl": {"p50": 300, "p99": 900},
                "osl": {"p50": 40, "p99": 90},
            }
        ],
    }
    Path("launch.yaml").write_text(yaml.safe_dump(description))
    status, _, err = poolwise(*REPORT, "--workload", "launch.yaml", "--rate", "2", "-o", "r.html")
    assert status == 0, err
    report = read_capacity_report(Path("r.json"))
    assert report.workload.described
    assert report.workload.request_rate_rps == pytest.approx(2.0, rel=0.25)
    assert any("nobody saw these requests" in one for one in report.assumptions)


def test_one_request_makes_a_report_that_says_so(poolwise):
    write_trace(Path("one.jsonl"), minutes=1, rate_rps=1 / 60)
    row = json.loads(Path("one.jsonl").read_text())
    Path("one.jsonl").write_text(json.dumps({**row, "timestamp": 60_000}) + "\n")
    status, _, err = poolwise(*REPORT, "--trace", "one.jsonl", "-o", "r.html")
    assert status in (0, 2), err
    assert (made() == FILES) == (status == 0)
    assert "Traceback" not in err


def test_an_empty_trace_is_refused_before_anything_is_written(poolwise):
    Path("empty.jsonl").write_text("")
    status, _, err = poolwise(*REPORT, "--trace", "empty.jsonl", "-o", "r.html")
    assert status == 2
    assert "empty.jsonl" in err
    assert made() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give one of --trace FILE"),
        (["--trace", "trace.jsonl", "--store"], "give one of --trace FILE"),
        (["--trace", "trace.jsonl", "--rate", "3"], "--rate is for --workload"),
        (["--template", "suport-chat"], "did you mean `support-chat`"),
        (["--template", "support-chat", "--rate", "0"], "is no rate"),
        (["--template", "support-chat", "--rate", "1000000"], "cannot be drawn at that rate"),
        (["--template", "support-chat", "--at", "2026-01-01T00:00:00Z"], "--at is for what was"),
        (["--trace", "trace.jsonl", "-o", "r.pdf"], "ends in .html"),
        (["--trace", "trace.jsonl", "-o", "missing/r.html"], "there is no folder"),
        (["--trace", "trace.jsonl", "--time-limit", "0"], "a time limit of 0 s is none"),
        (["--trace", "trace.jsonl", "--growth-per-month", "nan"], "a growth of nan a month"),
    ],
)
def test_bad_input_is_refused_with_what_to_do_and_nothing_is_written(poolwise, options, said):
    status, _, err = poolwise("report", "--spec", "spec.yaml", "-o", "r.html", *options)
    assert status == 2
    assert said in err
    assert made() == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_a_description_of_days_that_a_person_can_change(name):
    document = workload_template(name)
    assert document.name == name
    assert document.duration_s >= 3 * 86_400
    assert "Assumed, not measured" in workload_template_text(name)


def test_a_template_is_printed_and_drawn_like_any_description(poolwise):
    status, out, _ = poolwise("trace", "synthesize", "--example", "--template", "enterprise-rag")
    assert status == 0
    assert out == workload_template_text("enterprise-rag")
    shorter = {**yaml.safe_load(out), "duration_s": 86_400}
    Path("rag.yaml").write_text(yaml.safe_dump(shorter))
    status, out, _ = poolwise("trace", "synthesize", "--spec", "rag.yaml", "rag.jsonl", "--json")
    assert status == 0
    drawn = json.loads(out)
    assert drawn["isl_mean"] == pytest.approx(21_300, rel=0.1)
    assert drawn["reuse_ratio"] == pytest.approx(0.056, abs=0.03)
