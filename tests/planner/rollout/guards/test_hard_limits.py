"""Limits that nobody's approval overrides: kept where a rollout ends, and on the way there."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from planner.domain.fleet import Fleet, Pool, Role
from planner.domain.guards import RoleGuard
from planner.domain.rollout import Diff, Verdict
from planner.domain.spec import Budget, LoopMode, Spec
from planner.rollout import GuardConditions, diff, guard
from planner.rollout.effects import Pools, applied, pools_by_key
from tests.planner.rollout.cases import D_A100, D_TP2, A, D, P, fleet, plan, spec
from tests.planner.rollout.guards.situations import (
    CALM,
    guarded,
    reason,
    rolled_out,
    steps_taken,
    verdict,
)

SWAP = fleet({P: 1, D: 2}), plan({P: 1, D_A100: 2})
"""Both decode replicas go for two others: room for all of them would be 5 accelerators."""


def on_the_way(change: Diff) -> Iterator[Pools]:
    pools = pools_by_key(change.from_fleet)
    for step in change.steps:
        pools = applied(pools, step)
        yield pools


def most_accelerators(change: Diff) -> int:
    return max(sum(p.accelerators for p in pools.values()) for pools in on_the_way(change))


def most_of(change: Diff, role: Role) -> int:
    return max(
        sum(p.replicas for k, p in pools.items() if k.shape.role is role)
        for pools in on_the_way(change)
    )


def approved(settings: Spec) -> Spec:
    return replace(settings, loop=replace(settings.loop, mode=LoopMode.APPROVE))


def test_the_limit_on_accelerators_holds_on_the_way_and_the_dip_is_asked_about() -> None:
    limited = guarded(max_accelerators=3)
    change, findings = steps_taken(*SWAP, limited)
    assert most_accelerators(change) == 3
    assert verdict("max_accelerators", findings) is Verdict.ALLOW
    assert verdict("dip", findings) is Verdict.REFUSE
    _, asked = steps_taken(*SWAP, approved(limited))
    assert not any(f.verdict is Verdict.REFUSE for f in asked)


def test_without_the_limit_more_accelerators_are_taken_on_the_way() -> None:
    change, _ = steps_taken(*SWAP, guarded())
    assert most_accelerators(change) == 5


def test_the_limit_of_a_role_holds_on_the_way() -> None:
    change, findings = steps_taken(*SWAP, guarded(decode=RoleGuard(max_replicas=2)))
    assert most_of(change, Role.DECODE) == 2
    assert verdict("role_bounds", findings) is Verdict.ALLOW


def test_without_the_limit_of_the_role_it_has_more_replicas_on_the_way() -> None:
    change, _ = steps_taken(*SWAP, guarded())
    assert most_of(change, Role.DECODE) == 4


def scarce(least: int) -> Spec:
    """Two of tp 2 in place of two: only one of them has room before an old one goes."""
    settings = guarded(decode=RoleGuard(min_replicas=least), max_dip_ratio=1.0)
    return replace(
        settings, accelerators=tuple(replace(a, inventory=5) for a in settings.accelerators)
    )


@pytest.mark.parametrize("automatic", [True, False])
def test_no_role_has_fewer_ready_replicas_on_the_way_than_it_must(*, automatic: bool) -> None:
    settings = scarce(2) if automatic else approved(scarce(2))
    _, findings = steps_taken(fleet({P: 1, D: 2}), plan({P: 1, D_TP2: 2}), settings)
    assert verdict("role_bounds", findings) is Verdict.REFUSE
    assert "decode: 1 ready replicas on the way, at least 2" in reason("role_bounds", findings)


def test_without_that_minimum_the_role_has_a_single_ready_one_for_a_while() -> None:
    change, findings = steps_taken(fleet({P: 1, D: 2}), plan({P: 1, D_TP2: 2}), scarce(0))
    ready = [
        sum(p.ready for k, p in pools.items() if k.shape.role is Role.DECODE)
        for pools in on_the_way(change)
    ]
    assert min(ready) == 1
    assert verdict("role_bounds", findings) is Verdict.ALLOW


def test_with_room_the_minimum_is_kept_by_starting_first() -> None:
    settings = guarded(decode=RoleGuard(min_replicas=2))
    assert rolled_out(fleet({P: 1, D: 2}), plan({P: 1, D_TP2: 2}), settings) == {P: 1, D_TP2: 2}


@pytest.mark.parametrize(
    ("guards", "name", "said"),
    [
        ({"decode": RoleGuard(max_replicas=2)}, "role_bounds", "decode: 3 replicas, at most 2"),
        ({"max_accelerators": 3}, "max_accelerators", "4 accelerators over all roles, at most 3"),
    ],
)
def test_a_diff_beyond_a_limit_is_refused_though_a_person_approved(guards, name, said) -> None:
    change = diff(fleet({P: 1, D: 2}), plan({P: 1, D: 3}), spec())
    findings = guard(change, guarded(**guards), CALM, automatic=False)
    assert verdict(name, findings) is Verdict.REFUSE
    assert said in reason(name, findings)


def test_a_diff_below_the_minimum_of_a_role_is_refused_though_a_person_approved() -> None:
    change = diff(fleet({P: 1, D: 3}), plan({P: 1, D: 1}), spec())
    findings = guard(change, guarded(decode=RoleGuard(min_replicas=2)), CALM, automatic=False)
    assert reason("role_bounds", findings) == "decode: 1 replica, at least 2"


def test_what_is_beyond_its_limits_may_come_nearer() -> None:
    above = guarded(decode=RoleGuard(max_replicas=2), max_accelerators=2)
    fewer = diff(fleet({P: 1, D: 4}), plan({P: 1, D: 3}), spec())
    below = guarded(decode=RoleGuard(min_replicas=4))
    more = diff(fleet({P: 1, D: 2}), plan({P: 1, D: 3}), spec())
    for change, settings in ((fewer, above), (more, below)):
        said = guard(change, settings, CALM)
        assert verdict("role_bounds", said) is Verdict.ALLOW
        assert verdict("max_accelerators", said) is Verdict.ALLOW


def beside_another(ready: int, **states) -> Fleet:
    """A small fleet beside another model's decode replicas."""
    own = fleet({P: 1, D: 1})
    other = Pool(shape=replace(D, model="other"), ready=ready, **states)
    return replace(own, pools=(*own.pools, other))


