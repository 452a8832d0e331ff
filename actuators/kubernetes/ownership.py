"""Who else holds a count: autoscalers, a parent object, a field manager such as a GitOps tool.

One owner per field (docs/guards.md, row 12): where there is another, nothing is written.
"""

import json
from collections.abc import Sequence

from kubernetes.client import ApiClient

from actuators.kinds import count_path
from actuators.kubernetes.client import FIELD_MANAGER, ClusterError
from actuators.kubernetes.counts import Counter
from actuators.kubernetes.resources import Json, at, entries, get, path_of, text

GITOPS = ("argocd", "argo-cd", "kustomize-controller", "helm-controller", "flux", "fleetagent")
"""Field managers that write a whole manifest again and again."""
BY_HAND = ("helm", "kubectl", "kubectl-client-side-apply", "before-first-apply")
"""Field managers of commands that somebody types: they write once, also where they apply on the
server's side, as Helm 4 and `kubectl apply --server-side` do."""
MADE_TO_BE_SCALED = (
    "DynamoGraphDeploymentScalingAdapter",
    "DisaggregatedSetRoleScaler",
    "PodClique",
    "PodCliqueScalingGroup",
)
"""Their owners read the count from them instead of writing it back."""
_AUTOSCALERS = (
    ("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    ("keda.sh/v1alpha1", "scaledobjects", "ScaledObject"),
)


def other_owners(
    api: ApiClient, counter: Counter, document: Json, children: Sequence[tuple[str, Json]] = ()
) -> tuple[str, ...]:
    """Objections, one sentence each, against writing this count.

    Parameters
    ----------
    children : sequence of (kind, object)
        What the target made: an autoscaler of one of them fights over the same replicas.

    Raises
    ------
    ClusterError
        When the autoscalers of the namespace cannot be listed.
    """
    label = counter.target.label
    found = [
        f"{label} belongs to {one['kind']} {one['name']}, which would set it back: make that one "
        "the target"
        for one in entries(document, "metadata", "ownerReferences")
        if one.get("controller") and counter.target.kind not in MADE_TO_BE_SCALED
    ]
    found += [
        f"{what} is scaled by {kind} {name}: delete that, or take this pool out of the spec"
        for what, kind, name in _autoscalers(api, counter, children)
    ]
    found += [
        f"{label}: {manager} keeps its count, and would write its own back: let it ignore this "
        "field, then change the count once by `kubectl scale`, so that the field is no longer its "
        "own; or take the pool out of the spec"
        for manager in _managers(counter, document)
    ]
    return tuple(found)


def _autoscalers(
    api: ApiClient, counter: Counter, children: Sequence[tuple[str, Json]]
) -> list[tuple[str, str, str]]:
    """What is scaled, by an object of which kind and name."""
    target, found = counter.target, []
    scaled = {(target.kind, target.name): target.label}
    for kind, child in children:
        name = text(child, "metadata", "name")
        scaled[kind, name] = f"{kind} {name}, which {target.label} made,"
    for version, plural, kind in _AUTOSCALERS:
        path = path_of(version, counter.namespace, plural)
        try:
            listed = entries(get(api, path, f"list {plural} in {counter.namespace}"), "items")
        except ClusterError as error:
            if error.status == 404:  # its CRD is not installed
                continue
            raise
        found += [
            (scaled[aim], kind, text(one, "metadata", "name"))
            for one in listed
            if (aim := _aim_of(one)) in scaled and not _is_off(one)
        ]
    return found


def _aim_of(one: Json) -> tuple[str, str]:
    reference = at(one, "spec", "scaleTargetRef")
    return text(reference, "kind") or "Deployment", text(reference, "name")  # KEDA's default


def _is_off(one: Json) -> bool:
    """A ScaledObject that somebody has paused."""
    notes = at(one, "metadata", "annotations")
    return isinstance(notes, dict) and notes.get("autoscaling.keda.sh/paused") == "true"


def _managers(counter: Counter, document: Json) -> list[str]:
    target = counter.target
    path = count_path(target.kind, target.api_version, target.part)
    return [
        text(entry, "manager")
        for entry in entries(document, "metadata", "managedFields")
        if text(entry, "manager").partition("-")[0] != FIELD_MANAGER
        and holds(at(entry, "fieldsV1"), path)
        and (
            (text(entry, "operation") == "Apply" and text(entry, "manager") not in BY_HAND)
            or any(name in text(entry, "manager").lower() for name in GITOPS)
        )
    ]


def holds(fields: object, path: tuple[str, ...]) -> bool:
    """Whether a tree of managed fields has a path, or all of what lies around it.

    Lists that are not keyed by name are held as a whole.
    """
    for key in path:
        if not isinstance(fields, dict):
            return False
        if key.startswith("[") and not fields:
            return True
        if key.startswith("["):
            fields = next((v for k, v in fields.items() if _is_named(k, key.strip("[]"))), None)
        else:
            fields = fields.get(f"f:{key}")
    return fields is not None


def _is_named(key: str, name: str) -> bool:
    if not key.startswith("k:"):
        return False
    try:
        keys: object = json.loads(key[2:])
    except ValueError:
        return False
    return isinstance(keys, dict) and keys.get("name") == name
