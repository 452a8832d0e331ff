import base64
import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from planner.domain.fleet import Role
from planner.service.demo.outcome import Outcome
from planner.service.reports.demo_report import demo_report
from tests.planner.service.reports import outcomes
from tests.planner.service.reports.reading import ReadPage, read_page

FIGURES = ("timeline", "forecast", "prefill", "decode", "prompts", "answers")
RUNS: tuple[Callable[[], Outcome], ...] = (
    outcomes.improved,
    outcomes.unchanged,
    outcomes.silent,
    outcomes.single,
    outcomes.infeasible,
    outcomes.rejected,
    outcomes.all_failed,
)
every_run = pytest.mark.parametrize("run", RUNS, ids=lambda r: r.__name__)


@pytest.fixture(scope="module")
def page() -> ReadPage:
    return read_page(demo_report(outcomes.improved()))


def _values(node: object) -> list[object]:
    """All strings and numbers inside parsed JSON."""
    if isinstance(node, dict):
        return [v for child in node.values() for v in _values(child)]
    if isinstance(node, list):
        return [v for child in node for v in _values(child)]
    return [node]


@every_run
def test_a_report_is_a_well_formed_page(run: Callable[[], Outcome]) -> None:
    page = read_page(demo_report(run()))
    assert page.open_tags == []
    assert page.misnested == []


@every_run
def test_a_report_never_shows_a_missing_value(run: Callable[[], Outcome]) -> None:
    page = read_page(demo_report(run()))
    spoken = [a["aria-label"] or "" for _, a in page.tags if "aria-label" in a]
    words = re.findall(r"[A-Za-z]+", " ".join([page.visible, *spoken]))
    assert {w for w in words if w.lower() in {"nan", "inf"} or w in {"None", "NULL"}} == set()


@every_run
def test_figures_hold_numbers_only_where_there_are_some(run: Callable[[], Outcome]) -> None:
    page = read_page(demo_report(run()))
    for name in FIGURES:
        figure = json.loads(page.scripts[f"plot-{name}"])
        values = _values(figure["data"])
        assert None not in values
        assert not [v for v in values if isinstance(v, str) and re.search(r"\b(nan|None)\b", v)]


@every_run
def test_a_report_loads_nothing(run: Callable[[], Outcome]) -> None:
    page = read_page(demo_report(run()))
    references = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in {"src", "href", "srcset", "data", "action"} and value
    ]
    assert all(r.startswith("#") for r in references)
    assert not [s for s in page.styles if "@import" in s or "url(" in s]
    assert page.named("link") == []


def test_plotly_is_inside_once_and_packed() -> None:
    html = demo_report(outcomes.improved())
    (packed,) = re.findall(r'<script type="text/plain" id="plotly">(.*?)</script>', html)
    assert gzip.decompress(base64.b64decode(packed)).decode().count("plotly.js v") == 1
    assert len(html) < 3_000_000


def test_every_figure_has_its_place_and_a_description(page: ReadPage) -> None:
    plots = {a["id"]: a for a in page.named("div") if a.get("class") == "plot"}
    assert set(plots) == {f"plot-{n}" for n in (*FIGURES, "comparison")}
    assert set(plots) == set(page.scripts)
    assert all(a["role"] == "img" and a["aria-label"] for a in plots.values())


def test_every_table_heading_has_a_scope(page: ReadPage) -> None:
    headings = page.named("th")
    assert headings
    assert {a.get("scope") for a in headings} == {"col", "row"}


def test_the_answer_says_what_was_measured_changed_and_achieved(page: ReadPage) -> None:
    outcome = outcomes.improved()
    assert "moved the fleet from 1P1D to 2P1D, 2 steps in 25.9 s" in page.visible
    assert "1 prefill + 1 decode answered" in page.visible
    assert outcome.verdict[0][1:] in page.visible


