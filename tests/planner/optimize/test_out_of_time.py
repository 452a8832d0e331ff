"""A search that runs out of time still gives a plan that holds, and how far it may be off."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.errors import SolverError
from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus
from planner.domain.spec import LoopSettings
from planner.optimize import Problem, check, optimize, plan, solve
from planner.optimize.explain import rejected_alternatives
from planner.optimize.inputs import SolverSettings
from planner.optimize.known import or_known
from planner.optimize.last_resort import busiest_alone
from planner.optimize.rounded_up import rounded_up
from planner.optimize.solution import Solution
from tests.planner.optimize.cases import option, problem
from tests.planner.optimize.scenarios import NOW, forecast, spec

ROLES = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)
NO_TIME = SolverSettings(time_limit_s=1e-6, exact_work=1e-7, rolling_work=1e-7)


def wave(windows: int, *, pooled: bool) -> Problem:
    counts = np.arange(1, 13)
    options = [option(r, "h100", 4.0, start_s=90.0, initial_replicas=2) for r in ROLES]
    options += [option(r, "a100", 2.2, start_s=90.0, initial_replicas=2) for r in ROLES]
    each = (10.0, 12.0, 5.0, 5.0, 6.0, 2.5)
    rates = [list(b * counts * (1 - 0.15 / np.sqrt(counts))) if pooled else b for b in each]
    load = [20 * (1 + 0.5 * np.sin(t / 3)) for t in range(windows)]
    return problem(options, rates, load, inventory=16, window_s=300.0, has_fleet=True)


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("windows", [1, 12])
def test_without_any_time_there_is_a_plan_with_its_gap(windows: int, *, pooled: bool) -> None:
    case = wave(windows, pooled=pooled)
    best = optimize(case)
    hurried = optimize(replace(case, solver=NO_TIME))
    assert check(case, hurried) == ()
    assert hurried.status is PlanStatus.FEASIBLE
    assert hurried.usd * (1 - hurried.gap_ratio) <= best.usd * (1 + 1e-6)
    assert hurried.gap_ratio < 0.6


def test_a_plan_that_the_clock_ended_is_marked_as_not_replayable() -> None:
    hurried = optimize(replace(wave(12, pooled=True), solver=replace(NO_TIME, exact_work=10.0)))
    assert not hurried.replayable


def test_an_alternative_that_is_not_found_in_time_does_not_cost_the_plan(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The search is over before it began, for all that has fewer options."""
    case = wave(1, pooled=True)
    solution = optimize(case)

    def hurried(fewer: Problem, *, patient: bool, known: object) -> Solution:
        raise SolverError("found no fleet within 0 s")

    monkeypatch.setattr(solve, "optimize", hurried)
    reasons = {r.name: r.reason for r in rejected_alternatives(case, solution)}
    assert "not priced in time" in reasons["a100 only"]


def test_with_hardly_any_time_a_plan_still_comes_back_with_its_gap() -> None:
    kinds = (("a", 2.1, 1.0), ("b", 1.9, 0.9), ("c", 1.7, 0.8))
    hurried = replace(
        spec(roles=ROLES, inventory=12, accelerators=kinds),
        loop=LoopSettings(solver_time_limit_s=0.001),
    )
    load = forecast([20.0, 60.0, 15.0, 70.0, 30.0, 50.0])
    found = plan(hurried, load, None, made_at=NOW)
    assert found.status is not PlanStatus.INFEASIBLE
    assert 0 <= found.solver.gap_ratio < 1


def test_what_can_only_be_served_in_part_is_planned_for_without_any_time() -> None:
    short = replace(wave(1, pooled=True), best_effort=True, solver=NO_TIME)
    short = replace(short, demand_rps=np.array([[500.0]]))
    hurried = optimize(short)
    assert check(short, hurried) == ()
    assert 0 < hurried.shortfall_rps[0] < 500.0


IN_A_HURRY = SolverSettings(time_limit_s=0.01)


