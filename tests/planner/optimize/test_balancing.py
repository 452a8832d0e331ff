"""Plans for routers that take replicas in turn instead of the least loaded."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.spec import Balancing, Routing, Spec
from planner.domain.workload import Workload
from planner.optimize import build_problem, plan
from planner.optimize.ways import balancing
from planner.simulate import ReplicaGroup, RouterPolicy, Scenario, sample_workload, simulate
from tests.planner.optimize.scenarios import NOW, forecast, spec

RATE_RPS, WINDOW_S = 20.0, 600.0


def given(how: Balancing) -> Spec:
    """Prompts that take 0.15 s on average; a tenth of a second more is late."""
    return replace(
        spec(inventory=40, ttft_s=0.5, attainment_ratio=0.95), routing=Routing(balancing=how)
    )


def test_replicas_in_turn_sustain_less_each_and_grow_evenly() -> None:
    load = forecast([RATE_RPS], isl=1500.0, window_s=WINDOW_S)
    by = {how: build_problem(given(how), load, None) for how in Balancing}
    problem = by[Balancing.ROUND_ROBIN]
    (prefill,) = problem.in_role(Role.PREFILL)
    in_turn = [problem.capacity[prefill, 0].at(n) for n in range(1, 6)]
    least = [by[Balancing.LEAST_LOADED].capacity[prefill, 0].at(n) for n in range(1, 6)]
    assert in_turn[0] == pytest.approx(least[0])
    assert all(a < b for a, b in zip(in_turn[1:], least[1:], strict=True))
    assert all(a < b for a, b in pairwise(in_turn))


def attained(replicas: dict[Role, int], workload: Workload, router: RouterPolicy) -> float:
    """Share of requests in time by the twin."""
    here = given(Balancing.ROUND_ROBIN)
    groups = tuple(
        ReplicaGroup(profile=here.profiles[0], role=role, replicas=n)
        for role, n in replicas.items()
    )
    result = simulate(Scenario(groups=groups, workload=workload, router=router))
    return float(result.met(here.slos).mean())


def test_a_plan_for_replicas_in_turn_holds_there() -> None:
    load = forecast([RATE_RPS], isl=1500.0, window_s=WINDOW_S)
    plans = {how: plan(given(how), load, None, made_at=NOW) for how in Balancing}
    counts = {
        how: {role: made.windows[0].replicas(role) for role in (Role.PREFILL, Role.DECODE)}
        for how, made in plans.items()
    }
    both = (counts[Balancing.ROUND_ROBIN], counts[Balancing.LEAST_LOADED])
    assert sum(both[0].values()) > sum(both[1].values())
    futures = [
        sample_workload(load.windows[0], level=0.9, duration_s=WINDOW_S, rng=rng)
        for rng in np.random.default_rng(7).spawn(20)
    ]
    in_turn, least = (
        np.array([attained(replicas, future, RouterPolicy.ROUND_ROBIN) for future in futures])
        for replicas in both
    )
    assert np.all(in_turn >= 0.95)
    assert np.mean(least < 0.95) > 0.05  # a promise kept with less confidence than 95 %


def test_a_router_that_only_balances_is_left_to_balance_in_its_own_way() -> None:
    in_turn = given(Balancing.ROUND_ROBIN)
    assert balancing(in_turn) is None
    apart = replace(in_turn, routing=replace(in_turn.routing, by_class=True))
    assert balancing(apart) == in_turn
