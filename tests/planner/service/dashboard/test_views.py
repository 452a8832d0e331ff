"""What pages show, as values: plots, fleets side by side, the timeline, the what-if form."""

from dataclasses import replace
from datetime import timedelta

import pytest

from planner.domain.errors import InputError
from planner.domain.guards import ApprovalPolicy
from planner.domain.plan import BindingRow
from planner.domain.rollout import ApprovalState
from planner.service.dashboard.views.charts import Axes, Band, Line, Rule, drawn
from planner.service.dashboard.views.decisions import timeline
from planner.service.dashboard.views.fleet import fleet_view, wanted_by, window_at
from planner.service.dashboard.views.jobs import job_view
from planner.service.dashboard.views.live import budgets, live_view
from planner.service.dashboard.views.plan import plan_view
from planner.service.dashboard.views.plans import plan_line
from planner.service.dashboard.views.what_if import change_of, form_groups
from planner.service.live.recent import RecentSignals, glance_of
from planner.service.reports.quantities import MISSING
from planner.service.spec.file import read_spec
from planner.service.store import DecisionRecord
from planner.service.store.jobs import Job, JobState
from serving.telemetry.signals import Signal
from tests.planner.service.examples import NOON, write_spec
from tests.planner.service.plans import example_fleet, example_plan, example_record
from tests.planner.service.signals import example_signals, readings

AXES = Axes(start_at=NOON, end_at=NOON + timedelta(minutes=10), written=lambda v: f"{v:g}")


def minutes(*values):
    return tuple((NOON + timedelta(minutes=i), value) for i, value in enumerate(values))


def test_a_line_runs_from_edge_to_edge_under_a_round_number():
    line = Line(name="x", look="observed", points=minutes(*range(11)))
    chart = drawn("c", "C", AXES, summary="", lines=[line])
    assert chart.y_labels == ("10", "5", "0")
    assert chart.x_labels == ("12:00", "12:02", "12:05", "12:07", "12:10")
    (shape,) = chart.shapes
    assert shape.path.startswith("M0.0 240.0L")
    assert shape.path.endswith("1000.0 0.0")


def test_instants_of_a_short_time_differ():
    axes = replace(AXES, end_at=AXES.start_at + timedelta(minutes=1))
    labels = drawn("c", "C", axes, summary="", lines=()).x_labels
    assert labels == ("12:00:00", "12:00:15", "12:00:30", "12:00:45", "12:01:00")


@pytest.mark.parametrize(
    ("most", "top"), [(0.0, 1.0), (0.31, 0.4), (1.0, 1.0), (37.0, 40.0), (6.1, 8.0), (9e6, 1e7)]
)
def test_an_axis_ends_at_a_round_number_that_is_high_enough(most, top):
    line = Line(name="x", look="observed", points=minutes(most))
    assert float(drawn("c", "C", AXES, summary="", lines=[line]).y_labels[0]) == pytest.approx(top)


def test_what_is_not_known_is_a_gap_and_one_point_a_dot():
    line = Line(name="x", look="observed", points=minutes(1, None, 1, 1))
    (shape,) = drawn("c", "C", AXES, summary="", lines=[line]).shapes
    assert shape.path.count("M") == 2
    assert shape.path.startswith("M0.0 0.0h0.1 M200.0")


def test_bands_and_levels_count_for_the_axis():
    band = Band(name="b", look="expected", points=tuple((at, 0.0, v) for at, v in minutes(1, 15)))
    chart = drawn("c", "C", AXES, summary="", bands=[band], rules=[Rule(name="r", value=19)])
    assert chart.y_labels[0] == "20"
    assert [shape.mark for shape in chart.shapes] == ["band", "dash"]
    assert chart.shapes[0].path.endswith("Z")


def test_a_fleet_stands_beside_the_window_of_now():
    record = example_record()
    view = fleet_view(example_fleet(1, 1), record, now=NOON)
    assert (view.now_short, view.planned_short) == ("1P1D", "2P1D")
    changes = {row.label: row.change for row in view.rows}
    assert changes == {"prefill:cpu:tp1": "+1", "decode:cpu:tp1": "as it is"}
    assert fleet_view(None, None, now=NOON, reason="away").now_short == "unknown"


