"""Several models on one inventory."""

from dataclasses import replace
from datetime import timedelta

import pytest

from planner.domain.errors import SpecError
from planner.domain.fleet import Role
from planner.domain.forecast import Forecast
from planner.domain.hardware import Offer, PurchaseOption
from planner.domain.plan import Plan, PlanStatus
from planner.domain.spec import Budget, PoolBounds, Spec
from planner.optimize import plan_together
from planner.service.documents.plan import plan_document, plan_of
from tests.fakes.profiles import linear_profile
from tests.planner.optimize.scenarios import NOW, forecast, replica_shape, spec

MODELS = ("chat", "code")


def two_models(*, inventory: int, priorities: tuple[int, int] = (0, 0), **more: float) -> Spec:
    """The same shapes for two models on one accelerator type."""
    one = spec(inventory=inventory)
    budget = Budget(usd_per_hour=more.get("usd_per_hour"))
    return replace(
        one,
        models=tuple(
            replace(one.models[0], name=name, priority=priority)
            for name, priority in zip(MODELS, priorities, strict=True)
        ),
        slos=tuple(replace(one.slos[0], model=name) for name in MODELS),
        profiles=tuple(
            linear_profile(profile_id=name, accelerator="cpu", model=name) for name in MODELS
        ),
        pools=tuple(
            PoolBounds(shape=replace(replica_shape(role), model=name))
            for name in MODELS
            for role in (Role.PREFILL, Role.DECODE)
        ),
        budget=budget,
    )


def demand(model: str, rates_rps: list[float]) -> Forecast:
    return replace(forecast(rates_rps), model=model)


def used(plans: tuple[Plan, ...], t: int) -> int:
    return sum(pool.replicas for plan in plans for pool in plan.windows[t].pools)


def test_models_with_room_are_all_proven_within_the_inventory() -> None:
    loads = [demand("chat", [20.0, 40.0]), demand("code", [40.0, 20.0])]
    plans = plan_together(two_models(inventory=16), loads, None, made_at=NOW)
    assert [p.model for p in plans] == ["chat", "code"]
    assert all(p.status is not PlanStatus.INFEASIBLE for p in plans)
    assert max(used(plans, t) for t in (0, 1)) <= 16


@pytest.mark.parametrize(("priorities", "first"), [((1, 0), "chat"), ((0, 1), "code")])
def test_where_not_all_fit_the_model_of_higher_priority_is_served(
    priorities: tuple[int, int], first: str
) -> None:
    loads = [demand("chat", [60.0]), demand("code", [60.0])]
    plans = plan_together(two_models(inventory=8, priorities=priorities), loads, None, made_at=NOW)
    kept = {p.model: p.status is not PlanStatus.INFEASIBLE for p in plans}
    assert kept[first]
    assert sum(kept.values()) == 1
    assert used(plans, 0) <= 8
    (short,) = (p for p in plans if p.status is PlanStatus.INFEASIBLE)
    assert short.relaxations


def test_what_a_model_of_higher_priority_took_is_said_in_plan_and_sentences() -> None:
    loads = [demand("chat", [60.0]), demand("code", [60.0])]
    shared = two_models(inventory=8, priorities=(0, 5))
    short, kept = plan_together(shared, loads, None, made_at=NOW)
    (held,) = short.held_by_others
    taken = kept.windows[0].accelerators("cpu")
    assert (held.model, held.amount, held.total, held.above) == ("code", taken, 8, True)
    said = f"{taken} of 8 cpu go to code, which has a higher priority (5)"
    (row,) = (r for r in short.binding if r.row.startswith("keep_inventory"))
    assert said in row.sentence
    assert "that other models leave" in row.sentence
    assert any("more cpu" in text and said in text for text in short.relaxations)
    assert plan_of(plan_document(short), where="test") == short


def test_a_budget_is_shared() -> None:
    loads = [demand("chat", [30.0]), demand("code", [30.0])]
    plans = plan_together(
        two_models(inventory=20, priorities=(0, 1), usd_per_hour=5.0), loads, None, made_at=NOW
    )
    assert sum(p.usd_per_hour for p in plans) <= 5.0 + 1e-6


def test_forecasts_that_do_not_go_together_are_refused() -> None:
    both = two_models(inventory=8)
    chat, code = demand("chat", [10.0]), demand("code", [10.0])
    with pytest.raises(SpecError, match="two forecasts are for one model"):
        plan_together(both, [chat, chat], None, made_at=NOW)
    window = code.windows[0]
    later = replace(window, start_at=window.start_at + timedelta(seconds=60))
    with pytest.raises(SpecError, match="different windows"):
        plan_together(both, [chat, replace(code, windows=(later,))], None, made_at=NOW)


