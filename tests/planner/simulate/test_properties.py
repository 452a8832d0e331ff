"""What must hold in any deployment: nobody is lost, memory is bounded, load never helps."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.domain.fleet import Role
from planner.domain.profile import Profile, TransferTime
from planner.domain.workload import PrefixBlocks, Workload
from planner.simulate import (
    Distance,
    Event,
    Incident,
    LinkClass,
    Outcome,
    Place,
    ReplicaGroup,
    RouterPolicy,
    Scenario,
    SimulationResult,
    Topology,
    simulate,
)
from planner.simulate.layout import lay_out
from planner.simulate.machine.loop import run
from planner.simulate.state import NOBODY, UNDER_WAY, Twin
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import poisson_workload
from tests.planner.simulate.textbook import engine, pair

PLAIN = linear_profile(start_cold_s=1.0, flip_s=0.5)
TIGHT = linear_profile(kv_capacity_tokens=1_500, max_num_batched_tokens=100, start_cold_s=0.3)
NARROW = linear_profile(max_num_seqs=3, speed=0.5, max_model_len=1_000, flip_s=0.0)

FLEETS = (
    ((PLAIN, Role.PREFILL, 2), (PLAIN, Role.DECODE, 2)),
    ((NARROW, Role.PREFILL, 1), (TIGHT, Role.DECODE, 2)),
    ((TIGHT, Role.AGGREGATED, 2), (NARROW, Role.AGGREGATED, 1)),
    ((TIGHT, Role.AGGREGATED, 1), (PLAIN, Role.PREFILL, 1), (NARROW, Role.DECODE, 1)),
)
PLACES = (Place(rack=0, node=0), Place(rack=0, node=1), Place(rack=1, node=2))
LINKS = Topology(
    links={
        distance: LinkClass(
            base_s=base_s, flow_bytes_per_s=2e7, link_bytes_per_s=rate, source="tests"
        )
        for distance, base_s, rate in zip(Distance, (0.0, 1e-3, 5e-3), (1e8, 3e7, 1e7), strict=True)
    }
)


def prefixes_of(workload: Workload, block_tokens: int, seed: int) -> PrefixBlocks:
    """Each prompt begins like one of three others for some blocks, then goes on alone."""
    rng = np.random.default_rng(seed)
    full = workload.input_tokens // block_tokens
    common = np.minimum(rng.integers(0, 8, len(workload)), full)
    root = rng.integers(0, 3, len(workload))
    offsets = np.concatenate([[0], np.cumsum(full)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], full)
    alone = 100 + np.arange(offsets[-1])
    shared = np.repeat(root, full) * 20 + within
    return PrefixBlocks(
        block_tokens=block_tokens,
        offsets=offsets,
        block_ids=np.where(within < np.repeat(common, full), shared, alone),
    )


def events_of(draw: st.DrawFn, groups: tuple[ReplicaGroup, ...], end_s: float) -> list[Event]:
    events = []
    for _ in range(draw(st.integers(0, 4))):
        g = draw(st.integers(0, len(groups) - 1))
        events.append(
            Event(
                at_s=draw(st.floats(0, end_s)),
                incident=draw(st.sampled_from(Incident)),
                group=g,
                replica=draw(st.integers(0, groups[g].room - 1)),
                notice_s=draw(st.floats(0, 2.0)),
                restarts=draw(st.booleans()),
                to_group=draw(st.integers(0, len(groups) - 1)),
            )
        )
    return events


@st.composite
def worlds(draw: st.DrawFn, *, accidents: bool) -> Scenario:
    """A small deployment under anything that can happen to it; accidents or none."""
    topology = draw(st.sampled_from([None, LINKS]))
    groups = tuple(
        ReplicaGroup(
            profile=profile,
            role=role,
            replicas=count,
            most_replicas=count,
            places=tuple(draw(st.sampled_from(PLACES)) for _ in range(count)) if topology else (),
        )
        for profile, role, count in draw(st.sampled_from(FLEETS))
    )
    seed = draw(st.integers(0, 2**20))
    workload = poisson_workload(
        requests=draw(st.integers(1, 120)),
        rate_rps=draw(st.floats(1.0, 200.0)),
        isl=draw(st.floats(20.0, 600.0)),
        osl=draw(st.floats(1.0, 80.0)),
        cached_ratio=draw(st.sampled_from([0.0, 0.5])),
        seed=seed,
    )
    block_tokens = draw(st.sampled_from([0, 16, 48]))
    if block_tokens:
        workload = replace(workload, prefix=prefixes_of(workload, block_tokens, seed))
    rng = np.random.default_rng(seed)
    return Scenario(
        groups=groups,
        workload=workload,
        router=draw(st.sampled_from(RouterPolicy)),
        topology=topology,
        local_prefill_tokens=draw(st.sampled_from([0, 150])),
        early_rejection_s=draw(st.sampled_from([float("inf"), 0.5])),
        patience_s=(
            rng.exponential(draw(st.sampled_from([0.05, 2.0])), len(workload))
            if accidents and draw(st.booleans())
            else None
        ),
        events=tuple(events_of(draw, groups, 2 * workload.duration_s)) if accidents else (),
        unstable_wait_s=draw(st.sampled_from([float("inf"), 0.5])),
    )


def instants(scenario: Scenario) -> Iterator[Twin]:
    """The twin after each instant at which anything happens."""
    twin = lay_out(scenario)
    next_s = run(twin, -1.0)
    while next_s < np.inf and twin.clock.stopped_by[0] == NOBODY:
        next_s = run(twin, next_s)
        yield twin


@given(scenario=worlds(accidents=True))
@settings(max_examples=150, deadline=None)
def test_every_arrival_has_exactly_one_end_or_is_in_flight(scenario: Scenario) -> None:
    result = simulate(scenario)
    counts = {outcome: result.count(outcome) for outcome in Outcome}
    not_arrived = counts.pop(Outcome.NOT_ARRIVED)
    assert result.requests == sum(counts.values()) == len(scenario.workload) - not_arrived
    if result.stopped is None:
        assert not_arrived == counts[Outcome.IN_FLIGHT] == 0
    finished = result.outcome == Outcome.FINISHED
    np.testing.assert_array_equal(np.isfinite(result.e2e_s), finished)
    assert np.all(result.e2e_s[finished] >= result.ttft_s[finished])


@given(scenario=worlds(accidents=True))
@settings(max_examples=100, deadline=None)
def test_kv_never_exceeds_capacity_whatever_happens(scenario: Scenario) -> None:
    result = simulate(scenario)
    assert all(0 <= peak <= 1 for peak in result.kv_peak_ratio)
    assert result.series.kv_usage_ratio.max(initial=0) <= 1
    assert result.series.kv_usage_ratio.min(initial=0) >= 0
    if result.stopped is None:
        assert not result.series.kv_usage_ratio[:, -1].any()


@given(scenario=worlds(accidents=False))
@settings(max_examples=60, deadline=None)
def test_at_every_instant_memory_and_slots_suffice_and_everybody_is_somewhere(
    scenario: Scenario,
) -> None:
    for twin in instants(scenario):
        workers, groups = twin.workers, twin.groups
        assert np.all(workers.kv_used >= 0)
        assert np.all(workers.kv_kept >= 0)
        assert np.all(workers.kv_used + workers.kv_kept <= groups.kv_blocks[workers.group])
        assert np.all(workers.running <= workers.slots_used)
        assert np.all(workers.slots_used <= groups.slots[workers.group])
        under_way = twin.records.end[: int(twin.clock.arrived[0])] == UNDER_WAY
        assert int(workers.present.sum()) == int(under_way.sum())


def test_memory_is_in_use_to_the_last_block_in_these_worlds() -> None:
    groups = tuple(ReplicaGroup(profile=p, role=r, replicas=n) for p, r, n in FLEETS[1])
    workload = poisson_workload(requests=200, rate_rps=50.0, isl=200, osl=80)
    result = simulate(Scenario(groups=groups, workload=workload))
    assert result.kv_peak_ratio[1] > 0.98
    assert result.preemptions.sum() > 0


# "More load never lowers latency" holds request by request where requests are served first come
# first served (Lindley 1952 for one server, Kiefer and Wolfowitz 1955 for several with one line).
# It does not for routed fleets or batches: one request more may send another elsewhere. There the
# mean is held to it, within 2 %, in `test_twin.py`.

SINGLE = pair(engine(slots=1, prompt_s=1000.0), 1, engine(slots=64))  # 1 ms a prompt token
IN_TURN = pair(engine(slots=1, prompt_s=1000.0), 3, engine(slots=64))
SLOTS = pair(engine(slots=1), 1, engine(slots=3, step_s=1e-3))
STEPS_S = 0.1  # a hundred steps: joining at a step's end may cost each start of a busy period two


def prompts_only(seed: int, requests: int = 150, rate_rps: float = 1.5) -> Workload:
    workload = poisson_workload(requests=requests, rate_rps=rate_rps, isl=500, seed=seed)
    return replace(workload, output_tokens=np.ones(requests, dtype=np.int64))


def compressed(workload: Workload, factor: float) -> Workload:
    return replace(
        workload,
        arrival_offset_s=workload.arrival_offset_s / factor,
        duration_s=workload.duration_s / factor,
    )


def waits_s(groups: tuple[ReplicaGroup, ...], workload: Workload) -> np.ndarray:
    scenario = Scenario(groups=groups, workload=workload, router=RouterPolicy.ROUND_ROBIN)
    result = simulate(scenario)
    if groups is SLOTS:
        return result.decode_started_s - result.prompt_done_s
    return result.prompt_started_s - result.arrival_s


@pytest.mark.parametrize("groups", [SINGLE, IN_TURN], ids=["one replica", "three in turn"])
@given(seed=st.integers(0, 2**20), factor=st.floats(1.0, 10.0))
@settings(max_examples=30, deadline=None)
def test_faster_arrivals_never_shorten_any_wait(
    groups: tuple[ReplicaGroup, ...], seed: int, factor: float
) -> None:
    workload = prompts_only(seed)
    longer_s = waits_s(groups, compressed(workload, factor))
    assert np.all(longer_s >= waits_s(groups, workload) - 1e-6)


@given(seed=st.integers(0, 2**20), factor=st.floats(1.0, 10.0))
@settings(max_examples=30, deadline=None)
def test_faster_arrivals_never_shorten_any_wait_for_a_slot(seed: int, factor: float) -> None:
    workload = poisson_workload(requests=150, rate_rps=4.0, isl=1, osl=500, seed=seed)
    longer_s = waits_s(SLOTS, compressed(workload, factor))
    assert np.all(longer_s >= waits_s(SLOTS, workload) - STEPS_S)


@given(seed=st.integers(0, 2**20), more=st.floats(1.0, 3.0))
@settings(max_examples=30, deadline=None)
def test_longer_prompts_never_shorten_any_wait(seed: int, more: float) -> None:
    workload = prompts_only(seed)
    tokens = np.ceil(workload.input_tokens * more).astype(np.int64)
    longer_s = waits_s(SINGLE, replace(workload, input_tokens=tokens))
    assert np.all(longer_s >= waits_s(SINGLE, workload) - 1e-6)


@given(seed=st.integers(0, 2**20), kept_ratio=st.floats(0.1, 0.9))
@settings(max_examples=30, deadline=None)
def test_more_requests_never_shorten_the_waits_of_the_others(seed: int, kept_ratio: float) -> None:
    workload = prompts_only(seed)
    those = np.flatnonzero(np.random.default_rng(seed).random(len(workload)) < kept_ratio)
    fewer = Workload(
        start_at=workload.start_at,
        arrival_offset_s=workload.arrival_offset_s[those],
        input_tokens=workload.input_tokens[those],
        output_tokens=workload.output_tokens[those],
        cached_tokens=workload.cached_tokens[those],
        request_class=workload.request_class[those],
        duration_s=workload.duration_s,
    )
    assert np.all(waits_s(SINGLE, workload)[those] >= waits_s(SINGLE, fewer) - 1e-6)


@given(seed=st.integers(0, 2**20), overload=st.floats(1.5, 20.0))
@settings(max_examples=20, deadline=None)
def test_an_overloaded_twin_stops_and_says_when_and_where(seed: int, overload: float) -> None:
    workload = prompts_only(seed, requests=2_000, rate_rps=2 * overload)
    result = simulate(Scenario(groups=SINGLE, workload=workload, unstable_wait_s=5.0))
    assert result.stopped is not None
    assert 5.0 <= result.stopped.at_s == result.end_s < workload.duration_s
    assert "group 0 (prefill)" in result.stopped.reason
    assert "5 s" in result.stopped.reason
    assert result.count(Outcome.NOT_ARRIVED) > 0
    assert result.count(Outcome.IN_FLIGHT) > 0


def test_a_wait_for_the_prompt_is_not_held_against_the_decode_pool() -> None:
    # Alone in the decode line, 9 s after its arrival and 6 s in the prefill line: not stuck.
    workload = poisson_workload(requests=3, rate_rps=1e3, isl=3_000, osl=5, lengths="constant")
    result = simulate(Scenario(groups=SINGLE, workload=workload, unstable_wait_s=7.0))
    assert result.stopped is None
    assert result.finished_requests == 3


def test_a_deployment_with_room_is_not_stopped() -> None:
    workload = prompts_only(1, requests=2_000, rate_rps=1.0)
    result = simulate(Scenario(groups=SINGLE, workload=workload, unstable_wait_s=60.0))
    assert result.stopped is None
    assert result.finished_requests == 2_000


def lengths(workload: Workload, request: int, **tokens: int) -> Workload:
    """The workload with one request's lengths changed."""
    columns = {name: getattr(workload, name).copy() for name in tokens}
    for name, value in tokens.items():
        columns[name][request] = value
    return replace(workload, **columns)


