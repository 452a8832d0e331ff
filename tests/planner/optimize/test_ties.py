"""What is exactly enough is enough: rounding takes nothing from loads that equal capacities."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.fleet import Role
from planner.optimize import check, optimize
from planner.optimize.inputs import RatioBounds, ReplicaBounds, Stream
from planner.optimize.problem import Problem
from tests.planner.optimize.cases import option, problem

A, P, D = Role.AGGREGATED, Role.PREFILL, Role.DECODE

pools = st.lists(
    st.lists(st.floats(0.1, 50.0, allow_subnormal=False), min_size=2, max_size=4),
    min_size=2,
    max_size=4,
)
"""Of each option what one replica more adds, requests/s: as many replicas as there may be."""


def full(steps: list[list[float]], **more: object) -> Problem:
    """All replicas that may be had serve just what is asked."""
    options = [option(A, name, 2.0, power_w=100 * rates[0]) for name, rates in named(steps)]
    bounds = [
        ReplicaBounds(shape=o.shape, max_replicas=len(rates))
        for o, rates in zip(options, steps, strict=True)
    ]
    tables = [np.cumsum(rates).tolist() for rates in steps]
    load = sum(table[-1] for table in tables)
    return problem(options, tables, [load], bounds=bounds, **more)  # type: ignore[arg-type]


def named(steps: list[list[float]]) -> list[tuple[str, list[float]]]:
    return list(zip("abcd", steps, strict=False))


@given(steps=pools)
@settings(max_examples=60, deadline=None)
def test_a_load_that_equals_the_capacity_of_all_replicas_is_served(
    steps: list[list[float]],
) -> None:
    case = full(steps)
    found = optimize(case)
    assert found.feasible
    assert check(case, found) == ()
    assert found.replicas[:, 0].tolist() == [len(rates) for rates in steps]


@given(steps=pools)
@settings(max_examples=30, deadline=None)
def test_a_power_limit_that_equals_what_all_replicas_draw_is_kept(steps: list[list[float]]) -> None:
    limit = sum(100 * rates[0] * len(rates) for rates in steps)
    case = full(steps, power_w_limit=limit)
    found = optimize(case)
    assert found.feasible
    assert check(case, found) == ()


def test_rates_that_are_nearly_multiples_of_each_other_count_in_full() -> None:
    """1.99999 replicas' worth counted as one: the factor was taken for a whole number."""
    case = full([[1.0, 1.00002], [1.99999, 1.99997]])
    assert optimize(case).feasible


def test_a_ratio_that_two_pools_just_keep_is_kept() -> None:
    pair = [option(P, "x", 1.0), option(D, "x", 1.0)]
    bounds = [
        ReplicaBounds(shape=o.shape, max_replicas=n) for o, n in zip(pair, (3, 7), strict=True)
    ]
    tables = [np.linspace(0.3, 1.0, 3).tolist(), np.linspace(0.13, 1.0, 7).tolist()]
    for side in ({"min_ratio": 3 / 7}, {"max_ratio": 3 / 7}):
        case = problem(
            pair,
            tables,
            [1.0],
            inventory=16,
            bounds=bounds,
            ratios=(RatioBounds(model="m", **side),),
        )
        assert optimize(case).feasible


def test_two_streams_that_just_fill_their_pools_are_served() -> None:
    steps = [[3.7, 2.9], [1.3, 1.1, 0.7]]
    work = np.array([[1.37, 0.83], [0.71, 1.19]])
    filled = np.array([6.6, 3.1])
    own = {
        "streams": (Stream(model="m", bucket="0"), Stream(model="m", bucket="1")),
        "work": work,
        "demand_rps": np.array([[filled[0] / work[0, 0]], [filled[1] / work[1, 1]]]),
    }
    # Each stream only in its own pool: nothing can be traded between them.
    own["work"] = np.where(np.eye(2) > 0, work, np.inf)
    case = full(steps, **own)
    found = optimize(case)
    assert found.feasible
    assert check(case, found) == ()
