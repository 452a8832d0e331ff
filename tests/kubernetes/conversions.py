"""Conversion webhooks: kinds whose versions differ in more than their name."""

from copy import deepcopy
from typing import Any

from tests.kubernetes.kinds import Convert

Object = dict[str, Any]


def dynamo_graph(stored: Object, version: str) -> Object:
    """DynamoGraphDeployment: a map of services in v1alpha1, a list of components in v1beta1."""
    spec = deepcopy(stored.get("spec", {}))
    if version == "v1alpha1" and "components" in spec:
        services = {}
        for component in spec.pop("components"):
            name = component.pop("name")
            if "type" in component:
                component["componentType"] = component.pop("type")
            services[name] = component
        spec["services"] = services
    elif version == "v1beta1" and "services" in spec:
        spec["components"] = []
        for name, service in spec.pop("services").items():
            if "componentType" in service:
                service["type"] = service.pop("componentType")
            spec["components"].append({"name": name, **service})
    return {**stored, "spec": spec}


CONVERSIONS: dict[tuple[str, str], Convert] = {
    ("nvidia.com", "dynamographdeployments"): dynamo_graph,
}
