"""The same description as Kubernetes manifests: workers by role and cell, routers for each cell.

smg discovers either prefill and decode pods or pods that do both, so that a cell with both kinds
has two routers. Roles are Deployments here, because a pod's labels are what the router discovers
it by. Written after the documentation of vLLM, smg and Kubernetes and checked against the API's
own models; not run on a cluster with GPUs.
"""

from dataclasses import dataclass, replace
from typing import cast

import yaml

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.topology import Cell
from serving.fleet.kubernetes_gate import GateDescription, gate_manifests
from serving.fleet.manifest_parts import Json, probe
from serving.workers.engine import NIXL, EngineFlags, Ports, engine_arguments

HTTP_PORT, NIXL_PORT = 8000, 5600
ROUTER_PORT, ROUTER_METRICS_PORT = 30000, 29000
STARTUP_LIMIT_S = 1800
"""A large model may load for so long before Kubernetes gives it up."""
DRAIN_S = 120
"""An ending pod finishes what it has begun, after the router was told."""
ROUTER_FORGETS_S = 10
KILLED_AFTER_S = 10
"""smg lets a removed worker drain for 5 s before it forgets it."""
GPU = "nvidia.com/gpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesDescription:
    """What is to run.

    Parameters
    ----------
    name : str
        Prefix of every object.
    model : str
        What vLLM loads: a repository's name, or a path inside the pod.
    served_name : str
        Name in requests.
    replicas : dict of Role to int
        In every cell.
    shape : ReplicaShape
        Of every worker, but for its role.
    model_claim : str or None
        A PersistentVolumeClaim with models, mounted at /models.
    gate : GateDescription or None
        None: clients ask the routers.
    """

    name: str
    namespace: str
    model: str
    served_name: str
    replicas: dict[Role, int]
    shape: ReplicaShape
    flags: EngineFlags
    cells: tuple[Cell, ...]
    engine_image: str
    router_image: str
    model_claim: str | None = None
    gate: GateDescription | None = None


def render(described: KubernetesDescription) -> dict[str, str]:
    """Manifests by file name, with a `kustomization.yaml` that lists them."""
    files: dict[str, list[Json]] = {"access.yaml": _access(described)}
    for cell in described.cells:
        workers = [
            _workers(described, cell, role, count)
            for role, count in described.replicas.items()
            if count
        ]
        files[f"cell-{cell.name}.yaml"] = [*workers, *_routers(described, cell)]
    if described.gate is not None:
        files["gate.yaml"] = gate_manifests(described.name, described.gate, _urls(described))
    kustomization: Json = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": described.namespace,
        "resources": sorted(files),
    }
    files["kustomization.yaml"] = [kustomization]
    return {name: yaml.safe_dump_all(docs, sort_keys=False) for name, docs in files.items()}


def _labels(described: KubernetesDescription, cell: Cell, component: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": described.name,
        "app.kubernetes.io/component": component,
        "poolwise.io/cell": cell.name,
    }


def _workers(described: KubernetesDescription, cell: Cell, role: Role, count: int) -> Json:
    labels = _labels(described, cell, role.value)
    pod: Json = {
        "terminationGracePeriodSeconds": ROUTER_FORGETS_S + DRAIN_S + KILLED_AFTER_S,
        "containers": [_engine(described, role)],
    }
    if cell.node_labels:
        pod["nodeSelector"] = dict(cell.node_labels)
    volumes: list[Json] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    if described.model_claim is not None:
        claim = {"claimName": described.model_claim, "readOnly": True}
        volumes.append({"name": "models", "persistentVolumeClaim": claim})
    pod["volumes"] = volumes
    # smg pairs only workers whose connector it knows; without, decode recomputes every prompt.
    annotations = {"smg.ai/kv-connector": NIXL}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{described.name}-{cell.name}-{role.value}", "labels": labels},
        "spec": {
            "replicas": count,
            "selector": {"matchLabels": labels},
            # A new worker takes traffic before an old one leaves.
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
        },
    }


