from dataclasses import replace

import pytest

from planner.domain.guards import Pin, RoleGuard, RoleMode
from planner.domain.rollout import Verdict
from planner.domain.spec import LoopMode, PoolBounds
from planner.rollout import diff, guard
from tests.planner.rollout.cases import P_A100, A, D, P, fleet, plan, spec
from tests.planner.rollout.guards.situations import (
    CALM,
    guarded,
    reason,
    rolled_out,
    steps_taken,
    verdict,
)

SMALL = fleet({P: 1, D: 1})
BOTH_GROW = plan({P: 3, D: 3})


@pytest.mark.parametrize("mode", [RoleMode.OFF, RoleMode.ADVISE])
def test_a_role_that_is_not_to_be_moved_stays_and_the_other_moves(mode: RoleMode) -> None:
    held = guarded(decode=RoleGuard(mode=mode))
    assert rolled_out(SMALL, BOTH_GROW, held) == {P: 3, D: 1}
    _, findings = steps_taken(SMALL, BOTH_GROW, held)
    assert verdict("role_mode", findings) is Verdict.CLAMP
    assert "3 are recommended" in reason("role_mode", findings)


def test_without_a_mode_every_role_moves() -> None:
    assert rolled_out(SMALL, BOTH_GROW, guarded()) == {P: 3, D: 3}


def test_a_person_may_move_a_role_that_is_advised_but_not_one_that_is_off() -> None:
    for mode, held in ((RoleMode.ADVISE, Verdict.ALLOW), (RoleMode.OFF, Verdict.REFUSE)):
        settings = replace(spec(), guards=guarded(decode=RoleGuard(mode=mode)).guards)
        change = diff(SMALL, BOTH_GROW, settings)
        said = guard(change, settings, CALM, plan=BOTH_GROW, automatic=False)
        assert verdict("role_mode", said) is held


def test_a_pinned_pool_has_what_it_is_pinned_to() -> None:
    pinned = guarded(pins=(Pin(pool="decode:h100:tp1", replicas=2),))
    assert rolled_out(SMALL, BOTH_GROW, pinned) == {P: 3, D: 2}
    assert rolled_out(fleet({P: 1, D: 4}), plan({P: 1, D: 4}), pinned) == {P: 1, D: 2}


def test_a_pin_of_run_time_wins_over_that_of_the_spec() -> None:
    pinned = guarded(pins=(Pin(pool="decode:h100:tp1", replicas=2),))
    moment = replace(CALM, pins=(Pin(pool="decode:h100:tp1", replicas=1),))
    assert rolled_out(SMALL, BOTH_GROW, pinned, moment) == {P: 3, D: 1}


def test_without_a_pin_the_pool_goes_where_the_plan_wants() -> None:
    assert rolled_out(SMALL, BOTH_GROW, guarded())[D] == 3


def test_a_diff_past_a_pin_is_refused_and_one_towards_it_is_not() -> None:
    pinned = guarded(pins=(Pin(pool="decode:h100:tp1", replicas=2),))
    for wanted, held in ((3, Verdict.REFUSE), (2, Verdict.ALLOW)):
        change = diff(SMALL, plan({P: 1, D: wanted}), pinned)
        assert verdict("pinned", guard(change, pinned, CALM)) is held


def bounded(**limits):
    settings = guarded()
    pools = tuple(
        PoolBounds(shape=b.shape, **limits) if b.shape == D else b for b in settings.pools
    )
    return replace(settings, pools=pools)


def test_a_pool_is_clamped_to_its_bounds_and_that_is_reported() -> None:
    most = bounded(max_replicas=2)
    assert rolled_out(SMALL, BOTH_GROW, most) == {P: 3, D: 2}
    _, findings = steps_taken(SMALL, BOTH_GROW, most)
    assert verdict("pool_bounds", findings) is Verdict.CLAMP
    assert "at most 2" in reason("pool_bounds", findings)
    assert rolled_out(SMALL, plan({P: 1, D: 1}), bounded(min_replicas=2)) == {P: 1, D: 2}


def test_without_bounds_a_pool_grows_past_them() -> None:
    assert rolled_out(SMALL, BOTH_GROW, bounded())[D] == 3


def test_a_role_is_clamped_to_its_limits_over_all_its_pools() -> None:
    wanted = plan({P: 2, P_A100: 2, D: 1})
    limited = guarded(prefill=RoleGuard(max_replicas=3))
    assert sum(n for s, n in rolled_out(SMALL, wanted, limited).items() if s.role == "prefill") == 3
    least = guarded(decode=RoleGuard(min_replicas=2))
    assert rolled_out(SMALL, plan({P: 1, D: 1}), least) == {P: 1, D: 2}


def test_without_limits_a_role_grows_past_them() -> None:
    wanted = plan({P: 2, P_A100: 2, D: 1})
    assert sum(n for s, n in rolled_out(SMALL, wanted, guarded()).items() if s.role == P.role) == 4


def test_a_role_outside_its_limits_may_come_nearer() -> None:
    limited = guarded(decode=RoleGuard(max_replicas=2))
    assert rolled_out(fleet({P: 1, D: 5}), plan({P: 1, D: 4}), limited) == {P: 1, D: 4}


def test_half_a_pair_is_never_left() -> None:
    assert rolled_out(fleet({P: 2, D: 2}), plan({P: 2, D: 0}), guarded()) == {P: 2, D: 1}
    assert rolled_out(fleet({P: 2, D: 2}), plan({P: 0, D: 0}), guarded()) == {P: 1, D: 1}
    assert rolled_out(fleet({A: 1}), plan({A: 0}), guarded()) == {A: 1}


def test_without_that_guard_half_a_pair_is_left() -> None:
    settings = spec(mode=LoopMode.APPROVE)
    change = diff(fleet({P: 2, D: 2}), plan({P: 2, D: 0}), settings)
    said = guard(change, settings, CALM, automatic=False)
    assert verdict("zero", said) is Verdict.REFUSE
    assert [f.guard for f in said if f.verdict is Verdict.REFUSE] == ["zero"]  # nobody else sees it
