"""What is best: least USD, energy or accelerators, most goodput; priced and shared shortfalls."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.optimize import Problem, check, optimize
from planner.optimize.inputs import Objective, Option, Stream, flips_between
from tests.planner.optimize.cases import option, problem

THREE = (
    option(Role.AGGREGATED, "h100", 4.0, power_w=700.0),
    option(Role.AGGREGATED, "l40s", 1.0, power_w=300.0),
    option(Role.AGGREGATED, "a100", 2.6, power_w=400.0),
)
RATES = [3.1, 0.6, 1.7]


@pytest.mark.parametrize(
    ("objective", "best"),
    [
        (Objective.COST, [1, 0, 0]),
        (Objective.ACCELERATORS, [1, 0, 0]),
        (Objective.POWER, [1, 0, 0]),
    ],
)
def test_three_requests_a_second_fit_one_fast_replica(
    objective: Objective, best: list[int]
) -> None:
    case = problem(THREE, RATES, [3.0], objective=objective)
    assert optimize(case).replicas[:, 0].tolist() == best


def test_each_objective_has_its_own_fleet() -> None:
    case = problem(THREE, RATES, [3.4])
    found = {
        objective: optimize(replace(case, objective=objective)).replicas[:, 0].tolist()
        for objective in (Objective.COST, Objective.POWER, Objective.ACCELERATORS)
    }
    assert found[Objective.COST] == [1, 1, 0]  # 5.0 USD/h
    assert found[Objective.POWER] == [0, 0, 2]  # 800 W instead of 1000
    assert sum(found[Objective.ACCELERATORS]) == 2


def test_goodput_spends_the_budget_on_the_most_requests() -> None:
    case = problem(
        THREE, RATES, [9.0], objective=Objective.GOODPUT, usd_per_hour_limit=7.0, inventory=8
    )
    solution = optimize(case)
    assert check(case, solution) == ()
    served = 9.0 - float(solution.shortfall_rps[0])
    assert served == pytest.approx(3.1 + 3 * 0.6, abs=1e-3)
    assert solution.replicas[:, 0].tolist() == [1, 3, 0]


def test_a_request_that_costs_more_than_its_price_is_not_served() -> None:
    one = [option(Role.AGGREGATED, "h100", 3.6)]  # 0.001 USD a second
    short = problem(one, [1.0], [0.5], window_s=600.0)
    dear = optimize(replace(short, demand_rps=np.array([[1.4]]), shortfall_usd_per_request=0.01))
    cheap = optimize(replace(short, demand_rps=np.array([[1.4]]), shortfall_usd_per_request=0.001))
    assert dear.replicas[0, 0] == 2
    assert cheap.replicas[0, 0] == 1
    assert cheap.shortfall_rps[0] == pytest.approx(0.4, abs=1e-4)
    assert {t.name: t.usd for t in cheap.terms}["slo_shortfall"] == pytest.approx(0.24, abs=1e-3)


def test_short_windows_and_odd_rates_are_served_as_far_as_they_can() -> None:
    options = [option(Role.PREFILL, "h100", 2.0), option(Role.DECODE, "h100", 2.0)]
    rates = [[1.60587163, 4.00258361, 6.4], [1.85658669, 3.95476136, 6.1]]
    case = problem(options, rates, [4.2421, 4.4074], inventory=4, window_s=60.0, best_effort=True)
    solution = optimize(case)
    assert solution.replicas.tolist() == [[2, 2], [2, 2]]
    assert solution.shortfall_rps == pytest.approx([4.2421 - 3.95476136, 4.4074 - 3.95476136])


def shared(*, priorities: tuple[int, int], inventory: int = 3) -> Problem:
    """Two models that each need two of the same accelerators."""
    options = tuple(
        Option(
            shape=ReplicaShape(role=Role.AGGREGATED, model=name, accelerator="h100"),
            purchase_option=PurchaseOption.ON_DEMAND,
            usd_per_hour=4.0,
        )
        for name in ("chat", "code")
    )
    return problem(
        options,
        [1.0, 1.0],
        [0.0],
        inventory=inventory,
        streams=tuple(
            Stream(model=name, priority=priority)
            for name, priority in zip(("chat", "code"), priorities, strict=True)
        ),
        demand_rps=np.array([[1.5], [1.5]]),
        work=np.array([[1.0, np.inf], [np.inf, 1.0]]),
        best_effort=True,
    )


@pytest.mark.parametrize(("priorities", "best"), [((1, 0), [2, 1]), ((0, 1), [1, 2])])
def test_models_of_low_priority_go_without_first(
    priorities: tuple[int, int], best: list[int]
) -> None:
    case = shared(priorities=priorities)
    solution = optimize(case)
    assert check(case, solution) == ()
    assert solution.replicas[:, 0].tolist() == best


def test_models_that_fit_together_are_all_served() -> None:
    case = replace(shared(priorities=(0, 0), inventory=4), best_effort=False)
    assert optimize(case).replicas[:, 0].tolist() == [2, 2]
    small = replace(shared(priorities=(0, 0)), best_effort=False)
    assert not optimize(small).feasible


def test_a_flip_is_taken_where_it_is_cheaper_than_a_stop_and_a_start() -> None:
    options = (
        option(Role.PREFILL, "h100", 4.0, initial_replicas=3, start_s=900.0, drain_s=60.0),
        option(Role.DECODE, "h100", 4.0, initial_replicas=1, start_s=900.0, drain_s=60.0),
    )
    case = problem(options, [1.0, 1.0], [1.0, 2.0], has_fleet=True)
    flipped = replace(case, flips=tuple(flips_between(options, lambda _: 5.0)))
    plain, better = optimize(case), optimize(flipped)
    assert better.usd < plain.usd
    assert better.flips.sum() == 1
    assert better.replicas[:, 1].tolist() == [2, 2]
