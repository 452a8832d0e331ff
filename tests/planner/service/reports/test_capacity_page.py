"""The page of a capacity report: made of its JSON alone, whole, offline, for everybody."""

import json
import re
from itertools import product
from math import floor

import pytest

from planner.domain.plan import PlanStatus
from planner.service.documents.capacity_report import (
    CapacityReport,
    ReservedDocument,
    read_capacity_report,
)
from planner.service.documents.plan import RejectedDocument
from planner.service.reports.capacity_figures import attainment_figure, pace_figure
from planner.service.reports.capacity_files import paths_of, write_files
from planner.service.reports.capacity_page import capacity_page
from planner.service.reports.capacity_text import answer_sentences, disaggregation_sentence
from tests.planner.service.reports.capacity_reports import Out, report_of, small_report
from tests.planner.service.reports.reading import read_page

NUMBER = re.compile(r"[+-]?\d[\d,]*(?:\.\d+)?")
FIXED = {
    # Written in the page itself: numbers of sections, percentiles, confidence, days of a month.
    *"123456789",
    *("95", "99", "30", "90", "2200"),
}
FORMS = (",.0f", ".1f", ".2f", ",.2f", ".3f", ".3g", "g", "+.1f")
SCALES = (1, 100, 1000, 1 / 60, 1 / 3600, 1 / 86_400)  # also percent, ms, min, h, days


@pytest.fixture(scope="module")
def report():
    return small_report()


@pytest.fixture(scope="module")
def html(report):
    return capacity_page(report)


def embedded(html):
    text = re.search(r'<script type="application/json" id="document">(.*?)</script>', html, re.S)
    return json.loads(text.group(1))


def values(data):
    """Every number and text of a document."""
    if isinstance(data, dict):
        # Names of accelerators are keys.
        return [v for key, item in data.items() for v in (key, *values(item))]
    if isinstance(data, list):
        return [v for item in data for v in values(item)]
    return [data]


def written(number):
    """Every way in which the page may write a number."""
    rounded = {f"{number * scale:{form}}" for scale, form in product(SCALES, FORMS)}
    # A lower bound of a share is rounded down: `at least 99.7%`.
    return rounded | {f"{floor(number * 100 * 10**d) / 10**d:.{d}f}" for d in (1, 2, 3)}


def test_the_page_is_made_of_the_json_beside_it_and_holds_it(report, tmp_path):
    page, data, *_ = write_files(report, tmp_path / "r.html")
    read = read_capacity_report(data)
    assert read == report
    assert page.read_text() == capacity_page(read)
    assert embedded(page.read_text()) == json.loads(data.read_text())


def test_every_number_on_the_page_is_one_of_its_json(html):
    known = values(embedded(html))
    allowed = set(FIXED)
    for value in known:
        if isinstance(value, str):
            allowed.update(NUMBER.findall(value))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            allowed |= written(value)
            allowed |= written(abs(value))
    on_page = NUMBER.findall(read_page(html).visible)
    assert len(on_page) > 150
    strange = {n for n in on_page if n not in allowed and n.lstrip("+-") not in allowed}
    assert strange == set()


def test_another_cost_in_the_json_is_another_cost_on_the_page(report):
    changed = report.recommended.model_copy(update={"usd_per_day": 123_456.0})
    html = capacity_page(report.model_copy(update={"recommended": changed}))
    assert "123,456 USD" in read_page(html).visible


def test_the_answer_says_what_to_buy_what_it_costs_and_how_sure_that_is(report):
    what, cost, sure = answer_sentences(report)
    (kind,) = report.recommended.types
    assert f"{kind.most} cpu" in what
    assert "USD/h on average" in cost
    assert "a day" in cost
    assert "per million tokens" in cost
    assert "95\N{NO-BREAK SPACE}% confidence" in sure
    assert "90.0% promised" in sure
    assert "10.0% growth a month" in sure


@pytest.mark.parametrize(
    ("more_ratio", "said"), [(0.0, "it makes no difference: the plan"), (-0.2, "no: the plan is")]
)
def test_a_way_that_is_not_offered_and_costs_no_more_is_no_reason_for_a_yes(
    report, more_ratio, said
):
    other = RejectedDocument(name="other, which the spec does not offer", usd_per_hour=1, reason="")
    changes = {"recommended": "disaggregated", "other_way_more_ratio": more_ratio}
    found = report.disaggregation.model_copy(update={**changes, "other_way": other})
    sentence = disaggregation_sentence(report.model_copy(update={"disaggregation": found}))
    assert sentence.startswith(f"By cost, {said}")


