"""A class that nothing keeps is shed by itself, not with those that share its pools."""

from dataclasses import replace
from datetime import timedelta

import pytest

from planner.domain.plan import PlanStatus
from planner.domain.spec import Objective, PlanningSettings, Routing
from planner.optimize import build_problem, plan
from tests.planner.optimize.scenarios import NOW
from tests.planner.optimize.test_classes import promising, two_classes

SHEDDING = (
    PlanningSettings(objective=Objective.GOODPUT),
    PlanningSettings(shortfall_usd_per_request=0.01),
)
HOPELESS = {"chat": 2.0, "batch": 0.05}


@pytest.mark.parametrize("planning", SHEDDING)
def test_the_other_class_is_served(planning: PlanningSettings) -> None:
    asked = replace(promising(HOPELESS), planning=planning)
    made = plan(asked, two_classes(), None, made_at=NOW)
    window = made.windows[0]
    assert made.status is not PlanStatus.INFEASIBLE
    assert window.shortfall_rps == pytest.approx(1.5, rel=0.05)
    assert [c.request_class for c in window.predicted.classes] == ["chat"]
    assert window.predicted.classes[0].attainment_ratio >= 0.9
    assert any("batch" in row.sentence for row in made.binding)


@pytest.mark.parametrize("planning", SHEDDING)
def test_with_a_router_that_tells_them_apart_as_many_are_served(
    planning: PlanningSettings,
) -> None:
    served = []
    for routing in (Routing(), Routing(by_class=True)):
        asked = replace(promising(HOPELESS, routing=routing), planning=planning)
        window = plan(asked, two_classes(), None, made_at=NOW).windows[0]
        served.append(window.request_rate_rps - window.shortfall_rps)
    assert served[0] == pytest.approx(served[1])


def test_where_all_have_to_be_served_nothing_is_set_apart() -> None:
    problem = build_problem(promising(HOPELESS), two_classes(), None)
    assert len(problem.streams) == 1


def test_where_nothing_is_kept_there_is_nothing_to_save() -> None:
    asked = replace(promising({"chat": 0.01, "batch": 0.01}), planning=SHEDDING[0])
    assert len(build_problem(asked, two_classes(), None).streams) == 1


def test_what_is_served_is_predicted_in_every_window() -> None:
    few = two_classes()
    many = replace(few, windows=few.windows * 14)
    many = replace(
        many,
        windows=tuple(
            replace(w, start_at=w.start_at + t * timedelta(seconds=w.window_s))
            for t, w in enumerate(many.windows)
        ),
    )
    asked = replace(promising(HOPELESS), planning=SHEDDING[0])
    made = plan(asked, many, None, made_at=NOW)
    assert all(w.predicted.attainment_ratio is not None for w in made.windows)
    goodput = next(term.value for term in made.objective if term.name == "goodput")
    assert goodput >= 0.9 * 20.0
