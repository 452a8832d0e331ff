"""A search that runs out of time still gives a plan that holds, and how far it may be off."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus
from planner.optimize import Problem, check, optimize
from planner.optimize.inputs import SolverSettings
from tests.planner.optimize.cases import option, problem

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
