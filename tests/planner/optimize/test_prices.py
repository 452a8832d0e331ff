"""Billing increments and reserved accelerators cost what the schema says."""

from dataclasses import replace

import pytest

from planner.domain.hardware import Offer, PurchaseOption
from planner.domain.plan import Plan, PlanStatus
from planner.domain.spec import PlanningSettings, Spec
from planner.optimize import plan, plan_together
from tests.planner.optimize.scenarios import NOW, fleet, forecast, spec
from tests.planner.optimize.test_together import demand, two_models


def bought(one: Spec, *offers: Offer) -> Spec:
    return replace(one, accelerators=(replace(one.accelerators[0], offers=offers),))


def on_demand(usd: float, **more: float) -> Offer:
    return Offer(purchase_option=PurchaseOption.ON_DEMAND, usd_per_gpu_hour=usd, **more)


def reserved(usd: float, count: int | None) -> Offer:
    return Offer(
        purchase_option=PurchaseOption.RESERVED, usd_per_gpu_hour=usd, reserved_count=count
    )


def usd(made: Plan, name: str) -> float:
    return sum(term.usd for term in made.objective if term.name == name)


def count(made: Plan, option: PurchaseOption) -> int:
    return sum(p.replicas for p in made.windows[0].pools if p.purchase_option is option)


def test_a_start_pays_at_least_a_whole_billing_increment() -> None:
    hourly = bought(spec(inventory=40), on_demand(2.0, billing_increment_s=3600.0))
    made = plan(hourly, forecast([60.0, 60.0]), fleet(prefill=1, decode=1), made_at=NOW)
    starts = sum(p.replicas for p in made.windows[0].pools) - 2
    assert starts > 0
    assert usd(made, "billing_increments") == pytest.approx(starts * 2.0 * 3000 / 3600)


def test_what_is_not_worth_a_whole_increment_is_not_started() -> None:
    """Ten minutes of traffic are worth less than an hour of more replicas, more than the ten."""
    load, running = forecast([60.0, 60.0]), fleet(prefill=1, decode=1)
    priced = replace(
        spec(inventory=40), planning=PlanningSettings(shortfall_usd_per_request=0.00006)
    )
    by_second, hourly = (
        plan(bought(priced, on_demand(2.0, billing_increment_s=s)), load, running, made_at=NOW)
        for s in (0.0, 3600.0)
    )
    assert sum(p.replicas for p in by_second.windows[0].pools) > 2
    assert sum(p.replicas for p in hourly.windows[0].pools) == 2


def test_reserved_accelerators_are_paid_whether_used_or_not_and_used_first() -> None:
    dear = bought(spec(inventory=40), reserved(1.5, 4), on_demand(1.0))
    made = plan(dear, forecast([60.0, 60.0]), None, made_at=NOW)
    assert count(made, PurchaseOption.RESERVED) == 4
    others = count(made, PurchaseOption.ON_DEMAND)
    assert others > 0
    assert usd(made, "reserved") == pytest.approx(4 * 1.5 * 600 / 3600)
    assert made.usd_per_hour == pytest.approx(4 * 1.5 + others)
    assert any(r.row.startswith("keep_reserved[cpu") for r in made.binding)


def test_idle_reserved_accelerators_are_paid_and_the_plan_is_still_proven_optimal() -> None:
    many = bought(spec(inventory=40), reserved(1.5, 30), on_demand(1.0))
    made = plan(many, forecast([10.0]), None, made_at=NOW)
    assert made.status is PlanStatus.OPTIMAL
    assert made.solver.gap_ratio <= 1e-3
    assert count(made, PurchaseOption.ON_DEMAND) == 0
    assert made.usd_per_hour == pytest.approx(45.0)


def test_a_reserved_price_without_a_count_is_an_offer_like_others() -> None:
    dear = bought(spec(inventory=40), reserved(1.5, None), on_demand(1.0))
    made = plan(dear, forecast([60.0]), None, made_at=NOW)
    assert count(made, PurchaseOption.RESERVED) == 0
    assert usd(made, "reserved") == 0


def test_what_is_reserved_counts_within_the_budget() -> None:
    one = bought(spec(inventory=40), reserved(1.5, 4), on_demand(1.0))
    short = replace(one, budget=replace(one.budget, usd_per_hour=6.5))
    made = plan(short, forecast([60.0]), None, made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE
    assert made.usd_per_hour <= 6.5
    assert any("a budget of" in text for text in made.relaxations)


def test_models_that_share_reserved_accelerators_pay_them_once() -> None:
    both = bought(two_models(inventory=30), reserved(1.5, 20), on_demand(1.0))
    loads = [demand("chat", [20.0]), demand("code", [30.0])]
    plans = plan_together(both, loads, None, made_at=NOW)
    used = [count(p, PurchaseOption.RESERVED) for p in plans]
    assert all(used)
    assert sum(usd(p, "reserved") for p in plans) == pytest.approx(20 * 1.5 * 300 / 3600)


@pytest.mark.parametrize(
    "wrong",
    [
        {"purchase_option": PurchaseOption.ON_DEMAND, "reserved_count": 2},
        {"purchase_option": PurchaseOption.RESERVED, "reserved_count": -1},
    ],
)
def test_counts_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="reserved_count"):
        Offer(usd_per_gpu_hour=1.0, **wrong)
