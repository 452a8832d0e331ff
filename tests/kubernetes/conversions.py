"""Conversion webhooks: kinds whose versions differ in more than their name."""

from typing import Any

from tests.kubernetes.kinds import Convert
from tests.kubernetes.plain import copied

Object = dict[str, Any]


def dynamo_graph(stored: Object, version: str) -> Object:
    """DynamoGraphDeployment: a map of services in v1alpha1, a list of components in v1beta1."""
    spec = copied(stored.get("spec", {}))
    status = copied(stored.get("status", {}))
    if version == "v1alpha1":
        if "components" in spec:
            spec["services"] = {one.pop("name"): _service(one) for one in spec.pop("components")}
        if "components" in status:
            status["services"] = status.pop("components")
    else:
        if "services" in spec:
            services = spec.pop("services")
            spec["components"] = [_component(name, one) for name, one in services.items()]
        if "services" in status:
            status["components"] = status.pop("services")
    return {**stored, "spec": spec, **({"status": status} if status else {})}


def _service(component: Object) -> Object:
    role = component.pop("type", None)
    if role in {"prefill", "decode"}:
        component |= {"componentType": "worker", "subComponentType": role}
    elif role is not None:
        component["componentType"] = role
    if "scalingAdapter" in component:
        component["scalingAdapter"] = {"enabled": True}
    return component


def _component(name: str, service: Object) -> Object:
    role = service.pop("subComponentType", None) or service.pop("componentType", None)
    service.pop("componentType", None)
    if role is not None:
        service["type"] = role
    adapter = service.pop("scalingAdapter", None)
    if adapter is not None and adapter.get("enabled"):
        service["scalingAdapter"] = {}
    return {"name": name, **service}


def dynamo_adapter(stored: Object, version: str) -> Object:
    """DynamoGraphDeploymentScalingAdapter: `serviceName` became `componentName`."""
    spec = copied(stored.get("spec", {}))
    reference = spec.get("dgdRef", {})
    old, new = ("componentName", "serviceName")
    if version == "v1beta1":
        old, new = new, old
    if old in reference:
        reference[new] = reference.pop(old)
    return {**stored, "spec": spec}


CONVERSIONS: dict[tuple[str, str], Convert] = {
    ("nvidia.com", "dynamographdeployments"): dynamo_graph,
    ("nvidia.com", "dynamographdeploymentscalingadapters"): dynamo_adapter,
}
