"""The replicas behind a count: ready, still coming, leaving, and why they do not come.

A replica is a pod, or several on as many nodes that serve together: those count once, and are ready
when all of them are.

References
----------
Labels and annotations: LeaderWorkerSet, `api/leaderworkerset/v1`; DisaggregatedSet,
`api/disaggregatedset/v1`; Grove, `operator/api/common/labels.go`; Dynamo's operator,
`internal/consts`; KServe, `pkg/controller/v1alpha2/llmisvc/workload_*.go`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from kubernetes.client import ApiClient

from actuators.kubernetes.counts import Count, Counter
from actuators.kubernetes.kinship import Kin, kin_of
from actuators.kubernetes.resources import Json, at, entries, get, number, path_of, text

_LWS = "leaderworkerset.sigs.k8s.io"
_GROVE_GROUP = "grove.io/podcliquescalinggroup"
_GROVE_SIZE = "GROVE_PCSG_TEMPLATE_NUM_PODS"
_KSERVE = "llminferenceservice-workload"
_KSERVE_PARTS = {
    "decode": f"{_KSERVE},{_KSERVE}-leader,{_KSERVE}-worker",
    "prefill": f"{_KSERVE}-prefill,{_KSERVE}-leader-prefill,{_KSERVE}-worker-prefill",
}
_SELECTORS = {
    # A LeaderWorkerSet's scale selects leaders only, Grove's say nothing without an autoscaler.
    "LeaderWorkerSet": f"{_LWS}/name={{name}}",
    "PodClique": "grove.io/podclique={name}",
    "PodCliqueScalingGroup": f"{_GROVE_GROUP}={{name}}",
    "VLLMRuntime": "app={name}",
    "DisaggregatedSet": (
        "disaggregatedset.x-k8s.io/name={name},disaggregatedset.x-k8s.io/role={part}"
    ),
    "DynamoGraphDeployment": (
        "nvidia.com/dynamo-graph-deployment-name={name},nvidia.com/dynamo-component={part}"
    ),
    "LLMInferenceService": (
        "app.kubernetes.io/name={name},app.kubernetes.io/component in ({components})"
    ),
    "StormService": "storm-service-name={name},role-name={part}",
}
"""Labels of all pods of a count, where its scale does not say them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """Replicas of one count as their pods were seen.

    Parameters
    ----------
    unplaced : int
        Of those that are coming: how many have a pod that no node has room for.
    all : tuple of pods
    told : tuple of str
        What should be known of how they were counted, a clause each.
    """

    ready: int
    coming: int
    leaving: int
    unplaced: int
    why: tuple[str, ...]
    all: tuple[Json, ...]
    told: tuple[str, ...] = ()


def pods_of(api: ApiClient, counter: Counter, count: Count) -> Pods:
    """Look at the pods behind a count. Raises ClusterError."""
    selector = selector_of(counter, count)
    path = path_of("v1", counter.namespace, "pods")
    doing = f"list the pods of {counter.target.label}"
    found = entries(get(api, path, doing, labelSelector=selector), "items") if selector else []
    kin = kin_of(counter, count, found)
    return replace(judged(kin.own, kind=counter.target.kind), told=_told(kin))


def _told(kin: Kin) -> tuple[str, ...]:
    told = [f"pods are counted by their labels alone: {why}" for why in kin.untold]
    if kin.strangers:
        some = ", ".join(kin.strangers[:3]) + (", ..." if len(kin.strangers) > 3 else "")
        told.append(f"{len(kin.strangers)} pods ({some}) have its labels and are not its own")
    return tuple(told)


def selector_of(counter: Counter, count: Count) -> str:
    """Labels of the pods of a count, and of the objects that make them; empty: not known."""
    target = counter.target
    if target.kind not in _SELECTORS:
        return count.selector
    components = _KSERVE_PARTS.get(target.part, "")
    return _SELECTORS[target.kind].format(name=target.name, part=target.part, components=components)


