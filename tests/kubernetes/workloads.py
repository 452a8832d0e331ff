"""Controllers of the kinds whose pods they make themselves."""

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.kubernetes.plain import copied
from tests.kubernetes.selectors import selects

if TYPE_CHECKING:
    from tests.kubernetes.simulation import ControllerSimulation

Object = dict[str, Any]

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_CLIQUE_COUNTS = (
    "readyReplicas", "updatedReplicas", "scheduledReplicas", "scheduleGatedReplicas",
)  # fmt: skip
_LWS = "leaderworkerset.sigs.k8s.io"


def is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def terminating(obj: Object) -> bool:
    return "deletionTimestamp" in obj["metadata"]


def template_hash(template: Object) -> str:
    """A short name for a template, the same for the same template."""
    text = json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def owner_reference(owner: Object) -> Object:
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owned(sim: "ControllerSimulation", plural: str, owner: Object) -> list[Object]:
    """The objects of a kind whose controller is the owner."""
    uid = owner["metadata"]["uid"]

    def is_its(metadata: Object) -> bool:
        return any(r["uid"] == uid for r in metadata.get("ownerReferences", ()))

    return sim.cluster.objects(plural, owner["metadata"]["namespace"], having=is_its)


def make_pod(
    sim: "ControllerSimulation", owner: Object, template: Object, labels: Object, name: str = "",
    annotations: Object | None = None,
) -> Object:  # fmt: skip
    """Create a pod of a template; without a name it gets a generated one."""
    metadata = copied(template.get("metadata") or {})
    if annotations:
        metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}
    metadata["labels"] = {**(metadata.get("labels") or {}), **labels}
    metadata["ownerReferences"] = [owner_reference(owner)]
    if name:
        metadata["name"] = name
    else:
        metadata["generateName"] = f"{owner['metadata']['name']}-"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata,
           "spec": copied(template.get("spec") or {})}  # fmt: skip
    return sim.cluster.create(pod, owner["metadata"]["namespace"],
                              manager="kube-controller-manager")  # fmt: skip


def write_status(
    sim: "ControllerSimulation", obj: Object, status: Object, *, manager: str = "",
    always: tuple[str, ...] = (),
) -> None:  # fmt: skip
    """Write a status where it changed.

    Counts of 0 are left out, as Go's encoder does, but for the fields written `always`.
    """
    wanted = {key: value for key, value in status.items() if value != 0 or key in always}
    if wanted != obj.get("status"):
        sim.cluster.write_status({**obj, "status": wanted},
                                 manager=manager or "kube-controller-manager")  # fmt: skip


def condition(obj: Object, what: str, *, holds: bool, reason: str, message: str = "") -> Object:
    """A condition; its transition time moves only when its status does."""
    status = "True" if holds else "False"
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for before in obj.get("status", {}).get("conditions", ()):
        if before["type"] == what and before["status"] == status:
            at = before.get("lastTransitionTime", at)
    return {"type": what, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": at}  # fmt: skip


# -- Deployment and ReplicaSet -----------------------------------------------------------------


def reconcile_deployment(sim: "ControllerSimulation", deployment: Object) -> None:
    spec, metadata = deployment["spec"], deployment["metadata"]
    hashed = template_hash(spec["template"])
    sets = owned(sim, "replicasets", deployment)
    name = f"{metadata['name']}-{hashed}"
    current = next((one for one in sets if one["metadata"]["name"] == name), None)
    if current is None:
        current = _make_replica_set(sim, deployment, name, hashed)
    elif current["spec"]["replicas"] != spec["replicas"]:
        sim.cluster.scale("replicasets", name, spec["replicas"], metadata["namespace"],
                          manager="kube-controller-manager")  # fmt: skip
    ready = current.get("status", {}).get("readyReplicas", 0)
    old = [one for one in sets if one["metadata"]["name"] != name]
    for one in old:
        keep = min(one["spec"]["replicas"], max(0, spec["replicas"] - ready))
        if keep != one["spec"]["replicas"]:
            sim.cluster.scale("replicasets", one["metadata"]["name"], keep, metadata["namespace"],
                              manager="kube-controller-manager")  # fmt: skip
    _deployment_status(sim, deployment, current, old)


def _make_replica_set(
    sim: "ControllerSimulation", deployment: Object, name: str, hashed: str
) -> Object:
    spec = copied(deployment["spec"])
    labels = {"pod-template-hash": hashed}
    spec["template"]["metadata"]["labels"] |= labels
    selector = spec["selector"]
    selector["matchLabels"] = {**selector.get("matchLabels", {}), **labels}
    metadata = {
        "name": name,
        "labels": spec["template"]["metadata"]["labels"],
        "ownerReferences": [owner_reference(deployment)],
    }
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": metadata,
        "spec": {key: spec[key] for key in ("replicas", "selector", "template")},
    }
    return sim.cluster.create(manifest, deployment["metadata"]["namespace"],
                              manager="kube-controller-manager")  # fmt: skip


