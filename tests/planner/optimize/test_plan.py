"""Whole plans: from spec, forecast and fleet to a proven, explained answer."""

from dataclasses import replace

import pytest

from planner.domain.errors import OutsideProfileError, SpecError
from planner.domain.fleet import Role
from planner.domain.hardware import Offer, PurchaseOption
from planner.domain.plan import Plan, PlanStatus
from planner.domain.profile import Profile, ProfileKind
from planner.domain.spec import PlanningSettings, PoolBounds
from planner.optimize import plan
from planner.optimize.constraints import CONSTRAINTS
from tests.fakes.profiles import interrupted, linear_profile
from tests.planner.optimize.scenarios import (
    ALL_ROLES,
    NOW,
    PAIR,
    D,
    P,
    fleet,
    forecast,
    replica_shape,
    spec,
)

PREFILL, DECODE = Role.PREFILL, Role.DECODE


def replicas(plan: Plan, t: int = 0) -> tuple[int, int]:
    return plan.windows[t].replicas(PREFILL), plan.windows[t].replicas(DECODE)


def test_prompt_heavy_traffic_gets_more_prefill_than_decode() -> None:
    prefill, decode = replicas(
        plan(spec(), forecast([10.0], isl=4000, osl=5), fleet(prefill=1, decode=1), made_at=NOW)
    )
    assert prefill > decode >= 1


def test_output_heavy_traffic_gets_more_decode_than_prefill() -> None:
    prefill, decode = replicas(
        plan(spec(), forecast([10.0], isl=100, osl=1000), fleet(prefill=1, decode=1), made_at=NOW)
    )
    assert decode > prefill >= 1


@pytest.mark.parametrize("rate", [0.0, 0.001, 1.0])
def test_a_minimal_fleet_without_much_to_do_stays_unchanged(rate: float) -> None:
    made = plan(spec(), forecast([rate] * 3), fleet(prefill=1, decode=1), made_at=NOW)
    assert {replicas(made, t) for t in range(3)} == {(1, 1)}
    assert made.status is PlanStatus.OPTIMAL


def test_a_plan_is_proven_in_the_twin_where_it_matters() -> None:
    made = plan(spec(), forecast([10.0, 30.0]), fleet(prefill=1, decode=1), made_at=NOW)
    proven = [w for w in made.windows if w.predicted.source == "twin"]
    assert proven
    assert all((w.predicted.attainment_low_ratio or 0) >= 0.95 for w in proven)


def test_windows_that_the_closed_form_doubts_are_proven_in_the_twin() -> None:
    """Memory binds: every window is doubted, the first and the hardest are not enough."""
    small = linear_profile(profile_id="cpu", kv_capacity_tokens=6_000)
    load = forecast([3.0, 4.0, 3.5, 3.0], isl=500, osl=400)
    made = plan(spec(profiles=(small,)), load, None, made_at=NOW)
    assert [w.predicted.source for w in made.windows] == ["twin"] * 4
    sure = plan(spec(), load, None, made_at=NOW)
    assert "closed_form" in {w.predicted.source for w in sure.windows}


def test_what_the_twin_finds_missing_is_planned_for() -> None:
    """Bursts that the twin draws: the capacity of the first proposal may not be enough."""
    load = forecast([60.0])
    (window,) = load.windows
    (demand,) = window.demands
    bursty = replace(load, windows=(replace(window, demands=(replace(demand, arrival_cv2=16.0),)),))
    made = plan(spec(inventory=20), bursty, None, made_at=NOW)
    predicted = made.windows[0].predicted
    assert made.status in (PlanStatus.OPTIMAL, PlanStatus.FEASIBLE)
    assert predicted.attainment_low_ratio is not None
    assert predicted.attainment_low_ratio >= 0.95


