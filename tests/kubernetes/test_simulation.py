"""Simulated controllers make of a count what the real ones make of it."""

from typing import Any

import pytest
from kubernetes.client import ApiException, CoreV1Api

from tests.kubernetes.cluster import CRD_FOLDER, FakeCluster
from tests.kubernetes.errors import ApiError
from tests.kubernetes.simulation import ControllerSimulation
from tests.kubernetes.site import deployment
from tests.kubernetes.workloads import DELETION_COST

Object = dict[str, Any]
POD: Object = {"containers": [{"name": "engine", "image": "engine:1"}]}


def on_gpu(name: str, replicas: int, accelerator: str = "H100", gpus: int = 1) -> Object:
    """A Deployment that asks for GPUs of an accelerator."""
    made = deployment(name, replicas)
    pod = made["spec"]["template"]["spec"]
    pod["nodeSelector"] = {"nvidia.com/gpu.product": accelerator}
    pod["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    return made


def status(cluster: FakeCluster, plural: str, name: str) -> Object:
    return cluster.get(plural, name)["status"]


def placed(cluster: FakeCluster) -> list[str]:
    return [p["metadata"]["name"] for p in cluster.objects("pods") if p["spec"].get("nodeName")]


def test_a_deployment_is_ready_after_its_startup_time(cluster: FakeCluster) -> None:
    cluster.create(deployment("decode", 2))
    sim = ControllerSimulation(cluster, startup_s=30.0)
    sim.step()
    sim.step(29.0)
    assert "readyReplicas" not in status(cluster, "deployments", "decode")
    sim.step(1.0)
    after = status(cluster, "deployments", "decode")
    assert (after["replicas"], after["readyReplicas"], after["observedGeneration"]) == (2, 2, 1)
    owner = cluster.objects("pods")[0]["metadata"]["ownerReferences"][0]
    assert owner["kind"] == "ReplicaSet"


def test_controllers_write_status_only(cluster: FakeCluster) -> None:
    cluster.create(deployment("decode", 2))
    ControllerSimulation(cluster).step()
    made = cluster.get("deployments", "decode")
    assert made["metadata"]["generation"] == 1
    entry = next(e for e in made["metadata"]["managedFields"] if e.get("subresource") == "status")
    assert set(entry["fieldsV1"]) == {"f:status"}


def test_the_cheapest_pod_goes_first(cluster: FakeCluster) -> None:
    cluster.create(deployment("decode", 3))
    sim = ControllerSimulation(cluster)
    sim.step()
    victim = cluster.objects("pods")[1]
    victim["metadata"]["annotations"] = {DELETION_COST: "-100"}
    cluster.update(victim)
    cluster.scale("deployments", "decode", 2)
    sim.step()
    left = {pod["metadata"]["name"] for pod in cluster.objects("pods")}
    assert len(left) == 2
    assert victim["metadata"]["name"] not in left


def test_pods_without_a_gpu_stay_pending_and_say_why(cluster: FakeCluster) -> None:
    cluster.create(on_gpu("decode", 3))
    sim = ControllerSimulation(cluster)
    sim.gpus("H100", 2)
    sim.step()
    assert len(placed(cluster)) == 2
    (pending,) = (p for p in cluster.objects("pods") if not p["spec"].get("nodeName"))
    (condition,) = pending["status"]["conditions"]
    assert pending["status"]["phase"] == "Pending"
    assert (condition["type"], condition["reason"]) == ("PodScheduled", "Unschedulable")
    (event,) = cluster.objects("events")
    assert event["reason"] == "FailedScheduling"
    assert "Insufficient nvidia.com/gpu" in event["message"]
    sim.gpus("H100", 3)
    sim.step()
    assert status(cluster, "deployments", "decode")["readyReplicas"] == 3


def test_a_runtime_is_placed_by_its_node_selector_terms(cluster: FakeCluster) -> None:
    rule = {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["A100"]}
    cluster.create({
        "apiVersion": "production-stack.vllm.ai/v1alpha1", "kind": "VLLMRuntime",
        "metadata": {"name": "decode"},
        "spec": {"model": {"modelURL": "hf://a/b"}, "vllmConfig": {},
                 "deploymentConfig": {"replicas": 2, "image": {}, "resources": {"gpu": "1"},
                                      "nodeSelectorTerms": [{"matchExpressions": [rule]}]}},
    })  # fmt: skip
    sim = ControllerSimulation(cluster)
    sim.gpus("H100", 8)
    sim.gpus("A100", 1)
    sim.step()
    assert [p["spec"].get("nodeName") for p in cluster.objects("pods")].count("node-a100") == 1
    (event,) = cluster.objects("events")
    assert event["message"] == (
        "0/2 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, "
        "1 Insufficient nvidia.com/gpu."
    )
    cluster.scale("vllmruntimes", "decode", 1)
    sim.step()
    assert status(cluster, "vllmruntimes", "decode")["modelStatus"] == "Ready"
    assert len(cluster.objects("pods")) == 1


def test_a_draining_pod_holds_its_gpu_until_it_stops(cluster: FakeCluster) -> None:
    cluster.create(on_gpu("decode", 1))
    cluster.create(on_gpu("prefill", 0))
    sim = ControllerSimulation(cluster, drain_s=20.0)
    sim.gpus("H100", 1)
    sim.step()
    cluster.scale("deployments", "decode", 0)
    cluster.scale("deployments", "prefill", 1)
    sim.step()
    sim.step(19.0)
    assert "readyReplicas" not in status(cluster, "deployments", "prefill")
    sim.step(1.0)
    assert status(cluster, "deployments", "prefill")["readyReplicas"] == 1


def test_the_grace_period_bounds_the_drain(cluster: FakeCluster) -> None:
    made = deployment("decode", 1)
    made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 5
    cluster.create(made)
    sim = ControllerSimulation(cluster, drain_s=600.0)
    sim.step()
    cluster.scale("deployments", "decode", 0)
    sim.step()
    assert cluster.objects("pods")
    sim.step(5.0)
    assert not cluster.objects("pods")


def test_a_stuck_rollout_exceeds_its_deadline(cluster: FakeCluster) -> None:
    made = deployment("decode", 1)
    made["spec"]["progressDeadlineSeconds"] = 60
    cluster.create(made)
    sim = ControllerSimulation(cluster, stuck=lambda _pod: True)
    sim.step()
    sim.step(60.0)
    reasons = {
        c["type"]: c["reason"] for c in status(cluster, "deployments", "decode")["conditions"]
    }
    assert reasons["Progressing"] == "ProgressDeadlineExceeded"


def test_the_highest_group_of_a_leader_worker_set_goes_first(cluster: FakeCluster) -> None:
    cluster.create(lws("decode", 3, size=2))
    sim = ControllerSimulation(cluster)
    sim.step()
    after = status(cluster, "leaderworkersets", "decode")
    assert (after["replicas"], after["readyReplicas"]) == (3, 3)
    cluster.scale("leaderworkersets", "decode", 2)
    sim.step()
    names = [pod["metadata"]["name"] for pod in cluster.objects("pods")]
    assert names == ["decode-0", "decode-0-1", "decode-1", "decode-1-1"]


def lws(name: str, replicas: int, size: int) -> Object:
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1", "kind": "LeaderWorkerSet",
        "metadata": {"name": name},
        "spec": {"replicas": replicas,
                 "leaderWorkerTemplate": {"size": size, "workerTemplate": {"spec": POD}}},
    }  # fmt: skip


