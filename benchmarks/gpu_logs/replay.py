"""What requests would see, by the twin."""

import numpy as np

from benchmarks.gpu_logs.logs import Deployment, Seen
from benchmarks.gpu_logs.steps import StepTimes, profile_of
from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, RouterPolicy, Scenario, simulate


def replay(deployment: Deployment, steps: StepTimes, workload: Workload) -> Seen:
    """Ask the twin.

    Raises
    ------
    InputError
        When a request was not answered to the end.
    """
    group = ReplicaGroup(
        profile=profile_of(steps, deployment), role=Role.AGGREGATED, replicas=deployment.engines
    )
    result = simulate(Scenario(groups=(group,), workload=workload, router=RouterPolicy.ROUND_ROBIN))
    if np.isnan(result.e2e_s).any():
        raise InputError(f"the twin did not finish every request of {deployment.model}")
    return Seen(
        ttft_s=result.ttft_s,
        tpot_s=result.tpot_s,
        end_s=result.arrival_s + result.e2e_s,
    )
