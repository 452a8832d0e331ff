"""The pods behind a count: ready, still coming, leaving, and why they do not come."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from kubernetes.client import ApiClient

from actuators.kubernetes.counts import Count, Counter
from actuators.kubernetes.resources import Json, at, entries, get, number, path_of, text

_SETS = ("leaderworkerset.x-k8s.io/v1", "leaderworkersets")
_LEADER = "leaderworkerset.sigs.k8s.io/worker-index=0"
_SELECTORS = {
    "DynamoGraphDeployment": (
        "nvidia.com/dynamo-graph-deployment-name={name},nvidia.com/dynamo-component={part}"
    ),
    "LLMInferenceService": "app.kubernetes.io/name={name},llm-d.ai/role={part}",
    "StormService": "storm-service-name={name},role-name={part}",
}
"""Labels of pods whose object has no selector for one role. A group of several nodes counts by its
leader: it is ready when all its workers have joined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pods:
    """Pods of one count, as they were seen."""

    ready: int
    coming: int
    leaving: int
    unplaced: int
    why: tuple[str, ...]
    all: tuple[Json, ...]


def pods_of(api: ApiClient, counter: Counter, count: Count) -> Pods:
    """Look at the pods behind a count. Raises ClusterError."""
    selector = count.selector or _selector(api, counter)
    path = path_of("v1", counter.namespace, "pods")
    doing = f"list the pods of {counter.target.label}"
    found = entries(get(api, path, doing, labelSelector=selector), "items") if selector else []
    return judged(found)


def _selector(api: ApiClient, counter: Counter) -> str:
    target = counter.target
    if target.kind != "DisaggregatedSet":
        return _SELECTORS.get(target.kind, "").format(name=target.name, part=target.part)
    # Names of its sets carry a revision; pods carry the name of their set.
    labels = f"disaggregatedset.x-k8s.io/name={target.name}"
    labels += f",disaggregatedset.x-k8s.io/role={target.part}"
    path = path_of(_SETS[0], counter.namespace, _SETS[1])
    found = get(api, path, f"list the sets of {target.label}", labelSelector=labels)
    names = [text(one, "metadata", "name") for one in entries(found, "items")]
    chosen = f"leaderworkerset.sigs.k8s.io/name in ({','.join(names)}),{_LEADER}"
    return chosen if names else ""


def judged(pods: Iterable[Json]) -> Pods:
    """Count pods by what they are."""
    pods = tuple(pods)
    staying = [p for p in pods if not text(p, "metadata", "deletionTimestamp") and not _over(p)]
    ready = [p for p in staying if _holds(p, "Ready")]
    waiting = [p for p in staying if not _holds(p, "Ready")]
    return Pods(
        ready=len(ready),
        coming=len(waiting),
        leaving=sum(bool(text(p, "metadata", "deletionTimestamp")) for p in pods),
        unplaced=sum(_unplaced(p) for p in waiting),
        why=tuple(dict.fromkeys(filter(None, map(_why, waiting)))),
        all=pods,
    )


def is_ready(pod: Json) -> bool:
    """Whether it takes traffic and is not leaving."""
    return _holds(pod, "Ready") and not text(pod, "metadata", "deletionTimestamp")


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