def many_limits(seed: int, *, one_shape: bool = False) -> Problem:
    """12 windows of 9 shapes with lead times, ramps and up-times, two thirds of what there is."""
    rng = np.random.default_rng(seed)
    counts = np.arange(1, 13)
    options, rates = [], []
    for name, usd, speed in (("h100", 4.0, 1.0), ("a100", 2.2, 0.5), ("l40s", 1.2, 0.25)):
        for role, rate in zip(ROLES, (10.0, 12.0, 5.0), strict=True):
            ramp = int(rng.integers(2, 5))
            options.append(
                option(
                    role,
                    name,
                    usd * rng.uniform(0.9, 1.1),
                    start_s=float(rng.choice([0.0, 90.0])),
                    max_starts=ramp,
                    max_stops=ramp,
                    min_up_s=float(rng.choice([0.0, 900.0])),
                )
            )
            rates.append(list(rate * speed * counts * (1 - 0.15 / np.sqrt(counts))))
    load = [48 * (1 + 0.3 * np.sin(t / 3 + seed)) for t in range(12)]
    return problem(options, rates, load, inventory=8, window_s=300.0, one_shape_per_role=one_shape)


@pytest.mark.parametrize(("seed", "one_shape"), [(0, False), (1, False), (3, False), (0, True)])
def test_a_search_of_a_hundredth_of_a_second_gives_a_plan_or_says_that_there_is_none(
    seed: int, *, one_shape: bool
) -> None:
    case = many_limits(seed, one_shape=one_shape)
    hurried = optimize(replace(case, solver=IN_A_HURRY))
    if hurried.feasible:
        assert check(case, hurried) == ()
        assert 0 <= hurried.gap_ratio <= 1
    else:  # proven, not only not found
        assert not optimize(case).feasible


def test_a_hurried_search_tells_a_load_that_nothing_serves_from_one_that_it_did_not_solve() -> None:
    case = replace(many_limits(0), solver=IN_A_HURRY)
    served = optimize(case)
    assert served.status is PlanStatus.FEASIBLE
    assert optimize(replace(case, demand_rps=10 * case.demand_rps)).status is PlanStatus.INFEASIBLE


def test_comparisons_do_not_search_on_after_the_time_limit() -> None:
    """A plan is in hand: what nothing was found of in time is not priced."""
    case = replace(many_limits(0), solver=NO_TIME)
    assert optimize(case).feasible
    assert solve.attempt(case) is None


@pytest.mark.parametrize("seed", [0, 2])
def test_a_busiest_window_that_nothing_serves_proves_that_no_fleet_does(seed: int) -> None:
    """Over all windows the same proof takes seconds of a processor."""
    case = replace(many_limits(seed, one_shape=True), solver=IN_A_HURRY)
    none = busiest_alone(case)
    assert none is not None
    assert none.infeasible
    assert optimize(case).status is PlanStatus.INFEASIBLE
    assert busiest_alone(replace(case, demand_rps=0.5 * case.demand_rps)) is None


def cheap_and_dear() -> Problem:
    """Two replicas of the cheap kind do; rounding the relaxation up takes two dear ones."""
    options = [option(Role.AGGREGATED, "dear", 6.0), option(Role.AGGREGATED, "cheap", 4.1)]
    return problem(options, [6.0, 4.0], [8.0], solver=NO_TIME)


def test_an_earlier_fleet_that_costs_less_is_taken_when_time_is_up() -> None:
    case = cheap_and_dear()
    best = optimize(replace(case, solver=SolverSettings()))
    alone = rounded_up(case)
    assert alone is not None
    assert alone.usd > best.usd
    found = or_known(case, alone, [best])
    assert found is not None
    assert found.usd == pytest.approx(best.usd)
    assert alone.usd * (1 - alone.gap_ratio) == pytest.approx(found.usd * (1 - found.gap_ratio))
    assert optimize(case, known=[best]).usd == pytest.approx(best.usd)


def test_the_fleet_that_runs_is_taken_when_time_is_up_and_it_costs_less() -> None:
    case = cheap_and_dear()
    runs = tuple(replace(o, initial_replicas=n) for o, n in zip(case.options, (0, 2), strict=True))
    case = replace(case, options=runs, has_fleet=True)
    found = optimize(case)
    assert found.replicas[:, 0].tolist() == [0, 2]
    assert check(case, found) == ()


def test_a_known_fleet_that_breaks_a_limit_or_costs_more_is_not_taken() -> None:
    case = cheap_and_dear()
    best = optimize(replace(case, solver=SolverSettings()))
    alone = rounded_up(case)
    assert alone is not None
    assert or_known(replace(case, demand_rps=case.demand_rps * 2), alone, [best]) is alone
    unproven = replace(best, status=PlanStatus.FEASIBLE)
    assert or_known(case, unproven, [alone]) is unproven
