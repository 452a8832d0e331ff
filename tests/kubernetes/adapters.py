"""Operators: the kinds that keep counts for others, each copying them to what it made."""

from typing import TYPE_CHECKING, Any

from tests.kubernetes.access import service_account
from tests.kubernetes.plain import copied
from tests.kubernetes.workloads import (
    condition,
    owned,
    owner_reference,
    template_hash,
    write_status,
)

if TYPE_CHECKING:
    from tests.kubernetes.simulation import ControllerSimulation

Object = dict[str, Any]

_OPERATOR = service_account("dynamo-system", "dynamo-operator-controller-manager")
_DS = "disaggregatedset.x-k8s.io"
_GROVE_GROUP = "grove.io/podcliquescalinggroup"
_GPU_FREE_POD = {"containers": [{"name": "main", "image": "engine:1"}]}


def find(sim: "ControllerSimulation", plural: str, name: str, namespace: str) -> Object | None:
    try:
        return sim.cluster.get(plural, name, namespace)
    except KeyError:
        return None


def keep_deployment(
    sim: "ControllerSimulation", owner: Object, name: str, replicas: int, labels: Object,
    pod: Object, manager: str,
) -> Object:  # fmt: skip
    """A child Deployment with this count; a hand-edited count is set back."""
    namespace = owner["metadata"]["namespace"]
    found = find(sim, "deployments", name, namespace)
    if found is None:
        manifest = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": labels,
                         "ownerReferences": [owner_reference(owner)]},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": {**(pod.get("metadata") or {}).get("labels", {}),
                                            **labels}},
                    "spec": copied(pod.get("spec") or _GPU_FREE_POD),
                },
            },
        }  # fmt: skip
        return sim.cluster.create(manifest, namespace, manager=manager)
    if found["spec"]["replicas"] != replicas:
        found["spec"]["replicas"] = replicas
        return sim.cluster.update(found, manager=manager)
    return found


def keep_leader_worker_set(
    sim: "ControllerSimulation", owner: Object, name: str, replicas: int, labels: Object,
    spec: Object, manager: str,
) -> Object:  # fmt: skip
    """A child LeaderWorkerSet with this count; a hand-edited count is set back."""
    namespace = owner["metadata"]["namespace"]
    found = find(sim, "leaderworkersets", name, namespace)
    if found is None:
        return sim.cluster.create({
            "apiVersion": "leaderworkerset.x-k8s.io/v1",
            "kind": "LeaderWorkerSet",
            "metadata": {"name": name, "labels": labels,
                         "ownerReferences": [owner_reference(owner)]},
            "spec": {**copied(spec), "replicas": replicas},
        }, namespace, manager=manager)  # fmt: skip
    if found["spec"]["replicas"] != replicas:
        found["spec"]["replicas"] = replicas
        return sim.cluster.update(found, manager=manager)
    return found


def labelled(template: Object, labels: Object) -> Object:
    """A pod template with these labels as well."""
    metadata = template.get("metadata") or {}
    merged = {**(metadata.get("labels") or {}), **labels}
    return {**template, "metadata": {**metadata, "labels": merged}}


def counts(child: Object) -> tuple[int, int]:
    """Replicas and ready ones of a child, 0 until its controller caught up."""
    status = child.get("status", {})
    return status.get("replicas", 0), status.get("readyReplicas", 0)


# -- Dynamo ------------------------------------------------------------------------------------