def test_the_window_of_now_is_the_first_before_and_the_last_after():
    plan = example_plan()
    first, last = plan.windows
    before, after = NOON - timedelta(hours=1), NOON + timedelta(hours=1)
    assert [window_at(plan, at) for at in (before, NOON, after)] == [first, first, last]


def test_until_a_plan_is_applied_its_first_window_is_what_it_wants():
    record = example_record()
    first, last = record.plan.windows
    late = NOON + timedelta(hours=1)
    waits, applied = (
        replace(record, approval=replace(record.approval, state=state))
        for state in (ApprovalState.PENDING, ApprovalState.APPLIED)
    )
    assert (wanted_by(waits, late), wanted_by(applied, late)) == (first, last)


def decided(minute, outcome="unchanged", reason="as planned", plan_id=None):
    return DecisionRecord(
        deployment="shop",
        decided_at=NOON + timedelta(minutes=minute),
        plan_id=plan_id,
        outcome=outcome,
        reason=reason,
    )


def test_what_is_decided_again_and_again_stands_there_once():
    newest_first = [decided(3, "failed", "away"), decided(2), decided(1), decided(0)]
    failed, same = timeline(newest_first)
    assert (failed.count, failed.tone, failed.reason) == (1, "bad", "Away.")
    assert (same.count, same.since_at, same.decided_at) == (
        3, NOON, NOON + timedelta(minutes=2),
    )  # fmt: skip


def test_a_decision_says_what_its_plan_changes_and_why():
    rows = ("window 0: 2 x prefill is needed", "window 1: 9 x prefill is needed", "a budget binds")
    binding = tuple(BindingRow(row=said, equation="", sentence=said) for said in rows)
    record = example_record("plan-1")
    record = replace(record, plan=replace(record.plan, binding=binding))
    decisions = [decided(1, plan_id="plan-1"), decided(0, "pending", plan_id="plan-0")]
    known, other = timeline(decisions, [record])
    assert known.change == plan_line(record).change
    assert known.why.endswith("requests/s. 2 x prefill is needed.")
    assert (other.change, other.why, other.plan_id) == ("", "", "plan-0")


def test_a_decision_leads_to_no_page_of_a_plan_that_was_not_kept():
    same = timeline([decided(1, plan_id="plan-1"), decided(0, plan_id="plan-0")])
    assert [(one.plan_id, one.count) for one in same] == [("", 2)]


def test_gaps_between_tokens_are_drawn_beside_the_time_per_token_promised(tmp_path):
    recent = RecentSignals()
    for signals in readings(5):
        recent.add(signals)
    slos = read_spec(write_spec(tmp_path)).slos
    shown = live_view(example_signals(), recent.since(NOON), slos, now=NOON + timedelta(minutes=5))
    (gaps,) = [chart for chart in shown.charts if chart.name == "itl"]
    names = [shape.name for shape in gaps.shapes if shape.look == "promise"]
    assert names == ["50\N{NO-BREAK SPACE}ms in the mean (TPOT) promised to default"]


def test_readings_of_the_last_hour_are_kept_as_a_few_numbers():
    recent = RecentSignals()
    for signals in readings(5):
        recent.add(signals)
    kept = recent.since(NOON + timedelta(minutes=3))
    assert [one.at.minute for one in kept] == [3, 4]
    assert kept[0].waiting == 4.0  # two in each role's queues
    assert kept[0].kv_usage_ratio is None


def test_what_is_not_seen_is_told_and_never_zero(tmp_path):
    slos = read_spec(write_spec(tmp_path)).slos
    nothing = live_view(None, (), slos, now=NOON)
    recent = RecentSignals()
    recent.add(example_signals())
    stale = live_view(None, recent.since(NOON - timedelta(hours=1)), slos, now=NOON)
    assert "the newest reading is of 12:00:00 UTC" in stale.missing
    assert "POOLWISE_WATCH" not in stale.missing
    assert (nothing.tiles, "POOLWISE_WATCH" in nothing.missing) == ((), True)
    lacking = replace(
        example_signals(),
        requests_per_s=Signal.lacking("no gate tells it"),
        usd_per_hour=Signal.lacking("no price"),
    )
    tiles = {tile.heading: tile for tile in live_view(lacking, (), slos, now=NOON).tiles}
    assert (tiles["Requests"].value, tiles["Requests"].note) == (MISSING, "no gate tells it")
    assert (tiles["Cost"].value, tiles["Cost"].verdict) == (MISSING, "")


