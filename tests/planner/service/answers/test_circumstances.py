"""Circumstances fit the pools that they name, or say how they do not."""

import math
from dataclasses import replace
from datetime import timedelta

import pytest
import yaml

from planner.domain.errors import InputError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import TrafficShare
from planner.service.answers.circumstances import Replicas, replicas_of_plan, scenario_of
from planner.service.documents.circumstances import (
    CircumstancesDocument,
    read_events,
    read_topology,
)
from planner.service.spec.file import read_spec
from planner.simulate import Incident, Place
from tests.fakes.workloads import poisson_workload
from tests.planner.service.examples import write_spec
from tests.planner.service.plans import example_plan

LINK = {"base_s": 0.001, "flow_bytes_per_s": 1e9, "link_bytes_per_s": 2e9, "source": "a test"}
LINKS = {"same_node": LINK, "same_rack": LINK, "cross_rack": LINK}
REQUESTS = poisson_workload(requests=3, rate_rps=1.0)


@pytest.fixture
def spec(tmp_path):
    return read_spec(write_spec(tmp_path))


def replicas(role, count, **more):
    shape = ReplicaShape(role=Role(role), model="tiny", accelerator="cpu", **more)
    return Replicas(shape=shape, replicas=count)


POOLS = (replicas("prefill", 2), replicas("decode", 3))


def scenario(spec, pools=POOLS, **circumstances):
    asked = CircumstancesDocument.model_validate(circumstances)
    return scenario_of(spec, pools, REQUESTS, asked)


def refused(spec, pools=POOLS, **circumstances):
    with pytest.raises(InputError) as said:
        scenario(spec, pools, **circumstances)
    return str(said.value)


def event(**change):
    return {"at_s": 3, "incident": "fail", "pool": 0, "replica": 0, **change}


def test_groups_are_the_pools_in_order_with_profile_and_price(spec):
    made = scenario(spec)
    assert [(g.role, g.replicas, g.usd_per_gpu_hour) for g in made.groups] == [
        (Role.PREFILL, 2, 1.0),
        (Role.DECODE, 3, 1.0),
    ]
    assert (made.early_rejection_s, made.topology, made.patience_s) == (math.inf, None, None)


def test_pools_are_named_by_number_by_number_in_quotes_or_by_label(spec):
    names = [1, "1", "decode:cpu:tp1"]
    made = scenario(spec, events=[event(pool=name, replica=2) for name in names])
    assert [(e.group, e.replica) for e in made.events] == [(1, 2)] * 3


def test_every_incident_comes_through_with_its_own_details(spec):
    events = [
        event(restarts=False),
        event(incident="reclaim"),
        event(incident="reclaim", notice_s=7),
        event(incident="flip", to_pool="decode:cpu:tp1"),
        event(incident="drain"),
    ]
    fail, usual, short, flip, drain = scenario(spec, events=events).events
    assert (fail.restarts, usual.notice_s, short.notice_s, flip.to_group) == (False, 120.0, 7.0, 1)
    assert drain.incident is Incident.DRAIN


def test_replicas_stand_where_the_topology_puts_them_and_else_on_one_node(spec):
    places = [{"rack": 1, "node": 4}, {"rack": 2, "node": 5, "replicas": 2}]
    made = scenario(spec, topology={"links": LINKS, "pools": [{"pool": 1, "places": places}]})
    assert made.groups[0].places == ()
    assert made.groups[1].places == (
        Place(rack=1, node=4),
        Place(rack=2, node=5),
        Place(rack=2, node=5),
    )
    assert made.topology is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pool": 2}, "names pool 2; the pools are 0 (prefill:cpu:tp1), 1 (decode:cpu:tp1)"),
        ({"pool": -1}, "names pool -1; the pools are"),
        ({"pool": "decod:cpu:tp1"}, "did you mean `decode:cpu:tp1`?"),
        ({"replica": 2}, "names replica 2 of pool prefill:cpu:tp1, which has replicas 0 to 1"),
        ({"incident": "flip", "to_pool": 0}, "flips to the pool prefill:cpu:tp1 that it comes"),
        ({"incident": "flip", "to_pool": 9}, "the flip at 3 s names pool 9"),
    ],
)
def test_an_event_that_does_not_fit_says_where(spec, change, said):
    assert said in refused(spec, events=[event(**change)])


