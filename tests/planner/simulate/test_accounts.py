"""What replicas cost and how busy they were, through flips, failures, reclaims and policies."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.topology import Distance, LinkClass, Place, Topology
from planner.simulate import (
    Event,
    Flip,
    Incident,
    Observation,
    Outcome,
    ReplicaGroup,
    Scenario,
    SimulationResult,
    Targets,
    simulate,
)
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import poisson_workload

PROFILE = linear_profile(start_cold_s=60.0, flip_s=5.0)


@dataclass
class Script:
    """Wants what its script says, at the instants of the script."""

    script: dict[float, Targets]

    @property
    def first_tick_s(self) -> float:
        return min(self.script)

    def on_tick(self, seen: Observation) -> Targets:
        later = [t for t in self.script if t > seen.t_s]
        return replace(self.script[seen.t_s], next_tick_s=min(later, default=float("inf")))


def wants(*replicas: int, flips: tuple[Flip, ...] = ()) -> Targets:
    return Targets(replicas=replicas or None, next_tick_s=0.0, flips=flips)


def pair(prefill: int = 2, decode: int = 1, **more: float) -> tuple[ReplicaGroup, ...]:
    return tuple(
        ReplicaGroup(profile=PROFILE, role=role, replicas=n, **more)
        for role, n in ((Role.PREFILL, prefill), (Role.DECODE, decode))
    )


def ready_from(result: SimulationResult, group: int, count: int, after_s: float) -> float:
    """When a group has so many ready replicas for the first time after an instant."""
    series = result.series
    there = (series.ready[group] >= count) & (series.t_s > after_s)
    return float(series.t_s[there][0])


def test_patience_that_nobody_runs_out_of_costs_nothing() -> None:
    workload = poisson_workload(requests=400, rate_rps=5.0, isl=200, osl=20)
    plain = simulate(Scenario(groups=pair(), workload=workload))
    patient = simulate(Scenario(groups=pair(), workload=workload, patience_s=3600.0))
    assert patient.end_s == plain.end_s
    assert patient.accelerator_hours == plain.accelerator_hours
    assert patient.utilization_ratio == plain.utilization_ratio


def test_transfers_over_links_end_in_the_second_year_too() -> None:
    link = LinkClass(base_s=0.001, flow_bytes_per_s=1e9, link_bytes_per_s=2e9, source="made up")
    links = dict.fromkeys(Distance, link)
    groups = tuple(
        replace(g, places=tuple(Place(rack=0, node=i) for i in range(g.replicas))) for g in pair()
    )
    workload = poisson_workload(requests=200, rate_rps=5.0, isl=200, osl=20)
    late_s = 4e7
    late = replace(
        workload,
        arrival_offset_s=workload.arrival_offset_s + late_s,
        duration_s=workload.duration_s + late_s,
    )
    topology = Topology(links=links)
    early = simulate(Scenario(groups=groups, workload=workload, topology=topology))
    found = simulate(Scenario(groups=groups, workload=late, topology=topology))
    assert np.allclose(found.ttft_s, early.ttft_s, atol=1e-6)


def test_a_flip_does_not_cut_a_start_short() -> None:
    workload = poisson_workload(requests=300, rate_rps=2.0, isl=100, osl=10)
    events = (
        Event(at_s=20.0, incident=Incident.FAIL, group=0, replica=0),
        Event(at_s=21.0, incident=Incident.FLIP, group=0, replica=0, to_group=1),
    )
    result = simulate(Scenario(groups=pair(), workload=workload, events=events))
    assert ready_from(result, 1, 2, 21.0) == pytest.approx(85.0, abs=1.0)


def test_a_policy_flips_ready_replicas_only() -> None:
    workload = poisson_workload(requests=300, rate_rps=2.0, isl=100, osl=10)
    groups = pair(most_replicas=4)
    flip = Flip(from_group=0, to_group=1, replicas=1)
    policy = Script({5.0: wants(4, 1), 6.0: wants(flips=(flip,))})
    result = simulate(Scenario(groups=groups, workload=workload, policy=policy))
    assert ready_from(result, 1, 2, 6.0) == pytest.approx(11.0, abs=2.0)


def test_the_end_of_a_notice_spares_the_replacement() -> None:
    quick = linear_profile(start_cold_s=10.0)
    groups = tuple(
        ReplicaGroup(profile=quick, role=role, replicas=n, most_replicas=n)
        for role, n in ((Role.PREFILL, 2), (Role.DECODE, 1))
    )
    workload = poisson_workload(requests=400, rate_rps=2.0, isl=100, osl=10)
    reclaim = Event(at_s=20.0, incident=Incident.RECLAIM, group=0, replica=0, notice_s=60.0)
    policy = Script({float(t): wants(2, 1) for t in range(1, 60)})
    run = Scenario(groups=groups, workload=workload, policy=policy, events=(reclaim,))
    result = simulate(run)
    series = result.series
    assert series.ready[0][(series.t_s > 90.0) & (series.t_s < 150.0)].min() == 2


def test_hours_before_a_flip_stay_with_the_pool_and_its_price() -> None:
    dear, cheap = pair()
    groups = (replace(dear, usd_per_gpu_hour=10.0), replace(cheap, usd_per_gpu_hour=1.0))
    workload = poisson_workload(requests=1200, rate_rps=2.0, isl=100, osl=10)
    late = Event(at_s=500.0, incident=Incident.FLIP, group=0, replica=0, to_group=1)
    plain = simulate(Scenario(groups=groups, workload=workload))
    flipped = simulate(Scenario(groups=groups, workload=workload, events=(late,)))
    hours = (flipped.end_s - 500.0) / 3600
    assert flipped.accelerator_hours[1] == pytest.approx(
        plain.accelerator_hours[1] + hours, rel=0.02
    )
    assert flipped.usd == pytest.approx(plain.usd - 9.0 * hours, rel=0.01)


def test_neither_memory_nor_time_is_used_twice_by_those_who_come_back() -> None:
    big, small = linear_profile(), linear_profile(kv_capacity_tokens=1500, start_cold_s=1.0)
    groups = (
        ReplicaGroup(profile=big, role=Role.PREFILL, replicas=1),
        ReplicaGroup(profile=small, role=Role.DECODE, replicas=2),
        ReplicaGroup(profile=big, role=Role.DECODE, replicas=0, most_replicas=1),
    )
    flip = Flip(from_group=1, to_group=2, replicas=1)
    policy = Script({5.0: wants(flips=(flip,)), 20.0: wants(1, 1, 0), 30.0: wants(1, 2, 0)})
    workload = poisson_workload(requests=1500, rate_rps=15.0, isl=200, osl=60, seed=1)
    result = simulate(Scenario(groups=groups, workload=workload, policy=policy))
    assert max(result.kv_peak_ratio) <= 1.0
    assert max(result.utilization_ratio) <= 1.0


def test_a_replica_that_flips_after_a_late_start_was_not_busy_before() -> None:
    groups = (replace(pair()[0], start_delay_s=30.0), pair()[1])
    workload = poisson_workload(requests=700, rate_rps=10.0, isl=300, osl=20, seed=1)
    flip = Event(at_s=31.0, incident=Incident.FLIP, group=0, replica=1, to_group=1)
    result = simulate(Scenario(groups=groups, workload=workload, events=(flip,)))
    assert max(result.utilization_ratio) <= 1.0


def test_early_rejection_sees_the_line_at_the_decode_workers() -> None:
    few = linear_profile(max_num_seqs=4)
    groups = tuple(
        ReplicaGroup(profile=few, role=role, replicas=n)
        for role, n in ((Role.PREFILL, 4), (Role.DECODE, 1))
    )
    workload = poisson_workload(requests=1500, rate_rps=20.0, isl=100, osl=100)
    run = Scenario(groups=groups, workload=workload)
    accepted, rejecting = simulate(run), simulate(replace(run, early_rejection_s=3.0))
    # A newcomer is expected to wait as long as the first in line has so far: late, but it sees it.
    slowest = [np.nanquantile(r.ttft_s, 0.95) for r in (accepted, rejecting)]
    assert slowest[1] < slowest[0] / 3
    assert rejecting.count(Outcome.REJECTED) > 500


def test_a_policy_says_when_to_ask_again() -> None:
    workload = poisson_workload(requests=300, rate_rps=10.0, isl=100, osl=5)

    @dataclass
    class Stuck:
        first_tick_s: float = 0.0

        def on_tick(self, seen: Observation) -> Targets:
            return Targets(replicas=None, next_tick_s=seen.t_s)

    with pytest.raises(InputError, match="no later instant for its next tick"):
        simulate(Scenario(groups=pair(), workload=workload, policy=Stuck()))