NEEDS = ((3, 3, 1, 1), (1, 1, 3, 3))
"""Replicas of each model in each window: opposite peaks, 4 in all."""


def opposite_peaks(
    *,
    inventory: int = 16,
    usd_per_hour: float | None = None,
    power_w: float | None = None,
    reserved: int | None = None,
) -> tuple[Spec, list[Forecast]]:
    """Two models of aggregated replicas of one accelerator, 2 USD/h and 300 W each."""
    one = two_models(inventory=inventory)
    offers = list(one.accelerators[0].offers)
    offers[0] = replace(offers[0], usd_per_gpu_hour=2.0)
    if reserved is not None:
        offers.append(
            Offer(
                purchase_option=PurchaseOption.RESERVED,
                usd_per_gpu_hour=1.0,
                reserved_count=reserved,
            )
        )
    shared = replace(
        one,
        accelerators=(replace(one.accelerators[0], offers=tuple(offers), power_w=300.0),),
        pools=tuple(
            PoolBounds(shape=replace(replica_shape(Role.AGGREGATED), model=name)) for name in MODELS
        ),
        budget=Budget(usd_per_hour=usd_per_hour, power_w=power_w),
    )
    loads = [
        demand(name, [PEAK_RPS if n == 3 else 1.0 for n in needs])
        for name, needs in zip(MODELS, NEEDS, strict=True)
    ]
    return shared, loads


PEAK_RPS = 30.0
"""Takes 3 replicas."""


def counts(made: Plan) -> tuple[int, ...]:
    return tuple(sum(p.replicas for p in window.pools) for window in made.windows)


@pytest.mark.parametrize(
    "limit",
    [{}, {"inventory": 4}, {"usd_per_hour": 8.0}, {"power_w": 1200.0}],
    ids=["none", "inventory", "budget", "power"],
)
def test_models_with_opposite_peaks_share_what_is_limited(limit: dict[str, float]) -> None:
    shared, loads = opposite_peaks(**limit)
    plans = plan_together(shared, loads, None, made_at=NOW)
    assert [p.status is not PlanStatus.INFEASIBLE for p in plans] == [True, True]
    assert tuple(counts(p) for p in plans) == NEEDS


def test_reserved_accelerators_of_opposite_peaks_are_paid_once() -> None:
    shared, loads = opposite_peaks(reserved=4)
    plans = plan_together(shared, loads, None, made_at=NOW)
    assert tuple(counts(p) for p in plans) == NEEDS
    assert sum(p.usd_per_hour for p in plans) == pytest.approx(4.0)
    for t in range(4):
        assert sum(p.windows[t].usd_per_hour for p in plans) == pytest.approx(4.0)


def test_idle_reserved_accelerators_are_paid_once_and_count_in_the_budget() -> None:
    shared, loads = opposite_peaks(reserved=6, usd_per_hour=6.0)
    plans = plan_together(shared, loads, None, made_at=NOW)
    assert tuple(counts(p) for p in plans) == NEEDS
    assert sum(p.usd_per_hour for p in plans) == pytest.approx(6.0)


def test_what_others_hold_in_some_windows_only_is_said_so() -> None:
    shared, loads = opposite_peaks(inventory=3)
    plans = plan_together(shared, loads, None, made_at=NOW)
    short = [p for p in plans if p.status is PlanStatus.INFEASIBLE]
    assert short
    said = [held.sentence for p in short for held in p.held_by_others]
    assert any(text.startswith("up to ") for text in said), said
    for made in short:
        assert plan_of(plan_document(made), where="test") == made
    used_in = [sum(n) for n in zip(*(counts(p) for p in plans), strict=True)]
    assert max(used_in) <= 3


def test_a_budget_to_raise_is_told_as_the_spec_has_it() -> None:
    """Not as what other models leave of it: that is no field of the spec."""
    shared, loads = opposite_peaks(usd_per_hour=7.0)
    plans = plan_together(shared, loads, None, made_at=NOW)
    short = [p for p in plans if p.status is PlanStatus.INFEASIBLE]
    assert short
    for made in short:
        (text,) = (text for text in made.relaxations if "a budget of" in text)
        assert text.startswith("a budget of 8.00 USD/h instead of 7.00")