@pytest.mark.parametrize(("source", "told"), [("closed_form", True), ("twin", False)])
def test_hollow_marks_are_explained_where_there_are_any(report, source, told):
    fleet = report.recommended
    windows = [w.model_copy(update={"source": source}) for w in fleet.windows]
    changed = report.model_copy(
        update={"recommended": fleet.model_copy(update={"windows": windows})}
    )
    keys = attainment_figure(changed).keys
    assert any("hollow" in key.text for key in keys) is told


def test_what_idle_reserved_accelerators_cost_is_said_and_how_to_pay_less(report):
    (split,) = report.split
    cheaper = {"split_usd_per_day": 7.77, "worth_reserving": 1, "most": 3, "planned_reserved": 2.0}
    idle = ReservedDocument(
        accelerator="cpu",
        reserved=3,
        used_mean=2.0,
        idle_mean=1.0,
        usd_per_hour=0.6,
        idle_usd_per_hour=0.6,
        idle_usd_per_day=14.4,
    )
    fleet = report.recommended.model_copy(
        update={"reserved": [idle], "used_usd_per_hour": report.recommended.usd_per_hour - 0.6}
    )
    changed = report.model_copy(
        update={"split": [split.model_copy(update=cheaper)], "recommended": fleet}
    )
    sentence = answer_sentences(changed)[1].replace("\N{NO-BREAK SPACE}", " ")
    for said in (sentence, read_page(capacity_page(changed)).visible):
        assert "14.40 USD a day" in said
        assert "With 1 of 3 cpu reserved and the rest on demand a day would cost 7.77" in said
    assert "count reserved accelerators only while they are used" in disaggregation_sentence(
        changed
    )
    used_up = fleet.model_copy(update={"reserved": []})
    steady = report.model_copy(update={"recommended": used_up})
    assert "nothing uses" not in answer_sentences(steady)[1]


def test_what_all_requests_did_is_told_with_a_bound_and_not_with_two_equal_ends(report):
    seen = {"attainment_ratio": 1.0, "low_ratio": 0.99963, "high_ratio": 1.0, "requests": 10_234}
    changed = report.model_copy(update={"attainment": report.attainment.model_copy(update=seen)})
    sure = answer_sentences(changed)[2]
    assert "all 10,234 requests (at least 99.96% with 95\N{NO-BREAK SPACE}% confidence)" in sure


def test_the_fleet_of_the_answer_is_that_of_its_accelerators_where_the_busiest_needs_fewer(report):
    fleet = report.recommended
    first, *others = fleet.windows
    more = first.model_copy(update={"accelerators": 9})
    pools = [p.model_copy(update={"replicas": [7, *p.replicas[1:]]}) for p in fleet.pools]
    changed = fleet.model_copy(
        update={"windows": [more, *others], "pools": pools, "busiest_window": len(others)}
    )
    what = answer_sentences(report.model_copy(update={"recommended": changed}))[0]
    assert ": at the most 7 prefill + 7 decode replicas." in what


def test_the_page_is_whole_small_and_loads_nothing(html):
    page = read_page(html)
    assert page.open_tags == []
    assert page.misnested == []
    assert len(html.encode()) < 5_000_000
    assert page.named("link") == page.named("img") == page.named("iframe") == []
    assert all("src" not in script for script in page.named("script"))
    links = [a["href"] for a in page.named("a")]
    assert links
    assert all(link.startswith("#") for link in links)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links} <= set(ids)


def test_every_plot_says_in_words_what_it_shows(html):
    page = read_page(html)
    plots = [a for tag, a in page.tags if a.get("class") == "plot"]
    assert {p["id"] for p in plots} >= {"plot-pace", "plot-fleet", "plot-attainment", "plot-growth"}
    assert all(len(p["aria-label"]) > 30 for p in plots)


def test_names_from_outside_cannot_leave_their_place(report):
    nasty = "</script><script>alert(1)</script>"
    workload = report.workload.model_copy(update={"source": nasty, "notes": [nasty]})
    html = capacity_page(report.model_copy(update={"workload": workload}))
    assert nasty not in html
    assert embedded(html)["workload"]["source"] == nasty


