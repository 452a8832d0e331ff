"""Resources that answer a question or do one thing: access reviews, tokens, evictions."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.kubernetes import errors
from tests.kubernetes.access import Access, Attributes, refusal, service_account
from tests.kubernetes.routing import Request
from tests.kubernetes.selectors import selects
from tests.kubernetes.storage import Store

Object = dict[str, Any]


def access_review(access: Access, request: Request) -> Object:
    """SelfSubjectAccessReview: whether the one who asks may do something."""
    body = request.body or {}
    asked = body.get("spec", {}).get("resourceAttributes")
    if asked is None:
        raise errors.invalid("SelfSubjectAccessReview", "authorization.k8s.io", "", [errors.wrong(
            "spec.resourceAttributes",
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )])  # fmt: skip
    attributes = Attributes(
        verb=asked.get("verb", ""),
        group=asked.get("group", ""),
        version=asked.get("version", ""),
        resource=asked.get("resource", ""),
        subresource=asked.get("subresource", ""),
        namespace=asked.get("namespace", ""),
        name=asked.get("name", ""),
    )
    allowed = access.allowed(request.user, attributes)
    status: Object = {"allowed": allowed}
    if not allowed:
        status["reason"] = refusal(request.user, attributes)
    return _review("SelfSubjectAccessReview", "authorization.k8s.io/v1", body, status)


def rules_review(access: Access, request: Request) -> Object:
    """SelfSubjectRulesReview: every rule that holds in a namespace."""
    body = request.body or {}
    namespace = body.get("spec", {}).get("namespace", "")
    if not namespace:
        raise errors.bad_request("no namespace on request")
    rules = [
        {
            "verbs": list(rule.verbs),
            "apiGroups": list(rule.groups),
            "resources": list(rule.resources),
            **({"resourceNames": list(rule.names)} if rule.names else {}),
        }
        for rule in access.rules_of(request.user)
        if not rule.namespaces or namespace in rule.namespaces
    ]
    if "system:masters" in request.user.groups:
        rules.append({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]})
    status = {"resourceRules": rules, "nonResourceRules": [], "incomplete": False}
    return _review("SelfSubjectRulesReview", "authorization.k8s.io/v1", body, status)


def subject_review(request: Request) -> Object:
    """SelfSubjectReview: who the one who asks is."""
    user = {"username": request.user.name, "groups": list(request.user.groups)}
    body = request.body if isinstance(request.body, dict) else {}
    return _review("SelfSubjectReview", "authentication.k8s.io/v1", body, {"userInfo": user})


def _review(kind: str, api_version: str, body: Object, status: Object) -> Object:
    return {
        "kind": kind,
        "apiVersion": api_version,
        "metadata": {"creationTimestamp": None},
        "spec": body.get("spec", {}),
        "status": status,
    }


def token_request(access: Access, store: Store, request: Request) -> Object:
    """TokenRequest: a bearer token of a service account."""
    if store.get(("", "serviceaccounts"), request.namespace, request.name) is None:
        raise errors.not_found("serviceaccounts", "", request.name)
    body = request.body if isinstance(request.body, dict) else {}
    seconds = (body.get("spec") or {}).get("expirationSeconds", 3600)
    token = secrets.token_urlsafe(24)
    access.tokens[token] = service_account(request.namespace, request.name)
    ends_at = datetime.now(UTC) + timedelta(seconds=seconds)
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": request.name, "namespace": request.namespace,
                     "creationTimestamp": None},
        "spec": {"audiences": [], "expirationSeconds": seconds},
        "status": {
            "token": token, "expirationTimestamp": ends_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
    }  # fmt: skip


def check_eviction(store: Store, pod: Object) -> None:
    """Raise the 429 when a PodDisruptionBudget has no disruption to give."""
    metadata = pod["metadata"]
    for budget in store.all(("policy", "poddisruptionbudgets"), metadata["namespace"]):
        if not selects(budget["spec"].get("selector"), metadata.get("labels", {})):
            continue
        status = budget.get("status", {})
        if status.get("disruptionsAllowed", 0) < 1:
            name = budget["metadata"]["name"]
            error = errors.too_many_requests(
                "Cannot evict pod as it would violate the pod's disruption budget.", 10
            )
            error.details = {"causes": [{
                "reason": "DisruptionBudget",
                "message": f"The disruption budget {name} needs "
                           f"{status.get('desiredHealthy', 0)} healthy pods and has "
                           f"{status.get('currentHealthy', 0)} currently",
            }]}  # fmt: skip
            raise error
