"""What the twin proves: confidence from how futures differ, not from how many requests came."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.forecast import Forecast
from planner.domain.plan import ClassAttainment, PlanStatus, Prediction
from planner.domain.spec import Spec
from planner.optimize import build_problem
from planner.optimize.proposal import Round
from planner.optimize.replay import LOOKS, Replay, replay
from planner.optimize.solution import solution_of
from planner.simulate.result import wilson
from tests.planner.optimize.scenarios import forecast, spec

RATE_RPS, WINDOW_S, ARRIVAL_CV2 = 10.0, 60.0, 12.0


def bursty() -> Forecast:
    """A minute in which a burst or two decide."""
    even = forecast([RATE_RPS], isl=1500.0, window_s=WINDOW_S)
    (window,) = even.windows
    demands = tuple(replace(d, arrival_cv2=ARRIVAL_CV2) for d in window.demands)
    return replace(even, windows=(replace(window, demands=demands),))


def seen_by(seed: int, *, prefill: int, until_clear: bool = True, first_future: int = 0) -> Replay:
    """A minute with so many prefill replicas and one decode replica."""
    given, load = spec(inventory=200, ttft_s=0.5, tpot_s=0.03), bursty()
    given = replace(given, loop=replace(given.loop, seed=seed))
    problem = build_problem(given, load, None)
    counts = np.array([[prefill if o.shape.role == "prefill" else 1] for o in problem.options])
    fleet = solution_of(problem, counts, status=PlanStatus.FEASIBLE, solver_name="none")
    seen = replay(
        given,
        problem,
        fleet,
        load.windows[0],
        t=0,
        slos=given.slos,
        until_clear=until_clear,
        first_future=first_future,
    )
    assert seen is not None
    return seen


def low_of(seen: Replay) -> float:
    (only,) = seen.prediction.classes
    assert only.low_ratio is not None
    return only.low_ratio


def test_low_ends_of_bursty_arrivals_are_rarely_above_the_truth() -> None:
    """40 independent minutes; of requests taken as independent every third low end was too high.

    2.5 % of the low ends may be; more than 5 of 40 are then as rare as 1 in 3,000.
    """
    seen = [seen_by(seed, prefill=7) for seed in range(40)]
    requests = np.array([sum(c.requests or 0 for c in s.prediction.classes) for s in seen])
    kept = np.array([s.prediction.attainment_ratio for s in seen])
    truth = float(kept @ requests / requests.sum())
    assert sum(low_of(s) > truth for s in seen) <= 5


def test_an_interval_is_wider_than_that_of_as_many_independent_requests() -> None:
    (only,) = seen_by(3, prefill=7).prediction.classes
    naive, _ = wilson(only.attainment_ratio, only.requests or 0)
    assert only.low_ratio is not None
    assert only.attainment_ratio - only.low_ratio > 2 * (only.attainment_ratio - naive)


def test_more_futures_are_seen_while_it_is_not_clear_and_no_more_than_are_allowed() -> None:
    clear, unclear = seen_by(1, prefill=2), seen_by(1, prefill=8)
    one_look = seen_by(1, prefill=8, until_clear=False)
    of = [sum(c.requests or 0 for c in s.prediction.classes) for s in (clear, one_look, unclear)]
    a_future = RATE_RPS * WINDOW_S
    assert of[0] == pytest.approx(LOOKS[0] * a_future, rel=0.35)
    assert of[1] == pytest.approx(LOOKS[0] * a_future, rel=0.35)
    assert 1.5 * of[1] < of[2] < 1.35 * LOOKS[-1] * a_future


def test_other_futures_are_others() -> None:
    first, others = (seen_by(1, prefill=7, first_future=n) for n in (0, LOOKS[-1]))
    assert first.prediction.attainment_ratio != others.prediction.attainment_ratio


def a_class(attainment: float, low: float | None, requests: int = 20_000) -> ClassAttainment:
    return ClassAttainment(
        request_class="default",
        target_ratio=0.95,
        attainment_ratio=attainment,
        low_ratio=low,
        high_ratio=0.99,
        requests=requests,
    )


def a_replay(*classes: ClassAttainment) -> Replay:
    worst = min(c.attainment_ratio for c in classes)
    predicted = Prediction(attainment_ratio=worst, source="twin", classes=classes)
    return Replay(window=0, prediction=predicted, missed_ratio={})


@pytest.mark.parametrize(
    ("attainment", "low", "proven"),
    [(0.97, 0.951, True), (0.97, 0.949, False), (0.94, 0.93, False), (0.97, None, False)],
)
def test_the_low_end_decides_and_not_what_was_seen(
    attainment: float, low: float | None, proven: bool
) -> None:
    assert a_replay(a_class(attainment, low)).proves == proven


@pytest.mark.parametrize(("attainment", "proven"), [(0.96, True), (0.94, False)])
def test_a_class_too_rare_for_a_verdict_is_judged_by_what_was_seen(
    attainment: float, proven: bool
) -> None:
    assert a_replay(a_class(attainment, 0.5, requests=50)).proves == proven


def a_round(given: Spec, *replays: Replay, exhausted: bool) -> Round:
    problem = build_problem(given, bursty(), None)
    counts = np.ones((len(problem.options), 1), dtype=np.int64)
    fleet = solution_of(problem, counts, status=PlanStatus.FEASIBLE, solver_name="none")
    return Round(problem=problem, solution=fleet, replays=replays, exhausted=exhausted)


def test_a_proposal_holds_by_its_low_ends_unless_there_is_no_more_to_be_had() -> None:
    given = spec(inventory=200, ttft_s=0.5, tpot_s=0.03)
    sure, unsure = a_replay(a_class(0.97, 0.951)), a_replay(a_class(0.97, 0.949))
    assert a_round(given, sure, exhausted=False).holds
    assert not a_round(given, sure, unsure, exhausted=False).holds
    assert a_round(given, sure, unsure, exhausted=True).holds
    assert a_round(given, sure, unsure, exhausted=True).unproven(bursty())


def test_every_class_has_to_be_proven() -> None:
    rare = replace(a_class(0.97, 0.949), request_class="batch")
    assert not a_replay(a_class(0.97, 0.951), rare).proves
    assert [c.request_class for c in a_replay(a_class(0.97, 0.951), rare).unproven] == ["batch"]
