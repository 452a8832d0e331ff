"""Requests longer than every context: refused with what helps, or left unserved where they may."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.errors import TooLongError
from planner.domain.forecast import Forecast
from planner.domain.plan import PlanStatus
from planner.domain.spec import Objective, PlanningSettings, Spec
from planner.optimize import build_problem, check, optimize, plan
from tests.fakes.profiles import linear_profile
from tests.planner.optimize.scenarios import ALL_ROLES, NOW, forecast, spec
from tests.planner.optimize.test_classes import promising, two_classes

CONTEXT = 2_000
SHEDDING = (
    PlanningSettings(objective=Objective.GOODPUT),
    PlanningSettings(shortfall_usd_per_request=0.01),
)


def short_of_context(given: Spec, tokens: int = CONTEXT) -> Spec:
    """The spec with replicas that hold no more."""
    return replace(given, profiles=(linear_profile(profile_id="cpu", max_model_len=tokens),))


def partly_long(share: float) -> Forecast:
    """Requests of 500 tokens, and a share of them of 5,000."""
    whole = forecast([10.0])
    (demand,) = whole.windows[0].demands
    shape = replace(
        demand.shape,
        input_tokens=np.array([450.0, 4_950.0]),
        output_tokens=np.array([50.0, 50.0]),
        weight=np.array([1 - share, share]),
    )
    window = replace(whole.windows[0], demands=(replace(demand, shape=shape),))
    return replace(whole, windows=(window,))


def refused(given: Spec, load: Forecast) -> TooLongError:
    with pytest.raises(TooLongError) as caught:
        plan(given, load, None, made_at=NOW)
    return caught.value


def test_the_refusal_names_row_class_share_and_context() -> None:
    found = refused(short_of_context(spec()), partly_long(0.4))
    assert found.request_class == "default"
    assert found.too_long_ratio == pytest.approx(0.4)
    assert found.context_tokens == CONTEXT
    assert str(found).startswith("meet_demand[tiny/default,0]: 40.0% of the requests")
    assert "context of 5,000 tokens or more" in str(found)


def test_a_lower_attainment_is_no_way_out_where_nothing_fits() -> None:
    text = str(refused(short_of_context(spec()), partly_long(1.0)))
    assert "100.0% of the requests" in text
    assert "attainment_ratio" not in text
    assert "shortfall" not in text


@pytest.mark.parametrize("share", [0.06, 0.2, 0.5, 0.7])
@pytest.mark.parametrize("roles", [ALL_ROLES[:2], ALL_ROLES[2:]], ids=["pair", "aggregated"])
def test_a_plan_with_the_attainment_that_is_offered_is_confirmed(
    roles: tuple, share: float
) -> None:
    given = short_of_context(spec(roles=roles, inventory=40))
    text = str(refused(given, partly_long(share)))
    offered = float(text.split("attainment_ratio ")[1].split(maxsplit=1)[0])
    assert offered <= 1 - share
    softer = replace(given, slos=tuple(replace(s, attainment_ratio=offered) for s in given.slos))
    made = plan(softer, partly_long(share), None, made_at=NOW)
    assert (made.status is PlanStatus.INFEASIBLE, made.unproven) == (False, ())


def test_the_context_that_is_offered_helps() -> None:
    text = str(refused(short_of_context(spec()), partly_long(0.4)))
    needed = int(text.split("context of ")[1].split(maxsplit=1)[0].replace(",", ""))
    longer = short_of_context(spec(inventory=40), needed)
    assert plan(longer, partly_long(0.4), None, made_at=NOW).status is not PlanStatus.INFEASIBLE


@pytest.mark.parametrize("planning", SHEDDING, ids=["goodput", "priced"])
def test_what_fits_is_served_where_the_rest_may_stay_unserved(planning: PlanningSettings) -> None:
    given = replace(short_of_context(spec(inventory=40)), planning=planning)
    made = plan(given, partly_long(0.4), None, made_at=NOW)
    (window,) = made.windows
    assert made.status is not PlanStatus.INFEASIBLE
    assert window.shortfall_rps == pytest.approx(4.0)
    assert (window.predicted.attainment_ratio or 0) >= 0.95
    (row,) = (r for r in made.binding if "longer than" in r.sentence)
    assert row.row == f"meet_demand[tiny/default/{CONTEXT}+,0]"
    assert "0 of 4 requests/s" in row.sentence
    assert f"{CONTEXT:,} tokens" in row.sentence


@pytest.mark.parametrize("planning", SHEDDING, ids=["goodput", "priced"])
def test_a_class_of_which_nothing_fits_does_not_take_the_others_with_it(
    planning: PlanningSettings,
) -> None:
    asked = replace(promising({"chat": 2.0, "batch": 4.0}), planning=planning)
    problem = build_problem(short_of_context(asked), two_classes(), None, made_at=NOW)
    found = optimize(problem)
    assert check(problem, found) == ()
    assert found.shortfall_rps[0] == pytest.approx(1.5)
    assert [s.request_class for s in problem.streams if s.beyond] == ["batch"]


def test_where_nothing_fits_at_all_shedding_is_refused_too() -> None:
    given = replace(short_of_context(spec()), planning=SHEDDING[0])
    assert refused(given, partly_long(1.0)).too_long_ratio == 1.0
