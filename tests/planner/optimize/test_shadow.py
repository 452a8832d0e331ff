"""Prices of small changes are told for every limit that is set."""

from dataclasses import fields, replace

import pytest

from planner.domain.fleet import Role
from planner.domain.spec import Budget, Objective, PlanningSettings
from planner.optimize import plan
from planner.optimize.inputs import RatioBounds
from planner.optimize.shadow import shadow_prices
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import NOW, forecast, spec
from tests.planner.optimize.test_relax import every_limit, named, pair

A = Role.AGGREGATED


def prices(case) -> dict[str, float | None]:
    return {p.change: p.usd_per_hour for p in shadow_prices(case, named(), lambda _: case)}


def test_every_limit_that_is_set_has_a_price() -> None:
    told = " ".join(prices(every_limit()))
    for field in (
        "one more x",
        "a budget of 9.90 USD/h",
        "budget.power_w 9,900 W",
        "planning.transfer_bytes_per_s 1.1e+09",
        "planning.spot_share_limit 0.6",
        "planning.min_prefill_per_decode 0.45",
        "planning.max_prefill_per_decode 2.2",
        "planning.one_shape_per_role false",
        "max_replicas 3",
        "min_replicas 0",
        "max_starts 2",
        "max_stops 2",
    ):
        assert field in told


def test_a_ratio_that_holds_a_dear_pool_has_its_price() -> None:
    case = pair(2.0, ratios=(RatioBounds(model="m", min_ratio=1.1),))
    assert prices(case)["planning.min_prefill_per_decode 0.99 instead of 1.1"] == -2.0


def test_a_budget_that_decides_what_may_be_promised_is_priced_in_a_plan() -> None:
    limited = replace(spec(usd_per_hour=9.0), planning=PlanningSettings(max_prefill_per_decode=3.0))
    made = plan(limited, forecast([40.0]), None, made_at=NOW, explain=True)
    told = {p.change for p in made.shadow_prices}
    assert "a budget of 9.90 USD/h instead of 9.00" in told
    assert "planning.max_prefill_per_decode 3.3 instead of 3" in told
    assert {f.name for f in fields(Budget)} == {"usd_per_hour", "power_w"}


def test_an_accelerator_that_serves_what_was_dear_to_leave_saves() -> None:
    """2 USD/h for a replica, 36 USD/h for the 1 request/s that it serves."""
    case = problem([option(A, "x", 2.0)], [1.0], [3.0], inventory=2, shortfall_usd_per_request=0.01)
    assert prices(case)["one more x"] == pytest.approx(-34.0)


def test_with_goodput_as_the_objective_it_is_said_what_more_is_served() -> None:
    case = problem([option(A, "x", 2.0)], [1.0], [3.0], inventory=2, objective=Objective.GOODPUT)
    told = {p.change: p.sentence for p in shadow_prices(case, named(), lambda _: case)}
    assert told["one more x"] == "serves 1 requests/s more, for 2.00 USD/h more"
