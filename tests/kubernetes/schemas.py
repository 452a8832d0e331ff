"""Structural schemas: unknown fields, types and rules, defaults, and how lists are keyed.

A schema is the `openAPIV3Schema` dict of a CustomResourceDefinition. Those of built-in kinds come
from the models of the official client, with the keys of keyed lists that the models leave out.
"""

import re
import types
import typing
from collections.abc import Iterator
from datetime import datetime
from functools import cache

import kubernetes.client.models
from pydantic import BaseModel

from tests.kubernetes import errors
from tests.kubernetes.cel import evaluate
from tests.kubernetes.plain import copied

Schema = dict[str, typing.Any]

OPEN: Schema = {"x-kubernetes-preserve-unknown-fields": True}

# Which lists of built-in kinds are maps, by the model that holds them and the field's name:
# `x-kubernetes-list-map-keys` of the published OpenAPI documents.
_LIST_KEYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("V1PodSpec", "containers"): ("name",),
    ("V1PodSpec", "initContainers"): ("name",),
    ("V1PodSpec", "ephemeralContainers"): ("name",),
    ("V1PodSpec", "volumes"): ("name",),
    ("V1PodSpec", "imagePullSecrets"): ("name",),
    ("V1PodSpec", "hostAliases"): ("ip",),
    ("V1PodSpec", "resourceClaims"): ("name",),
    ("V1PodSpec", "schedulingGates"): ("name",),
    ("V1PodSpec", "topologySpreadConstraints"): ("topologyKey", "whenUnsatisfiable"),
    ("V1Container", "env"): ("name",),
    ("V1Container", "ports"): ("containerPort", "protocol"),
    ("V1Container", "volumeMounts"): ("mountPath",),
    ("V1Container", "volumeDevices"): ("devicePath",),
    ("V1ServiceSpec", "ports"): ("port", "protocol"),
    ("V1ObjectMeta", "ownerReferences"): ("uid",),
    ("V1ServiceAccount", "secrets"): ("name",),
    ("V1ServiceAccount", "imagePullSecrets"): ("name",),
    ("V1NodeSpec", "taints"): ("key", "effect"),
    ("V1NodeStatus", "addresses"): ("type",),
}
# Where strategic merge uses another key than server-side apply.
STRATEGIC_KEYS: dict[tuple[str, ...], str] = {
    ("containerPort", "protocol"): "containerPort",
    ("port", "protocol"): "port",
}
_ATOMIC = {
    "V1LabelSelector", "V1LocalObjectReference", "V1ObjectReference", "V1OwnerReference",
    "V1SecretKeySelector", "V1ConfigMapKeySelector", "V1ObjectFieldSelector",
    "V1ResourceFieldSelector", "V1NodeSelector", "V1NodeSelectorTerm", "V1RoleRef",
    "V1TypedLocalObjectReference", "V2CrossVersionObjectReference",
}  # fmt: skip
_SETS = {("V1ObjectMeta", "finalizers")}
_QUANTITIES = {"limits", "requests", "capacity", "allocatable", "hard", "used"}


@cache
def builtin_schema(model_name: str) -> Schema:
    """The schema of a built-in kind, from the client's model of that name."""
    return _of_model(getattr(kubernetes.client.models, model_name), ())


def _of_model(model: type[BaseModel], above: tuple[str, ...]) -> Schema:
    if model.__name__ in above:
        return {"type": "object", **OPEN}
    properties: Schema = {}
    required = []
    for name, field in model.model_fields.items():
        wire = str(field.serialization_alias or name)
        properties[wire] = _of_field(model.__name__, wire, field.annotation, above)
        if field.is_required():
            required.append(wire)
    schema: Schema = {"type": "object", "properties": properties}
    if model.__name__ in _ATOMIC:
        schema["x-kubernetes-map-type"] = "atomic"
    if required:
        schema["required"] = required
    return schema


def _of_field(owner: str, wire: str, annotation: object, above: tuple[str, ...]) -> Schema:
    schema = _of_type(annotation, (*above, owner))
    if schema.get("type") == "array":
        keys = _LIST_KEYS.get((owner, wire))
        if keys is None and wire == "conditions" and owner.endswith("Status"):
            keys = ("type",)
        if keys is not None:
            schema["x-kubernetes-list-type"] = "map"
            schema["x-kubernetes-list-map-keys"] = list(keys)
            if "protocol" in keys:
                schema["items"]["properties"]["protocol"]["default"] = "TCP"
        elif (owner, wire) in _SETS:
            schema["x-kubernetes-list-type"] = "set"
    if (owner, wire) == ("V1PodSpec", "nodeSelector"):
        schema["x-kubernetes-map-type"] = "atomic"
    if wire in _QUANTITIES and schema.get("additionalProperties", {}).get("type") == "string":
        schema["additionalProperties"] = {"x-kubernetes-int-or-string": True, "format": "quantity"}
    return schema


