"""A policy that steers the fleet: what it sees is what happens, and what it wants comes true."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from planner.domain.fleet import Role
from planner.simulate import (
    Flip,
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

PROFILE = linear_profile(first_token_s=0.003, flip_s=1.5)
START_S = 4.0
EVERY_S = 5.0
END_S = 60.0


@dataclass
class Script:
    """Says what its script has for the instant of a tick, and keeps what it saw."""

    script: dict[float, Targets]
    first_tick_s: float = EVERY_S
    seen: list[Observation] = field(default_factory=list)

    def on_tick(self, seen: Observation) -> Targets:
        self.seen.append(seen)
        following = seen.t_s + EVERY_S if seen.t_s < END_S else float("inf")
        said = self.script.get(seen.t_s, Targets(replicas=None, next_tick_s=following))
        return Targets(replicas=said.replicas, flips=said.flips, next_tick_s=following)


def groups() -> tuple[ReplicaGroup, ...]:
    return tuple(
        ReplicaGroup(profile=PROFILE, role=role, replicas=n, most_replicas=4, start_s=START_S)
        for role, n in ((Role.PREFILL, 1), (Role.DECODE, 2))
    )


def steered(script: dict[float, Targets]) -> tuple[SimulationResult, Script]:
    policy = Script(script)
    workload = poisson_workload(requests=240, rate_rps=4.0, isl=300, osl=40, seed=2)
    return simulate(Scenario(groups=groups(), workload=workload, policy=policy)), policy


def wants(*replicas: int, flips: tuple[Flip, ...] = ()) -> Targets:
    return Targets(replicas=replicas or None, next_tick_s=0.0, flips=flips)


def ready_at(result: SimulationResult, group: int, t_s: float) -> int:
    series = result.series
    return int(series.ready[group, int(np.searchsorted(series.t_s, t_s, side="right")) - 1])


def test_what_a_policy_sees_in_all_is_what_happened() -> None:
    result, policy = steered({})
    until_s = policy.seen[-1].t_s
    arrived = np.concatenate([s.arrived_input_tokens for s in policy.seen])
    np.testing.assert_array_equal(arrived, result.input_tokens[result.arrival_s <= until_s])
    done = result.arrival_s + result.e2e_s - PROFILE.first_token_s <= until_s
    ttft_s = np.concatenate([s.finished_ttft_s for s in policy.seen])
    np.testing.assert_allclose(np.sort(ttft_s), np.sort(result.ttft_s[done]))
    tpot_s = np.concatenate([s.finished_tpot_s for s in policy.seen])
    np.testing.assert_allclose(np.sort(tpot_s), np.sort(result.tpot_s[done]))


def test_ordered_replicas_serve_after_their_start_and_surplus_ones_drain() -> None:
    result, policy = steered({10.0: wants(3, 2), 30.0: wants(1, 2)})
    assert [ready_at(result, 0, t) for t in (9.0, 13.0, 16.0, 29.0, 40.0)] == [1, 1, 3, 3, 1]
    after = next(s for s in policy.seen if s.t_s == 10.0 + EVERY_S)
    assert (after.groups[0].ready, after.groups[0].starting) == (3, 0)
    assert result.count(Outcome.FINISHED) == 240
    alone, _ = steered({})
    more_hours = result.accelerator_hours[0] - alone.accelerator_hours[0]
    assert more_hours == pytest.approx(2 * 20.0 / 3600, rel=0.1)  # paid from the order on


def test_no_more_replicas_than_there_is_room_for() -> None:
    result, _ = steered({10.0: wants(9, 2)})
    assert ready_at(result, 0, 30.0) == 4


def test_a_flipped_replica_serves_in_its_new_role() -> None:
    result, policy = steered({10.0: wants(flips=(Flip(from_group=1, to_group=0, replicas=1),))})
    assert [ready_at(result, 1, t) for t in (9.0, 20.0)] == [2, 1]
    assert [ready_at(result, 0, t) for t in (9.0, 20.0)] == [1, 2]
    assert sum(g.ready for g in policy.seen[-1].groups) == 3
    assert result.count(Outcome.FINISHED) == 240