def test_an_empty_pool_has_no_replica_to_lose(spec):
    pools = (*POOLS, replicas("aggregated", 0))
    assert "which has no replica" in refused(spec, pools, events=[event(pool=2)])


def test_a_label_of_two_pools_is_ambiguous(spec):
    pools = (*POOLS, replicas("decode", 1))
    said = refused(spec, pools, events=[event(pool="decode:cpu:tp1")])
    assert "of which there are several: 0 (prefill:cpu:tp1), 1 (decode" in said


def test_a_flip_never_changes_the_accelerators(tmp_path):
    accelerators = [
        {"name": name, "per_node": 8, "inventory": 8, "usd_per_gpu_hour": {"on_demand": 1.0}}
        for name in ("cpu", "h100")
    ]
    path = write_spec(
        tmp_path,
        accelerators=accelerators,
        pools=[
            {"model": "tiny", "role": "prefill", "accelerator": "cpu"},
            {"model": "tiny", "role": "decode", "accelerator": "cpu"},
            {"model": "tiny", "role": "decode", "accelerator": "h100"},
        ],
    )
    spec = read_spec(path, allow_estimates=True)
    shape = ReplicaShape(role=Role.DECODE, model="tiny", accelerator="h100")
    pools = (*POOLS, Replicas(shape=shape, replicas=1))
    flip = event(incident="flip", to_pool=2)
    assert "a flip changes the role, never the accelerators" in refused(spec, pools, events=[flip])


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([{"node": 0, "replicas": 3}], "places 3 replicas of pool prefill:cpu:tp1, which has 2"),
        ([{"node": 0}, {"node": 0, "rack": 1}], "node 0 in rack 0 and in rack 1"),
    ],
)
def test_a_topology_that_does_not_fit_says_where(spec, places, said):
    pools = [{"pool": 0, "places": places}]
    assert said in refused(spec, topology={"links": LINKS, "pools": pools})


def test_a_pool_is_placed_once(spec):
    pools = [{"pool": name, "places": [{"node": 0, "replicas": 2}]} for name in (0, "0")]
    said = refused(spec, topology={"links": LINKS, "pools": pools})
    assert "places pool prefill:cpu:tp1 twice" in said


def test_a_node_holds_no_more_accelerators_than_it_has(spec):
    pools = (replicas("prefill", 5), replicas("decode", 4))
    entries = [
        {"pool": n, "places": [{"node": 7, "replicas": pool.replicas}]}
        for n, pool in enumerate(pools)
    ]
    said = refused(spec, pools, topology={"links": LINKS, "pools": entries})
    assert "puts 9 cpu on node 7; the spec has 8 per node" in said


def test_longest_prompts_are_for_the_router_by_length_and_one_per_pool(spec):
    longest = [{"pool": 0, "tokens": 100}]
    made = scenario(spec, router="by_length", longest_prompts=longest)
    assert made.groups[0].longest_prompt_tokens == 100
    assert "the router is least_loaded" in refused(spec, longest_prompts=longest)
    twice = [*longest, {"pool": "prefill:cpu:tp1", "tokens": 5}]
    assert "two longest prompts" in refused(spec, router="by_length", longest_prompts=twice)


def test_what_cannot_serve_or_was_never_measured_is_refused(spec):
    assert "nothing can serve" in refused(spec, (replicas("prefill", 2), replicas("decode", 0)))
    assert "poolwise profile run" in refused(spec, (replicas("prefill", 1, tp=4), *POOLS))


def test_more_replicas_than_the_twin_can_hold_are_refused(spec):
    said = refused(spec, (replicas("prefill", 10**6), replicas("decode", 1)))
    assert "1,000,001 replicas" in said


