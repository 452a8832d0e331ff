"""What the twin refuses before it starts, or stops at, by name."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.profile import TransferTime
from planner.domain.topology import Place
from planner.simulate import Event, Flip, Incident, ReplicaGroup, Scenario, Targets, simulate
from planner.simulate.state import MOST_SAMPLES
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import poisson_workload

NAN, INF = float("nan"), float("inf")
GROUP = ReplicaGroup(profile=linear_profile(), role=Role.AGGREGATED, replicas=1)
WORKLOAD = poisson_workload(requests=40, rate_rps=5.0)


@dataclass(frozen=True)
class Says:
    """A policy that says one thing at 1 s."""

    targets: Targets
    first_tick_s: float = 1.0

    def on_tick(self, _seen: object) -> Targets:
        return self.targets


def targets(**changes) -> Targets:
    return Targets(**{"replicas": None, "next_tick_s": INF, **changes})


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (targets(replicas=(1, 2)), "replicas of 2 groups, not of 1"),
        (targets(replicas=()), "replicas of 0 groups"),
        (targets(replicas=(-1,)), "-1 replicas"),
        (targets(next_tick_s=NAN), "next tick"),
        (targets(flips=(Flip(from_group=0, to_group=7, replicas=1),)), "to group 7 of 1"),
        (targets(flips=(Flip(from_group=0, to_group=-1, replicas=1),)), "to group -1 of 1"),
        (targets(flips=(Flip(from_group=3, to_group=0, replicas=1),)), "from group 3 of 1"),
        (targets(flips=(Flip(from_group=0, to_group=0, replicas=-2),)), "flips -2 replicas"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(said: Targets, why: str) -> None:
    with pytest.raises(InputError, match=why):
        simulate(Scenario(groups=(GROUP,), workload=WORKLOAD, policy=Says(said)))


def test_a_policy_cannot_turn_one_accelerator_into_another() -> None:
    other = ReplicaGroup(
        profile=linear_profile(accelerator="h100"), role=Role.AGGREGATED, replicas=1
    )
    flip = targets(flips=(Flip(from_group=0, to_group=1, replicas=1),))
    with pytest.raises(InputError, match=r"would turn .*cpu.* into .*h100"):
        simulate(Scenario(groups=(GROUP, other), workload=WORKLOAD, policy=Says(flip)))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"patience_s": np.full(40, NAN)}, "patience_s"),
        ({"early_rejection_s": NAN}, "early_rejection_s"),
        ({"unstable_wait_s": NAN}, "unstable_wait_s"),
        ({"unstable_wait_s": 0.0}, "unstable_wait_s"),
        ({"local_prefill_tokens": -1}, "local_prefill_tokens"),
        (
            {
                "events": (
                    Event(at_s=1.0, incident=Incident.RECLAIM, group=0, replica=0, notice_s=NAN),
                )
            },
            "notice",
        ),
    ],
)
def test_a_circumstance_that_is_no_number_is_refused(wrong: dict, why: str) -> None:
    with pytest.raises(InputError, match=why):
        Scenario(groups=(GROUP,), workload=WORKLOAD, **wrong)


def test_two_models_are_not_one_scenario() -> None:
    other = replace(GROUP, profile=linear_profile(model="other"))
    with pytest.raises(InputError, match="other, tiny"):
        Scenario(groups=(GROUP, other), workload=WORKLOAD)


def test_a_profile_serves_in_the_roles_that_it_was_measured_in() -> None:
    with pytest.raises(ValueError, match="measured as prefill, not as aggregated"):
        replace(GROUP, profile=linear_profile(roles=(Role.PREFILL,)))


@pytest.mark.parametrize("base_s", [NAN, INF, -1.0])
def test_a_transfer_takes_a_finite_time(base_s: float) -> None:
    with pytest.raises(ValueError, match="base_s"):
        TransferTime(base_s=base_s, bandwidth_bytes_per_s=1e9)


def test_negative_kv_caches_and_endless_overheads_are_refused() -> None:
    with pytest.raises(ValueError, match="kv_bytes_per_token"):
        linear_profile(kv_bytes_per_token=-1e6)
    with pytest.raises(ValueError, match="first_token_s"):
        linear_profile(first_token_s=INF)


@pytest.mark.parametrize("place", [{"rack": -1}, {"node": 10**7}])
def test_places_are_numbered_one_after_another(place: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="number them"):
        Place(**place)


def burst(requests: int):
    """All at once."""
    workload = poisson_workload(requests=requests, rate_rps=100.0)
    return replace(workload, arrival_offset_s=np.zeros(requests), duration_s=1e-6)


def test_a_burst_that_takes_too_long_is_stopped_though_nobody_comes_any_more() -> None:
    result = simulate(Scenario(groups=(GROUP,), workload=burst(3_000), unstable_wait_s=20.0))
    assert result.stopped is not None
    assert "has waited 20 s" in result.stopped.reason
    assert result.stopped.at_s == pytest.approx(20.0, rel=0.1)


def test_a_long_end_is_sampled_no_more_often_than_a_person_can_see() -> None:
    result = simulate(Scenario(groups=(GROUP,), workload=burst(3_000)))
    assert result.stopped is None
    assert 100 < len(result.series.t_s) <= MOST_SAMPLES
    assert np.all(np.diff(result.series.t_s) > 0)
