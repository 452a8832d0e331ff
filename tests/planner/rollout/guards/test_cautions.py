from dataclasses import replace
from datetime import timedelta

import pytest

from planner.domain.fleet import Role
from planner.domain.guards import Pause, Pin, RateLimit
from planner.domain.plan import Plan
from planner.domain.rollout import Verdict
from planner.domain.spec import Budget
from planner.rollout import (
    BrokenPool,
    Change,
    GuardConditions,
    HandEdit,
    Recommended,
    diff,
    guard,
)
from tests.planner.rollout.cases import NOW, P_A100, D, P, fleet, plan
from tests.planner.rollout.guards.situations import (
    CALM,
    guarded,
    reason,
    rolled_out,
    steps_taken,
    verdict,
)

SMALL, LARGE = fleet({P: 1, D: 1}), fleet({P: 4, D: 4})
GROW, SHRINK = plan({P: 3, D: 3}), plan({P: 1, D: 1})
MIXED = plan({P: 6, D: 1})
"""From LARGE: prefill grows, decode shrinks."""


@pytest.mark.parametrize("observed_at", [None, NOW - timedelta(hours=1)])
def test_without_a_fresh_observation_nothing_goes_and_growth_comes(observed_at) -> None:
    blind = replace(CALM, observed_at=observed_at)
    assert rolled_out(LARGE, SHRINK, guarded(), blind) == {P: 4, D: 4}
    assert rolled_out(SMALL, GROW, guarded(), blind) == {P: 3, D: 3}
    room = fleet({P: 2, D: 4})
    assert rolled_out(room, plan({P: 4, D: 1}), guarded(), blind) == {P: 4, D: 4}
    _, findings = steps_taken(LARGE, SHRINK, guarded(), blind)
    assert verdict("stale_observation", findings) is Verdict.CLAMP


def test_with_a_longer_limit_the_same_stale_observation_takes_capacity_away() -> None:
    blind = replace(CALM, observed_at=NOW - timedelta(hours=1))
    trusting = guarded(stale_observation_s=1e6)
    assert rolled_out(LARGE, SHRINK, trusting, blind) == {P: 1, D: 1}


def test_scale_down_waits_until_it_was_unneeded_for_long_enough() -> None:
    soon = replace(CALM, recommended_since=NOW - timedelta(seconds=299))
    assert rolled_out(LARGE, SHRINK, guarded(), soon) == {P: 4, D: 4}
    late = replace(CALM, recommended_since=NOW - timedelta(seconds=300))
    assert rolled_out(LARGE, SHRINK, guarded(), late) == {P: 1, D: 1}


def wanted(seconds_ago: float, prefill: int, decode: int) -> Recommended:
    pools = (Pin(pool=P.label, replicas=prefill), Pin(pool=D.label, replicas=decode))
    return Recommended(at=NOW - timedelta(seconds=seconds_ago), pools=pools)


@pytest.mark.parametrize(
    ("recommended", "left"),
    [
        ((wanted(60, 3, 2), wanted(400, 1, 1)), {P: 3, D: 2}),  # the largest of the window
        ((wanted(60, 1, 2), wanted(200, 3, 1), wanted(400, 1, 1)), {P: 3, D: 2}),
        ((wanted(300, 1, 1),), {P: 1, D: 1}),
        ((wanted(60, 9, 9), wanted(300, 1, 1)), {P: 4, D: 4}),  # never beyond what is there
    ],
)
def test_no_role_gets_less_than_any_decision_of_the_window_wanted(recommended, left) -> None:
    moment = replace(CALM, recommended=recommended)
    assert rolled_out(LARGE, SHRINK, guarded(), moment) == left


def test_stabilization_says_how_many_of_a_role_stay_and_why() -> None:
    moment = replace(CALM, recommended=(wanted(60, 3, 1),))
    _, findings = steps_taken(LARGE, SHRINK, guarded(), moment)
    told = [f.reason for f in findings if "stay that would go" in f.reason]
    assert told == ["2 of prefill stay that would go: more were wanted within the last 300 s"]


