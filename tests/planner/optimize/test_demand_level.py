"""The quantile that is planned for follows from the promise, or from what errors cost."""

from dataclasses import replace

import pytest

from planner.domain.forecast import Forecast, Quantiles
from planner.domain.spec import ForecastSettings, Spec
from planner.optimize import plan, with_demand_level
from planner.optimize.coefficients import build_problem
from planner.optimize.demand_level import chosen_level, unseen_ratio
from tests.planner.optimize.scenarios import NOW, forecast, spec

AUTO = ForecastSettings(window_s=300.0, choose_level=True)


def open_spec(*, attainment_ratio: float = 0.95, price: float | None = None) -> Spec:
    base = spec(attainment_ratio=attainment_ratio)
    planning = replace(base.planning, shortfall_usd_per_request=price)
    return replace(base, forecast=AUTO, planning=planning)


def uniform(least_rps: float, most_rps: float) -> Forecast:
    """Rates that are equally likely between two."""
    base = forecast([10.0])
    (window,) = base.windows
    rate = Quantiles(levels=(0.0, 1.0), values=(least_rps, most_rps))
    demand = replace(window.demands[0], request_rate_rps=rate)
    return replace(base, windows=(replace(window, demands=(demand,)),))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_requests_beyond_a_level_of_a_uniform_rate_are_its_square(level: float) -> None:
    (window,) = uniform(0.0, 10.0).windows
    assert unseen_ratio(window, level) == pytest.approx((1 - level) ** 2, rel=0.02, abs=1e-4)


def test_a_level_that_the_spec_gives_stays() -> None:
    given = replace(open_spec(), forecast=ForecastSettings(demand_level=0.7))
    assert with_demand_level(given, uniform(5.0, 15.0)) is given


def test_half_of_the_permitted_misses_may_be_unforeseen() -> None:
    # (1 - L)^2 = 0.5 (1 - 0.95) for rates from nothing on.
    assert chosen_level(open_spec(), uniform(0.0, 10.0)) == pytest.approx(0.842, abs=0.006)


def test_uncertain_forecasts_and_stricter_promises_are_planned_for_higher_levels() -> None:
    sure, unsure = uniform(9.0, 11.0), uniform(2.0, 18.0)
    assert chosen_level(open_spec(), sure) < chosen_level(open_spec(), unsure)
    strict = open_spec(attainment_ratio=0.99)
    assert chosen_level(open_spec(), unsure) < chosen_level(strict, unsure)


def test_a_price_of_unserved_requests_decides_by_the_critical_ratio() -> None:
    coming = uniform(5.0, 15.0)
    cheap, dear = (chosen_level(open_spec(price=p), coming) for p in (1e-6, 10.0))
    assert cheap == 0.5
    assert dear == 0.99
    problem = build_problem(open_spec(price=1.0), coming, None)
    usd = sum(
        min(
            problem.options[o].usd_per_hour
            * problem.capacity[o, 0].last_count
            / (3600 * problem.capacity[o, 0].at(problem.capacity[o, 0].last_count))
            for o in problem.in_role(role)
        )
        for role in {o.shape.role for o in problem.options}
    )
    assert chosen_level(open_spec(price=4 * usd), coming) == pytest.approx(0.75, abs=1e-3)


def test_a_plan_says_which_level_it_was_made_for() -> None:
    coming = uniform(5.0, 15.0)
    made = plan(open_spec(), coming, None, made_at=NOW)
    level = chosen_level(open_spec(), coming)
    assert made.inputs.demand_level == level
    expected = coming.windows[0].demands[0].request_rate_rps.at(level)
    assert made.windows[0].request_rate_rps == pytest.approx(expected)
