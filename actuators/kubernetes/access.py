"""Whether this account may do what an apply needs, asked before anything is written."""

from kubernetes.client import ApiClient

from actuators.kinds import KINDS
from actuators.kubernetes.children import CHILDREN
from actuators.kubernetes.counts import Counter
from actuators.kubernetes.resources import Json, at, post

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
Right = tuple[str, str, str, str]
"""Verb, API group, resource, subresource."""


def rights_needed(counter: Counter) -> tuple[Right, ...]:
    """The least that writing this count takes."""
    own = (counter.group, counter.plural)
    written = "scale" if counter.scales else ""
    return (
        ("get", *own, ""),
        *((("get", *own, "scale"),) if counter.scales else ()),
        ("patch", *own, written),
        ("list", "", "pods", ""),
        ("list", "autoscaling", "horizontalpodautoscalers", ""),
        *(
            ("list", KINDS[kind].api_version.rpartition("/")[0], KINDS[kind].plural, "")
            for kind in CHILDREN.get(counter.target.kind, ())
        ),
    )


def missing_rights(api: ApiClient, counter: Counter) -> tuple[str, ...]:
    """One sentence for each right that is missing. Raises ClusterError."""
    return tuple(
        f"this account may not {verb} {_resource(group, plural, part)} in namespace "
        f"{counter.namespace}, which scaling {counter.target.label} needs: grant it (docs/"
        "kubernetes.md has the roles)"
        for verb, group, plural, part in rights_needed(counter)
        if not may(api, counter.namespace, (verb, group, plural, part))
    )


def may(api: ApiClient, namespace: str, right: Right) -> bool:
    """Whether the server would allow it. Raises ClusterError."""
    verb, group, resource, part = right
    review: Json = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {
                "namespace": namespace,
                "verb": verb,
                "group": group,
                "resource": resource,
                **({"subresource": part} if part else {}),
            }
        },
    }
    answer = post(api, _REVIEWS, review, f"ask whether it may {verb} {resource}")
    return at(answer, "status", "allowed") is True


def _resource(group: str, plural: str, part: str) -> str:
    name = f"{plural}.{group}" if group else plural
    return f"{name}/{part}" if part else name
