"""A policy in our twin."""

import time
from collections.abc import Sequence

import numpy as np

from benchmarks.closed_loop.judging import Run
from benchmarks.closed_loop.settings import MOST_REPLICAS, ROLES, Setting
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, RouterPolicy, Scenario, simulate
from planner.simulate.policy import GroupView, Observation, Policy, Targets


class Watched:
    """A policy whose decisions are timed, and what was paid for between them."""

    def __init__(self, policy: Policy, first: Sequence[int]) -> None:
        self._policy = policy
        self.decided_s: list[float] = []
        self.paid: list[tuple[float, int, int]] = [(0.0, first[0], first[1])]

    @property
    def first_tick_s(self) -> float:
        """As the policy's."""
        return self._policy.first_tick_s

    def on_tick(self, seen: Observation) -> Targets:
        """As the policy's; counts are those at ticks."""
        began = time.process_time()
        targets = self._policy.on_tick(seen)
        self.decided_s.append(time.process_time() - began)
        counts = [self._paid_for(seen.groups[i], targets.replicas, i) for i in range(len(ROLES))]
        self.paid.append((seen.t_s, counts[0], counts[1]))
        return targets

    @staticmethod
    def _paid_for(group: GroupView, wanted: Sequence[int] | None, role: int) -> int:
        """Replicas of a role from this tick on: those that are to go are there for a while."""
        there = group.ready + group.starting
        asked = there if wanted is None else min(wanted[role], MOST_REPLICAS)
        return group.draining + max(there, asked)


def replay(
    setting: Setting,
    workload: Workload,
    policy: Policy,
    *,
    first: Sequence[int],
    router: RouterPolicy = RouterPolicy.ROUND_ROBIN,
) -> Run:
    """Run the policy over the workload; routed as in NVIDIA's simulator.

    Parameters
    ----------
    first : (prefill, decode) int
        Replicas that serve from the start.
    """
    watched = Watched(policy, first)
    groups = tuple(
        ReplicaGroup(
            profile=setting.profile(role), role=role, replicas=n, most_replicas=MOST_REPLICAS
        )
        for role, n in zip(ROLES, first, strict=True)
    )
    result = simulate(
        Scenario(
            groups=groups,
            workload=workload,
            router=router,
            prefix_cache=False,
            policy=watched,
            unstable_wait_s=np.inf,
        )
    )
    return Run(
        ttft_s=result.ttft_s,
        tpot_s=result.tpot_s,
        paid=tuple(watched.paid),
        end_s=result.end_s,
        decided_s=tuple(watched.decided_s),
    )
