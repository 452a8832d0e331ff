"""A case in the twin."""

import time

import numpy as np

from benchmarks.dynamo.cases import Case, Router
from benchmarks.dynamo.outcome import Outcome
from benchmarks.dynamo.timing import profile_of
from planner.domain.fleet import Role
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, RouterPolicy, Scenario, simulate

ROUTERS = {
    Router.ROUND_ROBIN: RouterPolicy.ROUND_ROBIN,
    Router.PREFIX_AWARE: RouterPolicy.PREFIX_AWARE,
}


def scenario_of(case: Case, workload: Workload) -> Scenario:
    """The fleet of a case under a workload."""
    counts = {
        Role.PREFILL: case.prefill,
        Role.DECODE: case.decode,
        Role.AGGREGATED: case.aggregated,
    }
    groups = tuple(
        ReplicaGroup(profile=profile_of(case.timing, case.engine, role), role=role, replicas=count)
        for role, count in counts.items()
        if count
    )
    return Scenario(
        groups=groups,
        workload=workload,
        router=ROUTERS[case.router],
        prefix_cache=case.prefix_cache,
        unstable_wait_s=np.inf,
    )


def run(case: Case, workload: Workload, *, repeats: int = 5) -> Outcome:
    """Simulate; the median of the repeats counts, everything from the scenario on is in it."""
    spent = []
    for _ in range(repeats):
        started = time.process_time()
        result = simulate(scenario_of(case, workload))
        spent.append(time.process_time() - started)
    order = np.lexsort((result.output_tokens, result.input_tokens, result.arrival_s))
    return Outcome(
        ttft_s=result.ttft_s[order],
        tpot_s=result.tpot_s[order],
        e2e_s=result.e2e_s[order],
        cached_tokens=result.cached_tokens[order].astype(np.float64),
        itl_p50_s=result.itl_quantile_s(0.5) or np.nan,
        itl_p95_s=result.itl_quantile_s(0.95) or np.nan,
        simulated_s=float(np.median(spent)),
    )
