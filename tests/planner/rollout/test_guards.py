from dataclasses import replace
from datetime import timedelta

import pytest

from planner.domain.fleet import Fleet
from planner.domain.guards import Pause
from planner.domain.plan import Plan, PlanStatus
from planner.domain.rollout import Verdict
from planner.domain.spec import Budget, LoopMode, Spec
from planner.rollout import GuardConditions, diff, guard, refused
from planner.rollout.guards import GUARDS
from tests.planner.rollout.cases import NOW, P_TP2, A, D, P, fleet, plan, spec

FRESH = GuardConditions(
    now=NOW,
    observed_at=NOW - timedelta(seconds=10),
    recommended_since=NOW - timedelta(seconds=900),
)


def verdicts(
    before: Fleet,
    wanted: Plan,
    settings: Spec,
    conditions: GuardConditions = FRESH,
    *,
    automatic: bool | None = None,
) -> dict[str, Verdict]:
    """Verdicts that are not ALLOW, by guard."""
    findings = guard(
        diff(before, wanted, settings), settings, conditions, plan=wanted, automatic=automatic
    )
    return {f.guard: f.verdict for f in findings if f.verdict is not Verdict.ALLOW}


def test_a_safe_change_passes_every_guard() -> None:
    change = diff(fleet({P: 1, D: 1}), plan({P: 1, D: 2}), spec())
    findings = guard(change, spec(), FRESH)
    assert [f.guard for f in findings] == list(GUARDS)
    assert not refused(findings)


def test_an_empty_diff_passes_every_guard() -> None:
    conditions = GuardConditions(now=NOW, paused=Pause.ALL, leader=False)
    assert verdicts(fleet({P: 1, D: 1}), plan({P: 1, D: 1}), spec(), conditions) == {}


@pytest.mark.parametrize("observed_at", [None, NOW - timedelta(seconds=3600)])
def test_without_a_fresh_observation_nothing_is_taken_away(observed_at) -> None:
    conditions = GuardConditions(
        now=NOW, observed_at=observed_at, recommended_since=FRESH.recommended_since
    )
    smaller = verdicts(fleet({P: 1, D: 2}), plan({P: 1, D: 1}), spec(), conditions)
    larger = verdicts(fleet({P: 1, D: 1}), plan({P: 1, D: 2}), spec(), conditions)
    assert smaller == {"stale_observation": Verdict.REFUSE}
    assert larger == {}


def test_scale_down_waits_until_it_was_unneeded_for_long_enough() -> None:
    soon = GuardConditions(now=NOW, observed_at=NOW, recommended_since=NOW - timedelta(seconds=299))
    smaller = verdicts(fleet({P: 1, D: 2}), plan({P: 1, D: 1}), spec(), soon)
    assert smaller == {"scale_down_stabilization": Verdict.DELAY}


def test_a_flip_does_not_wait_for_stabilization() -> None:
    conditions = GuardConditions(now=NOW, observed_at=NOW)
    assert verdicts(fleet({P: 1, D: 2}), plan({P: 2, D: 1}), spec(), conditions) == {}


def test_a_pause_holds_its_own_direction_only() -> None:
    pause_in = replace(FRESH, paused=Pause.IN)
    pause_out = replace(FRESH, paused=Pause.OUT)
    grow, shrink = plan({P: 1, D: 3}), plan({P: 1, D: 1})
    before = fleet({P: 1, D: 2})
    assert verdicts(before, grow, spec(), pause_in) == {}
    assert verdicts(before, shrink, spec(), pause_in) == {"paused": Verdict.REFUSE}
    assert verdicts(before, grow, spec(), pause_out) == {"paused": Verdict.REFUSE}


def test_a_pool_outside_its_bounds_is_refused() -> None:
    held = verdicts(fleet({P: 1, D: 1}), plan({P: 1, D: 3}), spec(max_replicas=2))
    assert held == {"pool_bounds": Verdict.REFUSE}


