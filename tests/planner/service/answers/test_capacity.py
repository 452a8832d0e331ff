"""What a capacity report is made of: real forecasts, plans and futures, put together rightly."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from planner.domain.errors import InputError
from planner.domain.hardware import Accelerator, Offer, PurchaseOption
from planner.service.answers.capacity.inventory import runs_out_at
from planner.service.answers.capacity.purchase import (
    reserved_documents,
    split_documents,
    unpaid_usd_per_hour,
)
from planner.service.answers.capacity.seen import planning_spec, seen_in_windows
from planner.service.documents.history import WindowDocument, windows_of
from planner.service.spec.file import read_spec
from tests.planner.service.examples import history, window, write_spec
from tests.planner.service.reports.capacity_reports import (
    NOW,
    PRICES,
    Out,
    report_of,
    small_report,
)
from tests.planner.service.reports.outcomes import made_plan


def windows(rows):
    return windows_of([WindowDocument.model_validate(row) for row in rows], where="test")


def test_costs_are_what_is_paid_for_the_plan_and_the_expected_tokens():
    report = small_report()
    fleet, plan = report.recommended, report.plan
    (kind,) = fleet.types
    paid = PRICES["reserved"] * kind.most  # all are reserved, and one is idle in a window
    assert kind.fewest < kind.most
    assert fleet.usd_per_hour == pytest.approx(paid)
    assert [w.usd_per_hour for w in fleet.windows] == pytest.approx([paid] * len(fleet.windows))
    assert fleet.used_usd_per_hour == plan.usd_per_hour < paid
    assert fleet.usd_per_day == pytest.approx(24 * paid)
    assert fleet.usd_per_month == pytest.approx(30 * 24 * paid)
    tokens_per_s = report.workload.input_tokens_per_s + report.workload.output_tokens_per_s
    # A steady trace: what is expected is what was seen, within what a forecast rounds.
    expected = paid / (3600 * tokens_per_s) * 1e6
    assert fleet.usd_per_million_tokens == pytest.approx(expected, rel=0.1)


def test_pools_and_types_add_up_to_the_plan_in_every_window():
    report = small_report()
    for t, planned in enumerate(report.plan.windows):
        counted = sum(p.replicas for p in planned.pools)
        assert sum(pool.replicas[t] for pool in report.recommended.pools) == counted
        assert report.recommended.windows[t].accelerators == counted  # tp1
    (kind,) = report.recommended.types
    assert kind.most == max(w.accelerators for w in report.recommended.windows)
    assert kind.spare == kind.inventory - kind.most


def test_more_requests_never_cost_less_and_what_is_beyond_the_inventory_is_said():
    report = small_report()
    growth = [s for s in (report.base, *report.growth) if s.kind in ("base", "growth")]
    assert [s.rate_ratio for s in growth] == [1, 1.5, 2, 4]
    costs = [s.usd_per_hour for s in growth]
    assert costs == sorted(costs)
    beyond = [s for s in growth if s.beyond_inventory]
    assert beyond
    assert beyond[-1].accelerators["cpu"] > report.recommended.types[0].inventory
    assert all(s.reason for s in beyond)


def test_the_inventory_carries_what_was_planned_and_not_what_failed():
    report = small_report()
    known = report.inventory
    held = [s.rate_ratio for s in report.growth if s.kind == "growth" and not s.beyond_inventory]
    failed = [s.rate_ratio for s in report.growth if s.kind == "growth" and s.beyond_inventory]
    assert max([1.0, *held]) <= known.carries_ratio < known.fails_ratio <= min(failed)
    asked = known.runs_out[0]
    assert (asked.growth_per_month_ratio, asked.asked) == (0.1, True)
    assert asked.at == runs_out_at(known.carries_ratio, 0.1, NOW)


def test_requests_that_double_in_a_month_double_in_a_month():
    from_at = datetime(2026, 1, 1, tzinfo=UTC)
    assert runs_out_at(2.0, 1.0, from_at) == from_at + timedelta(days=30.4375)
    assert runs_out_at(4.0, 1.0, from_at) == from_at + timedelta(days=2 * 30.4375)
    assert runs_out_at(0.8, 0.1, from_at) == from_at
    assert runs_out_at(2.0, 0.0, from_at) is None


def test_slower_replicas_and_shorter_promises_never_cost_less():
    report = small_report()
    by_change = {s.change: s for s in report.sensitivity}
    base = report.base.usd_per_hour
    assert by_change["replicas 25% slower than profiled"].usd_per_hour >= base
    assert by_change["promised time to first token 30% shorter"].usd_per_hour >= base
    assert by_change["promised time to first token 50% longer"].usd_per_hour <= base
    assert by_change["price of cpu 25% higher"].usd_per_hour == pytest.approx(1.25 * base)
    for s in report.sensitivity:
        assert s.more_usd_per_hour == pytest.approx(s.usd_per_hour - base)


def test_attainment_has_an_interval_from_futures_and_the_promise_beside_it():
    seen = small_report().attainment
    assert seen.futures == 8
    assert seen.low_ratio <= seen.attainment_ratio <= seen.high_ratio
    assert [c.target_ratio for c in seen.classes] == [0.9]
    assert (seen.ttft_s, seen.tpot_s) == (0.5, 0.05)


def test_what_there_was_no_time_for_is_counted_and_said(tmp_path):
    report = report_of(tmp_path, clock=Out(1))
    assert report.effort.plans == 1
    asked = [*report.growth, *report.sensitivity, *report.purchase]
    assert report.effort.left_out >= len(asked) > 0
    assert {s.status for s in asked} == {None}
    assert all("time limit" in s.reason for s in asked)
    assert report.pareto == []
    assert report.inventory is None
    assert report.recommended.usd_per_day > 0


def test_a_spec_without_a_feasible_plan_makes_a_report_that_says_what_it_would_take(tmp_path):
    few = [{"name": "cpu", "per_node": 8, "inventory": 1, "usd_per_gpu_hour": {"on_demand": 1.0}}]
    report = report_of(tmp_path, spec_changes={"accelerators": few})
    assert report.plan.status == "infeasible"
    assert report.disaggregation.recommended == "none"
    assert report.base.beyond_inventory
    assert report.base.accelerators["cpu"] >= 2
    assert "no fleet within the spec's limits" in report.risks[0]


@pytest.mark.parametrize(
    ("reserved_count", "reserved", "unpaid", "idle"),
    [(None, 3, [0.0, 0.0, 0.0, 3.2], 0.8), (4, 4, [0.0, 0.0, 0.0, 0.0], 2.4)],
)
def test_reserved_accelerators_are_paid_while_nothing_uses_them(
    tmp_path, reserved_count, reserved, unpaid, idle
):
    first = made_plan(prefill=2, decode=1).windows[0]
    bought = tuple(replace(pool, purchase_option=PurchaseOption.RESERVED) for pool in first.pools)
    busy, quiet = replace(first, pools=bought), replace(first, pools=bought[1:])
    plan = replace(made_plan(), windows=(busy, busy, busy, quiet))
    offer = Offer(
        purchase_option=PurchaseOption.RESERVED,
        usd_per_gpu_hour=1.6,
        reserved_count=reserved_count,
    )
    slot = Accelerator(name="cpu-slot", per_node=8, inventory=9, offers=(offer,))
    spec = replace(read_spec(write_spec(tmp_path)), accelerators=(slot,))
    assert [unpaid_usd_per_hour(plan, spec, w) for w in plan.windows] == pytest.approx(unpaid)
    (found,) = reserved_documents(plan, spec)
    assert (found.reserved, found.used_mean) == (reserved, pytest.approx(2.5))
    assert found.idle_usd_per_hour == pytest.approx(idle)
    assert found.idle_usd_per_day == pytest.approx(24 * idle)


def test_accelerators_that_are_used_long_enough_are_worth_reserving(tmp_path):
    plan = made_plan(prefill=2, decode=1)
    quiet = replace(plan.windows[0], pools=plan.windows[0].pools[1:])  # decode alone: 1 of 3
    plan = replace(plan, windows=(*plan.windows, quiet))
    offers = tuple(
        Offer(purchase_option=PurchaseOption(name), usd_per_gpu_hour=price)
        for name, price in (("on_demand", 2.0), ("reserved", 1.6))
    )
    spec = read_spec(write_spec(tmp_path))
    spec = replace(
        spec,
        accelerators=(Accelerator(name="cpu-slot", per_node=8, inventory=9, offers=offers),),
    )
    (split,) = split_documents(plan, spec)
    # One is always on, two are on for three of four windows; 1.6 / 2.0 is more than 3 / 4.
    assert (split.always_on, split.most, split.mean) == (1, 3, pytest.approx(2.5))
    assert split.break_even_ratio == pytest.approx(0.8)
    assert split.worth_reserving == 1
    assert split.all_on_demand_usd_per_day == pytest.approx(24 * 2.5 * 2.0)
    assert split.all_reserved_usd_per_day == pytest.approx(24 * 3 * 1.6)
    assert split.split_usd_per_day == pytest.approx(24 * (1.6 + 1.5 * 2.0))


def test_a_day_is_planned_where_days_were_seen_and_the_specs_windows_where_not(tmp_path):
    spec = read_spec(write_spec(tmp_path))
    hours = [{**window(0), "start_at": (NOW + timedelta(hours=h)).isoformat(), "window_s": 3600.0}
             for h in range(72)]  # fmt: skip
    long = planning_spec(spec, seen_in_windows(windows(hours), source="test"), quick=False)
    assert (long.forecast.window_s, long.forecast.horizon_windows) == (3600.0, 24)
    short = planning_spec(spec, seen_in_windows(windows(history()), source="test"), quick=False)
    assert short is spec


def test_minutes_of_days_are_summed_up_to_hours_and_holes_stay_unknown():
    rows = [window(m) for m in range(-3 * 1440, 0) if not -2000 <= m < -1500]
    seen = seen_in_windows(windows(rows), source="test")
    assert {w.window_s for w in seen.windows} <= {3600.0, 1800.0, 1200.0, 2400.0, 600.0, 3000.0}
    assert len(seen.windows) < 73
    assert sum(w.requests for w in seen.windows) == 120 * len(rows)
    assert any("not covered" in note for note in seen.notes)


@pytest.mark.parametrize("change", [{"growth_per_month_ratio": -1.0}, {"time_limit_s": 0.0}])
def test_impossible_settings_are_refused(tmp_path, change):
    with pytest.raises(InputError, match="none: give"):
        report_of(tmp_path, **change)
