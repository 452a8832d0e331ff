"""While a plan is made the twin is not asked the same again, and nothing is decided otherwise."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from planner.domain.workload import Workload
from planner.optimize import build_problem, optimize, plan, prove
from planner.optimize.loads import promises
from planner.optimize.remembered import MOST_REQUESTS, Draw, drawn, remembering
from planner.optimize.replay import replay
from planner.optimize.rounds import replayed
from planner.simulate import sample_workload
from tests.planner.optimize.scenarios import NOW, forecast, spec

SPEC, LOAD = spec(inventory=60), forecast([20.0, 60.0, 40.0], isl=3000.0)
SLOS = promises(SPEC, LOAD.model, ("default",))
PROBLEM = build_problem(SPEC, LOAD, None, made_at=NOW)
FLEET = optimize(PROBLEM)


def asked(t: int, *, fewer: int = 0, times: float = 1.0) -> object:
    solution = replace(FLEET, usable=np.maximum(FLEET.usable - fewer, 1))
    window = LOAD.windows[t]
    return replay(SPEC, PROBLEM, solution, window, t=t, slos=SLOS, demand_ratio=times)


def test_an_equal_question_is_answered_from_memory_and_any_other_by_the_twin() -> None:
    fresh = asked(1)
    with remembering():
        first = asked(1)
        assert asked(1) is first
        others = [asked(0), asked(1, times=0.9)]
    assert first == fresh != asked(1, fewer=1)
    assert others == [asked(0), asked(1, times=0.9)]
    assert asked(1) is not asked(1)


def test_what_the_closed_form_doubts_is_the_same_from_memory() -> None:
    few = replace(FLEET, usable=np.maximum(FLEET.usable - 1, 1))
    many = replace(FLEET, usable=FLEET.usable + 4)
    fresh = [replayed(SPEC, LOAD, PROBLEM, s, SLOS, until_refuted=True) for s in (many, few)]
    with remembering():
        twice = [
            replayed(SPEC, LOAD, PROBLEM, s, SLOS, until_refuted=True)
            for s in (many, few, few, many)
        ]
    windows = [[r.window for r in round_.replays] for round_ in twice]
    assert windows == [[r.window for r in fresh[i].replays] for i in (0, 1, 1, 0)]
    assert windows[0] != windows[1]


def test_memory_ends_with_the_outermost_plan() -> None:
    with remembering():
        with remembering():
            first = asked(0)
        assert asked(0) is first
    with remembering():
        assert asked(0) is not first


def test_futures_that_were_not_asked_for_longest_are_forgotten() -> None:
    window = LOAD.windows[0]

    def future(number: int) -> Workload:
        draw = Draw(
            window=window, demand_ratio=1.0, level=0.5, duration_s=9.0, number=(0, 0, number)
        )
        rng = np.random.default_rng(number)
        many = MOST_REQUESTS / 2.5 / window.request_rate_rps(0.5)
        return drawn(draw, partial(sample_workload, window, level=0.5, duration_s=many, rng=rng))

    with remembering():
        first, second = future(1), future(2)
        assert future(1) is first
        future(3)
        assert future(1) is first
        assert future(2) is not second


def test_a_refuted_solution_is_refuted_by_its_first_window_that_is_not_proven() -> None:
    few = replace(FLEET, usable=np.maximum(FLEET.usable - 1, 1))
    whole = replayed(SPEC, LOAD, PROBLEM, few, SLOS)
    short = replayed(SPEC, LOAD, PROBLEM, few, SLOS, until_refuted=True)
    assert not whole.holds
    assert not short.holds
    assert len(short.replays) == 1 < len(whole.replays)
    assert short.replays[0] in whole.replays


def test_a_solution_that_holds_is_seen_as_a_whole() -> None:
    many = replace(FLEET, usable=FLEET.usable + 4)
    whole = replayed(SPEC, LOAD, PROBLEM, many, SLOS)
    short = replayed(SPEC, LOAD, PROBLEM, many, SLOS, until_refuted=True)
    assert whole.holds
    assert short.replays == whole.replays


def test_plans_are_those_that_are_made_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    load = forecast([6.0, 9.0], isl=3000.0)
    with_memory = plan(SPEC, load, None, made_at=NOW)
    monkeypatch.setattr(prove, "remembering", nullcontext)
    assert plan(SPEC, load, None, made_at=NOW).plan_id == with_memory.plan_id