def test_replicas_may_move_to_another_pool_though_as_many_were_wanted_just_now() -> None:
    moment = replace(CALM, recommended=(wanted(60, 2, 1),))
    moved = plan({P_A100: 2, D: 1})
    assert rolled_out(fleet({P: 2, D: 1}), moved, guarded(), moment) == {P_A100: 2, D: 1}


def edited(pool, was: int, found: int, seconds_ago: float) -> GuardConditions:
    at = NOW - timedelta(seconds=seconds_ago)
    return replace(CALM, edits=(HandEdit(pool=pool.label, at=at, was=was, found=found),))


def test_a_count_that_somebody_else_raised_is_not_taken_back_for_a_while() -> None:
    settings = guarded(hand_edit_hold_s=600)
    held, over = edited(D, 2, 4, 599), edited(D, 2, 4, 600)
    assert rolled_out(LARGE, SHRINK, settings, held) == {P: 1, D: 4}
    assert rolled_out(LARGE, SHRINK, settings, over) == {P: 1, D: 1}
    _, findings = steps_taken(LARGE, SHRINK, settings, held)
    said = reason("hand_edits", findings)
    assert "decode:h100:tp1 was changed from 2 to 4 replicas by somebody else" in said
    assert rolled_out(LARGE, plan({P: 2, D: 5}), settings, held) == {P: 2, D: 5}


def test_a_count_that_somebody_else_lowered_is_not_raised_for_a_while() -> None:
    held = edited(D, 3, 1, 10)
    assert rolled_out(SMALL, GROW, guarded(), held) == {P: 3, D: 1}
    assert rolled_out(LARGE, SHRINK, guarded(), held) == {P: 1, D: 1}


def test_without_that_hold_a_count_set_by_hand_is_set_back_at_once() -> None:
    eager = guarded(hand_edit_hold_s=0)
    assert rolled_out(LARGE, SHRINK, eager, edited(D, 2, 4, 0)) == {P: 1, D: 1}


def test_a_diff_of_before_a_hand_edit_waits_and_a_person_may_go_on() -> None:
    change = diff(LARGE, SHRINK, guarded())
    for automatic in (True, False):
        findings = guard(change, guarded(), edited(D, 2, 4, 0), automatic=automatic)
        assert verdict("hand_edits", findings) is Verdict.DELAY


def broken(pool, seconds_left: float) -> GuardConditions:
    until = NOW + timedelta(seconds=seconds_left)
    one = BrokenPool(pool=pool.label, times=3, until=until, why="engine: CrashLoopBackOff")
    return replace(CALM, broken=(one,))


def test_what_does_not_start_is_not_tried_again_before_its_time() -> None:
    assert rolled_out(SMALL, GROW, guarded(), broken(D, 1)) == {P: 3, D: 1}
    assert rolled_out(SMALL, GROW, guarded(), broken(D, 0)) == {P: 3, D: 3}
    assert rolled_out(LARGE, SHRINK, guarded(), broken(D, 1)) == {P: 1, D: 1}
    _, findings = steps_taken(SMALL, GROW, guarded(), broken(D, 1))
    said = reason("broken_template", findings)
    assert "replicas of decode:h100:tp1 did not start, 3 times in a row (engine: Crash" in said


def test_a_person_who_pins_the_pool_has_it_tried_again() -> None:
    ordered = replace(broken(D, 1), pins=(Pin(pool=D.label, replicas=2),))
    assert rolled_out(SMALL, GROW, guarded(), ordered) == {P: 3, D: 2}


def test_a_diff_of_before_it_did_not_start_waits_and_a_person_may_go_on() -> None:
    change = diff(SMALL, GROW, guarded())
    for automatic in (True, False):
        findings = guard(change, guarded(), broken(D, 1), automatic=automatic)
        assert verdict("broken_template", findings) is Verdict.DELAY