def _deployment_status(
    sim: "ControllerSimulation", deployment: Object, current: Object, old: list[Object]
) -> None:
    spec, metadata = deployment["spec"], deployment["metadata"]
    counts = [one.get("status", {}) for one in (current, *old)]
    replicas = sum(one.get("replicas", 0) for one in counts)
    ready = sum(one.get("readyReplicas", 0) for one in counts)
    updated = counts[0].get("replicas", 0)
    done = ready == spec["replicas"] == updated == replicas
    key = f"{metadata['uid']}/{metadata['generation']}/{ready}"
    waited_s = sim.since("progress", key)
    late = not done and waited_s >= spec["progressDeadlineSeconds"]
    reason = "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"
    conditions = [
        condition(deployment, "Available", holds=ready >= spec["replicas"],
                  reason="MinimumReplicasAvailable" if ready >= spec["replicas"]
                  else "MinimumReplicasUnavailable"),
        condition(deployment, "Progressing", holds=not late,
                  reason="ProgressDeadlineExceeded" if late else reason),
    ]  # fmt: skip
    write_status(sim, deployment, {
        "observedGeneration": metadata["generation"],
        "replicas": replicas,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, spec["replicas"] - ready),
        "conditions": conditions,
    })  # fmt: skip


def reconcile_replica_set(sim: "ControllerSimulation", replica_set: Object) -> None:
    pods = owned(sim, "pods", replica_set)
    alive = [pod for pod in pods if not terminating(pod)]
    wanted = replica_set["spec"]["replicas"]
    for _ in range(wanted - len(alive)):
        make_pod(sim, replica_set, replica_set["spec"]["template"], {})
    for pod in sorted(alive, key=_deletion_rank)[: max(0, len(alive) - wanted)]:
        sim.cluster.delete("pods", pod["metadata"]["name"], pod["metadata"]["namespace"])
    alive = [pod for pod in owned(sim, "pods", replica_set) if not terminating(pod)]
    ready = sum(map(is_ready, alive))
    status = {
        "observedGeneration": replica_set["metadata"]["generation"],
        "replicas": len(alive),
        "fullyLabeledReplicas": len(alive),
        "readyReplicas": ready,
        "availableReplicas": ready,
    }
    write_status(sim, replica_set, status, always=("replicas",))


def _deletion_rank(pod: Object) -> tuple[bool, bool, int, float]:
    """The order in which the ReplicaSet controller picks victims, first to go first."""
    cost = int(pod["metadata"].get("annotations", {}).get(DELETION_COST, 0))
    created_at = datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
    age_rank = -created_at.timestamp() - int(pod["metadata"]["resourceVersion"]) / 1e9
    return bool(pod["spec"].get("nodeName")), is_ready(pod), cost, age_rank


# -- StatefulSet -------------------------------------------------------------------------------


def reconcile_stateful_set(sim: "ControllerSimulation", stateful: Object) -> None:
    spec, metadata = stateful["spec"], stateful["metadata"]
    if any(r["kind"] in ("LeaderWorkerSet", "Pod") for r in metadata.get("ownerReferences", ())):
        return  # a set in between
    pods = {pod["metadata"]["name"]: pod for pod in owned(sim, "pods", stateful)}
    wanted = [f"{metadata['name']}-{index}" for index in range(spec["replicas"])]
    for index, name in enumerate(wanted):
        if name not in pods:
            labels = {"apps.kubernetes.io/pod-index": str(index),
                      "statefulset.kubernetes.io/pod-name": name}  # fmt: skip
            make_pod(sim, stateful, spec["template"], labels, name)
    for name in pods.keys() - set(wanted):
        if not terminating(pods[name]):
            sim.cluster.delete("pods", name, metadata["namespace"])
    alive = [pod for pod in owned(sim, "pods", stateful) if not terminating(pod)]
    ready = sum(map(is_ready, alive))
    status = {
        "observedGeneration": metadata["generation"],
        "replicas": len(alive),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "currentReplicas": len(alive),
        "updatedReplicas": len(alive),
        "currentRevision": f"{metadata['name']}-{template_hash(spec['template'])}",
    }
    write_status(sim, stateful, status, always=("replicas", "availableReplicas"))


