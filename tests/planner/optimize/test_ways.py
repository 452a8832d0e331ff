"""A router that can do more costs no more: balancing is one of its ways."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus
from planner.domain.spec import Objective
from planner.optimize import build_problem, optimize, plan
from planner.optimize.explain import rejected_alternatives
from planner.optimize.pareto import ParetoPoint, is_efficient
from planner.optimize.problem import Problem
from planner.optimize.solution import Solution, solution_of
from planner.optimize.ways import balancing, beside, not_chosen, worth
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import NOW
from tests.planner.optimize.test_classes import ROUTINGS, promising, two_classes

PROMISED = {"chat": 2.0, "batch": 2.5}


@pytest.mark.parametrize("rates", [(4.0, 0.3), (8.0, 0.5), (20.0, 1.5)])
def test_telling_classes_apart_costs_no_more(rates: tuple[float, float]) -> None:
    costs = [
        plan(promising(PROMISED, routing=r), two_classes(*rates), None, made_at=NOW).usd_per_hour
        for r in ROUTINGS
    ]
    assert costs[1] <= costs[0] + 1e-9


def test_the_other_way_is_told_with_its_price() -> None:
    made = plan(promising(PROMISED, routing=ROUTINGS[1]), two_classes(), None, made_at=NOW)
    told = [r for r in made.rejected if "balanced" in r.name or "sent apart" in r.name]
    assert len(told) == 1
    assert told[0].usd_per_hour is None or told[0].usd_per_hour >= made.usd_per_hour - 1e-9


def test_a_balancing_router_has_one_way() -> None:
    assert balancing(promising(PROMISED)) is None
    other = balancing(promising(PROMISED, routing=ROUTINGS[1]))
    assert other is not None
    assert other.routing == ROUTINGS[0]


def test_the_gap_is_to_what_either_way_could_cost() -> None:
    case = build_problem(promising(PROMISED), two_classes(), None)
    found = optimize(case)
    near = beside(found, case, [found.usd * (1 - found.gap_ratio), found.usd * 1.2])
    far = beside(found, case, [0.8 * found.usd, found.usd])
    assert near.status is found.status
    assert near.gap_ratio == pytest.approx(found.gap_ratio)
    assert far.status is PlanStatus.FEASIBLE
    assert far.gap_ratio == pytest.approx(0.2)


def test_ways_are_compared_by_what_is_to_be_best() -> None:
    case = build_problem(promising(PROMISED), two_classes(), None)
    found = optimize(case)
    assert worth(case, found) == (0.0, found.usd, found.usd)
    counted = replace(case, objective=Objective.ACCELERATORS)
    seconds = np.array([w.window_s for w in case.windows])
    assert worth(counted, found)[1] == pytest.approx(found.replicas.sum(axis=0) @ seconds)


def priced(objective: Objective) -> tuple[Problem, Solution, Solution]:
    """A fleet that serves all of 4 requests/s, and one that serves half of them for half."""
    of = [option(Role.AGGREGATED, "h100", 2.0, power_w=500.0)]
    case = problem(of, [1.0], [4.0], shortfall_usd_per_request=1.0, objective=objective)
    all_of_it, half = (
        solution_of(case, np.array([[n]]), status=PlanStatus.FEASIBLE, solver_name="none")
        for n in (4, 2)
    )
    return case, all_of_it, half


@pytest.mark.parametrize("objective", [o for o in Objective if o is not Objective.COST])
def test_less_of_what_is_sought_is_no_merit_of_a_way_that_serves_less(objective: Objective) -> None:
    case, all_of_it, half = priced(objective)
    assert worth(case, all_of_it) < worth(case, half)


@pytest.mark.parametrize(("usd_per_request", "is_worth_it"), [(1.0, True), (1e-6, False)])
def test_of_costs_the_price_of_an_unserved_request_decides(
    usd_per_request: float, is_worth_it: bool
) -> None:
    case, _, _ = priced(Objective.COST)
    case = replace(case, shortfall_usd_per_request=usd_per_request)
    all_of_it, half = (
        solution_of(case, np.array([[n]]), status=PlanStatus.FEASIBLE, solver_name="none")
        for n in (4, 2)
    )
    assert (worth(case, all_of_it) < worth(case, half)) == is_worth_it


def test_a_way_that_serves_less_is_told_so_and_compared_in_all() -> None:
    case, all_of_it, half = priced(Objective.COST)
    told = not_chosen(is_apart=True, kept=True, other=(case, half), chosen=(case, all_of_it))
    assert told.usd_per_hour == pytest.approx(4.0)
    more = (half.usd - all_of_it.usd) / case.horizon_h
    assert more > 0  # 2 of 4 requests/s at 1 USD each are dearer than 2 replicas
    assert f"{more:.2f} more in all" in told.reason
    assert "leaves 2 of 4 requests/s unserved" in told.reason
    turned = not_chosen(is_apart=True, kept=True, other=(case, all_of_it), chosen=(case, half))
    assert "less in all (the plan leaves 2 of 4 requests/s unserved" in turned.reason


def test_beside_a_plan_that_sheds_an_alternative_says_that_the_plan_does() -> None:
    options = [option(Role.AGGREGATED, name, usd) for name, usd in (("h100", 9.0), ("a100", 2.0))]
    case = problem(options, [1.0, 1.0], [4.0], inventory=4, shortfall_usd_per_request=1e-3)
    shed = solution_of(case, np.array([[0], [2]]), status=PlanStatus.FEASIBLE, solver_name="none")
    (told,) = [r for r in rejected_alternatives(case, shed) if r.name == "h100 only"]
    assert "the plan leaves 2 of 4 requests/s unserved" in told.reason
    assert "in all" in told.reason


def test_a_cheaper_alternative_says_that_the_twin_was_not_asked() -> None:
    options = [option(Role.AGGREGATED, name, usd) for name, usd in (("h100", 9.0), ("a100", 2.0))]
    case = problem(options, [1.0, 1.0], [4.0])
    dear = solution_of(case, np.array([[4], [0]]), status=PlanStatus.FEASIBLE, solver_name="none")
    (told,) = [r for r in rejected_alternatives(case, dear) if r.name == "a100 only"]
    assert "28.00 less" in told.reason
    assert "the twin was not asked" in told.reason


def test_what_is_not_proven_or_serves_less_is_no_efficient_promise() -> None:
    sure = plan(promising(PROMISED), two_classes(), None, made_at=NOW)
    cheap = replace(sure, usd_per_hour=0.5 * sure.usd_per_hour)
    unproven = replace(cheap, unproven=("not confirmed",))
    less = tuple(replace(w, shortfall_rps=0.5 * w.request_rate_rps) for w in sure.windows)
    shedding = replace(cheap, windows=less)
    points = [
        ParetoPoint(ttft_s=1.0, attainment_ratio=0.95, plan=made, efficient=False)
        for made in (sure, unproven, shedding)
    ]
    assert [is_efficient(p, points) for p in points] == [True, False, True]
    assert not is_efficient(points[0], [*points, replace(points[0], plan=cheap)])
