"""The compiled loop and the token-by-token reference agree to a microsecond."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.workload import PrefixBlocks, Workload
from planner.simulate import (
    Distance,
    Event,
    Incident,
    LinkClass,
    Place,
    ReplicaGroup,
    RouterPolicy,
    Scenario,
    SimulationResult,
    Topology,
    simulate,
)
from tests.fakes.profiles import linear_profile, with_limits
from tests.fakes.workloads import poisson_workload
from tests.planner.simulate.reference import Reference, columns, replay_token_by_token

FAST = linear_profile(decode_context_token_s=1e-7, first_token_s=0.003)
SLOW = linear_profile(profile_id="slow", speed=0.4, max_num_seqs=3, max_num_batched_tokens=256)
TIGHT = linear_profile(
    profile_id="tight", kv_capacity_tokens=1_500, max_num_batched_tokens=100, max_model_len=1_400
)

KNOTTED = replace(
    FAST,
    profile_id="knotted",
    prefill=replace(
        FAST.prefill,
        x=np.array([16.0, 100.0, 400.0, 900.0]),
        y=np.array([0.0, 200.0]),
        seconds=np.array([[0.01, 0.012], [0.02, 0.03], [0.05, 0.06], [0.2, 0.21]]),
    ),
    decode_step=replace(
        FAST.decode_step,
        x=np.array([1.0, 2.0, 5.0, 8.0]),
        y=np.array([64.0, 300.0, 700.0]),
        seconds=np.array(
            [[0.01, 0.012, 0.02], [0.011, 0.011, 0.03], [0.02, 0.03, 0.04], [0.03, 0.05, 0.06]]
        ),
    ),
)
FLAT = replace(
    FAST,
    profile_id="flat",
    decode_step=replace(
        FAST.decode_step,
        x=np.array([1.0, 16.0]),
        y=np.array([128.0]),
        seconds=np.array([[0.01], [0.02]]),
    ),
)


def ahead_and_late(profile: Profile) -> Profile:
    return with_limits(profile, async_scheduling=True, late_kv_notice=True)


FLEETS = {
    "late notice": (
        (FAST, Role.PREFILL, 2, 0.0),
        (with_limits(FAST, late_kv_notice=True), Role.DECODE, 2, 0.0),
    ),
    "composed ahead": (
        (ahead_and_late(FAST), Role.PREFILL, 2, 0.0),
        (ahead_and_late(FAST), Role.DECODE, 1, 0.0),
    ),
    "composed ahead, memory binds": (
        (ahead_and_late(FAST), Role.PREFILL, 1, 0.0),
        (ahead_and_late(TIGHT), Role.DECODE, 2, 0.0),
    ),
    "composed ahead, aggregated": (
        (ahead_and_late(FAST), Role.AGGREGATED, 1, 0.0),
        (ahead_and_late(TIGHT), Role.AGGREGATED, 1, 0.0),
    ),
    "tables with knots": ((KNOTTED, Role.PREFILL, 2, 0.0), (KNOTTED, Role.DECODE, 2, 0.0)),
    "knots, aggregated": ((KNOTTED, Role.AGGREGATED, 2, 0.0), (FLAT, Role.AGGREGATED, 1, 0.0)),
    "one measured context": ((FAST, Role.PREFILL, 1, 0.0), (FLAT, Role.DECODE, 2, 0.0)),
    "prefill of no use": (
        (FAST, Role.AGGREGATED, 1, 0.0),
        (FAST, Role.PREFILL, 1, 0.0),
        (FAST, Role.DECODE, 0, 0.0),
    ),
    "one prefill, one decode": ((FAST, Role.PREFILL, 1, 0.0), (FAST, Role.DECODE, 1, 0.0)),
    "pools": ((FAST, Role.PREFILL, 3, 0.0), (FAST, Role.DECODE, 2, 0.0)),
    "slots bind": ((FAST, Role.PREFILL, 2, 0.0), (SLOW, Role.DECODE, 2, 0.0)),
    "memory binds": ((FAST, Role.PREFILL, 1, 0.0), (TIGHT, Role.DECODE, 2, 0.0)),
    "mixed decode pools": (
        (FAST, Role.PREFILL, 2, 0.0),
        (FAST, Role.DECODE, 1, 0.0),
        (SLOW, Role.DECODE, 2, 1.5),
    ),
    "aggregated": ((FAST, Role.AGGREGATED, 2, 0.0),),
    "aggregated, small chunks": ((TIGHT, Role.AGGREGATED, 2, 0.0), (SLOW, Role.AGGREGATED, 1, 2.0)),
    "side by side": (
        (SLOW, Role.AGGREGATED, 2, 0.0),
        (FAST, Role.PREFILL, 1, 0.0),
        (FAST, Role.DECODE, 1, 1.0),
    ),
}


def scenario_of(fleet: str, *, rate_rps: float, requests: int, seed: int, router: RouterPolicy):
    groups = tuple(
        ReplicaGroup(profile=p, role=role, replicas=n, start_delay_s=delay)
        for p, role, n, delay in FLEETS[fleet]
    )
    workload = poisson_workload(
        requests=requests, rate_rps=rate_rps, osl=25, cached_ratio=0.3, seed=seed
    )
    return Scenario(groups=groups, workload=workload, router=router)


def assert_agree(scenario: Scenario) -> None:
    result, reference = simulate(scenario), replay_token_by_token(scenario)
    assert (result.stopped is not None) == reference.stopped
    expected = columns(reference)
    overhead_s = np.array([g.profile.first_token_s for g in scenario.groups])
    added_s = np.where(result.prompt_group >= 0, overhead_s[result.prompt_group], 0.0)
    start_s = scenario.workload.arrival_offset_s - added_s
    np.testing.assert_array_equal(result.outcome, expected["outcome"])
    close = {"atol": 1e-6, "rtol": 0}
    np.testing.assert_allclose(result.ttft_s, expected["first_token_s"] - start_s, **close)
    np.testing.assert_allclose(result.e2e_s, expected["finished_s"] - start_s, **close)
    for name in ("prompt_group", "decode_group", "preemptions", "cached_tokens"):
        np.testing.assert_array_equal(getattr(result, name), expected[name], err_msg=name)
    assert_same_gaps(result, reference)


def assert_same_gaps(result: SimulationResult, reference: Reference) -> None:
    gaps = np.concatenate([np.zeros(0), *(np.diff(r.token_s) for r in reference.requests)])
    assert int(result.gap_counts.sum()) == len(gaps)
    for level in (0.5, 0.95) if len(gaps) else ():
        expected = np.quantile(gaps, level, method="inverted_cdf")
        assert result.itl_quantile_s(level) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("fleet", FLEETS)
@pytest.mark.parametrize("router", RouterPolicy)
def test_every_token_falls_on_the_same_instant(fleet: str, router: RouterPolicy) -> None:
    assert_agree(scenario_of(fleet, rate_rps=12.0, requests=150, seed=1, router=router))


@settings(max_examples=60, deadline=None)
@given(
    fleet=st.sampled_from(sorted(FLEETS)),
    rate_rps=st.floats(0.5, 60.0),
    requests=st.integers(1, 60),
    seed=st.integers(0, 2**20),
    router=st.sampled_from(RouterPolicy),
)
def test_they_agree_on_any_small_workload(
    fleet: str, rate_rps: float, requests: int, seed: int, router: RouterPolicy
) -> None:
    assert_agree(scenario_of(fleet, rate_rps=rate_rps, requests=requests, seed=seed, router=router))


# With everything at once: prefixes, links, accidents, impatient clients

MIXED = (
    ReplicaGroup(profile=with_limits(FAST, kv_block_tokens=24), role=Role.PREFILL, replicas=2),
    ReplicaGroup(profile=TIGHT, role=Role.DECODE, replicas=2),
    ReplicaGroup(profile=FAST, role=Role.AGGREGATED, replicas=2, longest_prompt_tokens=600),
)
PLACES = ((0, 0), (0, 1), (1, 2), (1, 3))
LINKS = Topology(
    links={
        distance: LinkClass(
            base_s=0.001 * k, flow_bytes_per_s=4e7 / k, link_bytes_per_s=6e7 / k, source="tests"
        )
        for k, distance in enumerate(Distance, start=1)
    }
)


def placed(groups: tuple[ReplicaGroup, ...]) -> tuple[ReplicaGroup, ...]:
    """Every replica on the next place."""
    spots = itertools.cycle(Place(rack=rack, node=node) for rack, node in PLACES)
    return tuple(
        replace(group, places=tuple(itertools.islice(spots, group.replicas))) for group in groups
    )


def conversations(workload: Workload, rng: np.random.Generator, block_tokens: int) -> Workload:
    """Every prompt goes on from one of three beginnings."""
    full = workload.input_tokens // block_tokens
    talks = rng.integers(0, 3, len(workload))
    ids = [np.arange(n) + 1000 * talk for n, talk in zip(full, talks, strict=True)]
    blocks = PrefixBlocks(
        block_tokens=block_tokens,
        offsets=np.concatenate([[0], np.cumsum(full)]).astype(np.int64),
        block_ids=np.concatenate([np.zeros(0, dtype=np.int64), *ids]),
    )
    return replace(workload, prefix=blocks)


@st.composite
def incidents(draw: st.DrawFn, groups: tuple[ReplicaGroup, ...]) -> Event:
    group = draw(st.integers(0, len(groups) - 1))
    incident = draw(st.sampled_from(Incident))
    flips = [g for g in range(len(groups)) if g != group]
    return Event(
        at_s=draw(st.floats(0.0, 4.0)),
        incident=incident,
        group=group,
        replica=draw(st.integers(0, groups[group].replicas - 1)),
        notice_s=draw(st.floats(0.0, 0.5)),
        restarts=draw(st.booleans()),
        to_group=draw(st.sampled_from(flips)) if incident is Incident.FLIP else -1,
    )


@st.composite
def eventful(draw: st.DrawFn) -> Scenario:
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    workload = poisson_workload(
        requests=draw(st.integers(1, 60)),
        rate_rps=draw(st.floats(1.0, 60.0)),
        osl=25,
        cached_ratio=0.3,
        seed=draw(st.integers(0, 2**20)),
    )
    if draw(st.booleans()):
        workload = conversations(workload, rng, draw(st.sampled_from([16, 48, 128])))
    patience_s = draw(st.sampled_from([None, 0.3, 2.0]))
    groups = tuple(replace(g, start_s=0.7) for g in MIXED)
    ahead, late = draw(st.booleans()), draw(st.booleans())
    groups = tuple(
        replace(g, profile=with_limits(g.profile, async_scheduling=ahead, late_kv_notice=late))
        for g in groups
    )
    topology = draw(st.sampled_from([None, LINKS]))
    return Scenario(
        groups=groups if topology is None else placed(groups),
        workload=workload,
        router=draw(st.sampled_from(RouterPolicy)),
        topology=topology,
        prefix_cache=draw(st.booleans()),
        local_prefill_tokens=draw(st.sampled_from([0, 200])),
        early_rejection_s=draw(st.sampled_from([float("inf"), 0.4])),
        patience_s=(
            None if patience_s is None else rng.exponential(patience_s, len(workload)) + 1e-3
        ),
        events=tuple(draw(st.lists(incidents(groups), max_size=4, unique_by=lambda e: e.at_s))),
        unstable_wait_s=draw(st.sampled_from([float("inf"), 0.5])),
    )


@settings(max_examples=100, deadline=None)
@given(scenario=eventful())
def test_they_agree_whatever_happens(scenario: Scenario) -> None:
    assert_agree(scenario)


def test_of_clients_that_leave_in_one_step_the_earlier_one_gives_back_first() -> None:
    # The blocks of the first are older then, so the third's prompt takes their room, not those of
    # the second; the fourth repeats the first's prompt.
    profile = linear_profile(kv_capacity_tokens=1_500)
    talks, full = np.array([0, 100, 200, 0]), np.array([5, 5, 25, 5])
    workload = replace(
        poisson_workload(requests=4, rate_rps=1.0),
        arrival_offset_s=np.array([0.0, 0.001, 0.3, 0.8]),
        input_tokens=np.array([245, 245, 1_210, 245]),
        output_tokens=np.array([60, 20, 1, 5]),
        cached_tokens=np.zeros(4, dtype=np.int64),
        prefix=PrefixBlocks(
            block_tokens=48,
            offsets=np.concatenate([[0], np.cumsum(full)]),
            block_ids=np.concatenate([t + np.arange(n) for t, n in zip(talks, full, strict=True)]),
        ),
    )
    group = ReplicaGroup(profile=profile, role=Role.AGGREGATED, replicas=1)
    leave_s = np.array([0.2, 0.2, np.inf, np.inf])
    scenario = Scenario(
        groups=(group,), workload=workload, patience_s=leave_s - workload.arrival_offset_s
    )
    assert_agree(scenario)
    assert simulate(scenario).cached_tokens[3] < 240
