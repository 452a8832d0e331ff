"""Requests sent by shares go where their route says, in the proportions it says."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, Route, Scenario, simulate
from planner.simulate.routes import allowed_groups
from tests.fakes.profiles import linear_profile
from tests.planner.optimize.scenarios import NOW

PROFILE = linear_profile()
COUNT = 4_000


def groups(*roles: Role) -> tuple[ReplicaGroup, ...]:
    return tuple(ReplicaGroup(profile=PROFILE, role=role, replicas=4) for role in roles)


def requests() -> Workload:
    """Every other prompt is long, and of those every other one is mostly cached."""
    number = np.arange(COUNT)
    return Workload(
        start_at=NOW,
        arrival_offset_s=number / 20.0,
        input_tokens=np.where(number % 2 == 0, 200, 2_000),
        output_tokens=np.full(COUNT, 5),
        cached_tokens=np.where(number % 4 == 3, 1_900, 0),
        request_class=np.where(number % 2 == 0, "chat", "code"),
        duration_s=COUNT / 20.0,
    )


SHORT = Route(most_tokens=1_000, shares=(1.0, 0.0))
LONG = Route(above_tokens=1_000, shares=(0.0, 1.0))


def test_prompts_go_by_what_is_left_to_compute_of_them() -> None:
    workload, pools = requests(), groups(Role.AGGREGATED, Role.AGGREGATED)
    seen = simulate(Scenario(groups=pools, workload=workload, routes=(SHORT, LONG)))
    long = workload.input_tokens - workload.cached_tokens > 1_000
    assert np.array_equal(seen.prompt_group, long.astype(int))


def test_shares_are_kept_on_both_sides() -> None:
    pools = groups(Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE)
    route = Route(shares=(3.0, 1.0, 0.2, 0.8))
    seen = simulate(Scenario(groups=pools, workload=requests(), routes=(route,)))
    assert float((seen.prompt_group == 0).mean()) == pytest.approx(0.75, abs=0.03)
    assert float((seen.decode_group == 2).mean()) == pytest.approx(0.2, abs=0.03)


def test_classes_go_their_own_ways_and_others_anywhere() -> None:
    workload, pools = requests(), groups(Role.AGGREGATED, Role.AGGREGATED)
    only = Route(request_class="chat", shares=(0.0, 1.0))
    allowed = allowed_groups((only,), pools, workload, seed=1)
    chat = workload.request_class == "chat"
    assert not allowed[0, chat].any()
    assert allowed[1, chat].all()
    assert allowed[:, ~chat].all()


def test_equal_seeds_send_requests_the_same_way() -> None:
    pools, half = groups(Role.AGGREGATED, Role.AGGREGATED), Route(shares=(0.5, 0.5))
    ways = [allowed_groups((half,), pools, requests(), seed=s) for s in (1, 1, 2)]
    assert np.array_equal(ways[0], ways[1])
    assert not np.array_equal(ways[0], ways[2])


def test_a_route_without_any_share_leaves_its_requests_unserved() -> None:
    nowhere = replace(LONG, shares=(0.0, 0.0))
    pools = groups(Role.AGGREGATED, Role.AGGREGATED)
    seen = simulate(Scenario(groups=pools, workload=requests(), routes=(SHORT, nowhere)))
    long = requests().input_tokens - requests().cached_tokens > 1_000
    assert np.isnan(seen.ttft_s[long]).all()
    assert not np.isnan(seen.ttft_s[~long]).any()


def test_a_route_with_shares_for_other_groups_is_refused() -> None:
    with pytest.raises(InputError, match="a share of at least 0 for each of 1 groups"):
        Scenario(groups=groups(Role.AGGREGATED), workload=requests(), routes=(SHORT,))
