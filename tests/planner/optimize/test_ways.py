"""A router that can do more costs no more: balancing is one of its ways."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.plan import PlanStatus
from planner.domain.spec import Objective
from planner.optimize import build_problem, optimize, plan
from planner.optimize.ways import balancing, beside, worth
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
    problem = build_problem(promising(PROMISED), two_classes(), None)
    found = optimize(problem)
    near = beside(found, problem, [found.usd * (1 - found.gap_ratio), found.usd * 1.2])
    far = beside(found, problem, [0.8 * found.usd, found.usd])
    assert near.status is found.status
    assert near.gap_ratio == pytest.approx(found.gap_ratio)
    assert far.status is PlanStatus.FEASIBLE
    assert far.gap_ratio == pytest.approx(0.2)


def test_ways_are_compared_by_what_is_to_be_best() -> None:
    problem = build_problem(promising(PROMISED), two_classes(), None)
    found = optimize(problem)
    assert worth(problem, found) == (found.usd, found.usd)
    counted = replace(problem, objective=Objective.ACCELERATORS)
    seconds = np.array([w.window_s for w in problem.windows])
    assert worth(counted, found)[0] == pytest.approx(found.replicas.sum(axis=0) @ seconds)
