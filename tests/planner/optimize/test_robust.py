"""Plans for replicas that may be slower than profiled hold on profiles that are that slow."""

from dataclasses import replace

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus
from planner.domain.spec import PlanningSettings, Spec
from planner.optimize import build_problem, plan
from tests.fakes.profiles import linear_profile
from tests.planner.optimize.scenarios import NOW, PAIR, forecast, spec

DEMAND = forecast([20.0])


def promising(ttft_s: float, tpot_s: float, error: float) -> Spec:
    asked = spec(inventory=80, ttft_s=ttft_s, tpot_s=tpot_s, attainment_ratio=0.9)
    return replace(asked, planning=PlanningSettings(profile_error_ratio=error))


def really_slow(asked: Spec) -> Spec:
    factor = 1 + asked.planning.profile_error_ratio
    profiles = tuple(p.slowed(factor) for p in asked.profiles)
    return replace(asked, profiles=profiles, planning=PlanningSettings())


@pytest.mark.parametrize(
    ("ttft_s", "tpot_s", "error"),
    [(1.0, 0.05, 0.2), (0.3, 0.05, 0.2), (1.0, 0.018, 0.3), (0.25, 0.05, 0.5)],
)
def test_a_robust_plan_is_the_plan_for_slower_profiles(
    ttft_s: float, tpot_s: float, error: float
) -> None:
    asked = promising(ttft_s, tpot_s, error)
    robust = plan(asked, DEMAND, None, made_at=NOW)
    slow = plan(really_slow(asked), DEMAND, None, made_at=NOW)
    assert robust.status is slow.status
    assert robust.usd_per_hour == slow.usd_per_hour
    assert [p.replicas for p in robust.windows[0].pools] == [
        p.replicas for p in slow.windows[0].pools
    ]


def test_latencies_are_slower_too_not_rates_alone() -> None:
    """A prompt that just makes it as profiled is late at any rate when half as slow again."""
    asked = promising(0.15, 0.05, 0.0)
    assert build_problem(asked, DEMAND, None).capacity[0, 0].at(4) > 0
    doubtful = replace(asked, planning=PlanningSettings(profile_error_ratio=0.5))
    made = plan(doubtful, DEMAND, None, made_at=NOW)
    assert made.status is PlanStatus.INFEASIBLE


def test_the_price_of_robustness_is_the_difference_of_both_plans() -> None:
    asked = promising(0.3, 0.05, 0.2)
    robust = plan(asked, DEMAND, None, made_at=NOW)
    trusting = plan(asked.trusting, DEMAND, None, made_at=NOW)
    (told,) = (r for r in robust.rejected if r.name == "trusting the profiles")
    assert told.usd_per_hour == pytest.approx(trusting.usd_per_hour)


def test_a_slowed_profile_takes_so_many_times_as_long() -> None:
    profile = linear_profile()
    slow = profile.slowed(1.25)
    kv = np.array([0.0, 1e6])
    assert np.allclose(slow.transfer.seconds(kv), 1.25 * profile.transfer.seconds(kv))
    assert np.allclose(slow.prefill.seconds, 1.25 * profile.prefill.seconds)
    assert np.allclose(slow.decode_step.seconds, 1.25 * profile.decode_step.seconds)
    assert slow.profile_id == profile.profile_id


def test_caution_is_taken_once() -> None:
    careful = promising(1.0, 0.05, 0.2).cautious
    assert careful.cautious is careful
    assert {b.shape.role for b in careful.pools} == {Role.PREFILL, Role.DECODE} == set(PAIR)
