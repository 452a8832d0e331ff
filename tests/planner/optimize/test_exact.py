"""The solver against full enumeration and published answers."""

from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus
from planner.optimize import check, optimize
from planner.optimize.problem import Problem
from planner.optimize.solution import mean_usd_per_hour
from tests.planner.optimize.cases import option, problem

ROLES = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)


@st.composite
def tiny_problems(draw: st.DrawFn) -> Problem:
    """2-3 options of up to 3 replicas in 1-2 windows, pooled capacities, perhaps a fleet."""
    count = draw(st.integers(2, 3))
    kinds = draw(
        st.lists(
            st.tuples(st.sampled_from(ROLES), st.sampled_from(("h100", "a100"))),
            min_size=count,
            max_size=count,
            unique=True,
        )
    )
    has_fleet = draw(st.booleans())
    options = [
        option(
            role,
            accelerator,
            draw(st.integers(1, 9)) / 2,
            initial_replicas=draw(st.integers(0, 2)) if has_fleet else 0,
            start_s=draw(st.sampled_from((0.0, 900.0))),
        )
        for role, accelerator in kinds
    ]
    rates = [
        list(np.cumsum(draw(st.lists(st.integers(1, 20), min_size=3, max_size=3))) / 4)
        for _ in options
    ]
    demands = [draw(st.integers(0, 40)) / 4 for _ in range(draw(st.integers(1, 2)))]
    return problem(options, rates, demands, inventory=draw(st.integers(1, 4)), has_fleet=has_fleet)


def cheapest_by_enumeration(case: Problem) -> float | None:
    """Least USD over all fleets, by rules written down again and independently."""
    windows = len(case.windows)
    counts = list(product(range(4), repeat=len(case.options)))
    best = None
    for columns in product(counts, repeat=windows):
        if all(_serves(case, columns, t) for t in range(windows)):
            usd = _usd(case, columns)
            best = usd if best is None else min(best, usd)
    return best


def _serves(case: Problem, columns: tuple[tuple[int, ...], ...], t: int) -> bool:
    have, rate = dict.fromkeys(ROLES, 0), dict.fromkeys(ROLES, 0.0)
    used: dict[str, int] = {}
    for o, kind in enumerate(case.options):
        # Start-up is shorter than a window here: it has to be ordered one window ahead, and in
        # window 0 it comes as early as it can.
        first = max(t - 1, 0) if case.has_fleet and kind.start_s > 0 else t
        usable = min(columns[s][o] for s in range(first, t + 1))
        have[kind.shape.role] += columns[t][o]
        rate[kind.shape.role] += case.capacity[o, t].at(usable)
        used[kind.shape.accelerator] = used.get(kind.shape.accelerator, 0) + columns[t][o]
    together = (have[Role.PREFILL] > 0) == (have[Role.DECODE] > 0)
    path = have[Role.PREFILL] + have[Role.AGGREGATED] > 0
    served = min(rate[Role.PREFILL], rate[Role.DECODE]) + rate[Role.AGGREGATED]
    fits = all(n <= case.accelerators[0].inventory for n in used.values())
    return together and path and fits and served >= case.load_rps(t)


def _usd(case: Problem, columns: tuple[tuple[int, ...], ...]) -> float:
    usd = 0.0
    for o, kind in enumerate(case.options):
        before = kind.initial_replicas if case.has_fleet else columns[0][o]
        for column, window in zip(columns, case.windows, strict=True):
            change = column[o] - before
            paid_s = column[o] * window.window_s
            paid_s += abs(change) * 30.0 + max(change, 0) * kind.start_s
            usd += kind.usd_per_hour * paid_s / 3600
            before = column[o]
    return usd


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(case=tiny_problems())
def test_no_fleet_is_cheaper_than_the_plan(case: Problem) -> None:
    solution = optimize(case)
    best = cheapest_by_enumeration(case)
    assert check(case, solution) == ()
    assert solution.feasible == (best is not None)
    if best is not None:
        assert solution.status is PlanStatus.OPTIMAL
        assert solution.usd == pytest.approx(best, rel=2e-4, abs=1e-4)


