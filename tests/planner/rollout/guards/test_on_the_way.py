from dataclasses import replace

import pytest

from planner.domain.fleet import Role
from planner.domain.rollout import StepKind, Verdict
from planner.domain.spec import LoopMode, Spec
from planner.rollout import diff, dip, guard
from planner.rollout.effects import applied, pools_by_key
from tests.planner.rollout.cases import D_TP2, P_TP2, A, D, P, fleet, plan, spec
from tests.planner.rollout.guards.situations import CALM, reason, verdict

LARGE, SHRINK = fleet({P: 4, D: 4}), plan({P: 1, D: 1})


def most_out_of_service(change) -> int:
    pools, most = pools_by_key(change.from_fleet), 0
    for step in change.steps:
        pools = applied(pools, step)
        flipping = step.kind is StepKind.FLIP
        most = max(most, flipping + sum(p.draining for p in pools.values()))
    return most


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_no_more_replicas_than_the_budget_are_out_at_once(budget: int) -> None:
    change = diff(LARGE, SHRINK, spec(max_disrupted_replicas=budget))
    assert most_out_of_service(change) == budget


def test_with_a_large_budget_all_go_at_once() -> None:
    change = diff(LARGE, SHRINK, spec(max_disrupted_replicas=99))
    assert most_out_of_service(change) == 6
    strict = spec(max_disrupted_replicas=1)
    assert verdict("disruption_budget", guard(change, strict, CALM)) is Verdict.DELAY


@pytest.mark.parametrize(("budget", "held"), [(6, False), (5, True)])
def test_the_budget_itself_may_be_out_and_not_one_more(budget: int, *, held: bool) -> None:
    change = diff(LARGE, SHRINK, spec(max_disrupted_replicas=99))
    judged = guard(change, spec(max_disrupted_replicas=budget), CALM)
    assert (verdict("disruption_budget", judged) is Verdict.DELAY) is held


@pytest.mark.parametrize(("budget", "held"), [(1, False), (0, True)])
def test_a_replica_that_flips_is_out_of_service_too(budget: int, *, held: bool) -> None:
    change = diff(fleet({P: 3, D: 1}), plan({P: 2, D: 2}), spec(max_disrupted_replicas=1))
    assert [step.kind for step in change.steps] == [StepKind.FLIP]
    judged = guard(change, spec(max_disrupted_replicas=budget), CALM)
    assert (verdict("disruption_budget", judged) is Verdict.DELAY) is held


def test_drains_within_the_budget_are_one_group() -> None:
    change = diff(LARGE, SHRINK, spec(max_disrupted_replicas=3))
    drains = [len(group) for group in change.groups if group[0].kind is StepKind.DRAIN]
    assert drains == [3, 3]
    assert change.expected_s == pytest.approx(2 * 10.0)


def roles(change, kind: StepKind) -> list[Role]:
    return [s.shape.role for s in change.steps if s.kind is kind]


def test_prefill_and_decode_grow_and_shrink_in_turns() -> None:
    up = diff(fleet({P: 1, D: 2}), plan({P: 2, D: 4}), spec())
    down = diff(fleet({P: 2, D: 4}), plan({P: 1, D: 2}), spec())
    assert roles(up, StepKind.ROUTE) == [D.role, P.role, D.role]
    assert set(roles(down, StepKind.DRAIN)[:2]) == {P.role, D.role}


@pytest.mark.parametrize("h100", [8, 10, 12])
def test_the_ratio_of_both_roles_is_kept_on_the_way_even_where_room_is_scarce(h100: int) -> None:
    """Never all of one role first: the new replicas of both differ by one at the most."""
    change = diff(fleet({P: 2, D: 2}), plan({P_TP2: 2, D_TP2: 2}), spec(h100=h100))
    pools, gaps = pools_by_key(change.from_fleet), []
    for step in change.steps:
        pools = applied(pools, step)
        ready = {k.shape: p.ready for k, p in pools.items()}
        gaps.append(abs(ready.get(P_TP2, 0) - ready.get(D_TP2, 0)))
    assert max(gaps) == 1


def test_a_target_that_cannot_flip_gets_starts_and_drains() -> None:
    kinds = {
        s.kind for s in diff(fleet({P: 1, D: 2}), plan({P: 2, D: 1}), spec(), can_flip=False).steps
    }
    assert kinds == {StepKind.START, StepKind.ROUTE, StepKind.DRAIN, StepKind.STOP}


def bounded(settings: Spec, max_dip_ratio: float) -> Spec:
    return replace(settings, guards=replace(settings.guards, max_dip_ratio=max_dip_ratio))


NO_ROOM = fleet({P: 2, D: 2}), plan({P_TP2: 1, D: 2}), spec(h100=4, mode=LoopMode.AUTO)
"""The two prefill replicas have to go before the one that takes their place."""


def test_with_room_no_dip_is_predicted() -> None:
    before, wanted, _ = NO_ROOM
    assert dip(diff(before, wanted, spec(h100=8)), spec(h100=8)).depth_ratio == 0.0


def test_without_room_the_dip_is_predicted_and_needs_a_person_above_the_bound() -> None:
    before, wanted, settings = NO_ROOM
    change = diff(before, wanted, settings)
    predicted = dip(change, settings)
    assert predicted.depth_ratio == 1.0
    assert predicted.short_s == pytest.approx(10.0 + 30.0)  # the second drain, and the start
    said = guard(change, settings, CALM, plan=wanted)
    assert verdict("dip", said) is Verdict.REFUSE
    asked = guard(change, settings, CALM, plan=wanted, automatic=False)
    assert verdict("dip", asked) is Verdict.ALLOW
    assert "accepted" in reason("dip", asked)


def test_without_the_bound_a_dip_is_taken_without_asking() -> None:
    half = diff(fleet({P: 3, D: 2}), plan({P_TP2: 2, D: 2}), spec(h100=6))
    lax, strict = (bounded(spec(h100=6, mode=LoopMode.AUTO), b) for b in (1.0, 0.1))
    assert 0.1 < dip(half, lax).depth_ratio < 1.0
    assert verdict("dip", guard(half, lax, CALM)) is Verdict.ALLOW
    assert verdict("dip", guard(half, strict, CALM)) is Verdict.REFUSE


def test_a_gap_in_service_needs_a_person_and_is_there_without_the_guard() -> None:
    before, wanted, settings = fleet({A: 1}), plan({P: 1, D: 1}), spec(h100=2, mode=LoopMode.AUTO)
    change = diff(before, wanted, settings)
    assert verdict("serving_floor", guard(change, settings, CALM, plan=wanted)) is Verdict.REFUSE
    assert dip(change, settings).depth_ratio == 1.0  # what applying it all the same would do


def test_starts_that_overrun_the_inventory_are_refused() -> None:
    settings = spec(h100=4)
    change = diff(fleet({P: 1, D: 1}, draining={D: 2}), plan({P: 1, D: 4}), settings)
    assert verdict("inventory", guard(change, settings, CALM)) is Verdict.REFUSE
    roomy = spec(h100=8)
    assert verdict("inventory", guard(change, roomy, CALM)) is Verdict.ALLOW