def test_a_report_without_a_fleet_says_so_and_draws_what_there_is(tmp_path):
    few = [{"name": "cpu", "per_node": 8, "inventory": 1, "usd_per_gpu_hour": {"on_demand": 1.0}}]
    page = read_page(capacity_page(report_of(tmp_path, spec_changes={"accelerators": few})))
    assert "No fleet within the limits keeps the promises of tiny" in page.visible
    assert "Without those limits" in page.visible
    assert "there is no fleet that something could change" in page.visible
    assert "Used up on" not in page.visible
    assert page.misnested == page.open_tags == []


def test_promises_that_nothing_keeps_are_told_beside_what_was_reached(tmp_path):
    never = [{"model": "tiny", "ttft_s": 0.0001, "tpot_s": 0.1, "attainment_ratio": 0.9}]
    made = report_of(tmp_path, spec_changes={"slos": never})
    assert "; promised are 0.1" in answer_sentences(made)[2]
    (told,) = (text for text in made.plan.relaxations if text.startswith("ttft_s"))
    assert 0.003 < float(told.split()[1]) < 1
    figure = json.loads(str(attainment_figure(made).content))
    assert figure["layout"]["yaxis"]["range"][0] < 0 <= figure["data"][0]["y"][0]


def test_what_was_not_asked_in_time_is_not_called_too_hard(report):
    plan = report.plan.model_copy(
        update={"status": PlanStatus.INFEASIBLE, "relaxations": ["4 more gpu"]}
    )
    late = report.base.model_copy(update={"status": None, "reason": "the time limit was reached"})
    third = answer_sentences(report.model_copy(update={"plan": plan, "base": late}))[2]
    assert third.startswith("What it would take without those limits was not found out")
    assert "too hard" not in third


def test_what_rests_on_hardly_any_request_is_no_answer_to_buy_by(report):
    few = report.workload.model_copy(update={"requests": 1})
    page = read_page(capacity_page(report.model_copy(update={"workload": few})))
    assert "Only 1 request was seen" in page.visible
    assert "Only " not in read_page(capacity_page(report)).visible


def test_no_line_is_drawn_through_a_hole(report):
    first, *_, last = report.workload.pace
    holed = report.workload.model_copy(update={"pace": [first, last]})
    drawn = json.loads(str(pace_figure(report.model_copy(update={"workload": holed})).content))
    rates = [first.request_rate_rps, last.request_rate_rps]
    assert drawn["data"][0]["y"] == [rates[0], rates[0], None, rates[1], rates[1]]


def test_the_last_window_that_was_seen_is_drawn_to_its_end(report):
    x = json.loads(str(pace_figure(report).content))["data"][0]["x"]
    assert len(x) == len(report.workload.pace) + 1


def test_a_report_that_ran_out_of_time_is_a_whole_page_that_says_so(tmp_path):
    page = read_page(capacity_page(report_of(tmp_path, clock=Out(1))))
    assert "questions left out" in page.visible
    assert "time limit was reached" in page.visible
    assert "No promise was found" not in page.visible
    assert page.misnested == page.open_tags == []


def test_all_files_are_there_or_none(report, tmp_path):
    page, data, fleet, scenarios = paths_of(tmp_path / "r.html")
    scenarios.mkdir()  # the last one cannot be put in its place
    with pytest.raises(OSError, match="directory"):
        write_files(report, page)
    assert not data.exists()
    assert not fleet.exists()
    assert not page.exists()


def test_the_tables_hold_a_row_for_every_window_and_pool_and_every_scenario(report, tmp_path):
    *_, fleet, scenarios = write_files(report, tmp_path / "r.html")
    rows = fleet.read_text().splitlines()
    assert rows[0].startswith("start_at,window_s,request_rate_planned_rps,pool")
    assert len(rows) == 1 + len(report.recommended.windows) * len(report.recommended.pools)
    asked = 1 + len(report.growth) + len(report.purchase) + len(report.sensitivity)
    assert len(scenarios.read_text().splitlines()) == 1 + asked


def test_the_document_reads_back_what_it_wrote(report):
    assert CapacityReport.model_validate_json(report.model_dump_json()) == report