def _of_type(annotation: object, above: tuple[str, ...]) -> Schema:
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is typing.Annotated:
        return _of_type(arguments[0], above)
    if origin in {typing.Union, types.UnionType}:
        found = [_of_type(a, above) for a in arguments if a is not type(None)]
        kinds = {one.get("type") for one in found}
        if kinds == {"integer", "string"}:
            return {"x-kubernetes-int-or-string": True}
        return (
            found[0]
            if len(found) == 1
            else ({"type": "string"} if bytes in _bare(arguments) else found[0])
        )
    if origin is list:
        return {"type": "array", "items": _of_type(arguments[0], above)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _of_type(arguments[1], above)}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return _of_model(annotation, above)
    plain: dict[object, Schema] = {
        str: {"type": "string"},
        bytes: {"type": "string"},
        datetime: {"type": "string", "format": "date-time"},
        int: {"type": "integer"},
        float: {"type": "number"},
        bool: {"type": "boolean"},
    }
    return dict(plain.get(annotation, OPEN))


def _bare(arguments: tuple[object, ...]) -> set[object]:
    return {typing.get_args(a)[0] if typing.get_args(a) else a for a in arguments}


def child(schema: Schema | None, field: str) -> Schema | None:
    """The schema of a field; None where the schema does not say (anything goes below)."""
    if schema is None:
        return None
    if field in schema.get("properties", {}):
        return typing.cast(Schema, schema["properties"][field])
    extra = schema.get("additionalProperties")
    return extra if isinstance(extra, dict) else None


def list_keys(schema: Schema | None) -> tuple[str, ...]:
    """The keys of a list that is a map; empty for any other."""
    if schema is None or schema.get("x-kubernetes-list-type") != "map":
        return ()
    return tuple(schema.get("x-kubernetes-list-map-keys", ()))


def is_atomic(schema: Schema | None, value: object) -> bool:
    """Whether server-side apply owns this map or list as a whole."""
    if isinstance(value, dict):
        return schema is not None and schema.get("x-kubernetes-map-type") == "atomic"
    return schema is None or schema.get("x-kubernetes-list-type", "atomic") == "atomic"


def unknown_fields(schema: Schema | None, value: object, path: str = "") -> Iterator[str]:
    """Paths of fields that the schema does not have, as the strict decoder prints them."""
    if schema is None or schema.get("x-kubernetes-preserve-unknown-fields"):
        known = {} if schema is None else schema.get("properties", {})
        if isinstance(value, dict):
            for field in sorted(value.keys() & known.keys()):
                yield from unknown_fields(known[field], value[field], _joined(path, field))
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unknown_fields(schema.get("items"), item, f"{path}[{index}]")
    elif isinstance(value, dict):
        if schema.get("x-kubernetes-embedded-resource"):
            return
        for field in sorted(value):
            below = child(schema, field)
            if below is None and schema.get("type") == "object":
                yield _joined(path, field)
            else:
                yield from unknown_fields(below, value[field], _joined(path, field))


def _joined(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def pruned(schema: Schema | None, value: typing.Any) -> typing.Any:
    """The value without fields that the schema does not have."""
    if schema is None:
        return copied(value)
    keeps = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(value, list):
        return [pruned(schema.get("items"), item) for item in value]
    if isinstance(value, dict):
        kept = {}
        for field, item in value.items():
            below = child(schema, field)
            if below is not None:
                kept[field] = pruned(below, item)
            elif keeps or schema.get("type") != "object":
                kept[field] = copied(item)
        return kept
    if schema.get("format") == "quantity" and type_name(value) in {"integer", "number"}:
        return str(value)
    if schema.get("format") == "date-time" and isinstance(value, str):
        return value.replace("+00:00", "Z")
    return value


def without_nulls(schema: Schema | None, value: typing.Any) -> typing.Any:
    """The value without null fields, which the server drops where a field is not nullable."""
    if isinstance(value, dict):
        return {
            field: without_nulls(child(schema, field), item)
            for field, item in value.items()
            if item is not None or (schema is not None and schema.get("nullable"))
        }
    if isinstance(value, list):
        items = None if schema is None else schema.get("items")
        return [without_nulls(items, item) for item in value]
    return value


def fill_defaults(schema: Schema | None, value: object) -> None:
    """Write the schema's defaults into the value, in place, as the server does on every write."""
    if schema is None:
        return
    if isinstance(value, list):
        for item in value:
            fill_defaults(schema.get("items"), item)
    elif isinstance(value, dict):
        for field, below in schema.get("properties", {}).items():
            if field not in value and "default" in below:
                value[field] = copied(below["default"])
        for field, item in value.items():
            fill_defaults(child(schema, field), item)


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
}


