"""The closed form and the twin name nearly the same sustained rate.

Two independent answers to one question: at which rate do 95 % of the requests still meet their
objectives? The closed form sees lengths through 40 buckets only.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from planner.capacity.deployment import predict
from planner.capacity.split import PoolLoad
from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.simulate import ReplicaGroup, Scenario, simulate
from tests.fakes.profiles import linear_profile, with_limits
from tests.fakes.workloads import poisson_workload, shape_of_workload

SLO = Slo(model="tiny", ttft_s=2.0, tpot_s=0.03, attainment_ratio=0.95)
PLAIN = linear_profile()
LONG_CONTEXT = linear_profile(decode_context_token_s=4e-7, prefill_token_s=6e-5)
FEW_SLOTS = linear_profile(max_num_seqs=12)
SMALL_CACHE = linear_profile(kv_capacity_tokens=20_000)


def fleet(profile: Profile, prefill: int, decode: int, aggregated: int = 0):
    counts = {Role.PREFILL: prefill, Role.DECODE: decode, Role.AGGREGATED: aggregated}
    return tuple(
        ReplicaGroup(profile=profile, role=role, replicas=n) for role, n in counts.items() if n
    )


GRID = [
    (groups, isl, osl)
    for groups in (
        fleet(PLAIN, 1, 1),
        fleet(PLAIN, 4, 8),
        fleet(LONG_CONTEXT, 2, 2),
        fleet(FEW_SLOTS, 2, 3),
        fleet(SMALL_CACHE, 2, 2),
        fleet(PLAIN, 0, 0, 1),
        fleet(LONG_CONTEXT, 0, 0, 4),
    )
    for isl, osl in ((300, 200), (1500, 60), (500, 400))
]


def highest_rate(attained: Callable[[float], float], high: float) -> float:
    low = 0.0
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (middle, high) if attained(middle) >= SLO.attainment_ratio else (low, middle)
    return low


def both_rates(groups: tuple[ReplicaGroup, ...], isl: int, osl: int) -> tuple[float, float]:
    base = poisson_workload(requests=4_000, rate_rps=1.0, isl=isl, osl=osl, seed=3)
    shape = shape_of_workload(base)
    pools = [PoolLoad(profile=g.profile, role=g.role, replicas=g.replicas) for g in groups]

    def by_formula(rate_rps: float) -> float:
        said = predict(pools, shape, SLO, request_rate_rps=rate_rps).prediction
        return said.attainment_ratio

    def by_twin(rate_rps: float) -> float:
        workload = replace(
            base,
            arrival_offset_s=base.arrival_offset_s / rate_rps,
            duration_s=base.duration_s / rate_rps,
        )
        return float(simulate(Scenario(groups=groups, workload=workload)).met([SLO]).mean())

    saturation_rps = 1 / max(predict(pools, shape, SLO, request_rate_rps=1.0).utilization_ratio)
    return highest_rate(by_formula, saturation_rps), highest_rate(by_twin, 1.1 * saturation_rps)


@pytest.fixture(scope="module")
def errors() -> np.ndarray:
    rates = [both_rates(*case) for case in GRID]
    return np.array([formula / twin - 1 for formula, twin in rates])


def test_half_of_the_cases_agree_within_a_tenth(errors: np.ndarray) -> None:
    assert np.median(np.abs(errors)) < 0.10


def test_no_case_is_further_off_than_a_third(errors: np.ndarray) -> None:
    assert np.abs(errors).max() < 0.33


@pytest.mark.parametrize(
    ("rule", "pools"),
    [
        ("async_scheduling", (1, 1, 0)),
        ("async_scheduling", (0, 0, 1)),
        ("late_kv_notice", (1, 1, 0)),
    ],
)
def test_both_say_alike_what_a_rule_of_the_engine_costs(
    rule: str, pools: tuple[int, int, int]
) -> None:
    workload = poisson_workload(requests=4_000, rate_rps=2.5, isl=300, osl=150, seed=3)
    cost_s = {"twin": 0.0, "formula": 0.0}
    for sign, profile in ((1, with_limits(PLAIN, **{rule: True})), (-1, PLAIN)):
        groups = fleet(profile, *pools)
        loads = [PoolLoad(profile=g.profile, role=g.role, replicas=g.replicas) for g in groups]
        said = predict(loads, shape_of_workload(workload), SLO, request_rate_rps=2.5).prediction
        seen = simulate(Scenario(groups=groups, workload=workload))
        cost_s["formula"] += sign * said.ttft_p50_s
        cost_s["twin"] += sign * float(np.quantile(seen.ttft_s, 0.5))
    assert cost_s["twin"] > 0.005  # about a step
    assert cost_s["formula"] == pytest.approx(cost_s["twin"], rel=0.4)
