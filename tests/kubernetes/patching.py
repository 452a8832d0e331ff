"""JSON patch, JSON merge patch and strategic merge patch, each on a plain object."""

from typing import Any

from tests.kubernetes import errors
from tests.kubernetes.plain import copied
from tests.kubernetes.schemas import STRATEGIC_KEYS, Schema, child, list_keys

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: null removes, lists are replaced whole."""
    if not isinstance(patch, dict):
        return copied(patch)
    merged = dict(target) if isinstance(target, dict) else {}
    for field, value in patch.items():
        if value is None:
            merged.pop(field, None)
        else:
            merged[field] = merge_patch(merged.get(field), value)
    return merged


def strategic_patch(target: Any, patch: Any, schema: Schema | None) -> Any:
    """Merge patch, where lists that are keyed in the schema are merged by their key."""
    if not isinstance(patch, dict):
        return copied(patch)
    if patch.get("$patch") == "replace":
        return {field: copied(v) for field, v in patch.items() if field != "$patch"}
    merged = dict(target) if isinstance(target, dict) else {}
    retained = patch.get("$retainKeys")
    if retained is not None:
        merged = {field: value for field, value in merged.items() if field in retained}
    for field, value in patch.items():
        below = child(schema, field)
        if field.startswith("$deleteFromPrimitiveList/"):
            name = field.partition("/")[2]
            merged[name] = [one for one in merged.get(name, []) if one not in value]
        elif field.startswith("$"):
            continue
        elif value is None:
            merged.pop(field, None)
        elif isinstance(value, list):
            merged[field] = _strategic_list(merged.get(field), value, below)
        else:
            merged[field] = strategic_patch(merged.get(field), value, below)
    return merged


def _strategic_list(target: Any, patch: list[Any], schema: Schema | None) -> list[Any]:
    keys = list_keys(schema)
    current = list(target) if isinstance(target, list) else []
    if schema is not None and schema.get("x-kubernetes-list-type") == "set":
        return current + [one for one in patch if one not in current]
    if not keys:
        return copied(patch)
    key = STRATEGIC_KEYS.get(keys, keys[0])
    if any(item.get("$patch") == "replace" for item in patch):
        return [copied(item) for item in patch if "$patch" not in item]
    for item in patch:
        if key not in item:
            raise errors.bad_request(f"map: {item} does not contain declared merge key: {key}")
        at = next((i for i, one in enumerate(current) if one.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            current = [one for one in current if one.get(key) != item[key]]
        elif at is None:
            # New items lead, in the order of the patch.
            current = [*current, strategic_patch({}, item, (schema or {}).get("items"))]
        else:
            current[at] = strategic_patch(current[at], item, (schema or {}).get("items"))
    return current


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902. A failed `test` or a missing path is 422, a document that is no patch 400."""
    if not isinstance(operations, list) or not all(
        isinstance(one, dict) and "op" in one and "path" in one for one in operations
    ):
        raise errors.bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type "
            "jsonpatch.Patch"
        )
    result = copied(target)
    for operation in operations:
        try:
            result = _operate(result, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise errors.json_patch_refused() from error
    return result


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    path = _parts(operation["path"])
    match operation["op"]:
        case "test":
            if _read(document, path) != operation.get("value"):
                raise ValueError(f"testing value {operation['path']} failed")
            return document
        case "add":
            return _add(document, path, copied(operation["value"]))
        case "replace":
            _read(document, path)
            return _replace(document, path, copied(operation["value"]))
        case "remove":
            return _remove(document, path)
        case "move":
            source = _parts(operation["from"])
            value = _read(document, source)
            return _add(_remove(document, source), path, value)
        case "copy":
            return _add(document, path, copied(_read(document, _parts(operation["from"]))))
    raise ValueError(f"unexpected kind: {operation['op']}")


def _parts(pointer: str) -> list[str]:
    if pointer and not pointer.startswith("/"):
        raise ValueError(f"pointer {pointer!r} must start with /")
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _index(holder: list[Any], part: str) -> int:
    index = int(part)
    if not 0 <= index < len(holder):
        raise IndexError(part)
    return index


def _read(document: Any, path: list[str]) -> Any:
    for part in path:
        document = (
            document[_index(document, part)] if isinstance(document, list) else (document[part])
        )
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    holder = _read(document, path[:-1])
    if isinstance(holder, list):
        at = len(holder) if path[-1] == "-" else int(path[-1])
        if not 0 <= at <= len(holder):
            raise IndexError(path[-1])
        holder.insert(at, value)
    else:
        holder[path[-1]] = value
    return document


def _replace(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    holder = _read(document, path[:-1])
    holder[_index(holder, path[-1]) if isinstance(holder, list) else path[-1]] = value
    return document


def _remove(document: Any, path: list[str]) -> Any:
    holder = _read(document, path[:-1])
    del holder[_index(holder, path[-1]) if isinstance(holder, list) else path[-1]]
    return document
