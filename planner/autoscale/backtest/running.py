"""A policy in the twin: how it fared, what it cost, how long it thought."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.autoscale.backtest.pair import ROLES, PoolPair
from planner.domain.workload import Workload
from planner.simulate import ReplicaGroup, RouterPolicy, Scenario, simulate
from planner.simulate.policy import GroupView, Observation, Policy, Targets

Floats = NDArray[np.float64]
Clock = Callable[[], float]
"""Seconds of the processor that a thread has used."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """One policy on one workload in one simulator.

    Parameters
    ----------
    ttft_s, tpot_s : (requests,) float, seconds
        In the workload's order. NaN in `ttft_s`: not answered; in `tpot_s`: one output token.
    paid : sequence of (float, int, int)
        From when on how many prefill and decode replicas were paid for, draining ones included;
        seconds from the start, increasing.
    end_s : float
        When the last request had ended.
    decided_s : tuple of float
        How long each decision took, processor seconds.
    """

    ttft_s: Floats
    tpot_s: Floats
    paid: tuple[tuple[float, int, int], ...]
    end_s: float
    decided_s: tuple[float, ...] = ()


class Watched:
    """A policy whose decisions are timed, and what was paid for between them.

    Parameters
    ----------
    first, most : (prefill, decode) int
        Replicas at the start, and at the most.
    """

    def __init__(
        self, policy: Policy, *, first: Sequence[int], most: Sequence[int], clock: Clock
    ) -> None:
        self._policy, self._most, self._clock = policy, most, clock
        self.decided_s: list[float] = []
        self.paid: list[tuple[float, int, int]] = [(0.0, first[0], first[1])]

    @property
    def first_tick_s(self) -> float:
        """As the policy's."""
        return self._policy.first_tick_s

    def on_tick(self, seen: Observation) -> Targets:
        """As the policy's; counts are those at ticks."""
        began = self._clock()
        targets = self._policy.on_tick(seen)
        self.decided_s.append(self._clock() - began)
        counts = [self._paid_for(seen.groups[i], targets.replicas, i) for i in range(len(ROLES))]
        self.paid.append((seen.t_s, counts[0], counts[1]))
        return targets

    def _paid_for(self, group: GroupView, wanted: Sequence[int] | None, role: int) -> int:
        """Replicas of a role from this tick on: those that are to go are there for a while."""
        there = group.ready + group.starting
        asked = there if wanted is None else min(wanted[role], self._most[role])
        return group.draining + max(there, asked)


def replay(
    pair: PoolPair,
    workload: Workload,
    policy: Policy,
    *,
    first: Sequence[int],
    clock: Clock,
    router: RouterPolicy = RouterPolicy.LEAST_LOADED,
    prefix_cache: bool = True,
) -> Run:
    """Run the policy over the workload.

    Parameters
    ----------
    first : (prefill, decode) int
        Replicas that serve from the start.
    """
    watched = Watched(policy, first=first, most=pair.most_replicas, clock=clock)
    groups = tuple(
        ReplicaGroup(profile=profile, role=role, replicas=n, most_replicas=max(most, n))
        for profile, role, n, most in zip(
            pair.profiles, ROLES, first, pair.most_replicas, strict=True
        )
    )
    result = simulate(
        Scenario(
            groups=groups,
            workload=workload,
            router=router,
            prefix_cache=prefix_cache,
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