def type_name(value: object) -> str:
    """What the server calls the type of a value."""
    for name, accepted in _TYPES.items():
        if isinstance(value, accepted) and (name == "boolean" or not isinstance(value, bool)):
            return name
    return "null"


def problems(
    schema: Schema | None, value: typing.Any, path: str, before: object = None
) -> Iterator[errors.Cause]:
    """Everything about the value that the schema forbids; `before` is the stored value, if any."""
    if schema is None:
        return
    if schema.get("x-kubernetes-int-or-string"):
        if type_name(value) not in {"integer", "string"}:
            yield errors.wrong(
                path,
                f'"{type_name(value)}": {path} in body must be of type '
                f'integer,string: "{type_name(value)}"',
            )
        return
    expected = schema.get("type")
    found = type_name(value)
    if expected and found != expected and not (expected == "number" and found == "integer"):
        if value is None and schema.get("nullable"):
            return
        yield errors.wrong(path, f'"{found}": {path} in body must be of type {expected}: "{found}"')
        return
    yield from _bounds(schema, value, path)
    if isinstance(value, dict):
        yield from _members(schema, value, path, before if isinstance(before, dict) else {})
    elif isinstance(value, list):
        yield from _items(schema, value, path)
    yield from _rules(schema, value, path, before)


def _members(schema: Schema, value: Schema, path: str, before: Schema) -> Iterator[errors.Cause]:
    for field in schema.get("required", ()):
        if field not in value:
            yield errors.required(_joined(path, field))
    for field, item in value.items():
        yield from problems(child(schema, field), item, _joined(path, field), before.get(field))


def _items(schema: Schema, value: list[typing.Any], path: str) -> Iterator[errors.Cause]:
    seen = []
    keys = list_keys(schema)
    for index, item in enumerate(value):
        yield from problems(schema.get("items"), item, f"{path}[{index}]")
        key = {k: item.get(k) for k in keys} if keys and isinstance(item, dict) else item
        if (keys or schema.get("x-kubernetes-list-type") == "set") and key in seen:
            yield errors.Cause(
                reason="FieldValueDuplicate",
                message=f"Duplicate value: {key}",
                field=f"{path}[{index}]",
            )
        seen.append(key)


def _bounds(schema: Schema, value: typing.Any, path: str) -> Iterator[errors.Cause]:
    if "enum" in schema and value not in schema["enum"]:
        yield errors.unsupported(path, str(value), [str(one) for one in schema["enum"]])
    if type_name(value) in {"integer", "number"}:
        if "minimum" in schema and value < schema["minimum"]:
            yield errors.wrong(
                path,
                f"{value}: {path} in body should be greater than or equal to {schema['minimum']}",
            )
        if "maximum" in schema and value > schema["maximum"]:
            yield errors.wrong(
                path, f"{value}: {path} in body should be less than or equal to {schema['maximum']}"
            )
    sized = {"minItems": list, "minLength": str, "minProperties": dict}
    for word, kind in sized.items():
        if word in schema and isinstance(value, kind) and len(value) < schema[word]:
            yield errors.wrong(
                path, f"{len(value)}: {path} in body should have at least {schema[word]} items"
            )
    if "maxItems" in schema and isinstance(value, list) and len(value) > schema["maxItems"]:
        yield errors.Cause(
            reason="FieldValueTooMany",
            message=f"Too many: {len(value)}: must have at most {schema['maxItems']} items",
            field=path,
        )
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        yield errors.wrong(path, f"\"{value}\": {path} in body should match '{schema['pattern']}'")


def _rules(schema: Schema, value: object, path: str, before: object) -> Iterator[errors.Cause]:
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" in rule["rule"] and before is None:
            continue
        if not evaluate(rule["rule"], {"self": value, "oldSelf": before}):
            shown = f'"{type_name(value)}"' if isinstance(value, dict | list) else str(value)
            message = rule.get("message", f"failed rule: {rule['rule']}")
            yield errors.wrong(path or "<nil>", f"{shown}: {message}")
