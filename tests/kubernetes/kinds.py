"""Which kinds the server serves, and how each behaves; custom ones come and go with their CRD."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.kubernetes.schemas import OPEN, Schema, builtin_schema

Object = dict[str, Any]
Convert = Callable[[Object, str], Object]
"""An object and the version it is wanted in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalePaths:
    """Where `/scale` reads and writes, each a path of field names."""

    spec: tuple[str, ...] = ("spec", "replicas")
    status: tuple[str, ...] = ("status", "replicas")
    selector: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind in one version, as the server serves it."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True
    singular: str = ""
    short_names: tuple[str, ...] = ()
    schema: Schema = field(default_factory=lambda: {"type": "object", **OPEN}, repr=False)
    has_status: bool = False
    scale: ScalePaths | None = None
    custom: bool = False
    has_generation: bool = False
    unconditional_update: bool = True
    create_on_update: bool = False
    storage_version: str = ""
    verbs: tuple[str, ...] = (
        "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
    )  # fmt: skip

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def key(self) -> tuple[str, str]:
        return self.group, self.plural

    @property
    def subresources(self) -> tuple[str, ...]:
        found = [*(["status"] if self.has_status else []), *(["scale"] if self.scale else [])]
        if self.key == ("", "pods"):
            found.append("eviction")
        if self.key == ("", "serviceaccounts"):
            found.append("token")
        return tuple(found)


@dataclass(slots=True)
class Registry:
    """The kinds served now, by (group, version, plural)."""

    kinds: dict[tuple[str, str, str], Kind] = field(default_factory=dict)
    conversions: dict[tuple[str, str], Convert] = field(default_factory=dict)

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self.kinds.get((group, version, plural))

    def of_object(self, api_version: str, kind: str) -> Kind | None:
        """The kind with this `apiVersion` and `kind`."""
        for known in self.kinds.values():
            if known.api_version == api_version and known.kind == kind:
                return known
        return None

    def add(self, kinds: Iterable[Kind]) -> None:
        for kind in kinds:
            self.kinds[kind.group, kind.version, kind.plural] = kind

    def remove(self, group: str, plural: str) -> None:
        for known in [k for k in self.kinds.values() if k.key == (group, plural)]:
            del self.kinds[known.group, known.version, known.plural]

    def groups(self) -> Iterator[tuple[str, list[str]]]:
        """Each group with its versions."""
        found: dict[str, list[str]] = {}
        for known in self.kinds.values():
            versions = found.setdefault(known.group, [])
            if known.version not in versions:
                versions.append(known.version)
        yield from found.items()

    def converted(self, kind: Kind, stored: Object, version: str) -> Object:
        """A stored object in another version of its kind."""
        api_version = f"{kind.group}/{version}" if kind.group else version
        if stored.get("apiVersion") == api_version:
            return stored
        convert = self.conversions.get(kind.key)
        made = convert(stored, version) if convert else dict(stored)
        return {**made, "apiVersion": api_version}


def custom_kinds(definition: Object) -> list[Kind]:
    """The kinds that a CustomResourceDefinition serves."""
    spec = definition["spec"]
    names = spec["names"]
    stored = next(v["name"] for v in spec["versions"] if v.get("storage"))
    return [
        Kind(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            singular=names.get("singular", names["kind"].lower()),
            short_names=tuple(names.get("shortNames", ())),
            namespaced=spec["scope"] == "Namespaced",
            schema=_custom_schema(version.get("schema", {}).get("openAPIV3Schema", {})),
            has_status="status" in version.get("subresources", {}),
            scale=_scale_paths(version.get("subresources", {}).get("scale")),
            custom=True,
            has_generation=True,
            unconditional_update=False,
            storage_version=stored,
        )
        for version in spec["versions"]
        if version.get("served", True)
    ]


def _custom_schema(declared: Schema) -> Schema:
    """The declared schema with the server's own: apiVersion, kind, ObjectMeta."""
    schema = {"type": "object", **declared}
    schema["properties"] = {
        **declared.get("properties", {}),
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": builtin_schema("V1ObjectMeta"),
    }
    return schema


def _scale_paths(declared: Object | None) -> ScalePaths | None:
    if declared is None:
        return None
    return ScalePaths(
        spec=_path(declared["specReplicasPath"]),
        status=_path(declared["statusReplicasPath"]),
        selector=_path(declared.get("labelSelectorPath", "")),
    )


def _path(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(".") if part)


def _builtin(group: str, version: str, kind: str, plural: str, model: str = "", **how: Any) -> Kind:
    if model:
        how["schema"] = builtin_schema(model)
    return Kind(group=group, version=version, kind=kind, plural=plural,
                singular=kind.lower(), storage_version=version, **how)  # fmt: skip


