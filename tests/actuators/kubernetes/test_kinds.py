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


def several_nodes():
    """Prefill and decode of Grove: a leader and two workers scale as one."""
    name = KINDS["PodCliqueScalingGroup"]
    cliques = [
        {"name": f"{role}-{part}", "spec": {"roleName": part, "podSpec": POD, "replicas": count}}
        for role in ("prefill", "decode")
        for part, count in (("leader", 1), ("worker", 2))
    ]
    groups = [
        {"name": role, "replicas": 2, "minAvailable": 1,
         "cliqueNames": [f"{role}-leader", f"{role}-worker"]}
        for role in ("prefill", "decode")
    ]  # fmt: skip
    template = {"cliques": cliques, "podCliqueScalingGroups": groups}
    whole = thing(name.api_version, "PodCliqueSet", "chat", {"replicas": 1, "template": template})
    return (
        [whole],
        tuple(
            counted(
                role,
                f"chat-0-{role.value}",
                "PodCliqueScalingGroup",
                api_version=name.api_version,
            )
            for role in (Role.PREFILL, Role.DECODE)
        ),
    )


def scaled_from_outside():
    """A set whose counts are in its roles' scalers."""
    kind = "DisaggregatedSetRoleScaler"
    spec = roles(
        lambda _r: {
            "scaling": {"mode": "External"},
            "spec": {"replicas": 2, "leaderWorkerTemplate": GROUP},
        }
    )
    version = KINDS[kind].api_version
    return (
        [thing(version, "DisaggregatedSet", "chat", spec)],
        tuple(
            counted(role, f"chat-{role.value}", kind, api_version=version)
            for role in (Role.PREFILL, Role.DECODE)
        ),
    )


def dynamo(**more):
    return {
        "components": [
            {"name": r, "type": r, "replicas": 2, "podTemplate": {"spec": POD}, **more}
            for r in ("prefill", "decode")
        ]
    }


def kserve(**more):
    part = {"replicas": 2, "template": POD, **more}
    return {"model": {"uri": "hf://a/b"}, **part, "prefill": part}


def runtime(_role):
    config = {"replicas": 2, "image": {}, "resources": {"gpu": "1"}}
    flags = {"extraArgs": ["--shutdown-timeout", "20"]}
    return {"model": {"modelURL": "hf://a/b"}, "vllmConfig": flags, "deploymentConfig": config}


NODES_2 = {"worker": POD, "parallelism": {"pipeline": 2}}
CASES = {
    "StatefulSet": each("StatefulSet", lambda r: {"replicas": 2, "serviceName": r, **labelled(r)}),
    "LeaderWorkerSet": each(
        "LeaderWorkerSet", lambda _r: {"replicas": 2, "leaderWorkerTemplate": GROUP}
    ),
    "DisaggregatedSet": both(
        "DisaggregatedSet",
        roles(lambda _r: {"spec": {"replicas": 2, "leaderWorkerTemplate": GROUP}}),
    ),
    "DisaggregatedSetRoleScaler": scaled_from_outside(),
    "DynamoGraphDeployment": both("DynamoGraphDeployment", dynamo()),
    "DynamoGraphDeployment v1alpha1": both(
        "DynamoGraphDeployment",
        {
            "services": {
                r: {
                    "componentType": "worker",
                    "subComponentType": r,
                    "replicas": 2,
                    "podTemplate": {"spec": POD},
                }
                for r in ("prefill", "decode")
            }
        },
        "nvidia.com/v1alpha1",
    ),
    "DynamoGraphDeployment of several nodes": both(
        "DynamoGraphDeployment", dynamo(multinode={"nodeCount": 3})
    ),
    "LLMInferenceService": both("LLMInferenceService", kserve()),
    "LLMInferenceService of several nodes": both("LLMInferenceService", kserve(**NODES_2)),
    "StormService": both(
        "StormService",
        {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "chat"}},
            "template": {"spec": roles(lambda _r: {"replicas": 2, "template": {"spec": POD}})},
        },
    ),
    "PodClique": each("PodClique", lambda r: {"roleName": r, "podSpec": POD, "replicas": 2}),
    "PodCliqueScalingGroup": several_nodes(),
    "VLLMRuntime": each("VLLMRuntime", runtime),
}


def prepared(cluster, objects, targets):
    simulation = ControllerSimulation(cluster, startup_s=30.0, drain_s=10.0)
    for one in objects:
        cluster.create(one)
    simulation.step()
    simulation.step(60.0)
    cluster.forget_calls()
    return Rig(cluster, simulation, targets, ClusterTarget(progress_deadline_s=300.0))


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_kind_is_read_grown_and_shrunk(case):
    objects, targets = CASES[case]
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
        assert wrote == {("patch", "scale" if KINDS[targets[0].kind].scale else "")}


SEVERAL_NODES = {
    "LeaderWorkerSet": 2,
    "DisaggregatedSet": 2,
    "DisaggregatedSetRoleScaler": 2,
    "DynamoGraphDeployment of several nodes": 3,
    "LLMInferenceService of several nodes": 2,
    "PodCliqueScalingGroup": 3,
}


