"""A policy in our twin."""

import time
from collections.abc import Sequence

from benchmarks.closed_loop.settings import Setting
from planner.autoscale import backtest
from planner.autoscale.backtest import Run
from planner.domain.workload import Workload
from planner.simulate import RouterPolicy
from planner.simulate.policy import Policy


def replay(setting: Setting, workload: Workload, policy: Policy, *, first: Sequence[int]) -> Run:
    """Run the policy over the workload; routed as in NVIDIA's simulator.

    Parameters
    ----------
    first : (prefill, decode) int
        Replicas that serve from the start.
    """
    return backtest.replay(
        setting.pair,
        workload,
        policy,
        first=first,
        clock=time.process_time,
        router=RouterPolicy.ROUND_ROBIN,
        prefix_cache=False,
    )