def patience_of(spec, circumstances):
    return scenario_of(spec, POOLS, REQUESTS, circumstances).patience_s


def test_patience_that_was_not_given_never_ends(spec):
    assert patience_of(spec, CircumstancesDocument()) is None
    assert patience_of(spec, CircumstancesDocument(patience_s=3)) == 3.0


def test_a_plan_has_no_more_windows_than_it_has():
    assert [r.replicas for r in replicas_of_plan(example_plan(prefill=2, decode=1))] == [2, 1]
    with pytest.raises(InputError, match="windows 0 to"):
        replicas_of_plan(example_plan(), window=99)


def written(folder, text):
    path = folder / "given.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False))
    return path


def test_a_topology_and_events_are_read_from_files(tmp_path):
    topology = read_topology(written(tmp_path, {"links": LINKS}))
    assert topology.links.same_rack.link_bytes_per_s == 2e9
    assert topology.pools == []
    (only,) = read_events(written(tmp_path, {"events": [event(at_s=2.5)]}))
    assert timedelta(seconds=only.at_s) == timedelta(seconds=2.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"flow_bytes_per_s": 0}, "flow_bytes_per_s: input should be greater than 0, got 0"),
        ({"link_bytes_per_s": -1}, "link_bytes_per_s: input should be greater than 0"),
        ({"flow_bytes_per_s": float("inf")}, "finite"),
        ({"base_s": float("nan")}, "finite"),
        ({"base_s": -1}, "greater than or equal to 0"),
        ({"source": ""}, "at least 1 character"),
        ({"base_ms": 3}, "write `base_s` and divide the value by 1000"),
    ],
)
def test_a_link_that_is_none_is_refused_with_its_line(tmp_path, change, said):
    path = written(tmp_path, {"links": {**LINKS, "same_rack": {**LINK, **change}}})
    with pytest.raises(InputError) as refusal:
        read_topology(path)
    first = str(refusal.value).splitlines()[0]
    assert first.startswith(f"{path}:")
    assert said in first


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([event(incident="melt")], ":3: events[0].incident: input should be 'fail'"),
        ([event(notice_s=3)], "notice_s is for incident reclaim, not fail"),
        ([event(incident="flip")], "a flip needs to_pool"),
        ([event(at_s=-1)], "events[0].at_s"),
        ([{**event(), "replika": 1}], "did you mean `replica`?"),
        ("none", "events: input should be a list"),
    ],
)
def test_an_event_in_a_file_that_is_none_is_refused_with_its_line(tmp_path, events, said):
    path = written(tmp_path, {"events": events})
    with pytest.raises(InputError) as refusal:
        read_events(path)
    assert said in str(refusal.value)
    assert str(refusal.value).startswith(f"{path}:")


def test_a_file_that_is_missing_or_no_yaml_says_where_the_form_is_described(tmp_path):
    with pytest.raises(InputError, match=r"docs/simulate\.md"):
        read_topology(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="not YAML"):
        read_events(written(tmp_path, "events: ["))


def test_a_plan_that_sends_requests_apart_is_replayed_so(spec) -> None:
    """Its pools carry their shares; streams that only one pool gets go there alone."""
    shapes = [pool.shape for pool in POOLS]
    parts = tuple(
        TrafficShare(
            request_class="",
            above_tokens=above,
            most_tokens=most,
            shape=shapes[0],
            purchase_option=PurchaseOption.ON_DEMAND,
            share_ratio=share,
        )
        for above, most, share in ((0, 1000, 0.25), (1000, None, 1.0))
    )
    pools = (replace(POOLS[0], traffic=parts), *POOLS[1:])
    routes = scenario_of(spec, pools, REQUESTS).routes
    assert [(r.above_tokens, r.most_tokens) for r in routes] == [(0, 1000), (1000, None)]
    assert [r.shares[0] for r in routes] == [0.25, 1.0]
    assert all(share == 0.0 for r in routes for share in r.shares[1:])
    assert scenario_of(spec, POOLS, REQUESTS).routes == ()
