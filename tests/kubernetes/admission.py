"""Admission webhooks, as callables in the test's own process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.kubernetes.access import User
from tests.kubernetes.errors import ApiError
from tests.kubernetes.kinds import Kind
from tests.kubernetes.plain import copied
from tests.kubernetes.routing import Request

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What a webhook is asked: `object` is None on a deletion, `old` on a creation."""

    operation: str
    kind: Kind
    subresource: str
    user: User
    manager: str
    dry_run: bool
    object: Object | None
    old: Object | None

    @staticmethod
    def of(request: Request, operation: str, new: Object | None, old: Object | None) -> "Review":
        return Review(
            operation=operation,
            kind=request.served,
            subresource=request.subresource,
            user=request.user,
            manager=request.manager,
            dry_run=request.dry_run,
            object=copied(new),
            old=copied(old),
        )


Webhook = Callable[[Review], str | None]
"""Answers why the write is denied; None admits it."""


class Admission:
    """The webhooks registered now, asked in order."""

    def __init__(self) -> None:
        self.webhooks: dict[str, Webhook] = {}

    def review(self, review: Review) -> None:
        """Raise the 403 of the first webhook that denies."""
        for name, webhook in list(self.webhooks.items()):
            why = webhook(review)
            if why is not None:
                raise ApiError(
                    403, "Forbidden", f'admission webhook "{name}" denied the request: {why}'
                )


def dynamo_graph_webhook(review: Review) -> str | None:
    """Dynamo's: replicas of a component with a scaling adapter are the adapter's alone."""
    if review.kind.key != ("nvidia.com", "dynamographdeployments"):
        return None
    if review.operation != "UPDATE" or review.object is None or review.old is None:
        return None
    if review.user.name == DYNAMO_OPERATOR:
        return None
    before = _components(review.old)
    word = "services" if "services" in review.object.get("spec", {}) else "components"
    for name, component in _components(review.object).items():
        was = before.get(name)
        if was is None or not (_adapted(component) or _adapted(was)):
            continue
        if component.get("replicas", 1) != was.get("replicas", 1):
            return (
                f"spec.{word}[{name}].replicas cannot be modified directly when scaling adapter "
                "is enabled; scale or update the related DynamoGraphDeploymentScalingAdapter "
                "instead"
            )
    return None


DYNAMO_OPERATOR = "system:serviceaccount:dynamo-system:dynamo-operator-controller-manager"


def _components(graph: Object) -> dict[str, Object]:
    spec = graph.get("spec", {})
    named = {one["name"]: one for one in spec.get("components", ())}
    return named | dict(spec.get("services", {}))


def _adapted(component: Object) -> bool:
    adapter = component.get("scalingAdapter")
    return adapter is not None and adapter.get("enabled", True) is not False