def test_a_latency_is_held_against_its_promise(tmp_path):
    slos = read_spec(write_spec(tmp_path)).slos
    kept = live_view(example_signals(), (), slos, now=NOON)
    missed = live_view(example_signals(prefill=50.0), (), slos, now=NOON)
    assert [view.tiles[0].verdict for view in (kept, missed)] == ["kept", "missed"]


def test_plots_are_drawn_of_two_readings_or_more(tmp_path):
    slos = read_spec(write_spec(tmp_path)).slos
    glances = [glance_of(one) for one in readings(3)]
    now = NOON + timedelta(minutes=3)
    names = [chart.name for chart in live_view(None, glances, slos, now=now).charts]
    assert names == ["ttft", "itl", "tokens", "waiting"]  # nobody tells of KV caches
    assert live_view(None, glances[:1], slos, now=now).charts == ()


def test_without_a_gate_budgets_are_those_of_now():
    from planner.service.api.objectives import SloDocument

    document = SloDocument(
        since_at=NOON, until_at=NOON, complete=True, classes=[], predicted_attainment_ratio=None
    )
    (one,) = budgets(document, example_signals(attainment=0.85))
    assert (one.verdict, one.kept) == ("missed", "85.0%")
    assert budgets(document, None) == ()


def test_a_form_asks_for_what_was_changed_and_nothing_else(tmp_path):
    groups = form_groups(read_spec(write_spec(tmp_path)), "tiny")
    usual = {field.key: field.usual for group in groups for field in group.fields}
    fields = {**usual, "rate": "1.50", "isl": "1", "osl": " x2 ", "slos.0.ttft_s": "0.4",
              "other": "budget.usd_per_hour=12"}  # fmt: skip
    assert change_of(fields, groups) == (
        "rate=x1.5,osl=x2,slos.0.ttft_s=0.4,budget.usd_per_hour=12"
    )
    with pytest.raises(InputError, match="nothing is changed"):
        change_of(usual, groups)
    with pytest.raises(InputError, match="a number is wanted"):
        change_of({**usual, "slos.0.ttft_s": "soon"}, groups)


def test_every_state_of_a_plan_has_words():
    record = example_record()
    for state in ApprovalState:
        line = plan_line(replace(record, approval=replace(record.approval, state=state)))
        assert line.state


def test_longer_prompts_and_answers_are_as_many_requests_of_other_lengths():
    from planner.domain.forecast import Demand, ForecastWindow, Quantiles
    from tests.fakes.workloads import point_shape

    rate = Quantiles(levels=(0.5,), values=(2.0,))
    demand = Demand(
        request_rate_rps=rate,
        input_tokens_per_s=rate.times(100),
        output_tokens_per_s=rate.times(10),
        shape=point_shape(isl=100, osl=10),
    )
    window = ForecastWindow(start_at=NOON, window_s=60.0, demands=(demand,))
    (longer,) = window.longer(isl_ratio=1.5, osl_ratio=0.01).demands
    assert longer.request_rate_rps == rate
    assert longer.input_tokens_per_s.median == pytest.approx(300)
    assert (longer.shape.isl_mean, longer.shape.osl_mean) == (150, 1)


@pytest.mark.parametrize(
    ("reason", "note"),
    [("dry run: 4 steps shown, nothing was changed",) * 2, ("", "every step was carried out")],
)
def test_an_applied_plan_says_whether_anything_was_changed(reason, note):
    record = example_record()
    applied = replace(record.approval, state=ApprovalState.APPLIED, reason=reason)
    view = plan_view(
        replace(record, approval=applied), [applied], [],
        policy=ApprovalPolicy(), targets={}, more_usd_per_hour=None, me=None,
    )  # fmt: skip
    assert view.state_note == note


@pytest.mark.parametrize(("state", "done"), [(JobState.DONE, 2), (JobState.CANCELLED, 1)])
def test_work_that_is_done_is_done_in_all_its_parts(state, done):
    job = Job(
        seq=1, job_id="job-1", deployment="shop", kind="forecasts", request="{}", asked_by="ann",
        asked_at=NOON, state=state, attempts=1, done=1, total=2, changed_at=NOON, status=200,
        location=None, answer="{}",
    )  # fmt: skip
    assert job_view(job).done == done