def _engine(described: KubernetesDescription, role: Role) -> Json:
    shape = replace(described.shape, role=role)
    ports = Ports(http=HTTP_PORT, nixl=NIXL_PORT)
    mounts: list[Json] = [{"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108  in the pod
    if described.model_claim is not None:
        mounts.append({"name": "models", "mountPath": "/models", "readOnly": True})
    pod_ip = {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    accelerators = {GPU: str(shape.accelerators)}
    return {
        "name": "engine",
        "image": described.engine_image,
        "command": ["vllm"],
        "args": [
            *engine_arguments(
                described.model,
                described.flags,
                shape,
                ports,
                name=described.served_name,
                host="0.0.0.0",  # noqa: S104  inside the pod
            ),
            # Without it vLLM ends running requests as soon as it is told to stop.
            *("--shutdown-timeout", str(DRAIN_S)),
        ],
        "env": [
            {"name": "VLLM_NIXL_SIDE_CHANNEL_HOST", **pod_ip},
            {"name": "VLLM_NIXL_SIDE_CHANNEL_PORT", "value": str(NIXL_PORT)},
            {"name": "VLLM_NO_USAGE_STATS", "value": "1"},
        ],
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT},
            {"name": "nixl", "containerPort": NIXL_PORT},
        ],
        "startupProbe": probe("/health", "http", period_s=10, failures=STARTUP_LIMIT_S // 10),
        "readinessProbe": probe("/health", "http", period_s=5, failures=2),
        "livenessProbe": probe("/health", "http", period_s=10, failures=6),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(ROUTER_FORGETS_S)]}}},
        "resources": {"requests": accelerators, "limits": accelerators},
        "volumeMounts": mounts,
    }


def _routers(described: KubernetesDescription, cell: Cell) -> list[Json]:
    """One before prefill and decode workers, one before those that do both."""

    def selector(role: Role) -> list[str]:
        return [f"{k}={v}" for k, v in _labels(described, cell, role.value).items()]

    found: list[Json] = []
    if described.replicas.get(Role.PREFILL) and described.replicas.get(Role.DECODE):
        pairs = [
            "--pd-disaggregation",
            *("--prefill-selector", *selector(Role.PREFILL)),
            *("--decode-selector", *selector(Role.DECODE)),
            *("--prefill-policy", "least_load", "--decode-policy", "least_load"),
        ]
        found += _router(described, cell, "router", pairs)
    if described.replicas.get(Role.AGGREGATED):
        whole = ["--selector", *selector(Role.AGGREGATED), "--policy", "least_load"]
        found += _router(described, cell, "router-aggregated", whole)
    return found


def _urls(described: KubernetesDescription) -> list[str]:
    """Where all routers answer inside the cluster."""
    services = (
        cast("Json", one["metadata"])["name"]
        for cell in described.cells
        for one in _routers(described, cell)
        if one["kind"] == "Service"
    )
    return [f"http://{name}.{described.namespace}:{ROUTER_PORT}" for name in services]


def _router(
    described: KubernetesDescription, cell: Cell, component: str, finds: list[str]
) -> list[Json]:
    """A router with its Service.

    Parameters
    ----------
    finds : list of str
        Options that say which pods are its workers.
    """
    labels = _labels(described, cell, component)
    name = f"{described.name}-{cell.name}-{component}"
    container: Json = {
        "name": "router",
        "image": described.router_image,
        "command": ["smg"],
        "args": [
            *("launch", "--service-discovery", *finds),
            *("--service-discovery-port", str(HTTP_PORT)),
            *("--service-discovery-namespace", described.namespace),
            *("--host", "0.0.0.0", "--port", str(ROUTER_PORT)),  # noqa: S104
            *("--prometheus-host", "0.0.0.0"),  # noqa: S104
            *("--prometheus-port", str(ROUTER_METRICS_PORT)),
        ],
        "ports": [
            {"name": "http", "containerPort": ROUTER_PORT},
            {"name": "metrics", "containerPort": ROUTER_METRICS_PORT},
        ],
        "readinessProbe": probe("/readiness", "http", period_s=5, failures=2),
        "livenessProbe": probe("/liveness", "http", period_s=10, failures=3),
    }
    pod: Json = {"serviceAccountName": f"{described.name}-router", "containers": [container]}
    deployment: Json = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    ports = (("http", ROUTER_PORT), ("metrics", ROUTER_METRICS_PORT))
    service: Json = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "selector": labels,
            "ports": [{"name": n, "port": p, "targetPort": n} for n, p in ports],
        },
    }
    return [deployment, service]


def _access(described: KubernetesDescription) -> list[Json]:
    """What the router's discovery needs: to see pods of its namespace, nothing more."""
    name = f"{described.name}-router"
    rbac = "rbac.authorization.k8s.io"
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    account = {"kind": "ServiceAccount", "name": name, "namespace": described.namespace}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "Role",
            "metadata": {"name": name},
            "rules": [rule],
        },
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": name},
            "subjects": [account],
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
        },
    ]
