"""Speed of the twin, as a ratio to the token-by-token reference on the same requests in one run.

    python -m benchmarks.bench_twin

Prints requests/s of both, their ratio, the first call's extra time (compiling, or reading the
cache), and milliseconds of the closed forms. One core; run it on a quiet machine.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from planner.capacity.deployment import PoolLoad, predict
from planner.capacity.pool import sustained_rps
from planner.domain.fleet import Role
from planner.domain.slo import Slo
from planner.simulate import ReplicaGroup, Scenario, simulate
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import poisson_workload, shape_of_workload
from tests.planner.simulate.reference import Reference

PROFILE = linear_profile(max_num_seqs=256)
SLO = Slo(model="tiny", ttft_s=1.0, tpot_s=0.03)
FLEETS = {
    "20 prefill + 10 decode": (
        140.0,
        (
            ReplicaGroup(profile=PROFILE, role=Role.PREFILL, replicas=20),
            ReplicaGroup(profile=PROFILE, role=Role.DECODE, replicas=10),
        ),
    ),
    "20 aggregated": (
        100.0,
        (ReplicaGroup(profile=PROFILE, role=Role.AGGREGATED, replicas=20),),
    ),
    "1 prefill + 1 decode": (
        7.0,
        (
            ReplicaGroup(profile=PROFILE, role=Role.PREFILL, replicas=1),
            ReplicaGroup(profile=PROFILE, role=Role.DECODE, replicas=1),
        ),
    ),
}


def seconds_of(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def scenario_of(fleet: str, requests: int) -> Scenario:
    rate_rps, groups = FLEETS[fleet]
    workload = poisson_workload(requests=requests, rate_rps=rate_rps, isl=1000, osl=200)
    short = replace(workload, input_tokens=np.minimum(workload.input_tokens, 8_000))
    return Scenario(groups=groups, workload=short)  # short enough that nothing is rejected


def main() -> None:
    first = scenario_of("1 prefill + 1 decode", 10)
    print(f"first call {seconds_of(lambda: simulate(first)):.2f} s (compiles unless cached)")
    for fleet in FLEETS:
        small, large = scenario_of(fleet, 400), scenario_of(fleet, 200_000)
        reference = 400 / seconds_of(lambda s=small: Reference(s).run())
        twin = 200_000 / min(seconds_of(lambda s=large: simulate(s)) for _ in range(3))
        print(
            f"{fleet:24s} twin {twin:10,.0f} requests/s, reference {reference:7,.0f} requests/s, "
            f"ratio {twin / reference:7,.0f}x"
        )
    workload = poisson_workload(requests=20_000, rate_rps=1.0, isl=1000, osl=200)
    shape = shape_of_workload(workload)
    for role in Role:
        spent = min(
            seconds_of(
                lambda r=role: sustained_rps(PROFILE, r, shape, SLO, replicas=8, target_ratio=0.95)
            )
            for _ in range(10)
        )
        print(f"sustained_rps {role:10s} {1e3 * spent:5.2f} ms")
    for fleet, (rate_rps, groups) in FLEETS.items():
        loads = [PoolLoad(profile=g.profile, role=g.role, replicas=g.replicas) for g in groups]
        spent = min(
            seconds_of(lambda p=loads, r=rate_rps: predict(p, shape, SLO, request_rate_rps=r))
            for _ in range(10)
        )
        print(f"predict {fleet:24s} {1e3 * spent:5.2f} ms")


if __name__ == "__main__":
    main()