def test_equal_inputs_give_equal_plans() -> None:
    inputs = spec(roles=ALL_ROLES), forecast([10.0, 20.0]), fleet(aggregated=1)
    first, second = (plan(*inputs, made_at=NOW) for _ in range(2))
    assert first.plan_id == second.plan_id
    assert first.windows == second.windows


def test_another_load_gives_another_plan_id() -> None:
    plans = {plan(spec(), forecast([rate]), None, made_at=NOW).plan_id for rate in (1.0, 2.0)}
    assert len(plans) == 2


def test_too_little_inventory_gives_the_best_fleet_and_what_is_missing() -> None:
    made = plan(spec(inventory=3), forecast([100.0]), fleet(prefill=1, decode=1), made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE
    assert sum(replicas(made)) == 3
    assert (made.windows[0].predicted.attainment_ratio or 0) < 0.95
    (more, *_) = made.relaxations
    assert more.endswith("more cpu")
    enough = spec(inventory=3 + int(more.split()[0]))
    solved = plan(enough, forecast([100.0]), fleet(prefill=1, decode=1), made_at=NOW)
    assert solved.status is not PlanStatus.INFEASIBLE


def test_a_budget_that_is_too_small_is_named() -> None:
    made = plan(spec(usd_per_hour=3.0), forecast([60.0]), None, made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE
    assert any("a budget of" in text for text in made.relaxations)


def test_pool_bounds_hold_and_are_named() -> None:
    made = plan(spec(max_replicas=1), forecast([40.0]), None, made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE
    assert any(row.row == "keep_max_replicas[prefill:cpu:tp1,0]" for row in made.binding)
    assert any(text.startswith("max_replicas") for text in made.relaxations)


def test_every_binding_row_leads_to_its_equation() -> None:
    made = plan(spec(inventory=3), forecast([100.0]), None, made_at=NOW)
    assert made.binding
    assert all(row.equation.startswith("For every") for row in made.binding)


def test_every_constraint_says_its_equation_first() -> None:
    for constraint in CONSTRAINTS:
        assert (constraint.__doc__ or "").startswith("For every"), constraint.__name__


def test_alternatives_come_with_their_cost_or_why_they_cannot_serve() -> None:
    two = spec(roles=ALL_ROLES, accelerators=(("cpu", 1.0, 1.0), ("big", 2.5, 2.4)))
    made = plan(two, forecast([30.0]), fleet(prefill=1, decode=1), made_at=NOW)
    by_name = {r.name: r for r in made.rejected}
    current = by_name["current fleet"]
    assert current.usd_per_hour is None
    assert "requests/s" in current.reason
    from_nothing = plan(two, forecast([30.0]), None, made_at=NOW)
    others = [r.usd_per_hour for r in from_nothing.rejected if r.usd_per_hour is not None]
    assert others
    assert min(others) >= from_nothing.usd_per_hour - 0.01


def test_estimated_profiles_mark_the_plan() -> None:
    guessed = spec(profiles=(linear_profile(kind=ProfileKind.ESTIMATED),))
    assert plan(guessed, forecast([1.0]), None, made_at=NOW).estimated


def test_profiles_of_interrupted_runs_mark_the_plan() -> None:
    broken = spec(profiles=(interrupted(linear_profile()),))
    assert plan(broken, forecast([1.0]), None, made_at=NOW).incomplete
    assert not plan(spec(), forecast([1.0]), None, made_at=NOW).incomplete


def test_requests_longer_than_measured_are_refused() -> None:
    short = spec(profiles=(linear_profile(max_prompt_tokens=256),))
    with pytest.raises(OutsideProfileError, match="up to 256 new"):
        plan(short, forecast([1.0], isl=1000), None, made_at=NOW)


def test_a_pool_that_was_not_measured_far_enough_is_left_out_with_its_reason() -> None:
    short = spec(
        roles=PAIR,
        accelerators=(("cpu", 1.0, 1.0), ("small", 0.1, 1.0)),
        profiles=(
            linear_profile(profile_id="cpu"),
            linear_profile(profile_id="small", accelerator="small", max_prompt_tokens=256),
        ),
    )
    made = plan(short, forecast([1.0], isl=1000), None, made_at=NOW)
    left_out = {r.name: r.reason for r in made.rejected}
    assert "up to 256 new" in left_out["prefill:small:tp1"]


def test_a_spec_without_a_decode_pool_is_refused() -> None:
    with pytest.raises(SpecError, match="nothing that answers a request"):
        plan(spec(roles=(PREFILL,)), forecast([1.0]), None, made_at=NOW)


def test_bounds_that_contradict_the_inventory_are_refused() -> None:
    with pytest.raises(SpecError, match="min_replicas"):
        plan(spec(inventory=3, min_replicas=2), forecast([1.0]), None, made_at=NOW)


def test_a_replica_larger_than_a_node_is_left_out_with_its_reason() -> None:
    wide = replica_shape(PREFILL, tp=16)
    given = spec(profiles=(linear_profile(), linear_profile(profile_id="wide", tp=16)))
    given = replace(given, pools=(*given.pools, PoolBounds(shape=wide)))
    made = plan(given, forecast([1.0]), None, made_at=NOW)
    assert {p.shape for p in made.windows[0].pools} == {P, D}
    assert any("do not fit into a node" in r.reason for r in made.rejected)


def test_objectives_that_no_replica_keeps_still_give_a_fleet_that_answers() -> None:
    made = plan(spec(tpot_s=0.005), forecast([5.0]), fleet(prefill=1, decode=1), made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE
    assert replicas(made) == (1, 1)
    assert any(text.startswith("tpot_s") for text in made.relaxations)


def test_relaxed_objectives_stay_objectives_that_a_spec_may_hold() -> None:
    """A promise of 0.4 s a token is stretched up to 30 times, but to no more than 10 s."""
    made = plan(spec(inventory=3, tpot_s=0.4), forecast([100.0], isl=4000), None, made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE
    assert made.relaxations
    assert not any(text.startswith("tpot_s") for text in made.relaxations)


def test_a_load_that_comes_before_anything_can_start_is_named_not_held_against_the_plan() -> None:
    slow = spec(profiles=(linear_profile(profile_id="cpu", start_warm_s=700.0),))
    made = plan(slow, forecast([60.0, 10.0, 60.0, 60.0]), fleet(prefill=1, decode=1), made_at=NOW)
    assert made.status is PlanStatus.OPTIMAL
    assert any(row.row.startswith("use_what_is_there[prefill") for row in made.binding)
    assert (made.windows[0].predicted.attainment_ratio or 0) < 0.95
    assert (made.windows[3].predicted.attainment_ratio or 0) >= 0.95


def test_requests_longer_than_every_context_are_refused_by_name() -> None:
    short = replace(spec(), models=(replace(spec().models[0], max_context_tokens=600),))
    with pytest.raises(SpecError, match="longer than the model's context of 600 tokens"):
        plan(short, forecast([10.0]), None, made_at=NOW)


def test_a_ratio_that_binds_is_a_sentence() -> None:
    held = replace(spec(inventory=40), planning=PlanningSettings(max_prefill_per_decode=0.5))
    made = plan(held, forecast([40.0]), None, made_at=NOW)
    (row,) = (r for r in made.binding if r.row.startswith("keep_ratio[tiny,max"))
    assert "max_prefill_per_decode 0.5 allows" in row.sentence
    window = made.windows[0]
    assert window.replicas(Role.PREFILL) <= 0.5 * window.replicas(Role.DECODE)


def test_spot_is_bought_up_to_its_share() -> None:
    one = spec(inventory=40)
    offers = (
        Offer(purchase_option=PurchaseOption.ON_DEMAND, usd_per_gpu_hour=1.0),
        Offer(purchase_option=PurchaseOption.SPOT, usd_per_gpu_hour=0.3),
    )
    cheap = replace(
        one,
        accelerators=(replace(one.accelerators[0], offers=offers),),
        planning=PlanningSettings(spot_share_limit=0.5),
    )
    made = plan(cheap, forecast([60.0]), None, made_at=NOW)
    for role in (Role.PREFILL, Role.DECODE):
        pools = [p for p in made.windows[0].pools if p.shape.role is role]
        spot = sum(p.replicas for p in pools if p.purchase_option is PurchaseOption.SPOT)
        assert 0 < spot <= 0.5 * sum(p.replicas for p in pools)


def test_slower_replicas_than_profiled_cost_more() -> None:
    sure, careful = (
        plan(
            replace(spec(inventory=40), planning=PlanningSettings(profile_error_ratio=error)),
            forecast([60.0]),
            None,
            made_at=NOW,
        )
        for error in (0.0, 0.5)
    )
    assert careful.usd_per_hour > sure.usd_per_hour
    (price,) = (r for r in careful.rejected if r.name == "trusting the profiles")
    assert price.usd_per_hour == pytest.approx(sure.usd_per_hour)
    assert "is the price of replicas that may be 50% slower" in price.reason


def test_each_replica_may_be_as_much_slower_as_its_own_profile_states() -> None:
    """Some of the kind that is sure are taken where the cheaper one's profile errs by half."""

    def profiled(name: str, error_ratio: float) -> Profile:
        made = linear_profile(profile_id=name, accelerator=name)
        return replace(made, provenance=replace(made.provenance, error_ratio=error_ratio))

    kinds = (("sure", 1.2, 1.0), ("rough", 1.0, 1.0))
    both = spec(
        inventory=40,
        accelerators=kinds,
        profiles=(profiled("sure", 0.0), profiled("rough", 0.5)),
    )
    trusting, careful, even = (
        plan(replace(both, planning=planning), forecast([60.0]), None, made_at=NOW)
        for planning in (
            PlanningSettings(),
            PlanningSettings(own_profile_error=True),
            PlanningSettings(profile_error_ratio=0.5),
        )
    )
    plans = (trusting, careful, even)
    assert [m.windows[0].accelerators("sure") > 0 for m in plans] == [False, True, False]
    (price,) = (r for r in careful.rejected if r.name == "trusting the profiles")
    assert price.usd_per_hour == pytest.approx(trusting.usd_per_hour)
    assert "may be 0% to 50% slower" in price.reason


def test_all_replicas_of_a_role_may_have_to_be_alike() -> None:
    kinds = (("fast", 4.0, 4.0), ("slow", 1.1, 1.0))
    mixed = spec(inventory=12, accelerators=kinds)
    alike = replace(mixed, planning=PlanningSettings(one_shape_per_role=True))
    made = plan(alike, forecast([70.0, 150.0]), None, made_at=NOW)
    for role in (Role.PREFILL, Role.DECODE):
        used = {p.shape for w in made.windows for p in w.pools if p.shape.role is role}
        assert len(used) == 1
    assert (
        made.usd_per_hour
        >= plan(mixed, forecast([70.0, 150.0]), None, made_at=NOW).usd_per_hour - 1e-6
    )


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "isl"), [(0.5, 0.03, 1500.0), (0.8, 0.016, 3000.0)], ids=str
)
def test_more_kinds_of_pools_never_cost_more_where_the_twin_discounts_some(
    ttft_s: float, tpot_s: float, isl: float
) -> None:
    load = forecast([40.0], isl=isl, osl=60.0)
    both, pair = (
        plan(
            spec(roles=roles, inventory=60, ttft_s=ttft_s, tpot_s=tpot_s),
            load,
            None,
            made_at=NOW,
        )
        for roles in (ALL_ROLES, PAIR)
    )
    assert pair.status is not PlanStatus.INFEASIBLE
    assert both.status is PlanStatus.FEASIBLE  # after a discount
    assert both.usd_per_hour <= pair.usd_per_hour + 1e-6
