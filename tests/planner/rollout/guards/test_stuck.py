"""Replicas that did not come in time: no capacity, nothing to wait for, taken back first."""

from dataclasses import replace

import pytest

from planner.domain.fleet import Fleet, Role
from planner.domain.guards import Pause, RateLimit, RoleGuard, RoleMode
from planner.domain.rollout import StepKind, Verdict
from planner.rollout import after, diff, guard, last_good
from planner.rollout.effects import pools_by_key
from tests.planner.rollout.cases import NOW, P_A100, D, P, fleet, on_demand, plan, spec, words
from tests.planner.rollout.guards.situations import CALM, guarded, reason, steps_taken, verdict


def with_stuck(before: Fleet, **counts: int) -> Fleet:
    """So many stuck replicas in the pools of a role."""
    pools = tuple(replace(p, stuck=counts.get(p.shape.role.value, 0)) for p in before.pools)
    return replace(before, pools=pools)


UNSETTLED = replace(CALM, recommended_since=None)
"""Nobody knows what is needed: nothing that serves may go."""


def test_stuck_replicas_go_before_anything_starts_and_hold_nothing_up() -> None:
    before = with_stuck(fleet({P: 2, D: 1}), prefill=2)
    slow = guarded(scale_down=RateLimit(replicas=0, period_s=60))
    change, findings = steps_taken(before, plan({P: 2, P_A100: 1, D: 2}), slow, UNSETTLED)
    drain, stop = "drain prefill:h100:tp1", "stop prefill:h100:tp1"
    assert words(change.steps)[:3] == [drain, stop, drain]
    kinds = [s.kind for s in change.steps[3:]]
    assert kinds.count(StepKind.DRAIN) == 0
    assert kinds.count(StepKind.START) == kinds.count(StepKind.ROUTE) == 2
    assert all(f.verdict is Verdict.ALLOW for f in findings)
    end = pools_by_key(after(before, change.steps, at=NOW))
    assert [(p.ready, p.stuck) for p in end.values() if p.shape == P] == [(2, 0)]


def test_were_they_taken_for_starting_ones_the_role_could_not_grow_elsewhere() -> None:
    starting = fleet({P: 2, D: 1}, starting={P: 2})
    change, findings = steps_taken(starting, plan({P: 4, P_A100: 1, D: 1}), guarded(), UNSETTLED)
    assert {s.kind for s in change.steps} == {StepKind.ROUTE}
    assert verdict("one_scale_up_at_a_time", findings) is Verdict.CLAMP


def test_a_version_of_a_fleet_does_not_tell_of_stuck_ones() -> None:
    from planner.domain.fleet import version_of

    plain = fleet({P: 2, D: 1})
    assert version_of(with_stuck(plain, prefill=2).pools) == version_of(plain.pools)


ORDERS = [
    ({"pause": Pause.IN}, "scaling in is paused"),
    ({"scale_down": RateLimit(enabled=False)}, "guards.scale_down is disabled"),
    ({"prefill": RoleGuard(mode=RoleMode.OFF)}, "the mode of prefill is off"),
]


@pytest.mark.parametrize(("settings", "said"), ORDERS)
def test_an_order_leaves_them_and_nobody_waits_for_them(settings, said) -> None:
    before = with_stuck(fleet({P: 2, D: 1}), prefill=1)
    change, findings = steps_taken(before, plan({P: 4, D: 2}), guarded(**settings))
    assert words(change.steps) == ["start decode:h100:tp1", "route decode:h100:tp1"]
    if "mode" not in said:
        assert f"may not be taken back ({said})" in reason("stuck", findings)


@pytest.mark.parametrize(("settings", "said"), ORDERS)
def test_a_diff_of_before_the_order_does_not_take_them_either(settings, said) -> None:
    change = diff(with_stuck(fleet({P: 2, D: 1}), prefill=1), plan({P: 2, D: 1}), spec())
    assert [s.kind for s in change.steps] == [StepKind.DRAIN, StepKind.STOP]
    findings = guard(change, guarded(**settings), CALM, automatic=False)
    assert verdict("stuck", findings) is Verdict.REFUSE
    assert said in reason("stuck", findings)
    assert verdict("stuck", guard(change, guarded(), CALM)) is Verdict.ALLOW


def test_the_way_back_waits_for_nothing_that_was_starting_and_did_not_come() -> None:
    """A route of a replica that was broken before the plan: nothing is started anew for it."""
    began = fleet({P: 1, D: 2}, starting={D: 1})
    change = diff(began, plan({P: 1, D: 3}), spec())
    assert words(change.steps) == ["route decode:h100:tp1"]
    now = with_stuck(fleet({P: 1, D: 2}), decode=1)
    back = last_good(change, now, model=P.model)
    assert back.replicas[on_demand(D)] == 2
    assert now.replicas(Role.DECODE) == 2