# -- LeaderWorkerSet ---------------------------------------------------------------------------


def reconcile_leader_worker_set(sim: "ControllerSimulation", lws: Object) -> None:
    """As the real one: a set of the leaders, and for each leader one of its workers."""
    spec, metadata = lws["spec"], lws["metadata"]
    template = spec["leaderWorkerTemplate"]
    size, name = template["size"], metadata["name"]
    worker_template = template["workerTemplate"]
    leader_template = template.get("leaderTemplate", worker_template)
    leaders = _keep_stateful_set(sim, lws, name, leader_template, spec["replicas"])
    pods = {pod["metadata"]["name"]: pod for pod in _pods_of_groups(sim, lws)}
    wanted: set[str] = set()
    for group in range(spec["replicas"]):
        above, source = leaders, leader_template
        for worker in range(size):
            pod_name = f"{name}-{group}" + (f"-{worker}" if worker else "")
            wanted.add(pod_name)
            if pod_name not in pods:
                labels = {f"{_LWS}/name": name, f"{_LWS}/group-index": str(group),
                          f"{_LWS}/worker-index": str(worker)}  # fmt: skip
                about = {f"{_LWS}/size": str(size)}
                placed = _in_its_place(source, f"{name}-{group}", size, worker)
                pods[pod_name] = make_pod(sim, above, placed, labels, pod_name, about)
            if worker == 0 and size > 1:
                leader, source = pods[pod_name], worker_template
                above = _keep_stateful_set(sim, leader, f"{name}-{group}", source, size - 1)
    for pod_name in pods.keys() - wanted:
        if not terminating(pods[pod_name]):
            sim.cluster.delete("pods", pod_name, metadata["namespace"])
    groups: dict[str, list[Object]] = {}
    for pod in _pods_of_groups(sim, lws):
        if not terminating(pod):
            groups.setdefault(pod["metadata"]["labels"][f"{_LWS}/group-index"], []).append(pod)
    ready = sum(len(group) == size and all(map(is_ready, group)) for group in groups.values())
    available = ready == spec["replicas"]
    write_status(sim, lws, {
        "observedGeneration": metadata["generation"],
        "replicas": len(groups),
        "readyReplicas": ready,
        "updatedReplicas": len(groups),
        "hpaPodSelector": f"{_LWS}/name={name},{_LWS}/worker-index=0",
        "conditions": [
            condition(lws, "Available", holds=available, reason="AllGroupsReady"),
            condition(lws, "Progressing", holds=not available, reason="GroupsProgressing"),
        ],
    }, manager="lws-controller-manager")  # fmt: skip


def _in_its_place(template: Object, leader: str, size: int, worker: int) -> Object:
    """A template with what the real one's webhook tells each container of its group."""
    made = copied(template)
    told = {"LWS_LEADER_ADDRESS": leader, "LWS_GROUP_SIZE": size, "LWS_WORKER_INDEX": worker}
    env = [{"name": key, "value": str(value)} for key, value in told.items()]
    for container in made["spec"]["containers"]:
        container["env"] = [*env, *container.get("env", [])]
    return made


def _keep_stateful_set(
    sim: "ControllerSimulation", owner: Object, name: str, template: Object, replicas: int
) -> Object:
    """A set in between; its pods are made by the LeaderWorkerSet's controller here."""
    namespace = owner["metadata"]["namespace"]
    try:
        found = sim.cluster.get("statefulsets", name, namespace)
    except KeyError:
        labels = {"set": name}
        inner = copied(template)
        inner["metadata"] = {**(inner.get("metadata") or {}), "labels": labels}
        return sim.cluster.create({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": name, "ownerReferences": [owner_reference(owner)]},
            "spec": {"replicas": replicas, "serviceName": name, "template": inner,
                     "selector": {"matchLabels": labels}},
        }, namespace, manager="lws-controller-manager")  # fmt: skip
    if found["spec"]["replicas"] != replicas:
        sim.cluster.scale("statefulsets", name, replicas, namespace,
                          manager="lws-controller-manager")  # fmt: skip
    return found


