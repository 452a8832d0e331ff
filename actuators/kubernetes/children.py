"""Objects that a target made, and whose counts somebody may have changed by hand (guard 20).

A child is scaled by hand when its count is not the parent's, and whoever wrote it last is not the
controller that wrote its template.
"""

from kubernetes.client import ApiClient

from actuators.kinds import KINDS, REPLICAS
from actuators.kubernetes.client import ClusterError
from actuators.kubernetes.counts import Count, Counter
from actuators.kubernetes.ownership import holds
from actuators.kubernetes.pods import selector_of
from actuators.kubernetes.resources import Json, at, entries, get, number, path_of, text

_BOTH = ("Deployment", "LeaderWorkerSet")
CHILDREN = {
    "DisaggregatedSet": ("LeaderWorkerSet",),
    "DisaggregatedSetRoleScaler": ("LeaderWorkerSet",),
    "DynamoGraphDeployment": _BOTH,
    "DynamoGraphDeploymentScalingAdapter": _BOTH,
    "LLMInferenceService": _BOTH,
    "VLLMRuntime": ("Deployment",),
}
"""Kinds of objects that hold a copy of the count."""
_TEMPLATES = (("spec", "template", "spec"), ("spec", "leaderWorkerTemplate"))


def children_of(api: ApiClient, counter: Counter, count: Count) -> list[tuple[str, Json]]:
    """What a target made that holds a copy of its count, by kind. Raises ClusterError."""
    return [
        (kind, child)
        for kind in CHILDREN.get(counter.target.kind, ())
        for child in _children(api, counter, count, kind)
    ]


def scaled_by_hand(api: ApiClient, counter: Counter, count: Count) -> tuple[str, ...]:
    """One sentence for each child whose count somebody else set. Raises ClusterError."""
    children = children_of(api, counter, count)
    if sum(_replicas(child) for _kind, child in children) == count.replicas:
        return ()
    return tuple(
        f"{kind} {text(child, 'metadata', 'name')}, which {counter.target.label} made, was set to "
        f"{_replicas(child)} replicas by {', '.join(hands)}, while the count there is "
        f"{count.replicas}: set it back, and change the count there"
        for kind, child in children
        if (hands := _hands(child))
    )


def _children(api: ApiClient, counter: Counter, count: Count, kind: str) -> list[Json]:
    path = path_of(KINDS[kind].api_version, counter.namespace, KINDS[kind].plural)
    selector = selector_of(counter, count)
    if not selector:  # would list everything
        return []
    doing = f"list the {KINDS[kind].plural} of {counter.target.label}"
    try:
        if counter.target.kind == "VLLMRuntime":  # its Deployment has its name and no labels
            found = get(api, path, doing, fieldSelector=f"metadata.name={counter.target.name}")
        else:
            found = get(api, path, doing, labelSelector=selector)
    except ClusterError as error:
        if error.status == 404:  # its CRD is not installed
            return []
        raise
    return entries(found, "items")


def _replicas(child: Json) -> int:
    return number(child, *REPLICAS, absent=1)


def _hands(child: Json) -> list[str]:
    """Who holds its count without being the controller that made it.

    A template's annotations make nobody its maker: `kubectl rollout restart` writes those.
    """
    fields = entries(child, "metadata", "managedFields")
    makers = {
        text(entry, "manager")
        for entry in fields
        if any(holds(at(entry, "fieldsV1"), path) for path in _TEMPLATES)
    }
    holders = [text(entry, "manager") for entry in fields if holds(at(entry, "fieldsV1"), REPLICAS)]
    return sorted(set(holders) - makers)
