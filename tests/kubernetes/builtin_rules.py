"""What the server adds to and demands of the built-in kinds beyond their schema."""

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.kubernetes import errors
from tests.kubernetes.errors import Cause
from tests.kubernetes.kinds import Kind
from tests.kubernetes.selectors import selects

Object = dict[str, Any]

_WORKLOADS = {"Deployment", "ReplicaSet", "StatefulSet"}
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
# RBAC names may hold colons.
_FREE_NAMES = {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


def fill_builtin_defaults(kind: Kind, obj: Object) -> None:
    """Write the defaults of a built-in kind, in place."""
    spec = obj.setdefault("spec", {}) if kind.kind in {*_WORKLOADS, "Pod"} else obj.get("spec", {})
    if kind.kind in _WORKLOADS:
        spec.setdefault("replicas", 1)
        _fill_pod(spec.get("template", {}).setdefault("spec", {}))
    if kind.kind == "Deployment":
        spec.setdefault("strategy", {}).setdefault("type", "RollingUpdate")
        if spec["strategy"]["type"] == "RollingUpdate":
            rolling = spec["strategy"].setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)
    elif kind.kind == "StatefulSet":
        spec.setdefault("podManagementPolicy", "OrderedReady")
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("updateStrategy", {"type": "RollingUpdate",
                                           "rollingUpdate": {"partition": 0}})  # fmt: skip
    elif kind.kind == "Pod":
        _fill_pod(spec)
        spec.setdefault("serviceAccountName", "default")
    elif kind.kind == "HorizontalPodAutoscaler":
        spec.setdefault("minReplicas", 1)
    elif kind.kind == "Service":
        spec.setdefault("type", "ClusterIP")
        for port in spec.get("ports", ()):
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port.get("port"))
    elif kind.kind == "Namespace":
        name = obj["metadata"].get("name")
        obj["metadata"].setdefault("labels", {}).setdefault("kubernetes.io/metadata.name", name)


def _fill_pod(spec: Object) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    for container in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        if not isinstance(container, dict):
            continue
        tag = str(container.get("image", "")).rpartition("/")[2].partition(":")[2]
        container.setdefault("imagePullPolicy", "Always" if tag in {"", "latest"}
                             else "IfNotPresent")  # fmt: skip
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        for port in container.get("ports", ()):
            port.setdefault("protocol", "TCP")


def initial_status(kind: Kind) -> Object | None:
    """The status a new object starts with."""
    return {
        "Pod": {"phase": "Pending", "qosClass": "BestEffort"},
        "Namespace": {"phase": "Active"},
        "Deployment": {},
        "StatefulSet": {"replicas": 0, "availableReplicas": 0},
        "ReplicaSet": {"replicas": 0},
        "Service": {"loadBalancer": {}},
        "HorizontalPodAutoscaler": {"desiredReplicas": 0},
        "PodDisruptionBudget": {
            "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0,
        },
    }.get(kind.kind)  # fmt: skip


def metadata_problems(kind: Kind, obj: Object) -> Iterator[Cause]:
    """What is wrong with the name and labels."""
    metadata = obj["metadata"]
    name = metadata.get("name", "")
    if not name:
        yield errors.required("metadata.name", "Required value: name or generateName is required")
    elif kind.kind not in _FREE_NAMES and (not _DNS_SUBDOMAIN.fullmatch(name) or len(name) > 253):
        yield errors.wrong(
            "metadata.name",
            f'"{name}": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric '
            "characters, '-' or '.', and must start and end with an alphanumeric character "
            "(e.g. 'example.com', regex used for validation is "
            "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        )
    for value in (metadata.get("labels") or {}).values():
        if isinstance(value, str) and (not _LABEL_VALUE.fullmatch(value) or len(value) > 63):
            yield errors.wrong(
                "metadata.labels",
                f'"{value}": a valid label must be an empty string or consist of alphanumeric '
                "characters, '-', '_' or '.', and must start and end with an alphanumeric "
                "character",
            )


def builtin_problems(kind: Kind, obj: Object, before: Object | None) -> Iterator[Cause]:
    """What the validation of a built-in kind refuses."""
    spec = obj.get("spec", {})
    if kind.kind in _WORKLOADS:
        yield from _workload_problems(spec, before, kind)
    elif kind.kind == "HorizontalPodAutoscaler":
        yield from _autoscaler_problems(spec)
    elif kind.kind == "PodDisruptionBudget":
        if "minAvailable" in spec and "maxUnavailable" in spec:
            yield errors.wrong("spec", "minAvailable and maxUnavailable cannot be both set")
    elif kind.kind == "Pod" and before is not None:
        for field in ("nodeSelector", "priorityClassName"):
            if spec.get(field) != before.get("spec", {}).get(field):
                yield errors.not_permitted("spec", "pod updates may not change fields other "
                                           "than `spec.containers[*].image`")  # fmt: skip


def _workload_problems(spec: Object, before: Object | None, kind: Kind) -> Iterator[Cause]:
    replicas = spec.get("replicas", 1)
    if replicas < 0:
        yield errors.wrong("spec.replicas", f"{replicas}: must be greater than or equal to 0")
    selector = spec.get("selector")
    template = spec.get("template", {})
    labels = template.get("metadata", {}).get("labels", {})
    if selector is not None and not selects(selector, labels):
        yield errors.wrong(
            "spec.template.metadata.labels",
            f"{_shown(labels)}: `selector` does not match template `labels`",
        )
    if before is not None and kind.kind != "StatefulSet":
        was = before.get("spec", {}).get("selector")
        if was != selector:
            yield errors.wrong("spec.selector", f"{_shown(selector)}: field is immutable")
    containers = template.get("spec", {}).get("containers")
    if containers == []:
        yield errors.required("spec.template.spec.containers")
    yield from _grace_problems(template.get("spec", {}))


def _grace_problems(pod: Object) -> Iterator[Cause]:
    grace = pod.get("terminationGracePeriodSeconds", 0)
    if grace < 0:
        yield errors.wrong(
            "spec.template.spec.terminationGracePeriodSeconds",
            f"{grace}: must be greater than or equal to 0",
        )


def _autoscaler_problems(spec: Object) -> Iterator[Cause]:
    least, most = spec.get("minReplicas", 1), spec.get("maxReplicas", 1)
    if least < 1:
        yield errors.wrong("spec.minReplicas", f"{least}: must be greater than or equal to 1")
    if most < 1:
        yield errors.wrong("spec.maxReplicas", f"{most}: must be greater than 0")
    elif most < least:
        yield errors.wrong("spec.maxReplicas", f"{most}: must be greater than or equal to "
                                               "`minReplicas`")  # fmt: skip


def _shown(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