def _pods_of_groups(sim: "ControllerSimulation", lws: Object) -> list[Object]:
    """The leaders, and the workers of the sets that leaders own."""
    found = []
    for leaders in owned(sim, "statefulsets", lws):
        found += owned(sim, "pods", leaders)
    name, namespace = lws["metadata"]["name"], lws["metadata"]["namespace"]
    workers = sim.cluster.objects("pods", namespace, having=lambda m: (
        m.get("labels", {}).get(f"{_LWS}/name") == name
        and m["labels"].get(f"{_LWS}/worker-index") != "0"
        and m["ownerReferences"][0]["kind"] == "StatefulSet"
    ))  # fmt: skip
    return [*found, *workers]


# -- Grove and AIBrix --------------------------------------------------------------------------


def reconcile_clique(sim: "ControllerSimulation", clique: Object) -> None:
    spec, metadata = clique["spec"], clique["metadata"]
    label = {"grove.io/podclique": metadata["name"]}
    template = {"metadata": {"labels": dict(metadata.get("labels", {}))}, "spec": spec["podSpec"]}
    alive = _keep(sim, clique, template, label, spec["replicas"])
    ready = sum(map(is_ready, alive))
    write_status(sim, clique, {
        "observedGeneration": metadata["generation"],
        "replicas": len(alive),
        **({"hpaPodSelector": f"grove.io/podclique={metadata['name']}"}
           if "autoScalingConfig" in spec else {}),
        "readyReplicas": ready,
        "updatedReplicas": len(alive),
        "scheduledReplicas": sum(bool(pod["spec"].get("nodeName")) for pod in alive),
        "scheduleGatedReplicas": 0,
    }, manager="grove-operator", always=_CLIQUE_COUNTS)  # fmt: skip


def reconcile_storm_service(sim: "ControllerSimulation", storm: Object) -> None:
    metadata = storm["metadata"]
    statuses = []
    for role in storm["spec"]["template"].get("spec", {}).get("roles", ()):
        labels = {"storm-service-name": metadata["name"], "role-name": role["name"]}
        wanted = role.get("replicas", 1) * storm["spec"].get("replicas", 1)
        alive = _keep(sim, storm, role.get("template", {}), labels, wanted)
        ready = sum(map(is_ready, alive))
        statuses.append({"name": role["name"], "replicas": len(alive), "readyReplicas": ready,
                         "notReadyReplicas": len(alive) - ready})  # fmt: skip
    whole = all(one["replicas"] == one["readyReplicas"] for one in statuses)
    write_status(sim, storm, {
        "observedGeneration": metadata["generation"],
        "replicas": storm["spec"].get("replicas", 1),
        "readyReplicas": storm["spec"].get("replicas", 1) if whole else 0,
        "scalingTargetSelector": f"storm-service-name={metadata['name']}",
        "roleStatuses": statuses,
        "conditions": [condition(storm, "Ready", holds=whole, reason="RoleSets")],
    }, manager="aibrix-controller-manager")  # fmt: skip


def _keep(
    sim: "ControllerSimulation", owner: Object, template: Object, labels: Object, wanted: int
) -> list[Object]:
    """Keep so many pods with these labels; returns those that are not terminating."""

    def alive() -> list[Object]:
        return [
            pod
            for pod in owned(sim, "pods", owner)
            if not terminating(pod)
            and selects({"matchLabels": labels}, pod["metadata"].get("labels", {}))
        ]

    found = alive()
    for _ in range(wanted - len(found)):
        make_pod(sim, owner, template, labels)
    for pod in sorted(found, key=_deletion_rank)[: max(0, len(found) - wanted)]:
        sim.cluster.delete("pods", pod["metadata"]["name"], pod["metadata"]["namespace"])
    return alive()


WORKLOADS = {
    "deployments": reconcile_deployment,
    "replicasets": reconcile_replica_set,
    "statefulsets": reconcile_stateful_set,
    "leaderworkersets": reconcile_leader_worker_set,
    "podcliques": reconcile_clique,
    "stormservices": reconcile_storm_service,
}