def test_without_stabilization_a_short_lull_takes_capacity_away() -> None:
    eager = guarded(scale_down_stabilization_s=0.0)
    lull = replace(CALM, recommended_since=NOW)
    assert rolled_out(LARGE, SHRINK, eager, lull) == {P: 1, D: 1}


def test_an_idle_service_needs_nothing_and_shrinks_at_once() -> None:
    lull = replace(CALM, recommended_since=NOW)
    for idle_s, left in ((299, 4), (301, 1)):
        since = lull.observed_at - timedelta(seconds=idle_s)
        moment = replace(lull, idle_since=since)
        assert rolled_out(LARGE, SHRINK, guarded(), moment) == {P: left, D: left}


@pytest.mark.parametrize("pause", [Pause.IN, Pause.ALL])
def test_a_pause_in_keeps_what_would_go(pause: Pause) -> None:
    assert rolled_out(LARGE, SHRINK, guarded(pause=pause)) == {P: 4, D: 4}
    assert rolled_out(LARGE, SHRINK, guarded(), replace(CALM, paused=pause)) == {P: 4, D: 4}


@pytest.mark.parametrize("pause", [Pause.OUT, Pause.ALL])
def test_a_pause_out_starts_nothing(pause: Pause) -> None:
    assert rolled_out(SMALL, GROW, guarded(pause=pause)) == {P: 1, D: 1}


def test_a_pause_of_one_direction_lets_the_other_through() -> None:
    assert rolled_out(LARGE, SHRINK, guarded(pause=Pause.OUT)) == {P: 1, D: 1}
    assert rolled_out(SMALL, GROW, guarded(pause=Pause.IN)) == {P: 3, D: 3}


def test_without_a_pause_both_directions_move() -> None:
    assert rolled_out(fleet({P: 1, D: 4}), plan({P: 2, D: 2}), guarded()) == {P: 2, D: 2}


def test_a_direction_that_is_disabled_is_never_taken() -> None:
    no_up, no_down = RateLimit(enabled=False), RateLimit(enabled=False)
    assert rolled_out(SMALL, GROW, guarded(scale_up=no_up)) == {P: 1, D: 1}
    assert rolled_out(LARGE, SHRINK, guarded(scale_down=no_down)) == {P: 4, D: 4}
    assert rolled_out(LARGE, SHRINK, guarded(scale_up=no_up)) == {P: 1, D: 1}


def test_replicas_whose_successors_may_not_come_stay() -> None:
    moved = plan({P_A100: 2, D: 1})
    before = fleet({P: 2, D: 1})
    stuck = guarded(scale_up=RateLimit(enabled=False))
    assert rolled_out(before, moved, stuck) == {P: 2, D: 1}
    _, findings = steps_taken(before, moved, stuck)
    assert "stay" in reason("not_worse", findings)
    assert rolled_out(before, moved, guarded()) == {P_A100: 2, D: 1}


def test_rate_limits_cut_the_change_to_what_is_left_of_the_period() -> None:
    slow = guarded(scale_up=RateLimit(replicas=1, period_s=60), scale_down=RateLimit(replicas=2))
    assert rolled_out(SMALL, GROW, slow) == {P: 2, D: 2}
    assert rolled_out(LARGE, SHRINK, slow) == {P: 2, D: 2}
    just = replace(
        CALM, recent=(Change(at=NOW - timedelta(seconds=59), role=Role.DECODE, added=1),)
    )
    assert rolled_out(SMALL, GROW, slow, just) == {P: 2, D: 1}
    earlier = replace(CALM, recent=(Change(at=NOW - timedelta(seconds=60), role=D.role, added=1),))
    assert rolled_out(SMALL, GROW, slow, earlier) == {P: 2, D: 2}


