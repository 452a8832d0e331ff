"""First token and gaps within one end-to-end time, against sums that are known."""

import dataclasses

import numpy as np
import pytest

from planner.capacity.end_to_end import SPLITS, limits_of, met_jointly
from planner.capacity.kernels import steps_within
from planner.capacity.means import predict_means
from planner.capacity.pool import sustained_rps
from planner.capacity.split import PoolLoad
from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from planner.domain.slo import Slo
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import point_shape

PROFILE = linear_profile()
SHAPE = point_shape(isl=800.0, osl=101.0)
SLO = Slo(model="tiny", ttft_s=1.0, tpot_s=0.02, e2e_s=2.0)
APART = dataclasses.replace(SLO, e2e_s=None)


def at_most(mean_s: float):
    """P(X <= limit) of an exponential time."""
    return lambda limit: 1 - np.exp(-np.maximum(limit, 0.0) / mean_s)


def test_without_an_end_to_end_time_both_promises_are_kept_apart() -> None:
    met = met_jointly(APART, SHAPE, ttft_met=at_most(0.5), tpot_met=at_most(0.01))
    assert met == pytest.approx((1 - np.exp(-2.0)) ** 2)


def test_the_joint_share_is_a_little_below_that_of_many_draws() -> None:
    rng = np.random.default_rng(1)
    ttft, tpot = rng.exponential(0.5, 400_000), rng.exponential(0.01, 400_000)
    drawn = np.mean((ttft <= 1.0) & (tpot <= 0.02) & (ttft + 100 * tpot <= 2.0))
    met = float(met_jointly(SLO, SHAPE, ttft_met=at_most(0.5), tpot_met=at_most(0.01))[0])
    assert drawn - 0.03 < met < drawn + 0.002


@pytest.mark.parametrize("split", SPLITS)
def test_what_keeps_both_parts_keeps_the_whole(split) -> None:
    first, token = limits_of(SLO, SHAPE, split=split)
    assert first[0] + 100 * token[0] <= 2.0 + 1e-9
    assert first[0] <= 1.0
    assert token[0] <= 0.02


def test_some_splits_use_all_of_the_time() -> None:
    used = [limits_of(SLO, SHAPE, split=split) for split in SPLITS]
    assert max(float(first[0] + 100 * token[0]) for first, token in used) == pytest.approx(2.0)


@pytest.mark.parametrize("role", Role)
def test_an_end_to_end_time_that_binds_nothing_changes_little(role: Role) -> None:
    loose = dataclasses.replace(SLO, e2e_s=100.0)
    with_it, without = (
        sustained_rps(PROFILE, role, SHAPE, slo, replicas=2, target_ratio=0.95).sustained_rps
        for slo in (loose, APART)
    )
    assert with_it == pytest.approx(without, rel=0.02)
    assert with_it > 0


def test_a_limit_below_the_fastest_step_is_never_kept() -> None:
    steps, below = np.array([0.02, 0.03]), np.array([0.4, 1.0])
    limits = np.array([0.01, 0.02, 0.025, 0.03])
    met = steps_within(steps, below, 0.026, np.ones(4), limits)
    np.testing.assert_allclose(met, [0.0, 0.4, 0.4, 1.0])


def test_pools_without_replicas_sustain_nothing_and_say_of_which_role() -> None:
    found = {
        role: sustained_rps(PROFILE, role, SHAPE, APART, replicas=0, target_ratio=0.95)
        for role in (Role.PREFILL, Role.DECODE)
    }
    assert [c.sustained_rps for c in found.values()] == [0.0, 0.0]
    assert found[Role.PREFILL].bottleneck is Bottleneck.PREFILL
    assert found[Role.DECODE].bottleneck is Bottleneck.DECODE


@pytest.mark.parametrize(("target", "cv2"), [(0.0, 1.0), (1.1, 1.0), (0.9, -0.1), (0.9, np.inf)])
def test_a_target_or_a_variance_that_no_traffic_has_is_refused(target: float, cv2: float) -> None:
    with pytest.raises(ValueError, match="target_ratio must lie in"):
        sustained_rps(
            PROFILE, Role.DECODE, SHAPE, APART, replicas=1, target_ratio=target, arrival_cv2=cv2
        )


def test_means_of_nothing_are_none() -> None:
    pools = [PoolLoad(profile=PROFILE, role=Role.AGGREGATED, replicas=2)]
    assert predict_means(pools, SHAPE, request_rate_rps=0.0) is None
    single = predict_means(pools, point_shape(isl=800.0, osl=1.0), request_rate_rps=1.0)
    assert single is not None
    assert single.itl_s is None