def test_a_pool_below_its_minimum_is_refused_and_one_that_comes_back_to_it_is_not() -> None:
    settings = spec()
    least = tuple(replace(pool, min_replicas=2) for pool in settings.pools if pool.shape == D)
    settings = replace(settings, pools=least)
    assert verdicts(fleet({P: 1, D: 3}), plan({P: 1, D: 1}), settings) == {
        "pool_bounds": Verdict.REFUSE
    }
    assert verdicts(fleet({P: 1, D: 3}), plan({P: 1, D: 2}), settings) == {}
    assert verdicts(fleet({P: 1, D: 1}), plan({P: 1, D: 2}), settings) == {}


@pytest.mark.parametrize(("allowed", "held"), [(False, True), (True, False)])
def test_a_diff_to_nothing_passes_only_where_zero_is_allowed(allowed: bool, *, held: bool) -> None:
    settings = spec()
    settings = replace(settings, guards=replace(settings.guards, scale_to_zero=allowed))
    judged = verdicts(fleet({P: 1, D: 1}), plan({}), settings)
    assert (judged.get("zero") is Verdict.REFUSE) is held


def test_a_pool_above_its_bounds_may_shrink_towards_them() -> None:
    assert verdicts(fleet({P: 1, D: 5}), plan({P: 1, D: 4}), spec(max_replicas=2)) == {}


def test_draining_replicas_count_against_the_inventory() -> None:
    before = fleet({P: 1, D: 1}, draining={D: 2})
    assert verdicts(before, plan({P: 1, D: 4}), spec(h100=4))["inventory"] is Verdict.REFUSE


def test_a_fleet_above_the_budget_may_become_cheaper_but_not_dearer() -> None:
    tight = spec(budget=Budget(usd_per_hour=8.0))
    assert verdicts(fleet({P: 1, D: 4}), plan({P: 1, D: 3}), tight) == {}
    dearer = verdicts(fleet({P: 1, D: 1}), plan({P: 1, D: 2}), tight)
    assert dearer == {"budget": Verdict.REFUSE}


def test_a_power_budget_counts_every_accelerator() -> None:
    tight = spec(budget=Budget(power_w=1500.0))
    dearer = verdicts(fleet({P: 1, D: 1}), plan({P: 1, D: 2}), tight)
    assert dearer == {"budget": Verdict.REFUSE}


def test_replicas_that_still_drain_use_up_the_disruption_budget() -> None:
    before = fleet({P: 2, D: 2}, draining={D: 1})
    without_room = spec(h100=5)
    held = verdicts(before, plan({P: 1, D: 2, P_TP2: 1}), without_room)
    assert "disruption_budget" not in held
    strict = verdicts(before, plan({P: 1, D: 2}), spec(max_disrupted_replicas=0))
    assert strict == {"disruption_budget": Verdict.DELAY}


def test_a_service_gap_needs_a_person() -> None:
    gap = fleet({A: 1}), plan({P: 1, D: 1}), spec(h100=2)
    assert verdicts(*gap, automatic=True) == {
        "serving_floor": Verdict.REFUSE,
        "dip": Verdict.REFUSE,
    }
    assert verdicts(*gap, automatic=False) == {}


@pytest.mark.parametrize(
    "bad", [plan({P: 1, D: 2}, status=PlanStatus.INFEASIBLE), plan({P: 1, D: 2}, estimated=True)]
)
def test_infeasible_and_estimated_plans_need_a_person(bad: Plan) -> None:
    before = fleet({P: 1, D: 1})
    assert verdicts(before, bad, spec(mode=LoopMode.AUTO)) == {"plan_quality": Verdict.REFUSE}
    assert verdicts(before, bad, spec(mode=LoopMode.APPROVE)) == {}


def test_a_diff_of_an_unknown_plan_is_not_applied_automatically() -> None:
    change = diff(fleet({P: 1, D: 1}), plan({P: 1, D: 2}), spec())
    assert refused(guard(change, spec(), FRESH, automatic=True))
