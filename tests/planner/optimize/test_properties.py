"""More load, a tighter promise or less inventory never cost less; equal inputs, equal plans."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.fleet import Role
from planner.optimize import build_problem, check, optimize
from planner.optimize.problem import Problem
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import ALL_ROLES, NOW, forecast, spec

TOLERANCE = 1 + 3e-4
"""Twice the gap within which an answer counts as optimal, and a little."""


def usd(case: Problem) -> float:
    """Cost of the optimum; infinite where nothing serves."""
    solution = optimize(case)
    assert check(case, solution) == ()
    return solution.usd if solution.feasible else float("inf")


def grid(demands: list[float], *, inventory: int = 12, price: float = 4.0) -> Problem:
    roles = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)
    options = [option(r, "h100", price, start_s=600.0, initial_replicas=1) for r in roles]
    options += [option(r, "a100", 2.0, start_s=600.0) for r in roles]
    counts = np.arange(1, 13)
    pooled = [list(b * counts * (1 - 0.2 / np.sqrt(counts))) for b in (5, 6, 2, 2, 3, 1)]
    return problem(options, pooled, demands, inventory=inventory, has_fleet=True)


demand_lists = st.lists(st.integers(0, 60).map(lambda n: n / 4), min_size=1, max_size=3)


@settings(max_examples=12, deadline=None)
@given(demands=demand_lists, growth=st.floats(1.0, 2.0))
def test_more_load_never_costs_less(demands: list[float], growth: float) -> None:
    grown = [d * growth for d in demands]
    assert usd(grid(demands)) <= usd(grid(grown)) * TOLERANCE


@settings(max_examples=12, deadline=None)
@given(demands=demand_lists, inventory=st.integers(2, 12), more=st.integers(0, 6))
def test_more_inventory_never_costs_more(demands: list[float], inventory: int, more: int) -> None:
    larger = usd(grid(demands, inventory=inventory + more))
    assert larger <= usd(grid(demands, inventory=inventory)) * TOLERANCE


@settings(max_examples=10, deadline=None)
@given(demands=demand_lists, dearer=st.floats(1.0, 3.0))
def test_higher_prices_never_cost_less(demands: list[float], dearer: float) -> None:
    assert usd(grid(demands)) <= usd(grid(demands, price=4.0 * dearer)) * TOLERANCE


@settings(max_examples=10, deadline=None)
@given(
    rate=st.floats(0.5, 40.0),
    ttft_s=st.floats(0.2, 2.0),
    tighter=st.floats(0.5, 1.0),
    attainment=st.floats(0.9, 0.99),
)
def test_a_tighter_promise_never_costs_less(
    rate: float, ttft_s: float, tighter: float, attainment: float
) -> None:
    load = forecast([rate])
    loose = spec(roles=ALL_ROLES, inventory=40, ttft_s=ttft_s, attainment_ratio=0.9)
    tight = spec(
        roles=ALL_ROLES, inventory=40, ttft_s=ttft_s * tighter, attainment_ratio=attainment
    )
    loose_usd = usd(build_problem(loose, load, None, made_at=NOW))
    assert loose_usd <= usd(build_problem(tight, load, None, made_at=NOW)) * TOLERANCE


def test_long_horizons_are_checked_bounded_and_repeatable() -> None:
    case = grid([6 + 5 * np.sin(t / 2) for t in range(12)])
    first, second = optimize(case), optimize(case)
    assert check(case, first) == ()
    assert first.replayable
    assert np.array_equal(first.replicas, second.replicas)
    assert 0 <= first.gap_ratio < 0.25
