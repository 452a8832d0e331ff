"""The bound from single windows lies between the linear relaxation and the optimum."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.domain.fleet import Role
from planner.optimize import check, optimize
from planner.optimize.bound import windows_bound
from planner.optimize.build import build
from planner.optimize.problem import Problem
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.test_enumeration import limited_problems


def bound_of(case: Problem) -> float:
    built = build(case)
    return windows_bound(
        built.model, built.variables, built.cost, settings=case.solver, work=case.solver.exact_work
    )


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=limited_problems())
def test_nothing_that_holds_costs_less_than_the_bound(case: Problem) -> None:
    solution = optimize(case)
    if solution.feasible:
        assert bound_of(case) <= solution.usd * (1 + 1e-4) + 1e-3


@settings(max_examples=10, deadline=None)
@given(
    demands=st.lists(st.integers(1, 60).map(lambda n: n / 4), min_size=5, max_size=8),
    start_s=st.sampled_from((0.0, 600.0)),
)
def test_long_horizons_have_a_bound_that_is_worth_something(
    demands: list[float], start_s: float
) -> None:
    options = [
        option(role, name, usd, start_s=start_s, initial_replicas=1)
        for name, usd in (("h100", 4.0), ("a100", 2.0))
        for role in (Role.PREFILL, Role.DECODE, Role.AGGREGATED)
    ]
    case = problem(options, [5.0, 6.0, 2.0, 2.0, 3.0, 1.0], demands, inventory=30, has_fleet=True)
    solution = optimize(case)
    assert check(case, solution) == ()
    assert 0.6 * solution.usd <= bound_of(case) <= solution.usd * (1 + 1e-6)
    assert solution.gap_ratio <= 0.4


def test_what_was_decided_window_by_window_is_improved_afterwards() -> None:
    counts = np.arange(1, 13)
    roles = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)
    options = [option(r, "h100", 4.0, start_s=90.0, initial_replicas=2) for r in roles]
    options += [option(r, "a100", 2.2, start_s=90.0, initial_replicas=2) for r in roles]
    pooled = [list(b * counts * (1 - 0.15 / np.sqrt(counts))) for b in (10, 12, 5, 5, 6, 2.5)]
    wave = [20 * (1 + 0.5 * np.sin(t / 3)) for t in range(12)]
    case = problem(options, pooled, wave, inventory=16, window_s=300.0, has_fleet=True)
    solution = optimize(case)
    assert check(case, solution) == ()
    assert solution.gap_ratio < 0.06
