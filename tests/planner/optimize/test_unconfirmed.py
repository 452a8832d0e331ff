"""Where requests may stay unserved, to serve nothing is no way to keep a promise."""

from dataclasses import replace

import pytest

from planner.domain.plan import Plan, PlanStatus
from planner.domain.spec import Objective, PlanningSettings
from planner.optimize import plan
from tests.planner.optimize.scenarios import ALL_ROLES, NOW, spec
from tests.planner.optimize.test_too_long import partly_long, short_of_context

PRICED = PlanningSettings(shortfall_usd_per_request=0.01)
GOODPUT = PlanningSettings(objective=Objective.GOODPUT)
NOT_ASKED = "the twin was not asked"


def planned(share: float, *, tokens: int = 16_384, planning: PlanningSettings = PRICED) -> Plan:
    """For a promise of 95 % with requests, a share of them, that miss on an idle fleet too."""
    given = spec(roles=ALL_ROLES, inventory=16, ttft_s=0.3, tpot_s=0.05)
    given = replace(short_of_context(given, tokens), planning=planning)
    return plan(given, partly_long(share), None, made_at=NOW)


def cheaper_in_all(made: Plan) -> list[str]:
    """Alternatives printed as holding that cost less than the plan, the unserved included."""
    told = [r.reason for r in made.rejected if r.usd_per_hour is not None]
    return [r for r in told if "less than the plan in all" in r and NOT_ASKED not in r]


@pytest.mark.parametrize("planning", [PRICED, GOODPUT], ids=["priced", "goodput"])
@pytest.mark.parametrize("share", [0.048, 0.0495])
def test_a_fleet_that_the_twin_only_doubts_is_kept_before_one_that_serves_nothing(
    share: float, planning: PlanningSettings
) -> None:
    """Every discount asks for more replicas of the same attainment, until none is worth it."""
    made = planned(share, planning=planning)
    (window,) = made.windows
    assert made.status is PlanStatus.FEASIBLE
    assert window.shortfall_rps < 0.01 * window.request_rate_rps
    assert (window.predicted.attainment_ratio or 0) > 0.94
    (told,) = made.unproven
    assert "in time for 95.0% promised" in told
    assert cheaper_in_all(made) == []


@pytest.mark.parametrize("planning", [PRICED, GOODPUT], ids=["priced", "goodput"])
def test_what_is_too_long_is_left_unserved_where_nothing_keeps_the_promise_with_it(
    planning: PlanningSettings,
) -> None:
    """As many are too long as may miss: of the others none might be late."""
    made = planned(0.05, tokens=2_000, planning=planning)
    (window,) = made.windows
    assert made.status is PlanStatus.FEASIBLE
    assert made.unproven == ()
    assert window.shortfall_rps == pytest.approx(0.5)
    assert (window.predicted.attainment_low_ratio or 0) >= 0.95
    assert cheaper_in_all(made) == []


def test_what_is_too_long_counts_as_missed_where_that_holds() -> None:
    made = planned(0.04, tokens=2_000)
    assert made.unproven == ()
    assert made.windows[0].shortfall_rps == 0