def outcome_of(profile: Profile, workload: Workload) -> SimulationResult:
    group = ReplicaGroup(profile=profile, role=Role.AGGREGATED, replicas=1)
    return simulate(Scenario(groups=(group,), workload=workload))


def test_the_request_beyond_the_profile_is_the_one_that_is_flagged() -> None:
    workload = poisson_workload(requests=9, rate_rps=1.0, isl=100, osl=5, lengths="constant")
    profile = linear_profile(max_prompt_tokens=1_000)
    assert outcome_of(profile, workload).extrapolated_requests == 0
    beyond = outcome_of(profile, lengths(workload, 4, input_tokens=1_001))
    assert (beyond.extrapolated_requests, beyond.finished_requests) == (1, 9)


@pytest.mark.parametrize("tokens", [{"input_tokens": 1_600}, {"output_tokens": 1_600}])
def test_the_request_that_no_kv_cache_can_hold_is_the_one_rejected(tokens: dict[str, int]) -> None:
    workload = poisson_workload(requests=9, rate_rps=1.0, isl=100, osl=5, lengths="constant")
    result = outcome_of(TIGHT, lengths(workload, 4, **tokens))
    assert np.flatnonzero(result.outcome == Outcome.REJECTED).tolist() == [4]
    assert result.finished_requests == 8


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, float("nan")])
def test_a_path_without_bandwidth_is_refused_by_name(bandwidth: float) -> None:
    with pytest.raises(ValueError, match="bandwidth_bytes_per_s"):
        TransferTime(base_s=0.0, bandwidth_bytes_per_s=bandwidth)
    for name in ("flow_bytes_per_s", "link_bytes_per_s"):
        with pytest.raises(ValueError, match=name):
            replace(LINKS.links[Distance.SAME_RACK], **{name: bandwidth})


def test_a_trace_out_of_order_is_refused_by_name() -> None:
    workload = poisson_workload(requests=3, rate_rps=1.0)
    with pytest.raises(ValueError, match="arrival_offset_s must not decrease"):
        replace(workload, arrival_offset_s=workload.arrival_offset_s[[0, 2, 1]])


@pytest.mark.parametrize("arrival_s", [float("nan"), float("inf")])
def test_an_arrival_at_no_instant_is_refused_by_name(arrival_s: float) -> None:
    workload = poisson_workload(requests=3, rate_rps=1.0)
    broken = workload.arrival_offset_s.copy()
    broken[-1] = arrival_s
    with pytest.raises(ValueError, match="arrival_offset_s"):
        replace(workload, arrival_offset_s=broken, duration_s=1e9)


def test_a_topology_that_lacks_a_distance_is_refused_by_name() -> None:
    links = {d: link for d, link in LINKS.links.items() if d is not Distance.CROSS_RACK}
    with pytest.raises(ValueError, match="cross_rack"):
        Topology(links=links)