def judged(pods: Iterable[Json], *, kind: str) -> Pods:
    """Count the replicas that pods are, by what they are."""
    pods = tuple(pods)
    replicas: dict[tuple[str, ...], list[Json]] = {}
    for pod in pods:
        if _leaves(pod) or not _over(pod):
            replicas.setdefault(replica_of(pod, kind), []).append(pod)
    staying = {
        key: ps
        for key, ps in replicas.items()
        if not any(map(_leaves, ps)) and not _has_lost_its_leader(ps)
    }
    coming = [ps for key, ps in staying.items() if not _is_whole(key, ps)]
    waiting = [pod for ps in coming for pod in ps if not _holds(pod, "Ready")]
    return Pods(
        ready=len(staying) - len(coming),
        coming=len(coming),
        leaving=len(replicas) - len(staying),
        unplaced=sum(any(map(_unplaced, ps)) for ps in coming),
        why=tuple(dict.fromkeys(filter(None, map(_why, waiting)))),
        all=pods,
    )


def replica_of(pod: Json, kind: str) -> tuple[str, ...]:
    """What the pods of one replica have in common."""
    for name, index in (
        (f"{_LWS}/name", f"{_LWS}/group-index"),
        (_GROVE_GROUP, f"{_GROVE_GROUP}-replica-index"),
    ):
        one = text(pod, "metadata", "labels", name), text(pod, "metadata", "labels", index)
        if all(one) and kind != "PodClique":  # which counts pods, wherever it belongs to
            return one
    return (text(pod, "metadata", "name"),)


def _is_whole(key: tuple[str, ...], pods: list[Json]) -> bool:
    """Whether all pods of a replica are there and ready; a pod that is one by itself is all."""
    size = 1 if len(key) == 1 else max(map(_size, pods))
    return len(pods) >= size and all(_holds(pod, "Ready") for pod in pods)


def _size(pod: Json) -> int:
    """How many pods its replica has, as its controller noted at it."""
    told = text(pod, "metadata", "annotations", f"{_LWS}/size")
    for container in entries(pod, "spec", "containers"):
        for variable in entries(container, "env"):
            if variable.get("name") == _GROVE_SIZE:
                told = told or text(variable, "value")
    return int(told) if told.isdecimal() else 1


def _has_lost_its_leader(pods: list[Json]) -> bool:
    """A group's workers go after its leader; while one begins, the leader is there first."""
    workers = [text(pod, "metadata", "labels", f"{_LWS}/worker-index") for pod in pods]
    return all(workers) and "0" not in workers


def _leaves(pod: Json) -> bool:
    return bool(text(pod, "metadata", "deletionTimestamp"))


def is_ready(pod: Json) -> bool:
    """Whether it takes traffic and is not leaving."""
    return _holds(pod, "Ready") and not _leaves(pod)


def started_at(pod: Json) -> datetime:
    """When it was made."""
    made = text(pod, "metadata", "creationTimestamp")
    return datetime.fromisoformat(made) if made else datetime.now(UTC)


def _over(pod: Json) -> bool:
    return text(pod, "status", "phase") in ("Succeeded", "Failed")


def _condition(pod: Json, kind: str) -> Json | None:
    return next((c for c in entries(pod, "status", "conditions") if c.get("type") == kind), None)


def _holds(pod: Json, kind: str) -> bool:
    condition = _condition(pod, kind)
    return condition is not None and condition.get("status") == "True"


def _unplaced(pod: Json) -> bool:
    condition = _condition(pod, "PodScheduled")
    return condition is not None and condition.get("reason") == "Unschedulable"


def _why(pod: Json) -> str:
    """What a pod waits for, in the cluster's words."""
    placed = _condition(pod, "PodScheduled")
    if placed is not None and placed.get("status") == "False":
        return text(placed, "message") or text(placed, "reason")
    for container in entries(pod, "status", "containerStatuses"):
        waiting = at(container, "state", "waiting")
        if isinstance(waiting, dict):
            return f"{text(waiting, 'reason')}: {text(waiting, 'message')}".strip(": ")
        if number(container, "restartCount"):
            return f"its container was started again {number(container, 'restartCount')} times"
    return ""
