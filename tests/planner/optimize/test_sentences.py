"""What a plan says of itself and of what was not chosen is so."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus
from planner.domain.spec import Objective, PlanningSettings
from planner.optimize import plan
from planner.optimize.explain import rejected_alternatives
from planner.optimize.problem import Problem
from planner.optimize.solution import solution_of
from planner.optimize.solve import optimize
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
    assert all("of 100 requests/s that come, " in sentence for sentence in rows)


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


def moving(gbytes_per_s: float, **more: object) -> Problem:
    """Pairs whose transfers are limited, beside dear aggregated replicas."""
    options = [
        option(Role.PREFILL, "x", 1.0),
        option(Role.DECODE, "x", 1.0),
        option(Role.AGGREGATED, "x", 9.0),
    ]
    return problem(
        options,
        [1.0, 1.0, 1.0],
        [4.0],
        inventory=more.pop("inventory", 16),  # type: ignore[arg-type]
        kv_bytes=np.array([1e9]),
        transfer_bytes_per_s_limit=1e9 * gbytes_per_s,
        **more,
    )


def alternative(case: Problem, name: str) -> str:
    return next(r.reason for r in rejected_alternatives(case, optimize(case)) if r.name == name)


def test_an_alternative_that_transfers_limit_is_said_to_be_limited_by_them() -> None:
    reason = alternative(moving(2.0), "disaggregated only")
    assert reason == (
        "cannot serve: at most 2 of 4 requests/s in time, limited by KV transfers (2 GB/s, "
        "planning.transfer_bytes_per_s)"
    )


def test_an_alternative_that_the_inventory_limits_is_not_blamed_on_transfers() -> None:
    reason = alternative(moving(9.0, inventory=6), "disaggregated only")
    assert reason == "cannot serve: at most 3 of 4 requests/s in time, limited by the inventory"


def test_limits_that_are_in_the_way_together_only_are_named_together() -> None:
    reason = alternative(moving(3.0, inventory=6), "disaggregated only")
    assert "at most 3 of 4" in reason
    assert reason.endswith("the inventory together")
    assert "planning.transfer_bytes_per_s" in reason


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        (Objective.ACCELERATORS, "20 accelerators, 18 more; 10.00 USD/h, 8.00 more"),
        (Objective.POWER, "1,000 W, 400 more; 10.00 USD/h, 8.00 more"),
        (Objective.COST, "10.00 USD/h, 8.00 more"),
    ],
)
def test_alternatives_are_told_in_the_unit_of_what_was_to_be_least(
    objective: Objective, said: str
) -> None:
    options = [
        option(Role.AGGREGATED, "big", 1.0, tp=1, power_w=300.0),
        option(Role.AGGREGATED, "small", 1.0, tp=2, power_w=100.0),
    ]
    case = problem(options, [5.0, 1.0], [10.0], inventory=24, objective=objective)
    assert alternative(case, "small only").endswith(said)
