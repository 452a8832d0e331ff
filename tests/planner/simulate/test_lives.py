"""Replicas that come back, requests that start over, and instants that coincide."""

from dataclasses import dataclass, replace

import numpy as np

from planner.domain.fleet import Role
from planner.domain.workload import PrefixBlocks
from planner.simulate import (
    Event,
    Incident,
    Observation,
    Outcome,
    ReplicaGroup,
    Scenario,
    Targets,
    simulate,
)
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import poisson_workload

SLOW_PROMPTS = linear_profile(prefill_token_s=0.01)


@dataclass
class OneReplica:
    """Keeps one replica."""

    first_tick_s: float = 20.0

    def on_tick(self, seen: Observation) -> Targets:
        later = seen.t_s + 20 if seen.t_s < 150 else float("inf")
        return Targets(replicas=(1,), next_tick_s=later)


def test_a_new_machine_has_an_empty_prefix_cache() -> None:
    count = 3
    base = poisson_workload(requests=count, rate_rps=1.0, isl=400, osl=3, seed=1)
    blocks = PrefixBlocks(
        block_tokens=16,
        offsets=np.arange(count + 1) * 240,
        block_ids=np.tile(np.arange(240), count),
    )
    workload = replace(
        base,
        arrival_offset_s=np.array([0.0, 200.0, 201.0]),
        duration_s=202.0,
        input_tokens=np.full(count, 4000),
        prefix=blocks,
    )
    group = ReplicaGroup(
        profile=linear_profile(start_cold_s=60.0), role=Role.AGGREGATED, replicas=1
    )
    reclaim = Event(at_s=10.0, incident=Incident.RECLAIM, group=0, replica=0, notice_s=5.0)
    result = simulate(
        Scenario(groups=(group,), workload=workload, policy=OneReplica(), events=(reclaim,))
    )
    assert result.cached_tokens.tolist() == [0, 0, 3840]


def test_who_starts_over_has_not_waited_in_the_new_line_before() -> None:
    base = poisson_workload(requests=4, rate_rps=1.0, isl=2000, osl=5, lengths="constant", seed=1)
    workload = replace(base, arrival_offset_s=np.arange(4.0), duration_s=4.0)
    group = ReplicaGroup(profile=SLOW_PROMPTS, role=Role.AGGREGATED, replicas=8)
    failure = Event(at_s=18.0, incident=Incident.FAIL, group=0, replica=0, restarts=False)
    result = simulate(
        Scenario(groups=(group,), workload=workload, unstable_wait_s=15.0, events=(failure,))
    )
    assert result.stopped is None
    assert result.count(Outcome.FINISHED) == 4


def test_a_reclaim_gives_a_flip_up() -> None:
    profile = linear_profile(flip_s=3.0)
    groups = tuple(
        ReplicaGroup(profile=profile, role=role, replicas=2) for role in (Role.PREFILL, Role.DECODE)
    )
    workload = poisson_workload(requests=300, rate_rps=5.0, isl=300, osl=200, seed=1)
    events = (
        Event(at_s=20.0, incident=Incident.FLIP, group=1, replica=0, to_group=0),
        Event(at_s=20.1, incident=Incident.RECLAIM, group=1, replica=0, notice_s=100.0),
    )
    result = simulate(Scenario(groups=groups, workload=workload, events=events))
    assert result.series.ready[0].max() == 2


def test_clients_without_patience_are_no_longer_there() -> None:
    workload = poisson_workload(requests=50, rate_rps=2.0, isl=100, osl=10, seed=1)
    group = ReplicaGroup(profile=linear_profile(), role=Role.AGGREGATED, replicas=1)
    drain = Event(at_s=15.0, incident=Incident.DRAIN, group=0, replica=0)
    result = simulate(Scenario(groups=(group,), workload=workload, patience_s=0.0, events=(drain,)))
    assert result.count(Outcome.FINISHED) == 0
    assert result.series.waiting[:, -1].max() == 0
    assert result.accelerator_hours[0] * 3600 < 16.0
