"""Every kind of the table is read, grown and shrunk through the one path that it has."""

from dataclasses import replace

import pytest

from actuators.actuator import carry_out
from actuators.kinds import KINDS
from planner.domain.fleet import Role
from planner.domain.rollout import StepKind
from planner.domain.target import ClusterTarget
from tests.actuators.kubernetes.rig import DECODE, PREFILL, Rig, counted, grown
from tests.kubernetes import FakeCluster
from tests.kubernetes.simulation import ControllerSimulation

POD = {
    "terminationGracePeriodSeconds": 130,
    "containers": [{"name": "engine", "image": "vllm", "args": ["--shutdown-timeout", "120"]}],
}
GROUP = {"size": 2, "workerTemplate": {"spec": POD}}


def thing(version, kind, name, spec):
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def roles(extra):
    return {"roles": [{"name": r, **extra(r)} for r in ("prefill", "decode")]}


def each(kind, spec):
    """One object a role."""
    version = KINDS[kind].api_version
    return (
        [thing(version, kind, r, spec(r)) for r in ("prefill", "decode")],
        (
            counted(Role.PREFILL, "prefill", kind, api_version=version),
            counted(Role.DECODE, "decode", kind, api_version=version),
        ),
    )


def both(kind, spec, version=None):
    """One object with the counts of both."""
    version = version or KINDS[kind].api_version
    return (
        [thing(version, kind, "chat", spec)],
        tuple(
            counted(role, "chat", kind, api_version=version, part=role.value)
            for role in (Role.PREFILL, Role.DECODE)
        ),
    )


def labelled(role):
    return {
        "selector": {"matchLabels": {"app": role}},
        "template": {"metadata": {"labels": {"app": role}}, "spec": POD},
    }


CASES = {
    "StatefulSet": each("StatefulSet", lambda r: {"replicas": 2, "serviceName": r, **labelled(r)}),
    "LeaderWorkerSet": each(
        "LeaderWorkerSet", lambda _r: {"replicas": 2, "leaderWorkerTemplate": GROUP}
    ),
    "DisaggregatedSet": both(
        "DisaggregatedSet",
        roles(lambda _r: {"spec": {"replicas": 2, "leaderWorkerTemplate": GROUP}}),
    ),
    "DynamoGraphDeployment": both(
        "DynamoGraphDeployment",
        {
            "components": [
                {"name": r, "type": r, "replicas": 2, "podTemplate": {"spec": POD}}
                for r in ("prefill", "decode")
            ]
        },
    ),
    "LLMInferenceService": both(
        "LLMInferenceService",
        {
            "model": {"uri": "hf://a/b"},
            "replicas": 2,
            "template": POD,
            "prefill": {"replicas": 2, "template": POD},
        },
    ),
    "StormService": both(
        "StormService",
        {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "chat"}},
            "template": {"spec": roles(lambda _r: {"replicas": 2, "template": {"spec": POD}})},
        },
    ),
    "PodClique": each("PodClique", lambda r: {"roleName": r, "podSpec": POD, "replicas": 2}),
}


def prepared(cluster, objects, targets):
    simulation = ControllerSimulation(cluster, startup_s=30.0, drain_s=10.0)
    for one in objects:
        cluster.create(one)
    simulation.step()
    simulation.step(60.0)
    cluster.forget_calls()
    return Rig(cluster, simulation, targets, ClusterTarget(progress_deadline_s=300.0))


@pytest.mark.parametrize("kind", sorted(CASES))
def test_a_kind_is_read_grown_and_shrunk(kind):
    objects, targets = CASES[kind]
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, objects, targets)
        actuator = rig.actuator()
        before = {p.shape.role: (p.ready, p.starting) for p in actuator.read_fleet().pools}
        assert before == {Role.PREFILL: (2, 0), Role.DECODE: (2, 0)}
        carry_out(
            actuator,
            grown(
                actuator,
                (StepKind.START, PREFILL),
                (StepKind.ROUTE, PREFILL),
                (StepKind.DRAIN, DECODE),
                (StepKind.STOP, DECODE),
            ),
        )
        after = {p.shape.role: p.ready for p in rig.actuator().read_fleet().pools}
        assert after == {Role.PREFILL: 3, Role.DECODE: 1}
        wrote = {(w.verb, w.subresource) for w in cluster.writes if w.resource != "pods"}
        assert wrote == {("patch", "scale" if KINDS[kind].scale else "")}


def test_a_field_that_somebody_changed_meanwhile_is_not_overwritten():
    objects, targets = CASES["DynamoGraphDeployment"]
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, objects, targets)
        actuator = rig.actuator()
        diff = grown(actuator, (StepKind.START, PREFILL))

        def by_hand(_call):
            graph = cluster.get("dynamographdeployments", "chat")
            graph["spec"]["components"][1]["replicas"] = 7
            cluster.update(graph, manager="kubectl-edit")

        cluster.fault(verb="patch", dry_run=False, hook=by_hand)
        with pytest.raises(Exception, match="someone else changed it meanwhile"):
            carry_out(actuator, diff)
        counts = [
            c["replicas"]
            for c in cluster.get("dynamographdeployments", "chat")["spec"]["components"]
        ]
        assert counts == [2, 7]


def test_an_adapter_is_the_target_where_a_component_has_one():
    """Its webhook denies direct edits; the dry run of the preflight finds that out."""
    objects, targets = CASES["DynamoGraphDeployment"]
    graph = {
        **objects[0],
        "spec": {"components": [dict(c) for c in objects[0]["spec"]["components"]]},
    }
    graph["spec"]["components"][1]["scalingAdapter"] = {}
    adapter = counted(
        Role.DECODE,
        "chat-decode",
        "DynamoGraphDeploymentScalingAdapter",
        api_version="nvidia.com/v1alpha1",
    )
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, [graph], targets)
        direct = rig.actuator()
        diff = grown(direct, (StepKind.START, PREFILL), (StepKind.START, DECODE))
        with pytest.raises(Exception, match=r"nothing was touched.*scaling adapter"):
            carry_out(direct, diff)
        assert cluster.writes == []
        through = replace(rig, objects=(targets[0], adapter)).actuator()
        carry_out(through, grown(through, (StepKind.START, DECODE), (StepKind.ROUTE, DECODE)))
        assert {p.shape.role: p.ready for p in through.read_fleet().pools}[Role.DECODE] == 3