@pytest.mark.parametrize("case", sorted(SEVERAL_NODES))
def test_a_replica_of_several_nodes_counts_once_and_is_ready_with_its_last_pod(case):
    objects, targets = CASES[case]
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, objects, targets)
        pods = cluster.objects("pods", "default")
        assert len(pods) == 4 * SEVERAL_NODES[case]
        assert sum(map(is_leader, pods)) == 4
        known = {p["metadata"]["uid"] for p in pods}

        rig.simulation.stuck = lambda pod: (
            not is_leader(pod) and pod["metadata"]["uid"] not in known
        )
        actuator = rig.actuator()
        diff = grown(actuator, (StepKind.START, PREFILL), (StepKind.ROUTE, PREFILL))
        with pytest.raises(Exception, match="2 of 3 replicas are ready after 300 s"):
            carry_out(actuator, diff)
        ready = {p.shape.role: (p.ready, p.starting) for p in actuator.read_fleet().pools}
        assert ready == {Role.PREFILL: (2, 1), Role.DECODE: (2, 0)}

        rig.simulation.stuck = lambda _pod: False
        rig.simulation.step(60.0)
        fleet = rig.actuator().read_fleet()
        assert {p.shape.role: (p.ready, p.starting, p.draining) for p in fleet.pools} == {
            Role.PREFILL: (3, 0, 0),
            Role.DECODE: (2, 0, 0),
        }


def is_leader(pod):
    labels = pod["metadata"]["labels"]
    index = labels.get("leaderworkerset.sigs.k8s.io/worker-index")
    return index == "0" or labels.get("grove.io/role-name") == "leader"


def test_workers_that_outlive_their_leader_are_leaving():
    objects, targets = CASES["LeaderWorkerSet"]
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, objects, targets)
        cluster.delete("pods", "decode-1", "default", grace_s=0)
        pool = next(p for p in rig.actuator().read_fleet().pools if p.shape == DECODE)
        assert (pool.ready, pool.draining) == (1, 1)


CHILDREN = {
    "DisaggregatedSet": "leaderworkersets",
    "DisaggregatedSetRoleScaler": "leaderworkersets",
    "DynamoGraphDeployment": "deployments",
    "DynamoGraphDeployment of several nodes": "leaderworkersets",
    "LLMInferenceService": "deployments",
    "VLLMRuntime": "deployments",
}


@pytest.mark.parametrize("case", sorted(CHILDREN))
def test_a_child_scaled_by_hand_is_told_before_anything_moves(case):
    objects, targets = CASES[case]
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, objects, targets)
        child = next(
            one["metadata"]["name"]
            for one in cluster.objects(CHILDREN[case], "default")
            if "prefill" not in one["metadata"]["name"]
        )
        cluster.scale(CHILDREN[case], child, 5, manager="kubectl")
        cluster.forget_calls()
        actuator = rig.actuator()
        with pytest.raises(
            Exception, match=rf"nothing was touched: .* {child}, which .* to 5 replicas by kubectl"
        ):
            carry_out(actuator, grown(actuator, (StepKind.START, DECODE)))
        assert cluster.writes == []


def test_an_autoscaler_of_a_child_is_a_second_owner():
    objects, targets = CASES["DynamoGraphDeployment"]
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, objects, targets)
        names = [one["metadata"]["name"] for one in cluster.objects("deployments", "default")]
        child = next(name for name in names if "prefill" not in name)
        aim = {"apiVersion": "apps/v1", "kind": "Deployment", "name": child}
        cluster.create(
            {
                "apiVersion": "autoscaling/v2",
                "kind": "HorizontalPodAutoscaler",
                "metadata": {"name": "auto", "namespace": "default"},
                "spec": {"scaleTargetRef": aim, "maxReplicas": 5},
            }
        )
        actuator = rig.actuator()
        (objection,) = actuator.preflight(grown(actuator, (StepKind.START, DECODE)))
        assert f"Deployment {child}, which Dynamo" in objection
        assert "is scaled by HorizontalPodAutoscaler auto" in objection


@pytest.mark.parametrize("case", sorted(CHILDREN))
def test_a_child_that_its_controller_has_not_scaled_yet_is_nobody_s_hand(case):
    objects, targets = CASES[case]
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, objects, targets)
        actuator = rig.actuator()
        actuator.apply(grown(actuator, (StepKind.START, DECODE)).steps[0])
        diff = grown(actuator, (StepKind.START, DECODE))
        assert actuator.preflight(diff) == ()


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


def test_what_a_child_runs_beyond_the_count_shows_in_the_fleet():
    """Operators that do not set their children back leave the surplus running."""
    objects, targets = CASES["VLLMRuntime"]
    with FakeCluster(crds="all") as cluster:
        rig = prepared(cluster, objects, targets)
        before = rig.actuator().read_fleet()
        rig.simulation.idle.add("vllmruntimes")
        cluster.scale("deployments", "decode", 5, manager="kubectl")
        rig.simulation.step()
        rig.simulation.step(60.0)
        fleet = rig.actuator().read_fleet()
        pool = next(p for p in fleet.pools if p.shape == DECODE)
        assert (pool.ready, pool.starting, pool.draining) == (2, 0, 3)
        assert fleet.version != before.version