def reconcile_graph(sim: "ControllerSimulation", graph: Object) -> None:
    metadata = graph["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    components: Object = {}
    whole = True
    for component in graph["spec"].get("components", ()):
        child_name = f"{name}-{component['name'].lower()}"
        if "scalingAdapter" in component:
            _keep_adapter(sim, graph, component, child_name)
        labels = {
            "nvidia.com/dynamo-graph-deployment-name": name,
            "nvidia.com/dynamo-component": component["name"],
            "nvidia.com/dynamo-component-type": component.get("type", "worker"),
        }
        wanted = component.get("replicas", 1)
        children = _component_children(sim, graph, component, child_name, labels)
        seen = [counts(child) for child in children]
        replicas, ready = sum(one[0] for one in seen), sum(one[1] for one in seen)
        whole = whole and replicas == ready == wanted
        components[component["name"]] = {
            "componentKind": children[0]["kind"] if children else "LeaderWorkerSet",
            "componentNames": [child["metadata"]["name"] for child in children],
            "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": ready,
            "availableReplicas": ready,
        }  # fmt: skip
        adapter = find(sim, "dynamographdeploymentscalingadapters", child_name, namespace)
        if adapter is not None:
            selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
            write_status(sim, adapter, {"replicas": wanted, "selector": selector},
                         manager="dynamo-operator")  # fmt: skip
    reason = "all_resources_are_ready" if whole else "some_resources_are_not_ready"
    write_status(sim, graph, {
        "observedGeneration": metadata["generation"],
        "state": "successful" if whole else "pending",
        "components": components,
        "conditions": [condition(graph, "Ready", holds=whole, reason=reason)],
    }, manager="dynamo-operator")  # fmt: skip


def _component_children(
    sim: "ControllerSimulation", graph: Object, component: Object, name: str, labels: Object
) -> list[Object]:
    """A Deployment, or for several nodes one LeaderWorkerSet of one group a replica."""
    pod, wanted = component.get("podTemplate", {}), component.get("replicas", 1)
    if "multinode" not in component:
        return [keep_deployment(sim, graph, name, wanted, labels, pod, "dynamo-operator")]
    template = labelled({"spec": copied(pod.get("spec") or _GPU_FREE_POD)}, labels)
    size = component["multinode"]["nodeCount"]
    group = {"size": size, "leaderTemplate": template, "workerTemplate": template}
    spec = {"leaderWorkerTemplate": group}
    names = [f"{name}-{index}" for index in range(wanted)]
    for one in owned(sim, "leaderworkersets", graph):
        metadata = one["metadata"]
        mine = metadata["labels"]["nvidia.com/dynamo-component"] == component["name"]
        if mine and metadata["name"] not in names:
            sim.cluster.delete("leaderworkersets", metadata["name"], metadata["namespace"])
    return [
        keep_leader_worker_set(sim, graph, one, 1, labels, spec, "dynamo-operator") for one in names
    ]


def _keep_adapter(sim: "ControllerSimulation", graph: Object, component: Object, name: str) -> None:
    namespace = graph["metadata"]["namespace"]
    if find(sim, "dynamographdeploymentscalingadapters", name, namespace) is not None:
        return
    sim.cluster.create({
        "apiVersion": "nvidia.com/v1alpha1",
        "kind": "DynamoGraphDeploymentScalingAdapter",
        "metadata": {"name": name, "ownerReferences": [owner_reference(graph)],
                     "labels": {
                         "nvidia.com/dynamo-graph-deployment-name": graph["metadata"]["name"],
                         "nvidia.com/dynamo-component": component["name"]}},
        "spec": {"replicas": component.get("replicas", 1),
                 "dgdRef": {"name": graph["metadata"]["name"],
                            "serviceName": component["name"]}},
    }, namespace, manager="dynamo-operator")  # fmt: skip


def reconcile_graph_adapter(sim: "ControllerSimulation", adapter: Object) -> None:
    reference = adapter["spec"]["dgdRef"]
    namespace = adapter["metadata"]["namespace"]
    graph = find(sim, "dynamographdeployments", reference["name"], namespace)
    for component in (graph or {}).get("spec", {}).get("components", ()):
        if component["name"] != reference["serviceName"] or "scalingAdapter" not in component:
            continue
        if component.get("replicas", 1) != adapter["spec"]["replicas"]:
            component["replicas"] = adapter["spec"]["replicas"]
            sim.cluster.update(graph or {}, manager="dynamo-operator", user=_OPERATOR)


# -- DisaggregatedSet --------------------------------------------------------------------------


def reconcile_disaggregated_set(sim: "ControllerSimulation", whole: Object) -> None:
    metadata = whole["metadata"]
    name = metadata["name"]
    hashed = template_hash({
        role["name"]: role["spec"]["leaderWorkerTemplate"] for role in whole["spec"]["roles"]
    })[:8]  # fmt: skip
    statuses = []
    for role in whole["spec"]["roles"]:
        labels = {f"{_DS}/name": name, f"{_DS}/role": role["name"], f"{_DS}/slice": "0"}
        wanted = role["spec"].get("replicas", 1)
        if role.get("scaling", {}).get("mode") == "External":
            wanted = _scaled(sim, whole, role)
        child = _keep_set(sim, whole, role, hashed, labels, wanted)
        replicas, ready = counts(child)
        statuses.append({"name": role["name"], "replicas": replicas, "readyReplicas": ready,
                         "updatedReplicas": replicas})  # fmt: skip
        scaler = find(sim, "disaggregatedsetrolescalers", f"{name}-{role['name']}",
                      metadata["namespace"])  # fmt: skip
        if scaler is not None:
            write_status(sim, scaler, {
                "observedGeneration": scaler["metadata"]["generation"],
                "replicas": replicas,
                "selector": f"{_DS}/name={name},{_DS}/role={role['name']}",
            }, manager="lws-controller-manager")  # fmt: skip
    available = all(one["replicas"] == one["readyReplicas"] for one in statuses)
    write_status(sim, whole, {
        "observedGeneration": metadata["generation"],
        "roleStatuses": statuses,
        "conditions": [condition(whole, "Available", holds=available, reason="RolesReady")],
    }, manager="lws-controller-manager")  # fmt: skip


def _scaled(sim: "ControllerSimulation", whole: Object, role: Object) -> int:
    """The count of a role's scaler, which is made where there is none yet."""
    name, namespace = f"{whole['metadata']['name']}-{role['name']}", whole["metadata"]["namespace"]
    scaler = find(sim, "disaggregatedsetrolescalers", name, namespace)
    if scaler is None:
        scaler = sim.cluster.create({
            "apiVersion": f"{_DS}/v1",
            "kind": "DisaggregatedSetRoleScaler",
            "metadata": {"name": name, "ownerReferences": [owner_reference(whole)],
                         "labels": {f"{_DS}/name": whole["metadata"]["name"],
                                    f"{_DS}/role": role["name"]}},
            "spec": {"replicas": role["spec"].get("replicas", 0)},
        }, namespace, manager="lws-controller-manager")  # fmt: skip
    return int(scaler["spec"].get("replicas", 0))


def _keep_set(
    sim: "ControllerSimulation", whole: Object, role: Object, hashed: str, labels: Object,
    wanted: int,
) -> Object:  # fmt: skip
    """The role's LeaderWorkerSet of this revision; those of older ones go."""
    namespace = whole["metadata"]["namespace"]
    name = f"{whole['metadata']['name']}-0-{hashed}-{role['name']}"
    for one in owned(sim, "leaderworkersets", whole):
        mine = one["metadata"]["labels"][f"{_DS}/role"] == role["name"]
        if mine and one["metadata"]["name"] != name:
            sim.cluster.delete("leaderworkersets", one["metadata"]["name"], namespace)
    labels = {**labels, f"{_DS}/revision": hashed}
    spec = copied(role["spec"])
    group = spec["leaderWorkerTemplate"]
    for key in group.keys() & {"leaderTemplate", "workerTemplate"}:
        group[key] = labelled(group[key], labels)
    return keep_leader_worker_set(sim, whole, name, wanted, labels, spec,
                                  "lws-controller-manager")  # fmt: skip


# -- KServe, production-stack, Grove, KEDA -----------------------------------------------------


def reconcile_llm_service(sim: "ControllerSimulation", service: Object) -> None:
    metadata, spec = service["metadata"], service["spec"]
    conditions = []
    main = "decode" if "prefill" in spec else "both"
    parts = [(main, "", spec, "MainWorkloadReady")]
    if "prefill" in spec:
        parts.append(("prefill", "-prefill", spec["prefill"], "PrefillWorkloadReady"))
    for role, suffix, part, word in parts:
        name = f"{metadata['name']}-kserve{'-mn' if 'worker' in part else ''}{suffix}"
        labels = {"app.kubernetes.io/name": metadata["name"], "llm-d.ai/role": role,
                  "app.kubernetes.io/component": f"llminferenceservice-workload{suffix}",
                  "app.kubernetes.io/part-of": "llminferenceservice"}  # fmt: skip
        if "scaling" in part:
            found = find(sim, "deployments", name, metadata["namespace"])
            wanted = found["spec"]["replicas"] if found else part["scaling"].get("minReplicas", 1)
        else:
            wanted = part.get("replicas", 1)
        if "worker" in part:
            child = _keep_group(sim, service, name, part, wanted, labels, suffix)
        else:
            pod = {"spec": part.get("template")}
            child = keep_deployment(sim, service, name, wanted, labels, pod, "kserve-controller")
        replicas, ready = counts(child)
        conditions.append(condition(service, word, holds=replicas == ready == wanted,
                                    reason="Replicas"))  # fmt: skip
    whole = all(one["status"] == "True" for one in conditions)
    conditions.append(condition(service, "Ready", holds=whole, reason="Workloads"))
    write_status(sim, service, {"observedGeneration": metadata["generation"],
                                "conditions": conditions}, manager="kserve-controller")  # fmt: skip


def _keep_group(
    sim: "ControllerSimulation", service: Object, name: str, part: Object, wanted: int,
    labels: Object, suffix: str,
) -> Object:  # fmt: skip
    """The set of a part on several nodes; with a leader of its own its workers have no role."""
    component, role = "app.kubernetes.io/component", "llm-d.ai/role"
    worker = {**labels, component: f"llminferenceservice-workload-worker{suffix}"}
    leader = {**labels, component: f"llminferenceservice-workload-leader{suffix}"}
    degrees = part.get("parallelism", {})
    size = degrees.get("pipeline") or degrees.get("data", 1) // degrees.get("dataLocal", 1)
    group: Object = {"size": size}
    if "template" in part:
        del worker[role]
        group["leaderTemplate"] = labelled({"spec": copied(part["template"])}, leader)
    group["workerTemplate"] = labelled({"spec": copied(part["worker"])}, worker)
    return keep_leader_worker_set(sim, service, name, wanted, worker,
                                  {"leaderWorkerTemplate": group}, "kserve-controller")  # fmt: skip


def reconcile_runtime(sim: "ControllerSimulation", runtime: Object) -> None:
    metadata, config = runtime["metadata"], runtime["spec"]["deploymentConfig"]
    gpus = config["resources"].get("gpu", "0")
    pod: Object = {"containers": [{"name": "vllm", "image": "engine:1",
                                   "args": runtime["spec"]["vllmConfig"].get("extraArgs", []),
                                   "resources": {"limits": {"nvidia.com/gpu": gpus}}}]}  # fmt: skip
    if config.get("nodeSelectorTerms"):
        required = {"nodeSelectorTerms": config["nodeSelectorTerms"]}
        pod["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
        }
    labels = {"app": metadata["name"]}
    child = keep_deployment(sim, runtime, metadata["name"], config["replicas"], labels,
                            {"spec": pod}, "production-stack-operator")  # fmt: skip
    replicas, ready = counts(child)
    write_status(sim, runtime, {
        "modelStatus": "Ready" if replicas == ready == config["replicas"] else "NotReady",
        "replicas": replicas, "selector": f"app={metadata['name']}",
    }, manager="production-stack-operator")  # fmt: skip


def reconcile_clique_set(sim: "ControllerSimulation", whole: Object) -> None:
    metadata, template = whole["metadata"], whole["spec"]["template"]
    groups = template.get("podCliqueScalingGroups", ())
    grouped = {name for group in groups for name in group["cliqueNames"]}
    for index in range(whole["spec"]["replicas"]):
        for clique in template["cliques"]:
            if clique["name"] not in grouped:
                name = f"{metadata['name']}-{index}-{clique['name']}"
                _keep_clique(sim, whole, name, clique, metadata["name"])
        for group in groups:
            name = f"{metadata['name']}-{index}-{group['name']}"
            if find(sim, "podcliquescalinggroups", name, metadata["namespace"]) is None:
                sim.cluster.create({
                    "apiVersion": "grove.io/v1alpha1", "kind": "PodCliqueScalingGroup",
                    "metadata": {"name": name, "ownerReferences": [owner_reference(whole)],
                                 "labels": {"app.kubernetes.io/part-of": metadata["name"]}},
                    "spec": {key: group[key]
                             for key in ("replicas", "minAvailable", "cliqueNames")},
                }, metadata["namespace"], manager="grove-operator")  # fmt: skip


def _keep_clique(
    sim: "ControllerSimulation", owner: Object, name: str, clique: Object, part_of: str,
    group_labels: Object | None = None, group_pods: int = 0,
) -> None:  # fmt: skip
    if find(sim, "podcliques", name, owner["metadata"]["namespace"]) is None:
        labels = {**clique.get("labels", {}), "app.kubernetes.io/part-of": part_of,
                  "app.kubernetes.io/managed-by": "grove-operator", **(group_labels or {}),
                  "grove.io/role-name": clique["spec"]["roleName"]}  # fmt: skip
        spec = copied(clique["spec"])
        for container in spec["podSpec"]["containers"] if group_pods else ():
            size = {"name": "GROVE_PCSG_TEMPLATE_NUM_PODS", "value": str(group_pods)}
            container["env"] = [*container.get("env", []), size]
        sim.cluster.create({
            "apiVersion": "grove.io/v1alpha1", "kind": "PodClique",
            "metadata": {"name": name, "labels": labels,
                         "ownerReferences": [owner_reference(owner)]},
            "spec": spec,
        }, owner["metadata"]["namespace"], manager="grove-operator")  # fmt: skip


def reconcile_scaling_group(sim: "ControllerSimulation", group: Object) -> None:
    metadata, spec = group["metadata"], group["spec"]
    part_of = metadata.get("labels", {}).get("app.kubernetes.io/part-of", "")
    whole = find(sim, "podcliquesets", part_of, metadata["namespace"])
    template = (whole or {}).get("spec", {}).get("template", {})
    cliques = {one["name"]: one for one in template.get("cliques", ())
               if one["name"] in spec["cliqueNames"]}  # fmt: skip
    names = {
        f"{metadata['name']}-{index}-{clique}": (index, clique)
        for index in range(spec["replicas"])
        for clique in cliques
    }
    pods = sum(one["spec"].get("replicas", 1) for one in cliques.values())
    for name, (index, clique) in names.items():
        labels = {_GROVE_GROUP: metadata["name"], f"{_GROVE_GROUP}-replica-index": str(index)}
        _keep_clique(sim, group, name, cliques[clique], part_of, labels, pods)
    scaled = any(
        "scaleConfig" in one and metadata["name"].endswith(f"-{one['name']}")
        for one in template.get("podCliqueScalingGroups", ())
    )
    children = {one["metadata"]["name"]: one for one in owned(sim, "podcliques", group)}
    for name in children.keys() - names.keys():
        sim.cluster.delete("podcliques", name, metadata["namespace"])
    available = sum(
        all(
            counts(child)[1] >= child["spec"]["replicas"]
            for name, child in children.items()
            if name.startswith(f"{metadata['name']}-{index}-")
        )
        for index in range(spec["replicas"])
    )
    write_status(sim, group, {
        "observedGeneration": metadata["generation"], "replicas": spec["replicas"],
        **({"selector": f"{_GROVE_GROUP}={metadata['name']}"} if scaled else {}),
        "availableReplicas": available, "scheduledReplicas": available,
        "updatedReplicas": spec["replicas"],
    }, manager="grove-operator",
        always=("availableReplicas", "scheduledReplicas", "updatedReplicas"))  # fmt: skip


def reconcile_scaled_object(sim: "ControllerSimulation", scaled: Object) -> None:
    metadata, spec = scaled["metadata"], scaled["spec"]
    name = f"keda-hpa-{metadata['name']}"
    if find(sim, "horizontalpodautoscalers", name, metadata["namespace"]) is None:
        target = spec["scaleTargetRef"]
        sim.cluster.create({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name, "ownerReferences": [owner_reference(scaled)],
                         "labels": {"app.kubernetes.io/managed-by": "keda-operator",
                                    "scaledobject.keda.sh/name": metadata["name"]}},
            "spec": {
                "minReplicas": max(1, spec.get("minReplicaCount", 1)),
                "maxReplicas": spec.get("maxReplicaCount", 100),
                "scaleTargetRef": {"apiVersion": target.get("apiVersion", "apps/v1"),
                                   "kind": target.get("kind", "Deployment"),
                                   "name": target["name"]},
            },
        }, metadata["namespace"], manager="keda-operator")  # fmt: skip
    write_status(sim, scaled, {"hpaName": name}, manager="keda-operator")


ADAPTERS = {
    "dynamographdeploymentscalingadapters": reconcile_graph_adapter,
    "dynamographdeployments": reconcile_graph,
    "disaggregatedsets": reconcile_disaggregated_set,
    "llminferenceservices": reconcile_llm_service,
    "vllmruntimes": reconcile_runtime,
    "podcliquesets": reconcile_clique_set,
    "podcliquescalinggroups": reconcile_scaling_group,
    "scaledobjects": reconcile_scaled_object,
}