def test_a_cut_says_whether_replicas_would_come_or_go_and_how_many_are_left() -> None:
    slow = guarded(scale_up=RateLimit(replicas=1, period_s=60), scale_down=RateLimit(replicas=1))
    for before, wanted, told in (
        (SMALL, GROW, "2 replicas of prefill would come, 1 of 1 per 60 s are left"),
        (LARGE, SHRINK, "3 replicas of prefill would go, 1 of 1 per 60 s are left"),
    ):
        _, findings = steps_taken(before, wanted, slow)
        assert any(told in finding.reason for finding in findings)


def test_a_rate_may_be_a_share_of_what_there_is() -> None:
    doubling = guarded(scale_up=RateLimit(ratio=1.0))
    assert rolled_out(fleet({P: 1, D: 2}), plan({P: 4, D: 4}), doubling) == {P: 2, D: 4}


def test_without_rate_limits_all_comes_at_once() -> None:
    assert rolled_out(SMALL, GROW, guarded()) == {P: 3, D: 3}
    assert rolled_out(LARGE, SHRINK, guarded()) == {P: 1, D: 1}


def test_a_diff_that_was_made_before_the_period_was_used_up_is_delayed() -> None:
    slow = guarded(scale_up=RateLimit(replicas=2))
    change = diff(SMALL, GROW, slow)
    just = replace(CALM, recent=(Change(at=NOW, role=Role.PREFILL, added=1),))
    assert verdict("rate_limits", guard(change, slow, CALM)) is Verdict.ALLOW
    assert verdict("rate_limits", guard(change, slow, just)) is Verdict.DELAY
    completing = replace(just, completing=True)
    assert verdict("rate_limits", guard(change, slow, completing)) is Verdict.ALLOW


def test_while_replicas_of_a_role_start_no_further_ones_are_started() -> None:
    starting = fleet({P: 1, D: 1}, starting={D: 1})
    assert rolled_out(starting, plan({P: 2, D: 4}), guarded()) == {P: 2, D: 2}
    completing = replace(CALM, completing=True)
    assert rolled_out(starting, plan({P: 2, D: 4}), guarded(), completing) == {P: 2, D: 4}


def test_without_that_a_second_scale_up_begins_while_the_first_one_starts() -> None:
    starting = fleet({P: 1, D: 1}, starting={D: 1})
    eager = guarded(one_scale_up_at_a_time=False)
    assert rolled_out(starting, plan({P: 2, D: 4}), eager) == {P: 2, D: 4}


def test_starting_replicas_are_counted_and_not_ordered_again() -> None:
    starting = fleet({P: 1, D: 1}, starting={D: 2})
    steps, _ = steps_taken(starting, plan({P: 1, D: 3}), guarded())
    assert [s.kind for s in steps.steps] == ["route", "route"]


def loaded(replicas, utilization: float) -> Plan:
    made = plan(replicas)
    pools = tuple(replace(p, utilization_ratio=utilization) for p in made.windows[0].pools)
    return replace(made, windows=(replace(made.windows[0], pools=pools),))


BAND = guarded(scale_down_tolerance_ratio=0.1, scale_up_tolerance_ratio=0.1)
TEN = fleet({P: 10, D: 10})
ROOMY = replace(BAND, accelerators=tuple(replace(a, inventory=99) for a in BAND.accelerators))


@pytest.mark.parametrize(
    ("count", "utilization", "moves"),
    [(9, 0.53, False), (9, 0.45, True), (11, 0.48, False), (11, 0.52, True)],
)
def test_the_dead_band_is_on_the_load_and_not_on_the_count(count, utilization, moves) -> None:
    """The fleet was made for 10 x 0.5 replicas' worth of load: 10 % of that is the band."""
    moment = replace(CALM, last_plan=loaded({P: 10, D: 10}, 0.5))
    wanted = loaded({P: count, D: count}, utilization)
    kept = count if moves else 10
    assert rolled_out(TEN, wanted, ROOMY, moment) == {P: kept, D: kept}


