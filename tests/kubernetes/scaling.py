"""The `scale` subresource: an `autoscaling/v1` Scale as a view on another kind."""

from typing import Any

from tests.kubernetes import errors
from tests.kubernetes.kinds import Kind, ScalePaths
from tests.kubernetes.plain import copied
from tests.kubernetes.schemas import Schema, builtin_schema
from tests.kubernetes.selectors import selector_text

Object = dict[str, Any]


def schema() -> Schema:
    """The schema of a Scale."""
    return builtin_schema("V1Scale")


def scale_of(kind: Kind, stored: Object) -> Object:
    """The Scale of an object. A count of 0 is left out of `spec`, as Go's encoder does.

    Raises the 500 of the server for a custom object without the replicas field.
    """
    paths = kind.scale or ScalePaths()
    metadata = stored["metadata"]
    replicas = read(stored, paths.spec)
    if replicas is None and kind.custom:
        raise errors.internal_error(
            f'the spec replicas field ".{".".join(paths.spec)}" does not exist'
        )
    status: Object = {"replicas": read(stored, paths.status) or 0}
    if kind.custom:
        selector = read(stored, paths.selector) if paths.selector else None
    else:
        selector = selector_text(stored.get("spec", {}).get("selector"))
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {
            key: metadata[key]
            for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
            if key in metadata
        },
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def with_scale(kind: Kind, stored: Object, scale: Object) -> Object:
    """The object with the count of a Scale. Raises the 422 for a negative one."""
    paths = kind.scale or ScalePaths()
    replicas = scale.get("spec", {}).get("replicas", 0)
    if replicas < 0:
        cause = errors.wrong("spec.replicas", f"{replicas}: must be greater than or equal to 0")
        raise errors.invalid("Scale", "autoscaling", stored["metadata"]["name"], [cause])
    changed = copied(stored)
    holder = changed
    for field in paths.spec[:-1]:
        holder = holder.setdefault(field, {})
    holder[paths.spec[-1]] = replicas
    return changed


def read(value: Any, path: tuple[str, ...]) -> Any:
    """The field at a path; None where it is not there."""
    for field in path:
        value = value.get(field) if isinstance(value, dict) else None
    return value
