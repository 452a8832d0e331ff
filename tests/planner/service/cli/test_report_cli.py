"""`poolwise report`: from every source, whole files or none, and sentences for bad input."""

import json
from pathlib import Path

import pytest
import yaml

from planner.service.documents.capacity_report import read_capacity_report
from planner.service.documents.unanswered_report import read_unanswered_report
from planner.service.documents.workload_template import (
    TEMPLATES,
    workload_template,
    workload_template_text,
)
from planner.service.spec.file import read_spec
from planner.service.store import open_store
from tests.planner.service.answers.test_capacity import windows
from tests.planner.service.examples import NOON, history, window, write_json, write_trace
from tests.planner.service.reports.reading import read_page

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
    page = read_page(Path("r.html").read_text())
    assert "600 s are not covered" in page.visible
    assert report.workload.uncovered_s == 600
    before_sections = page.visible.split("Accelerators, at the most")[0]
    assert "10 min between the first and the last window lie in no window" in before_sections
    assert "arrivals are taken to be Poisson's" in page.visible


def told(status, err):
    """The report on too little; no number of its page is made up."""
    assert status == 1, err
    assert made() == FILES
    html = Path("r.html").read_text()
    page = read_page(html)
    assert (page.open_tags, page.misnested, page.named("figure")) == ([], [], [])
    report = read_unanswered_report(Path("r.json"))
    assert report.missing in page.visible
    assert "Profiles" in page.visible
    assert len(Path("r.csv").read_text().splitlines()) == 1
    assert len(Path("r-scenarios.csv").read_text().splitlines()) == 1
    return report


def test_an_empty_store_is_told_not_planned_for(poolwise, tmp_path, monkeypatch):
    monkeypatch.setenv("POOLWISE_DATABASE_URL", f"sqlite:///{tmp_path / 'poolwise.db'}")
    status, out, err = poolwise(*REPORT, "--store", "-o", "r.html")
    report = told(status, err)
    assert "no window is stored for deployment shop and model tiny" in report.missing
    assert "no data is not zero traffic" in out


def test_a_file_without_windows_is_told(poolwise):
    write_json(Path("windows.json"), {"history": []})
    status, _, err = poolwise(*REPORT, "--history", "windows.json", "-o", "r.html")
    assert "history is empty" in told(status, err).missing


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
    status, out, err = poolwise(*REPORT, "--trace", "one.jsonl", "-o", "r.html")
    report = told(status, err)
    assert report.requests == 1
    assert "1 request in" in report.missing
    assert "not one whole window of 60 s" in " ".join(out.split())


def test_one_request_in_a_window_is_planned_for_and_called_too_few(poolwise):
    rows = [window(index, requests=int(index == -1)) for index in range(-3, 0)]
    write_json(Path("windows.json"), {"history": rows})
    status, _, err = poolwise(*REPORT, "--history", "windows.json", "-o", "r.html")
    assert status == 0, err
    page = read_page(Path("r.html").read_text())
    assert "Only 1 request was seen" in page.visible
    assert "windows.json: windows.json" not in err
    assert "Class default: one request in all" in page.visible


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "the file is empty"), ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "but no request")],
)
def test_a_trace_without_a_request_is_told_in_every_file(poolwise, text, said):
    Path("empty.csv").write_text(text)
    status, out, err = poolwise(*REPORT, "--trace", "empty.csv", "-o", "r.html", "--json")
    report = told(status, err)
    assert said in report.missing
    assert report.source == "empty.csv"
    assert json.loads(out) == json.loads(Path("r.json").read_text())


def test_what_is_no_trace_is_bad_input_and_makes_no_page(poolwise):
    Path("broken.jsonl").write_text("{\n")
    for name in ("broken.jsonl", "missing.jsonl"):
        status, _, err = poolwise(*REPORT, "--trace", name, "-o", "r.html")
        assert status == 2
        assert name in err
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
