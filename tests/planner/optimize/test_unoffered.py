"""The first question, should it be disaggregated at all, is answered even when not asked."""

import pytest

from planner.domain.fleet import Fleet, Role
from planner.domain.plan import RejectedAlternative
from planner.domain.spec import Spec
from planner.optimize import plan
from planner.optimize.unoffered import other_way
from tests.fakes.profiles import linear_profile
from tests.planner.optimize import scenarios
from tests.planner.optimize.scenarios import ALL_ROLES, MODEL, NOW, PAIR


def other_of(spec: Spec) -> RejectedAlternative:
    made = plan(spec, scenarios.forecast([10.0]), None, made_at=NOW)
    (found,) = [r for r in made.rejected if "does not offer" in r.name]
    return found


def test_pairs_only_are_compared_with_aggregated_replicas() -> None:
    found = other_of(scenarios.spec(roles=PAIR))
    assert found.name.startswith("aggregated instead")
    assert found.usd_per_hour is not None
    assert "aggregated:cpu:tp1" in found.reason


def test_aggregated_only_is_compared_with_pairs() -> None:
    found = other_of(scenarios.spec(roles=(Role.AGGREGATED,)))
    assert found.name.startswith("disaggregated instead")
    assert "prefill:cpu:tp1" in found.reason


def test_way_that_cannot_keep_the_objectives_has_no_price() -> None:
    slow = linear_profile(prefill_token_s=1e-3, decode_base_s=0.02)
    found = other_of(scenarios.spec(roles=PAIR, tpot_s=0.024, ttft_s=5.0, profiles=(slow,)))
    assert found.usd_per_hour is None
    assert "cannot keep the objectives" in found.reason


def test_nothing_is_added_where_both_ways_are_offered() -> None:
    assert other_way(scenarios.spec(roles=ALL_ROLES), model=MODEL) is None


def test_nothing_is_claimed_of_roles_that_were_not_measured() -> None:
    pair_only = linear_profile(roles=PAIR)
    assert other_way(scenarios.spec(roles=PAIR, profiles=(pair_only,)), model=MODEL) is None


@pytest.mark.parametrize("roles", [PAIR, (Role.AGGREGATED,)])
def test_comparison_leaves_the_plan_itself_as_it_is(roles: tuple[Role, ...]) -> None:
    made = plan(scenarios.spec(roles=roles), scenarios.forecast([10.0]), None, made_at=NOW)
    assert {p.shape.role for p in made.windows[0].pools} <= set(roles)


def test_a_fleet_that_stays_is_compared_only_where_that_is_asked_for() -> None:
    spec, expected = scenarios.spec(roles=PAIR), scenarios.forecast([10.0])
    first = plan(spec, expected, None, made_at=NOW)
    stays = scenarios.fleet(**{p.shape.role.value: p.replicas for p in first.windows[0].pools})
    grows = scenarios.fleet(prefill=9, decode=9)

    def compared(fleet: Fleet, *, unchanged: bool) -> bool:
        made = plan(spec, expected, fleet, made_at=NOW, compare_unchanged=unchanged)
        return any("does not offer" in r.name for r in made.rejected)

    assert compared(stays, unchanged=True)
    assert not compared(stays, unchanged=False)
    assert compared(grows, unchanged=False)
