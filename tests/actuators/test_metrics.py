"""The exported counts, as Prometheus reads them, and the manifests that follow them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from actuators.actuator import carry_out
from actuators.autoscaler_manifests import Scaled, hpa, keda, keda_push, scaled_pools
from actuators.dry_run import DryRunActuator
from actuators.kinds import KINDS
from actuators.metrics import DesiredReplicas, MetricsActuator
from planner.domain.errors import ApplyError, InputError
from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role
from planner.domain.rollout import StepKind
from planner.domain.spec import PoolBounds
from planner.domain.target import CountTarget
from tests.actuators.steps import diff_of
from tests.kubernetes import FakeCluster

DECODE = ReplicaShape(role=Role.DECODE, model="m", accelerator="h100", tp=2)
PREFILL = ReplicaShape(role=Role.PREFILL, model="m", accelerator="h100", tp=2)
FLEET = Fleet(
    pools=(Pool(shape=DECODE, ready=10),), read_at=datetime(2026, 1, 1, tzinfo=UTC), version="v"
)
SERIES = (
    'poolwise_desired_replicas{accelerator="h100",deployment="chat",model="m",role="decode",tp="2"}'
)


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def _text(desired: DesiredReplicas) -> str:
    registry = CollectorRegistry()
    registry.register(desired)
    return generate_latest(registry).decode()


def test_a_step_exports_the_count_that_follows() -> None:
    desired = DesiredReplicas(deployment="chat", valid_for_s=60)
    actuator = MetricsActuator(record=DryRunActuator(fleet=FLEET), desired=desired)
    carry_out(actuator, diff_of(FLEET, DECODE, PREFILL, StepKind.START))
    assert f"{SERIES} 11.0" in _text(desired)


def test_counts_read_before_those_that_were_applied_do_not_take_them_back() -> None:
    clock = _Clock()
    desired = DesiredReplicas(deployment="chat", valid_for_s=60, clock=clock)
    applied = replace(
        FLEET,
        pools=(Pool(shape=DECODE, ready=11),),
        read_at=FLEET.read_at + timedelta(seconds=5),
    )
    desired.publish(applied)
    clock.now_s = 50.0
    desired.publish(FLEET)  # a tick that read the fleet before the plan was applied
    clock.now_s = 100.0
    assert f"{SERIES} 11.0" in _text(desired)
    later = replace(FLEET, read_at=applied.read_at + timedelta(seconds=5))
    desired.publish(later)
    assert f"{SERIES} 10.0" in _text(desired)


def test_an_unconfirmed_series_disappears_and_is_never_zero() -> None:
    clock = _Clock()
    desired = DesiredReplicas(deployment="chat", valid_for_s=60, clock=clock)
    assert SERIES not in _text(desired)
    desired.publish(FLEET)
    clock.now_s = 60.0
    assert f"{SERIES} 10.0" in _text(desired)
    clock.now_s = 60.1
    assert SERIES not in _text(desired)


def test_a_pool_that_is_gone_is_wanted_at_zero() -> None:
    desired = DesiredReplicas(deployment="chat", valid_for_s=60)
    desired.publish(FLEET)
    desired.publish(Fleet(pools=(), read_at=FLEET.read_at, version="w"))
    assert f"{SERIES} 0.0" in _text(desired)


def test_with_a_reader_success_needs_ready_replicas() -> None:
    desired = DesiredReplicas(deployment="chat", valid_for_s=60)
    actuator = MetricsActuator(
        record=DryRunActuator(fleet=FLEET),
        desired=desired,
        observe=lambda: FLEET,
        deadline_s=0.0,
    )
    with pytest.raises(ApplyError, match="has 10 ready replicas, 11 were exported"):
        carry_out(actuator, diff_of(FLEET, DECODE, PREFILL, StepKind.START))


def _target(kind: str = "Deployment", name: str = "decode", **more: object) -> CountTarget:
    version = KINDS[kind].api_version
    return CountTarget(role=Role.DECODE, kind=kind, api_version=version, name=name, **more)


def _scaled(**more: object) -> Scaled:
    bounds = PoolBounds(shape=DECODE, max_replicas=8)
    (one,) = scaled_pools("chat", [bounds], [_target(**more)])
    return one


def test_an_api_server_takes_the_autoscalers() -> None:
    with FakeCluster(crds="all") as cluster:
        for made in (
            hpa(_scaled()),
            {**keda(_scaled(), prometheus="http://prometheus:9090")},
        ):
            cluster.create(made)
        kept = cluster.get("horizontalpodautoscalers", "poolwise-decode")
    behavior = kept["spec"]["behavior"]
    assert {behavior[way]["tolerance"] for way in ("scaleUp", "scaleDown")} == {"0"}
    assert kept["spec"]["metrics"][0]["external"]["target"]["averageValue"] == "1"


def test_the_labels_select_the_series_that_is_exported() -> None:
    desired = DesiredReplicas(deployment="chat", valid_for_s=60)
    desired.publish(FLEET)
    query = _scaled().query
    assert query == f"max({SERIES})"
    assert SERIES in _text(desired)
    push = keda_push(_scaled(), scaler="poolwise:9090")
    assert push["spec"]["triggers"][0]["metadata"]["role"] == "decode"


def test_a_kind_without_scale_is_refused() -> None:
    with pytest.raises(InputError, match="no scale subresource"):
        _scaled(kind="StormService", part="decode")


@pytest.mark.parametrize(
    ("pools", "objects", "said"),
    [
        ({"max_replicas": 8}, [], "needs exactly one object that holds its count, found none"),
        ({"max_replicas": 8}, ["a", "b"], "found Deployment a, Deployment b"),
        ({}, ["a"], "needs max_replicas, which bounds its autoscaler"),
        ({"max_replicas": 0}, ["a"], "max_replicas must be at least"),
    ],
)
def test_a_pool_that_no_autoscaler_can_follow_is_refused(
    pools: dict[str, int], objects: list[str], said: str
) -> None:
    bounds = [PoolBounds(shape=DECODE, **pools)]
    with pytest.raises(InputError, match=said):
        scaled_pools("chat", bounds, [_target(name=name) for name in objects])


@pytest.mark.parametrize("kinds", [("Deployment", "Deployment"), ("Deployment", "StatefulSet")])
def test_one_autoscaler_for_two_pools_is_refused(kinds: tuple[str, str]) -> None:
    pools = [PoolBounds(shape=s, max_replicas=8) for s in (DECODE, PREFILL)]
    objects = [
        replace(_target(kind=kind), role=role)
        for kind, role in zip(kinds, (Role.DECODE, Role.PREFILL), strict=True)
    ]
    with pytest.raises(InputError, match="poolwise-decode would be the autoscaler of several"):
        scaled_pools("chat", pools, objects)


def test_a_name_that_is_no_label_value_goes_with_a_query_only() -> None:
    shape = replace(DECODE, model='Qwen/"3"')
    pools = [PoolBounds(shape=shape, max_replicas=8)]
    (one,) = scaled_pools("chat", pools, [_target()])
    with pytest.raises(InputError, match=r"select the series of model .* no label value"):
        hpa(one)
    assert r'model="Qwen/\"3\""' in one.query
    desired = DesiredReplicas(deployment="chat", valid_for_s=60)
    desired.publish(Fleet(pools=(Pool(shape=shape, ready=1),), read_at=FLEET.read_at, version="w"))
    assert r'model="Qwen/\"3\""' in _text(desired)