def test_without_a_dead_band_every_ripple_moves_replicas() -> None:
    rippling = replace(
        ROOMY, guards=guarded(scale_down_tolerance_ratio=0.0, scale_up_tolerance_ratio=0.0).guards
    )
    moment = replace(CALM, last_plan=loaded({P: 10, D: 10}, 0.5))
    assert rolled_out(TEN, loaded({P: 9, D: 9}, 0.53), rippling, moment) == {P: 9, D: 9}


def test_a_fleet_that_is_not_the_planned_one_is_corrected_whatever_the_band() -> None:
    moment = replace(CALM, last_plan=loaded({P: 10, D: 12}, 0.5))
    assert rolled_out(TEN, loaded({P: 9, D: 9}, 0.53), ROOMY, moment) == {P: 9, D: 9}


def test_the_band_holds_only_while_the_load_of_every_role_is_inside() -> None:
    moment = replace(CALM, last_plan=loaded({P: 10, D: 10}, 0.5))
    uneven = loaded({P: 10, D: 8}, 0.5)  # prefill as planned, decode a fifth less
    assert rolled_out(TEN, uneven, ROOMY, moment) == {P: 10, D: 8}


def test_a_fleet_that_somebody_changed_is_corrected_though_the_load_is_the_planned_one() -> None:
    moment = replace(CALM, last_plan=loaded({P: 10, D: 9}, 0.5))
    assert rolled_out(TEN, loaded({P: 10, D: 9}, 0.5), ROOMY, moment) == {P: 10, D: 9}


def test_growth_over_all_roles_is_cut_in_turns_to_the_limit() -> None:
    limited = guarded(max_accelerators=6)
    assert rolled_out(SMALL, plan({P: 4, D: 4}), limited) == {P: 3, D: 3}
    _, findings = steps_taken(SMALL, plan({P: 4, D: 4}), limited)
    assert verdict("max_accelerators", findings) is Verdict.CLAMP


def test_without_the_limit_the_roles_together_take_more() -> None:
    assert rolled_out(SMALL, plan({P: 4, D: 4}), guarded()) == {P: 4, D: 4}


def test_growth_is_cut_to_the_money() -> None:
    poor = replace(guarded(), budget=Budget(usd_per_hour=24.0))
    assert rolled_out(SMALL, plan({P: 4, D: 4}), poor) == {P: 3, D: 3}
    assert rolled_out(SMALL, plan({P: 4, D: 4}), guarded()) == {P: 4, D: 4}


def test_growth_is_cut_to_what_may_be_had() -> None:
    scarce = replace(
        guarded(), accelerators=tuple(replace(a, inventory=4) for a in guarded().accelerators)
    )
    assert rolled_out(SMALL, plan({P: 4, D: 4}), scarce) == {P: 2, D: 2}
    assert rolled_out(SMALL, plan({P: 4, D: 4}), guarded()) == {P: 4, D: 4}


def test_shrinking_that_is_held_leaves_no_room_for_growth_and_both_are_cut() -> None:
    """8 h100 in all: what is paused stays, and prefill gets none of what is not free."""
    assert rolled_out(LARGE, MIXED, guarded(pause=Pause.IN)) == {P: 4, D: 4}


def test_every_cut_has_a_reason_that_is_kept() -> None:
    blind = GuardConditions(now=NOW)
    _, findings = steps_taken(LARGE, SHRINK, guarded(pause=Pause.IN), blind)
    cut = [f for f in findings if f.verdict is Verdict.CLAMP]
    assert cut
    assert all(f.reason for f in cut)


@pytest.mark.parametrize(("ratio", "present", "allowed"), [(0.29, 100, 29), (0.57, 100, 57)])
def test_a_share_that_floating_point_has_not_exactly_is_what_people_mean(ratio, present, allowed):
    assert RateLimit(ratio=ratio).allowed(present) == allowed
