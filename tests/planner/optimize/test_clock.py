"""No search that the wall clock ended is forgotten, and what it left open stands in the gap."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from planner.domain.plan import PlanStatus
from planner.domain.spec import LoopSettings, Objective
from planner.optimize import check, optimize, plan
from planner.optimize.clock import report, same_watch, watching
from planner.optimize.inputs import SolverSettings
from planner.optimize.problem import Problem
from tests.planner.optimize.scenarios import ALL_ROLES, NOW, forecast, spec
from tests.planner.optimize.test_out_of_time import wave

NO_WORK = SolverSettings(exact_work=1e-7, rolling_work=1e-7)
NO_TIME = replace(NO_WORK, time_limit_s=1e-6)


def too_much(objective: Objective, *, best_effort: bool) -> Problem:
    """500 requests/s for a fleet that serves a good hundred."""
    case = replace(wave(1, pooled=True), objective=objective, best_effort=best_effort)
    return replace(case, demand_rps=np.array([[500.0]]))


@pytest.mark.parametrize("solver", [NO_WORK, NO_TIME], ids=["work", "clock"])
@pytest.mark.parametrize(
    ("objective", "best_effort"), [(Objective.GOODPUT, False), (Objective.COST, True)]
)
def test_the_gap_counts_what_stays_unserved_without_proof(
    objective: Objective, solver: SolverSettings, *, best_effort: bool
) -> None:
    case = too_much(objective, best_effort=best_effort)
    most = 500.0 - optimize(case).shortfall_rps[0]
    hurried = optimize(replace(case, solver=solver))
    served = 500.0 - hurried.shortfall_rps[0]
    assert check(case, hurried) == ()
    assert hurried.status is PlanStatus.FEASIBLE
    assert 0 < served <= most * (1 + 1e-3)
    assert hurried.gap_ratio >= 1 - served / most
    assert hurried.gap_ratio > 0


def test_a_search_within_counts_for_who_watches_outside() -> None:
    with watching() as outer:
        with watching() as quiet:
            report(timed_out=False)
        with watching() as inner:
            report(timed_out=True)
    assert (quiet.ended_some, inner.ended_some, outer.ended_some) == (False, True, True)
    with watching() as later:
        pass
    assert not later.ended_some


def test_searches_of_other_threads_count() -> None:
    with watching() as seen, ThreadPoolExecutor(2, initializer=same_watch()) as pool:
        pool.submit(report, timed_out=True).result()
    assert seen.ended_some


def test_a_plan_with_a_search_that_the_clock_ended_is_not_replayable() -> None:
    """Whichever search that was: with equal inputs, equal ids are promised otherwise."""
    offered = spec(roles=ALL_ROLES, inventory=12, accelerators=(("a", 2.1, 1.0), ("b", 1.9, 0.9)))
    load = forecast([20.0, 60.0, 15.0])
    assert plan(offered, load, None, made_at=NOW).solver.replayable
    hurried = replace(offered, loop=LoopSettings(solver_time_limit_s=0.001))
    assert not plan(hurried, load, None, made_at=NOW).solver.replayable