def test_melange_mixes_two_a100_and_one_a10g() -> None:
    """Published: 8.35 USD/h at 4.2 requests/s (Melange, section 4)."""
    options = [option(Role.AGGREGATED, "a100", 3.67), option(Role.AGGREGATED, "a10g", 1.01)]
    case = problem(options, [2.0, 0.37], [4.2], inventory=16)
    solution = optimize(case)
    assert solution.replicas[:, 0].tolist() == [2, 1]
    assert mean_usd_per_hour(case, solution.replicas) == pytest.approx(8.35)


def test_a_replica_does_not_span_nodes() -> None:
    """12 accelerators in nodes of 8 hold one replica of 8, not one and a half."""
    wide = option(Role.AGGREGATED, "h100", 8.0, tp=8)
    assert optimize(problem([wide], [1.0], [1.0], inventory=12)).feasible
    assert not optimize(problem([wide], [1.0], [2.0], inventory=12)).feasible


def test_two_sizes_share_the_nodes_that_they_fit() -> None:
    options = [
        option(Role.PREFILL, "h100", 4.0, tp=4),
        option(Role.DECODE, "h100", 2.0, tp=2),
    ]
    fits = problem(options, [1.0, 1.0], [2.0], inventory=12)
    too_small = problem(options, [1.0, 1.0], [2.0], inventory=11, per_node=6)
    assert optimize(fits).replicas[:, 0].tolist() == [2, 2]
    assert not optimize(too_small).feasible


def test_larger_pools_count_with_their_pooling_effect() -> None:
    pooled = problem([option(Role.AGGREGATED, "h100", 1.0)], [[1.0, 2.5, 4.0]], [4.0])
    alone = problem([option(Role.AGGREGATED, "h100", 1.0)], [1.0], [4.0])
    assert optimize(pooled).replicas[0, 0] == 3
    assert optimize(alone).replicas[0, 0] == 4


@pytest.mark.parametrize("demand_rps", [4.242108814329643, 0.1 + 0.2, 1e-3 / 3, 12345.678901])
def test_rounding_does_not_stand_between_demand_and_capacity(demand_rps: float) -> None:
    options = [option(role, "h100", 1.0) for role in (Role.PREFILL, Role.DECODE)]
    share = demand_rps * 0.378557
    case = problem(options, [[share, 2.5 * share, 4 * share]] * 2, [demand_rps])
    assert optimize(case).replicas[:, 0].tolist() == [3, 3]
    assert optimize(problem(options, [[demand_rps]] * 2, [demand_rps])).feasible


def test_replicas_are_ordered_a_start_up_time_ahead() -> None:
    slow = option(Role.AGGREGATED, "h100", 1.0, initial_replicas=1, start_s=900.0)
    ahead = problem([slow], [1.0], [1.0, 1.0, 3.0], has_fleet=True)
    assert optimize(ahead).replicas[0].tolist() == [1, 3, 3]


def test_what_cannot_be_ready_in_time_is_not_held_against_the_plan() -> None:
    slow = option(Role.AGGREGATED, "h100", 1.0, initial_replicas=1, start_s=7200.0)
    late = problem([slow], [1.0], [3.0, 1.0, 3.0], has_fleet=True)
    solution = optimize(late)
    assert solution.feasible
    assert solution.shortfall_rps[0] == pytest.approx(2.0)
    assert solution.shortfall_rps[2] == pytest.approx(0.0)


def test_best_effort_serves_as_much_as_there_is_room_for() -> None:
    options = [option(Role.PREFILL, "h100", 4.0), option(Role.DECODE, "h100", 4.0)]
    case = problem(options, [1.0, 2.0], [9.0], inventory=6, best_effort=True)
    assert optimize(case).replicas[:, 0].tolist() == [4, 2]


def test_without_traffic_one_way_to_answer_is_kept() -> None:
    options = [option(role, "h100", 4.0) for role in ROLES]
    assert optimize(problem(options, [1.0, 1.0, 1.0], [0.0])).replicas[:, 0].tolist() == [0, 0, 1]


def test_a_small_saving_is_not_worth_a_change() -> None:
    options = [
        option(Role.AGGREGATED, "h100", 4.0, initial_replicas=1),
        option(Role.AGGREGATED, "a100", 3.99),
    ]
    kept = optimize(problem(options, [1.0, 1.0], [0.5], has_fleet=True))
    assert kept.replicas[:, 0].tolist() == [1, 0]
