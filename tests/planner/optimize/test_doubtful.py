"""One class that the twin confirms no fleet for does not take the others with it."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.forecast import Demand
from planner.domain.plan import Plan, PlanStatus
from planner.domain.slo import Slo
from planner.domain.spec import Objective, PlanningSettings
from planner.optimize import plan
from tests.planner.optimize.scenarios import ALL_ROLES, MODEL, NOW, forecast, spec
from tests.planner.optimize.test_classes import of_class

PRICED = PlanningSettings(shortfall_usd_per_request=0.01)
GOODPUT = PlanningSettings(objective=Objective.GOODPUT)
BOTH = pytest.mark.parametrize("planning", [PRICED, GOODPUT], ids=["priced", "goodput"])


def partly_slow(name: str, rate_rps: float, share: float) -> Demand:
    """A class of which a share has prompts that take too long on an idle fleet too."""
    demand = of_class(name, rate_rps, isl=400)
    shape = replace(
        demand.shape,
        input_tokens=np.array([450.0, 450.0, 4_950.0]),
        output_tokens=np.full(3, 50.0),
        weight=np.array([0.5, 0.5 - share, share]),
    )
    return replace(demand, shape=shape)


def planned(share: float, *, planning: PlanningSettings, chat_share: float | None = None) -> Plan:
    """20 chats/s, and 10/s of a class of which `share` misses, both for a promise of 95 %."""
    base = spec(roles=ALL_ROLES, inventory=16)
    chat_s = 2.0 if chat_share is None else 0.3
    slos = tuple(
        Slo(model=MODEL, request_class=name, ttft_s=s, tpot_s=0.05, attainment_ratio=0.95)
        for name, s in (("chat", chat_s), ("batch", 0.3))
    )
    chat = of_class("chat", 20.0, isl=400)
    if chat_share is not None:
        chat = partly_slow("chat", 20.0, chat_share)
    whole = forecast([20.0])
    window = replace(whole.windows[0], demands=(chat, partly_slow("batch", 10.0, share)))
    return plan(
        replace(base, slos=slos, planning=planning),
        replace(whole, windows=(window,)),
        None,
        made_at=NOW,
    )


@BOTH
def test_the_others_are_proven_and_served_without_it(planning: PlanningSettings) -> None:
    """As many miss as may: the model keeps the class idle, and no pool of it with another."""
    made = planned(0.05, planning=planning)
    (window,) = made.windows
    assert (made.status, made.unproven) == (PlanStatus.FEASIBLE, ())
    assert window.shortfall_rps == pytest.approx(10.0)
    assert [c.request_class for c in window.predicted.classes] == ["chat"]
    assert (window.predicted.attainment_low_ratio or 0) >= 0.95
    (row,) = (r for r in made.binding if r.row.startswith("meet_demand"))
    assert row.row == "meet_demand[tiny/batch,0]"
    assert "the twin confirms no fleet that keeps their promise" in row.sentence


@BOTH
def test_one_that_the_twin_only_doubts_is_served_unproven(planning: PlanningSettings) -> None:
    """94.9 %, with 95 % inside the interval, before 16 replicas that serve a fifth."""
    made = planned(0.0495, planning=planning)
    (window,) = made.windows
    assert window.shortfall_rps == 0
    (told,) = made.unproven
    assert "of class batch in time for 95.0% promised" in told


def test_where_every_class_is_in_doubt_nothing_is_served_and_the_plan_says_so() -> None:
    made = planned(0.05, planning=PRICED, chat_share=0.05)
    (window,) = made.windows
    assert window.shortfall_rps == pytest.approx(30.0)
    assert made.status is PlanStatus.FEASIBLE
    assert made.unproven == ("no window could be replayed in the twin",)
    assert any("no pool keeps their promise" in row.sentence for row in made.binding)