def graph(adapter: bool) -> Object:
    decode: Object = {"name": "decode", "type": "decode", "replicas": 1}
    return {
        "apiVersion": "nvidia.com/v1beta1", "kind": "DynamoGraphDeployment",
        "metadata": {"name": "chat"},
        "spec": {"components": [{"name": "prefill", "type": "prefill", "replicas": 2},
                                decode | ({"scalingAdapter": {}} if adapter else {})]},
    }  # fmt: skip


def test_a_scaling_adapter_drives_its_component(cluster: FakeCluster) -> None:
    cluster.create(graph(adapter=True))
    sim = ControllerSimulation(cluster)
    sim.step()
    cluster.scale("dynamographdeploymentscalingadapters", "chat-decode", 4)
    sim.step()
    after = status(cluster, "dynamographdeployments", "chat")
    assert after["components"]["decode"]["readyReplicas"] == 4
    assert after["observedGeneration"] == 2


def test_a_count_that_an_adapter_owns_is_denied_to_everyone_else(cluster: FakeCluster) -> None:
    made = cluster.create(graph(adapter=True))
    made["spec"]["components"][1]["replicas"] = 3
    with pytest.raises(
        ApiError, match="cannot be modified directly when scaling adapter"
    ) as caught:
        cluster.update(made)
    assert caught.value.code == 403
    made["spec"]["components"][1]["replicas"] = 1
    made["spec"]["components"][0]["replicas"] = 3
    assert cluster.update(made)["metadata"]["generation"] == 2


def test_both_versions_of_a_graph_show_the_same_counts(cluster: FakeCluster) -> None:
    cluster.create(graph(adapter=True))
    old = cluster.get("dynamographdeployments", "chat", version="v1alpha1")
    assert old["spec"]["services"] == {
        "prefill": {"componentType": "worker", "subComponentType": "prefill", "replicas": 2},
        "decode": {"componentType": "worker", "subComponentType": "decode", "replicas": 1,
                   "scalingAdapter": {"enabled": True}},
    }  # fmt: skip
    old["spec"]["services"]["prefill"]["replicas"] = 5
    cluster.update(old)
    assert cluster.get("dynamographdeployments", "chat")["spec"]["components"] == [
        {"name": "prefill", "type": "prefill", "replicas": 5},
        {"name": "decode", "type": "decode", "replicas": 1, "scalingAdapter": {}},
    ]


