"""Many windows, streams and options: near the optimum, never below the bound, never broken."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.large_fleets import Size, large_problem
from planner.domain.plan import PlanStatus
from planner.optimize import Problem, check, long_horizon, optimize
from planner.optimize.carrying import Cuts, FlowSystem, Prices
from planner.optimize.inputs import PoolCapacity
from planner.optimize.solution import solution_of
from tests.planner.optimize.test_enumeration import limited_problems

SMALL = Size(accelerators=4, tps=(1, 2), windows=16, classes=18, replicas=60)


def linear(case: Problem) -> Problem:
    """The same case with every replica of a pool as good as the first."""
    pools = {at: PoolCapacity.linear(pool.at(1)) for at, pool in case.capacity.items()}
    return replace(case, capacity=pools)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=limited_problems().map(linear))
def test_what_it_finds_keeps_every_limit_and_costs_no_less_than_the_optimum(case: Problem) -> None:
    if not long_horizon.can_be_relaxed(case):
        return
    best, found = optimize(case), long_horizon.decide(case)
    if not best.feasible:
        assert found is None
    elif found is not None:
        status = PlanStatus.FEASIBLE
        plan = solution_of(
            case, found.replicas, flips=found.flips, status=status, solver_name="long"
        )
        assert check(case, plan) == ()
        assert plan.usd >= best.usd * (1 - 1e-3) - 1e-3
        assert found.bound <= best.usd * (1 + 1e-3) + 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_larger_fleets_are_planned_close_to_the_bound(seed: int) -> None:
    case = large_problem(SMALL, seed)
    solution = optimize(case)
    assert solution.solver_name == long_horizon.NAME
    assert check(case, solution) == ()
    assert solution.gap_ratio <= 0.02


def test_a_fleet_that_runs_is_planned_on_with_its_lead_times() -> None:
    case = large_problem(SMALL, 1)
    first = optimize(case.between(0, 1))
    running = tuple(
        replace(o, initial_replicas=int(n))
        for o, n in zip(case.options, first.replicas[:, 0], strict=True)
    )
    solution = optimize(replace(case, has_fleet=True, options=running))
    assert solution.solver_name == long_horizon.NAME
    assert solution.gap_ratio <= 0.02


def test_the_same_problem_gives_the_same_plan_on_one_thread_and_on_two() -> None:
    case = large_problem(SMALL, 2)
    one = optimize(replace(case, solver=replace(case.solver, threads=1)))
    two = optimize(replace(case, solver=replace(case.solver, threads=2)))
    assert np.array_equal(one.replicas, two.replicas)
    assert one.gap_ratio == two.gap_ratio


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 30),
    whole=st.lists(st.floats(0, 5), min_size=18, max_size=18),
    shares=st.lists(st.floats(0, 1), min_size=18, max_size=18),
)
def test_capacities_that_carry_the_demand_satisfy_every_cut(
    seed: int, whole: list[float], shares: list[float]
) -> None:
    case = large_problem(replace(SMALL, windows=2), seed)
    everything = FlowSystem(case, np.arange(len(case.options)))
    none = np.zeros(len(case.options)), np.zeros(len(case.streams))
    each = np.array([pool.tail_rps for (_, t), pool in case.capacity.items() if t == 0])
    usd = np.array([o.usd_per_hour for o in case.options])
    enough = everything.missing(0, *none, each_rps=each, usd=usd)
    cuts = Cuts(case)
    cuts.add(enough.prices)
    cuts.add(
        Prices(whole=np.array(whole), prefill=np.array(whole) * np.array(shares), transfer=0.0)
    )
    carrying = enough.more * each
    assert cuts.missing(0, carrying, none[1]).max(initial=0.0) <= 1e-6
    assert cuts.missing(0, none[0], none[1]).max() > 0.9
    assert everything.missing(0, carrying, none[1], each_rps=each, usd=usd).usd <= 1e-6 * enough.usd
