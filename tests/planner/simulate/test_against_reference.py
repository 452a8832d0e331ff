"""The compiled loop and the token-by-token reference agree to a microsecond."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.fleet import Role
from planner.simulate import ReplicaGroup, RouterPolicy, Scenario, simulate
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import poisson_workload
from tests.planner.simulate.reference import Reference

FAST = linear_profile(decode_context_token_s=1e-7, first_token_s=0.003)
SLOW = linear_profile(profile_id="slow", speed=0.4, max_num_seqs=3, max_num_batched_tokens=256)
TIGHT = linear_profile(
    profile_id="tight", kv_capacity_tokens=1_500, max_num_batched_tokens=100, max_model_len=1_400
)

KNOTTED = replace(
    FAST,
    profile_id="knotted",
    prefill=replace(
        FAST.prefill,
        x=np.array([16.0, 100.0, 400.0, 900.0]),
        y=np.array([0.0, 200.0]),
        seconds=np.array([[0.01, 0.012], [0.02, 0.03], [0.05, 0.06], [0.2, 0.21]]),
    ),
    decode_step=replace(
        FAST.decode_step,
        x=np.array([1.0, 2.0, 5.0, 8.0]),
        y=np.array([64.0, 300.0, 700.0]),
        seconds=np.array(
            [[0.01, 0.012, 0.02], [0.011, 0.011, 0.03], [0.02, 0.03, 0.04], [0.03, 0.05, 0.06]]
        ),
    ),
)
FLAT = replace(
    FAST,
    profile_id="flat",
    decode_step=replace(
        FAST.decode_step,
        x=np.array([1.0, 16.0]),
        y=np.array([128.0]),
        seconds=np.array([[0.01], [0.02]]),
    ),
)

FLEETS = {
    "tables with knots": ((KNOTTED, Role.PREFILL, 2, 0.0), (KNOTTED, Role.DECODE, 2, 0.0)),
    "knots, aggregated": ((KNOTTED, Role.AGGREGATED, 2, 0.0), (FLAT, Role.AGGREGATED, 1, 0.0)),
    "one measured context": ((FAST, Role.PREFILL, 1, 0.0), (FLAT, Role.DECODE, 2, 0.0)),
    "prefill of no use": (
        (FAST, Role.AGGREGATED, 1, 0.0),
        (FAST, Role.PREFILL, 1, 0.0),
        (FAST, Role.DECODE, 0, 0.0),
    ),
    "one prefill, one decode": ((FAST, Role.PREFILL, 1, 0.0), (FAST, Role.DECODE, 1, 0.0)),
    "pools": ((FAST, Role.PREFILL, 3, 0.0), (FAST, Role.DECODE, 2, 0.0)),
    "slots bind": ((FAST, Role.PREFILL, 2, 0.0), (SLOW, Role.DECODE, 2, 0.0)),
    "memory binds": ((FAST, Role.PREFILL, 1, 0.0), (TIGHT, Role.DECODE, 2, 0.0)),
    "mixed decode pools": (
        (FAST, Role.PREFILL, 2, 0.0),
        (FAST, Role.DECODE, 1, 0.0),
        (SLOW, Role.DECODE, 2, 1.5),
    ),
    "aggregated": ((FAST, Role.AGGREGATED, 2, 0.0),),
    "aggregated, small chunks": ((TIGHT, Role.AGGREGATED, 2, 0.0), (SLOW, Role.AGGREGATED, 1, 2.0)),
    "side by side": (
        (SLOW, Role.AGGREGATED, 2, 0.0),
        (FAST, Role.PREFILL, 1, 0.0),
        (FAST, Role.DECODE, 1, 1.0),
    ),
}


def scenario_of(fleet: str, *, rate_rps: float, requests: int, seed: int, router: RouterPolicy):
    groups = tuple(
        ReplicaGroup(profile=p, role=role, replicas=n, start_delay_s=delay)
        for p, role, n, delay in FLEETS[fleet]
    )
    workload = poisson_workload(
        requests=requests, rate_rps=rate_rps, osl=25, cached_ratio=0.3, seed=seed
    )
    return Scenario(groups=groups, workload=workload, router=router)


def assert_agree(scenario: Scenario) -> None:
    result = simulate(scenario)
    reference = Reference(scenario)
    reference.run()
    nan = float("nan")
    first = [
        r.token_s[0] - r.arrival_s + r.overhead_s if r.token_s else nan for r in reference.requests
    ]
    last = [
        r.token_s[-1] - r.arrival_s + r.overhead_s if r.token_s else nan for r in reference.requests
    ]
    np.testing.assert_allclose(result.ttft_s, first, atol=1e-6, rtol=0)
    np.testing.assert_allclose(result.e2e_s, last, atol=1e-6, rtol=0)
    gaps = np.concatenate([np.diff(r.token_s) for r in reference.requests])
    assert int(result.gap_counts.sum()) == len(gaps)
    for level in (0.5, 0.95) if len(gaps) else ():
        expected = np.quantile(gaps, level, method="inverted_cdf")
        assert result.itl_quantile_s(level) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("fleet", FLEETS)
@pytest.mark.parametrize("router", RouterPolicy)
def test_every_token_falls_on_the_same_instant(fleet: str, router: RouterPolicy) -> None:
    assert_agree(scenario_of(fleet, rate_rps=12.0, requests=150, seed=1, router=router))


@settings(max_examples=60, deadline=None)
@given(
    fleet=st.sampled_from(sorted(FLEETS)),
    rate_rps=st.floats(0.5, 60.0),
    requests=st.integers(1, 60),
    seed=st.integers(0, 2**20),
    router=st.sampled_from(RouterPolicy),
)
def test_they_agree_on_any_small_workload(
    fleet: str, rate_rps: float, requests: int, seed: int, router: RouterPolicy
) -> None:
    assert_agree(scenario_of(fleet, rate_rps=rate_rps, requests=requests, seed=seed, router=router))
