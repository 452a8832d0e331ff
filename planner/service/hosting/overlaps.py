"""Whether two deployments would move the same replicas."""

from planner.domain.errors import SpecError
from planner.domain.spec import Spec, TargetKind

_IN_CLUSTER = (TargetKind.KUBERNETES, TargetKind.METRICS)


def check_apart(spec: Spec, others: tuple[Spec, ...]) -> None:
    """Refuse a spec whose target is that of another deployment.

    Compared is what the specs say. Two kubeconfigs that lead to one cluster, and selectors of
    different labels that find one object, cannot be told from that.

    Raises
    ------
    SpecError
        Naming both, and what they share.
    """
    for other in others:
        shared = _shared(spec, other)
        if shared:
            raise SpecError(
                f"spec {spec.name}: target: {shared} is steered by deployment {other.name} "
                "already: two planners would undo what the other does; give each its own"
            )


def _shared(one: Spec, other: Spec) -> str:
    if one.target is TargetKind.LOCAL and other.target is TargetKind.LOCAL:
        return "the deployment that runs from the state directory"
    if one.target not in _IN_CLUSTER or other.target not in _IN_CLUSTER:
        return ""
    a, b = one.cluster, other.cluster
    if (a.kubeconfig, a.context) != (b.kubeconfig, b.context):
        return ""
    objects = _objects(one) & _objects(other)
    if objects:
        kind, namespace, name, part = min(objects)
        return f"{kind} {namespace}/{name}" + (f" ({part})" if part else "")
    if a.selector and b.selector and a.namespace == b.namespace:
        terms = sorted((_terms(a.selector), _terms(b.selector)), key=len)
        if terms[0] <= terms[1]:
            return f"what {a.selector} finds in namespace {a.namespace}"
    return ""


def _objects(spec: Spec) -> set[tuple[str, str, str, str]]:
    cluster = spec.cluster
    return {
        (one.kind, one.namespace or cluster.namespace, one.name, one.part)
        for one in cluster.objects
    }


def _terms(selector: str) -> set[str]:
    """All labels that an object must have."""
    return {term.strip() for term in selector.split(",")}
