"""What the server says it serves: versions, groups and resources, those present only."""

from typing import Any

from tests.kubernetes.errors import PageNotFoundError
from tests.kubernetes.kinds import Kind, Registry

Object = dict[str, Any]

VERSION: Object = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.1",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "2026-05-12T00:00:00Z",
    "goVersion": "go1.26.0",
    "compiler": "gc",
    "platform": "linux/amd64",
}


def discover(registry: Registry, path: str) -> Object:
    """The document at a discovery path. Raises the plain 404 for any other."""
    steps = [step for step in path.strip("/").split("/") if step]
    if steps == ["version"]:
        return VERSION
    if steps == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
    groups = {name: versions for name, versions in registry.groups() if name}
    if steps == ["apis"]:
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [_group(name, versions) for name, versions in groups.items()],
        }
    if len(steps) == 2 and steps[0] == "apis" and steps[1] in groups:
        group = _group(steps[1], groups[steps[1]])
        return {"kind": "APIGroup", "apiVersion": "v1", **group}
    if steps == ["api", "v1"]:
        return _resources(registry, "", "v1")
    if len(steps) == 3 and steps[0] == "apis" and steps[2] in groups.get(steps[1], ()):
        return _resources(registry, steps[1], steps[2])
    raise PageNotFoundError


def _group(name: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _resources(registry: Registry, group: str, version: str) -> Object:
    found: list[Object] = []
    for kind in registry.kinds.values():
        if (kind.group, kind.version) == (group, version):
            found.append(_resource(kind))
            found += [_subresource(kind, name) for name in kind.subresources]
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": found,
    }


def _resource(kind: Kind) -> Object:
    made: Object = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        made["shortNames"] = list(kind.short_names)
    return made


def _subresource(kind: Kind, name: str) -> Object:
    made: Object = {
        "name": f"{kind.plural}/{name}",
        "singularName": "",
        "namespaced": kind.namespaced,
        "kind": {"scale": "Scale", "eviction": "Eviction", "token": "TokenRequest"}.get(
            name, kind.kind
        ),
        "verbs": ["create"] if name in {"eviction", "token"} else ["get", "patch", "update"],
    }
    if name == "scale":
        made |= {"group": "autoscaling", "version": "v1"}
    return made