def test_a_child_scaled_by_hand_is_set_back(cluster: FakeCluster) -> None:
    cluster.create(graph(adapter=False))
    sim = ControllerSimulation(cluster)
    sim.step()
    cluster.scale("deployments", "chat-decode", 7)
    sim.step()
    assert cluster.get("deployments", "chat-decode")["spec"]["replicas"] == 1


def test_a_role_scaler_drives_the_set_of_its_role(cluster: FakeCluster) -> None:
    template = {"size": 1, "workerTemplate": {"spec": POD}}
    cluster.create({
        "apiVersion": "disaggregatedset.x-k8s.io/v1", "kind": "DisaggregatedSet",
        "metadata": {"name": "chat"},
        "spec": {"roles": [
            {"name": "prefill", "spec": {"replicas": 2, "leaderWorkerTemplate": template}},
            {"name": "decode", "scaling": {"mode": "External"},
             "spec": {"replicas": 1, "leaderWorkerTemplate": template}},
        ]},
    })  # fmt: skip
    sim = ControllerSimulation(cluster)
    sim.step()
    cluster.scale("disaggregatedsetrolescalers", "chat-decode", 3)
    sim.step()
    counts = {one["name"]: one["readyReplicas"]
              for one in status(cluster, "disaggregatedsets", "chat")["roleStatuses"]}  # fmt: skip
    assert counts == {"prefill": 2, "decode": 3}
    assert status(cluster, "disaggregatedsetrolescalers", "chat-decode")["replicas"] == 3
    assert [one["metadata"]["name"] for one in cluster.objects("disaggregatedsetrolescalers")] == [
        "chat-decode"
    ]


def test_a_second_controller_holds_its_count(cluster: FakeCluster) -> None:
    cluster.create(deployment("decode", 2))
    sim = ControllerSimulation(cluster)
    sim.fight("deployments", "decode", 5, every_s=15.0)
    sim.step()
    assert cluster.get("deployments", "decode")["spec"]["replicas"] == 2
    sim.step(15.0)
    cluster.scale("deployments", "decode", 3)
    sim.step(14.0)
    assert cluster.get("deployments", "decode")["spec"]["replicas"] == 3
    sim.step(1.0)
    assert cluster.get("deployments", "decode")["spec"]["replicas"] == 5


def test_what_an_object_made_goes_with_it(cluster: FakeCluster) -> None:
    cluster.create(deployment("decode", 2))
    sim = ControllerSimulation(cluster)
    sim.step()
    cluster.delete("deployments", "decode")
    sim.step()
    assert not cluster.objects("replicasets")
    assert not cluster.objects("pods")


def test_a_disruption_budget_limits_evictions_and_not_scaling(cluster: FakeCluster) -> None:
    cluster.create(deployment("decode", 2))
    cluster.create({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "decode"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "decode"}}},
    })  # fmt: skip
    sim = ControllerSimulation(cluster)
    sim.step()
    assert status(cluster, "poddisruptionbudgets", "decode")["disruptionsAllowed"] == 0
    pod = cluster.objects("pods")[0]["metadata"]["name"]
    with pytest.raises(ApiException) as caught:
        CoreV1Api(cluster.client()).create_namespaced_pod_eviction(
            pod, "default", {"metadata": {"name": pod, "namespace": "default"}}
        )
    assert caught.value.status == 429
    assert "violate the pod's disruption budget" in caught.value.body
    cluster.scale("deployments", "decode", 0)
    sim.step()
    assert not cluster.objects("pods")


def test_it_runs_in_a_thread(cluster: FakeCluster) -> None:
    cluster.create(deployment("decode", 1))
    sim = ControllerSimulation(cluster, startup_s=30.0)
    changed = cluster.api.store.changed
    with sim.running(speed=1000.0), changed:
        ready = changed.wait_for(
            lambda: cluster.get("deployments", "decode").get("status", {}).get("readyReplicas"),
            timeout=30,
        )
    assert ready == 1


@pytest.mark.parametrize("name", sorted(path.stem for path in CRD_FOLDER.glob("*.yaml")))
def test_every_definition_is_served_and_refuses_an_empty_or_negative_spec(
    cluster: FakeCluster, name: str
) -> None:
    kind = next(k for k in cluster.api.registry.kinds.values() if k.kind.lower() == name)
    assert kind.custom
    assert kind.has_status
    with pytest.raises(ApiError, match="must be of type object"):
        cluster.create({"apiVersion": kind.api_version, "kind": kind.kind,
                        "metadata": {"name": "a"}, "spec": []})  # fmt: skip