def test_key_figures_stand_before_and_after(page: ReadPage) -> None:
    outcome = outcomes.improved()
    assert f"{outcome.before.latency.attainment_ratio:.1%}" in page.visible
    assert f"{outcome.after.latency.attainment_ratio:.1%}" in page.visible
    assert "promised 60 ms" in page.visible
    assert "✓ kept" in page.visible


def test_a_missed_promise_is_marked_in_words() -> None:
    assert "✗ missed" in read_page(demo_report(outcomes.all_failed())).visible


def test_the_plan_shows_pools_bounds_alternatives_and_steps(page: ReadPage) -> None:
    for text in (
        "prefill:cpu-slot:tp1",
        "71.0%",
        "keep_inventory[cpu-slot,0]",
        "prefill cannot keep 90% at 2.64 requests/s",
        "MathOpt/GSCIP 9.14, gap 0.0%, 41 ms",
        "applied by poolwise demo: asked and answered",
        "24 s 25.6 s",
        "fresh observation allow",
    ):
        assert text in page.visible


def test_the_profile_says_that_it_is_of_a_cpu(page: ReadPage) -> None:
    assert "Measured on a CPU, not on a GPU." in page.visible


def test_transferred_prompts_prove_disaggregation(page: ReadPage) -> None:
    assert "The deployment really was disaggregated." in page.visible


def test_prompts_computed_by_decode_workers_disprove_it() -> None:
    run = outcomes.improved()
    used = replace(run.after.throughput, decode_computed_tokens=17)
    page = read_page(demo_report(replace(run, after=replace(run.after, throughput=used))))
    assert "they computed 17 themselves" in page.visible
    assert "really was disaggregated" not in page.visible


def test_an_infeasible_plan_says_what_to_relax() -> None:
    page = read_page(demo_report(outcomes.infeasible()))
    assert "Allow 5 cpu-slot instead of 3." in page.visible
    assert "The plan has no window" in page.visible


def test_an_unapproved_plan_says_who_did_not_approve_it() -> None:
    page = read_page(demo_report(outcomes.rejected()))
    assert "the plan has 2 steps, but it is rejected (answered no)" in page.visible
    assert "not applied" in page.visible


def test_a_hostile_trace_name_stays_text() -> None:
    run = outcomes.improved()
    name = '<script>alert(1)</script>"><img src=x onerror=alert(2)>.jsonl'
    traffic = replace(run.traffic, source=name, notes=(name,))
    html = demo_report(replace(run, traffic=traffic))
    page = read_page(html)
    assert "<script>alert(1)" not in html
    assert name in page.visible
    assert page.named("img") == []


def test_a_hostile_engine_message_stays_text_in_the_plot() -> None:
    run = outcomes.improved()
    assert run.during is not None
    first, *others = run.during.timings
    failed = replace(
        first, token_at_s=(), tokens=(), input_tokens=0, error="</script><a href='//evil'>x</a>"
    )
    during = replace(run.during, timings=(failed, *others))
    html = demo_report(replace(run, during=during))
    figure = json.loads(read_page(html).scripts["plot-timeline"])
    texts = [v for v in _values(figure["data"]) if isinstance(v, str) and "evil" in v]
    assert texts
    assert not [t for t in texts if "<a" in t]


def test_replicas_over_time_begin_and_end_with_the_fleets_that_ran(page: ReadPage) -> None:
    run = outcomes.improved()
    figure = json.loads(page.scripts["plot-timeline"])
    for role in (Role.PREFILL, Role.DECODE):
        counts = next(t["y"] for t in figure["data"] if t.get("name") == role.value)
        assert counts[0] == run.before.fleet.replicas(role)
        assert counts[-1] == run.after.fleet.replicas(role)


def test_each_answered_request_is_one_mark(page: ReadPage) -> None:
    run = outcomes.improved()
    figure = json.loads(page.scripts["plot-timeline"])
    warm_up = next(t for t in figure["data"] if t.get("name") == "warm-up")
    shown = sorted(warm_up["x"])
    sent = sorted(t.sent_at_s - run.began_at_s for t in run.before.replay.timings)
    assert shown == pytest.approx(sent, abs=1e-3)
