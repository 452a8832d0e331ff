"""Prices of small changes are told for every limit that is set."""

from dataclasses import fields, replace

import pytest

from planner.domain.fleet import Role
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import ShadowPrice
from planner.domain.spec import Budget, Objective, PlanningSettings
from planner.optimize import plan
from planner.optimize.inputs import RatioBounds
from planner.optimize.shadow import shadow_prices
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import NOW, forecast, spec
from tests.planner.optimize.test_relax import every_limit, named, pair

A = Role.AGGREGATED


def told(case, given=None) -> dict[str, ShadowPrice]:
    return {p.change: p for p in shadow_prices(case, named(given), lambda _: case)}


def prices(case) -> dict[str, float | None]:
    return {p.change: p.usd_per_hour for p in shadow_prices(case, named(), lambda _: case)}


def test_every_limit_that_is_set_has_a_price() -> None:
    changes = " ".join(prices(every_limit()))
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
        assert field in changes


def test_a_ratio_that_holds_a_dear_pool_has_its_price() -> None:
    case = pair(2.0, ratios=(RatioBounds(model="m", min_ratio=1.1),))
    assert prices(case)["planning.min_prefill_per_decode 0.99 instead of 1.1"] == -2.0


def test_a_budget_that_decides_what_may_be_promised_is_priced_in_a_plan() -> None:
    limited = replace(spec(usd_per_hour=9.0), planning=PlanningSettings(max_prefill_per_decode=3.0))
    made = plan(limited, forecast([40.0]), None, made_at=NOW, explain=True)
    changes = {p.change for p in made.shadow_prices}
    assert "a budget of 9.90 USD/h instead of 9.00" in changes
    assert "planning.max_prefill_per_decode 3.3 instead of 3" in changes
    assert {f.name for f in fields(Budget)} == {"usd_per_hour", "power_w"}


def test_an_accelerator_that_serves_what_was_dear_to_leave_saves() -> None:
    """2 USD/h for a replica, 36 USD/h for the 1 request/s that it serves."""
    case = problem([option(A, "x", 2.0)], [1.0], [3.0], inventory=2, shortfall_usd_per_request=0.01)
    more = told(case)["one more x"]
    assert (more.more, more.usd_per_hour) == (pytest.approx(-34.0), pytest.approx(-34.0))
    assert more.sentence == "saves 34.00 USD/h in all (fleet +2.00, slo_shortfall -36.00)"


def test_with_goodput_as_the_objective_it_is_said_what_more_is_served() -> None:
    case = problem([option(A, "x", 2.0)], [1.0], [3.0], inventory=2, objective=Objective.GOODPUT)
    assert told(case)["one more x"].sentence == "serves 1 requests/s more, for 2.00 USD/h more"


def test_what_starts_cost_is_in_the_price_beside_what_the_fleet_costs() -> None:
    running = option(A, "x", 2.0, initial_replicas=1, start_s=360.0)
    case = problem([running], [1.0], [1.0, 1.0], has_fleet=True)
    more = told(case)["10% more requests"]
    assert more.usd_per_hour == pytest.approx(2.0)
    assert more.more == pytest.approx(2.0 + (2.0 * 0.1 + 2.0 * 30 / 3600) / 2)
    assert more.sentence == (
        "costs 2.11 USD/h in all (fleet +2.00, start_up_waste +0.10, switching +0.01)"
    )


@pytest.mark.parametrize(
    ("objective", "unit", "more", "sentence"),
    [
        (Objective.POWER, "W", 100.0, "takes 100 W, for 1.00 USD/h more"),
        (Objective.ACCELERATORS, "accelerators", 1.0, "takes 1 accelerator, for 1.00 USD/h more"),
    ],
)
def test_the_price_is_in_the_unit_of_what_was_to_be_best(objective, unit, more, sentence) -> None:
    offers = [option(A, "big", 3.0, power_w=500.0), option(A, "small", 1.0, power_w=100.0)]
    case = problem(offers, [2.0, 0.2], [2.0], objective=objective)
    found = told(case)["10% more requests"]
    assert (found.unit, found.more) == (unit, pytest.approx(more))
    assert found.sentence == sentence


def test_goodput_is_priced_in_requests() -> None:
    case = problem([option(A, "x", 2.0)], [1.0], [3.0], inventory=2, objective=Objective.GOODPUT)
    found = told(case)
    assert (found["one more x"].unit, found["one more x"].more) == ("requests/s", 1.0)
    assert found["10% more requests"].sentence == "changes nothing that is served"


SPOT = option(A, "x", 0.5, purchase_option=PurchaseOption.SPOT)
PAID = option(A, "x", 0.0, prepaid=True, purchase_option=PurchaseOption.RESERVED)


@pytest.mark.parametrize(
    ("case", "change"),
    [
        (
            problem([SPOT, option(A, "x", 2.0)], [1.0, 1.0], [2.0], spot_share_limit=1.0),
            "planning.spot_share_limit 0.9 instead of 1 (no more is possible)",
        ),
        (
            problem([SPOT, option(A, "x", 2.0)], [1.0, 1.0], [2.0], spot_share_limit=0.96),
            "planning.spot_share_limit 1 instead of 0.96",
        ),
        (
            problem(
                [option(A, "x", 0.0), option(A, "y", 3.0)],
                [1.0, 1.0],
                [1.0],
                usd_per_hour_limit=0.0,
            ),
            "a budget of 3.00 USD/h instead of 0.00",
        ),
        (
            problem([PAID], [1.0], [1.0], inventory=2, reserved=2),
            "reserved_count of x 1 instead of 2 (no more is possible)",
        ),
    ],
)
def test_what_is_as_loose_as_can_be_is_moved_the_other_way(case, change) -> None:
    assert change in told(case)


def test_a_change_of_nothing_has_no_price() -> None:
    free = problem([option(A, "x", 0.0)], [1.0], [0.0], usd_per_hour_limit=0.0)
    changes = told(free)
    assert not [c for c in changes if "budget" in c or "requests" in c]


def test_no_time_is_moved_beyond_the_longest_that_may_be_promised() -> None:
    longest = spec(ttft_s=120.0, tpot_s=0.1)
    changes = told(problem([option(A, "x", 2.0)], [1.0], [1.0]), longest)
    assert "-6,000 ms of TTFT (114 s)" in changes
    assert not [c for c in changes if c.startswith("+") and "TTFT" in c]
