"""The exported counts, as Prometheus reads them, and the manifests that follow them."""

from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from actuators.actuator import carry_out
from actuators.autoscaler_manifests import Scaled, hpa, keda, keda_push, labels_of
from actuators.dry_run import CountTarget, DryRunActuator
from actuators.metrics import DesiredReplicas, MetricsActuator
from planner.domain.errors import ApplyError, InputError
from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role
from planner.domain.rollout import StepKind
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


def _scaled(kind: str = "Deployment", part: str = "") -> Scaled:
    target = CountTarget(
        role=Role.DECODE,
        accelerator="h100",
        tp=2,
        kind=kind,
        api_version="apps/v1",
        name="decode",
        part=part,
    )
    labels = labels_of("chat", target, "m")
    return Scaled(deployment="chat", target=target, labels=labels, min_replicas=0, max_replicas=8)


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
        _scaled("StormService", "decode")
