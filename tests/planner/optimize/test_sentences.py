"""What a plan says of itself and of what was not chosen is so."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus
from planner.domain.spec import Objective, PlanningSettings
from planner.optimize import plan
from planner.optimize.explain import rejected_alternatives
from planner.optimize.solution import solution_of
from planner.service.documents.plan import plan_document, plan_of
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import NOW, fleet, forecast, spec


def test_an_alternative_for_which_there_is_no_room_is_not_said_to_keep_the_promise() -> None:
    made = plan(spec(inventory=0), forecast([10.0]), None, made_at=NOW)
    (other,) = [r for r in made.rejected if "does not offer" in r.name]
    assert other.reason.startswith("cannot keep the objectives: the limits leave room for no fleet")
    assert "100" not in other.reason


def test_the_attainment_of_an_alternative_is_that_of_its_worst_window_even_where_that_is_0() -> (
    None
):
    made = plan(spec(inventory=1), forecast([60.0, 0.1]), None, made_at=NOW)
    (other,) = [r for r in made.rejected if "does not offer" in r.name]
    assert "attainment 100.0%" not in other.reason


def test_a_fleet_that_leaves_requests_unserved_does_not_serve_the_demand() -> None:
    priced = replace(spec(inventory=40), planning=PlanningSettings(shortfall_usd_per_request=0.01))
    made = plan(priced, forecast([60.0]), fleet(prefill=1, decode=1), made_at=NOW)
    (current,) = [r for r in made.rejected if r.name == "current fleet"]
    assert "serves the demand" not in current.reason
    assert "unserved in window 0" in current.reason
    assert "more than the plan in all" in current.reason


def test_a_fleet_that_carries_too_little_is_not_said_to_be_enough() -> None:
    made = plan(spec(inventory=3), forecast([100.0]), None, made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE
    rows = [r.sentence for r in made.binding if r.row.startswith("keep_within_capacity")]
    assert rows
    assert not any("is needed for" in sentence for sentence in rows)
    assert all("of 100 requests/s are in time" in sentence for sentence in rows)


def test_a_cheaper_fleet_is_not_blamed_on_changes_where_another_objective_was_asked_for() -> None:
    kinds = (("fast", 9.0, 4.0), ("slow", 1.0, 1.0))
    few = replace(
        spec(inventory=12, accelerators=kinds),
        planning=PlanningSettings(objective=Objective.ACCELERATORS),
    )
    made = plan(few, forecast([60.0]), None, made_at=NOW)
    (slow,) = [r for r in made.rejected if r.name == "slow only"]
    assert "less, but accelerators was to be best" in slow.reason
    assert {p.shape.role for p in made.windows[0].pools} == {Role.PREFILL, Role.DECODE}


@pytest.mark.parametrize(
    ("objective", "names", "unit"),
    [
        (Objective.POWER, ("power", "energy"), "W"),
        (Objective.ACCELERATORS, ("accelerators",), "accelerators"),
        (Objective.GOODPUT, ("goodput",), "requests/s in time"),
        (Objective.COST, (), "USD"),
    ],
)
def test_what_was_to_be_best_is_a_term_with_its_unit(
    objective: Objective, names: tuple[str, ...], unit: str
) -> None:
    one = spec(inventory=5)
    powered = replace(
        one,
        accelerators=(replace(one.accelerators[0], power_w=700.0),),
        planning=PlanningSettings(objective=objective),
    )
    made = plan(powered, forecast([40.0, 40.0]), None, made_at=NOW)
    sought = [term for term in made.objective if term.sought]
    assert tuple(term.name for term in sought) == names
    assert made.objective[0].unit == unit
    counted = {term.name: term.value for term in made.objective}
    replicas = [sum(p.replicas for p in w.pools) for w in made.windows]
    assert counted["accelerators"] == pytest.approx(sum(replicas) / 2)
    assert counted["power"] == pytest.approx(700.0 * sum(replicas) / 2)
    assert counted["energy"] == pytest.approx(0.7 * sum(replicas) * 300 / 3600)
    in_time = [
        (w.request_rate_rps - w.shortfall_rps) * (w.predicted.attainment_ratio or 0)
        for w in made.windows
    ]
    assert counted["goodput"] == pytest.approx(sum(in_time) / 2)
    assert plan_of(plan_document(made), where="test") == made


def test_a_cheaper_fleet_that_was_not_tried_or_may_not_be_is_said_to_be_so() -> None:
    options = [option(Role.AGGREGATED, "fast", 8.0), option(Role.AGGREGATED, "slow", 3.0)]
    case = problem(options, [10.0, 10.0], [9.0], inventory=8)
    dear = solution_of(
        case,
        np.array([[1], [0]]),
        status=PlanStatus.FEASIBLE,
        solver_name="none",
        wall_s=0.0,
    )

    def slow_only(gap_ratio: float) -> str:
        told = rejected_alternatives(case, replace(dear, gap_ratio=gap_ratio))
        return next(r.reason for r in told if r.name == "slow only")

    assert "5.00 less, but the search ended before it was tried (gap 90.0%)" in slow_only(0.9)
    assert "5.00 less, but a bound of the spec or of what runs forbids it" in slow_only(0.0)
