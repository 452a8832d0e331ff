from datetime import timedelta

from planner.autoscale import Decision, decide
from planner.autoscale.slow import LOWER_LEVELS
from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus
from planner.domain.rollout import Verdict
from planner.rollout import GuardConditions, after, refused
from tests.planner.optimize.scenarios import ALL_ROLES, NOW, D, P, fleet, forecast, spec

FRESH = GuardConditions(
    now=NOW, observed_at=NOW - timedelta(seconds=5), recommended_since=NOW - timedelta(hours=1)
)


def reasons(decision: Decision) -> dict[str, str]:
    return {r.shape.label: r.reason for r in decision.recommendations}


def test_a_rising_forecast_grows_the_pool_that_needs_it_and_says_why() -> None:
    decision = decide(
        spec(), forecast([30.0]), fleet(prefill=1, decode=1), now=NOW, conditions=FRESH
    )
    by_shape = {r.shape: (r.replicas_now, r.replicas) for r in decision.recommendations}
    assert by_shape[P] == (1, 2)
    assert "1 -> 2: forecast 30 requests/s at q90 needs it" in reasons(decision)["prefill:cpu:tp1"]
    assert "one more would cost 1.00 USD/h" in reasons(decision)["prefill:cpu:tp1"]
    assert not refused(decision.findings)


def test_a_fleet_that_fits_is_left_alone() -> None:
    decision = decide(spec(), forecast([1.0]), fleet(prefill=1, decode=1), now=NOW)
    assert decision.diff.steps == ()
    assert all("stays at 1" in text for text in reasons(decision).values())


def test_a_pool_that_is_not_used_is_recommended_with_zero() -> None:
    decision = decide(spec(roles=ALL_ROLES), forecast([1.0]), fleet(prefill=1, decode=1), now=NOW)
    assert {r.shape.role for r in decision.recommendations} == set(Role)


def test_the_diff_leads_to_the_plan() -> None:
    decision = decide(
        spec(), forecast([10.0], isl=4000, osl=5), fleet(prefill=1, decode=3), now=NOW
    )
    reached = after(fleet(prefill=1, decode=3), decision.diff.steps, at=NOW)
    assert reached.replicas(Role.PREFILL) == decision.plan.windows[0].replicas(Role.PREFILL)
    assert reached.replicas(Role.DECODE) == decision.plan.windows[0].replicas(Role.DECODE)


def test_without_observation_a_smaller_fleet_is_recommended_but_not_allowed() -> None:
    blind = GuardConditions(now=NOW)
    decision = decide(
        spec(), forecast([1.0] * 6), fleet(prefill=1, decode=4), now=NOW, conditions=blind
    )
    verdicts = {f.guard: f.verdict for f in decision.findings}
    assert {r.shape: r.replicas for r in decision.recommendations}[D] == 1
    assert verdicts["stale_observation"] is Verdict.CLAMP
    assert decision.recommended.steps
    assert not decision.diff.steps


def test_where_no_fleet_serves_the_highest_quantile_a_lower_one_is_planned_for() -> None:
    """Nothing would move otherwise, and one replica of each would stay with 30 requests/s."""
    wide = forecast([30.0], spread=20.0)
    decision = decide(spec(inventory=8), wide, fleet(prefill=1, decode=1), now=NOW)
    assert decision.plan.status is not PlanStatus.INFEASIBLE
    assert decision.plan.inputs.demand_level in LOWER_LEVELS
    assert decision.plan.windows[0].replicas(Role.PREFILL) > 1
    level = f"q{100 * decision.plan.inputs.demand_level:.0f}"
    assert decision.plan.unproven[0] == decision.lowered
    assert "which no fleet within the limits serves (to relax: " in decision.lowered
    assert decision.lowered.endswith(f": this is planned for {level}")


def test_an_infeasible_decision_says_so_for_every_pool() -> None:
    decision = decide(spec(inventory=3), forecast([100.0]), fleet(prefill=1, decode=1), now=NOW)
    assert decision.lowered == ""
    assert all("serves most" in text for text in reasons(decision).values())
