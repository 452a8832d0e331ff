"""Reading the body of a write: its kind, unknown fields, types and defaults."""

from collections.abc import Callable
from typing import Any

from tests.kubernetes import errors, scaling, schemas
from tests.kubernetes.builtin_rules import fill_builtin_defaults
from tests.kubernetes.kinds import Kind
from tests.kubernetes.plain import copied
from tests.kubernetes.routing import Request

Object = dict[str, Any]
Warn = Callable[[str], None]


def decoded(request: Request, warn: Warn) -> Object:
    """The body of a create or update: checked, pruned, with defaults."""
    kind = request.served
    if not isinstance(request.body, dict):
        raise errors.bad_request("the object provided is unrecognized (must be of type "
                                 f"{kind.kind}): couldn't get version/kind")  # fmt: skip
    obj = copied(request.body)
    if kind.custom and not obj.get("kind"):
        raise errors.bad_request("Object 'Kind' is missing in the request body")
    obj.setdefault("apiVersion", kind.api_version)
    obj.setdefault("kind", kind.kind)
    if obj["apiVersion"] != kind.api_version:
        raise errors.bad_request(
            f"the API version in the data ({obj['apiVersion']}) does not match the expected API "
            f"version ({kind.api_version})"
        )
    if obj["kind"] != kind.kind:
        raise errors.bad_request(
            f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f"the kind in the data is {obj['kind']}"
        )
    check_unknown(request, kind.schema, obj, warn)
    obj = schemas.pruned(kind.schema, obj)
    obj = schemas.without_nulls(kind.schema, obj)
    obj.setdefault("metadata", {})
    if not kind.custom:
        check_types(kind.kind, kind.version, kind.schema, obj)
    fill(kind, obj)
    return obj


def fill(kind: Kind, obj: Object) -> None:
    if kind.custom:
        schemas.fill_defaults(kind.schema, obj)
    else:
        fill_builtin_defaults(kind, obj)


def scale_decoded(request: Request, warn: Warn) -> Object:
    """The body of a PUT on `/scale`."""
    if not isinstance(request.body, dict):
        raise errors.bad_request("the object provided is unrecognized (must be of type Scale)")
    check_unknown(request, scaling.schema(), request.body, warn)
    check_types("Scale", "v1", scaling.schema(), request.body)
    return request.body


def check_unknown(
    request: Request, schema: schemas.Schema, obj: Object, warn: Warn, *, patch: bool = False
) -> None:
    """Unknown fields: refused, warned of or ignored, as `fieldValidation` says."""
    how = request.query.get("fieldValidation", "Warn")
    unknown = [f'unknown field "{field}"' for field in schemas.unknown_fields(schema, obj)]
    if not unknown or how == "Ignore":
        return
    if how == "Warn":
        for one in unknown:
            warn(one)
        return
    kind = "Scale" if request.subresource == "scale" else request.served.kind
    sentence = f"strict decoding error: {', '.join(unknown)}"
    if patch:
        shown = str(request.body).replace("'", '"')
        raise errors.invalid("", "", "", [errors.wrong("patch", f'"{shown}": {sentence}')])
    raise errors.bad_request(
        f'{kind} in version "{request.served.version}" cannot be handled as a {kind}: {sentence}'
    )


def check_types(kind: str, version: str, schema: schemas.Schema, obj: Object) -> None:
    """Wrong types in a built-in kind: the typed decoder's 400."""
    go_types = {"integer": "int32", "boolean": "bool", "object": "struct", "array": "slice"}
    for cause in schemas.problems(schema, obj, ""):
        found, separator, _ = cause.message.removeprefix("Invalid value: ").partition(
            f": {cause.field} in body must be of type "
        )
        if separator:
            wanted = cause.message.rpartition("of type ")[2].partition(":")[0]
            raise errors.bad_request(
                f'{kind} in version "{version}" cannot be handled as a {kind}: json: cannot '
                f"unmarshal {found.strip(chr(34))} into Go struct field {kind}.{cause.field} of "
                f"type {go_types.get(wanted, wanted)}"
            )


def named_rightly(request: Request, config: Object) -> None:
    kind = request.served
    if config["apiVersion"] != kind.api_version or config["kind"] != kind.kind:
        raise errors.bad_request(
            f"{config['apiVersion']}, Kind={config['kind']} in the patch does not match "
            f"{kind.api_version}, Kind={kind.kind} of the request"
        )
    name = config.get("metadata", {}).get("name", request.name)
    if name != request.name:
        raise errors.bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({request.name})"
        )