def builtin_kinds() -> list[Kind]:
    """The kinds of a cluster without any CRD, as far as they matter to what scales workloads."""
    workload = {"has_status": True, "has_generation": True, "scale": ScalePaths()}
    rbac = "rbac.authorization.k8s.io"
    return [
        _builtin("", "v1", "Namespace", "namespaces", "V1Namespace", namespaced=False,
                 has_status=True, short_names=("ns",)),
        _builtin("", "v1", "Node", "nodes", "V1Node", namespaced=False, has_status=True,
                 short_names=("no",)),
        _builtin("", "v1", "Pod", "pods", "V1Pod", has_status=True, has_generation=True,
                 short_names=("po",)),
        _builtin("", "v1", "Service", "services", "V1Service", has_status=True,
                 short_names=("svc",)),
        _builtin("", "v1", "ServiceAccount", "serviceaccounts", "V1ServiceAccount",
                 short_names=("sa",)),
        _builtin("", "v1", "ConfigMap", "configmaps", "V1ConfigMap", short_names=("cm",)),
        _builtin("", "v1", "Secret", "secrets", "V1Secret"),
        _builtin("", "v1", "Event", "events", "CoreV1Event", create_on_update=True,
                 short_names=("ev",)),
        _builtin("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims",
                 "V1PersistentVolumeClaim", has_status=True, short_names=("pvc",)),
        _builtin("apps", "v1", "Deployment", "deployments", "V1Deployment",
                 short_names=("deploy",), **workload),
        _builtin("apps", "v1", "ReplicaSet", "replicasets", "V1ReplicaSet",
                 short_names=("rs",), **workload),
        _builtin("apps", "v1", "StatefulSet", "statefulsets", "V1StatefulSet",
                 short_names=("sts",), **workload),
        _builtin("apps", "v1", "ControllerRevision", "controllerrevisions"),
        _builtin("apps", "v1", "DaemonSet", "daemonsets", "V1DaemonSet", has_status=True,
                 has_generation=True, short_names=("ds",)),
        _builtin("", "v1", "ResourceQuota", "resourcequotas", "V1ResourceQuota", has_status=True),
        _builtin("", "v1", "LimitRange", "limitranges", "V1LimitRange"),
        _builtin("events.k8s.io", "v1", "Event", "events", "EventsV1Event",
                 create_on_update=True),
        _builtin("resource.k8s.io", "v1", "ResourceClaimTemplate", "resourceclaimtemplates",
                 "V1ResourceClaimTemplate"),
        _builtin("resource.k8s.io", "v1", "DeviceClass", "deviceclasses", "V1DeviceClass",
                 namespaced=False),
        _builtin("networking.k8s.io", "v1", "Ingress", "ingresses", "V1Ingress", has_status=True,
                 has_generation=True, short_names=("ing",)),
        _builtin("batch", "v1", "CronJob", "cronjobs", "V1CronJob", has_status=True,
                 has_generation=True, short_names=("cj",)),
        _builtin("batch", "v1", "Job", "jobs", "V1Job", has_status=True, has_generation=True),
        _builtin("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers",
                 "V2HorizontalPodAutoscaler", has_status=True, short_names=("hpa",)),
        _builtin("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets",
                 "V1PodDisruptionBudget", has_status=True, has_generation=True,
                 short_names=("pdb",)),
        _builtin("coordination.k8s.io", "v1", "Lease", "leases", "V1Lease",
                 unconditional_update=False, create_on_update=True),
        _builtin("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies",
                 "V1NetworkPolicy", has_generation=True, short_names=("netpol",)),
        _builtin("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses",
                 "V1PriorityClass", namespaced=False, short_names=("pc",)),
        _builtin(rbac, "v1", "Role", "roles", "V1Role"),
        _builtin(rbac, "v1", "RoleBinding", "rolebindings", "V1RoleBinding"),
        _builtin(rbac, "v1", "ClusterRole", "clusterroles", "V1ClusterRole", namespaced=False),
        _builtin(rbac, "v1", "ClusterRoleBinding", "clusterrolebindings",
                 "V1ClusterRoleBinding", namespaced=False),
        _builtin("apiextensions.k8s.io", "v1", "CustomResourceDefinition",
                 "customresourcedefinitions", namespaced=False, has_status=True,
                 has_generation=True, short_names=("crd", "crds")),
        _builtin("authorization.k8s.io", "v1", "SelfSubjectAccessReview",
                 "selfsubjectaccessreviews", namespaced=False, verbs=("create",)),
        _builtin("authorization.k8s.io", "v1", "SelfSubjectRulesReview",
                 "selfsubjectrulesreviews", namespaced=False, verbs=("create",)),
        _builtin("authentication.k8s.io", "v1", "SelfSubjectReview",
                 "selfsubjectreviews", namespaced=False, verbs=("create",)),
    ]  # fmt: skip