GROW = plan({P: 2, D: 2})


@pytest.mark.parametrize(
    ("guards", "changes", "name"),
    [
        ({"max_accelerators": 6}, {}, "max_accelerators"),
        ({}, {"budget": Budget(usd_per_hour=24.0)}, "budget"),
        ({}, {"accelerators": 6}, "inventory"),
    ],
)
def test_what_other_models_have_counts(guards, changes, name) -> None:
    """6 accelerators, or the money for them, less the 4 of another model: nothing may come."""
    settings = guarded(**guards)
    if "accelerators" in changes:
        few = tuple(replace(a, inventory=6) for a in settings.accelerators)
        changes = {"accelerators": few}
    settings = replace(settings, **changes)
    alone, _ = steps_taken(beside_another(0), GROW, settings)
    assert len(alone.steps) == 4
    beside, findings = steps_taken(beside_another(4), GROW, settings)
    assert beside.steps == ()
    assert verdict(name, findings) is Verdict.CLAMP


def test_replicas_of_other_models_that_start_hold_nothing_up() -> None:
    starting = beside_another(0, starting=1)
    assert rolled_out(starting, GROW, guarded())[D] == 2


def test_an_aggregated_role_has_its_own_limits() -> None:
    settings = guarded(aggregated=RoleGuard(max_replicas=1))
    assert rolled_out(fleet({A: 1}), plan({A: 3}), settings, GuardConditions(now=CALM.now)) == {
        A: 1
    }
