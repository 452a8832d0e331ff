"""Who owns which field: `managedFields`, and server-side apply with its conflicts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.kubernetes import errors
from tests.kubernetes.plain import copied
from tests.kubernetes.schemas import Schema, child, is_atomic, list_keys

Object = dict[str, Any]
Path = tuple[str, ...]
"""Elements as in `fieldsV1`: `f:replicas`, `k:{"name":"vllm"}`, `v:"finalizer"`."""

_NOT_OWNED = {
    ("f:apiVersion",), ("f:kind",),
    *(("f:metadata", f"f:{name}") for name in (
        "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp",
        "selfLink", "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds",
        "generateName",
    )),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Who writes, and how: the identity of an entry of `managedFields`."""

    manager: str
    operation: str
    api_version: str
    subresource: str = ""

    def owns(self, entry: Object) -> bool:
        return (
            entry["manager"] == self.manager
            and entry["operation"] == self.operation
            and entry.get("subresource", "") == self.subresource
            and (entry["operation"] == "Apply" or entry["apiVersion"] == self.api_version)
        )

    def entry(self, paths: set[Path], at: str) -> Object:
        made: Object = {
            "manager": self.manager,
            "operation": self.operation,
            "apiVersion": self.api_version,
            "time": at,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields_v1(paths),
        }
        if self.subresource:
            made["subresource"] = self.subresource
        return made


def leaves(schema: Schema | None, value: Any, above: Path = ()) -> dict[Path, Any]:
    """Every field that can be owned on its own, with its value."""
    found: dict[Path, Any] = {}
    if isinstance(value, dict) and value and not is_atomic(schema, value):
        for field, item in value.items():
            found |= leaves(child(schema, field), item, (*above, f"f:{field}"))
    elif isinstance(value, list) and not is_atomic(schema, value):
        items = None if schema is None else schema.get("items")
        keys = list_keys(schema)
        for item in value:
            if keys:
                at = (*above, _item_key(schema, keys, item))
                found[at] = True
                found |= leaves(items, item, at)
            else:
                found[(*above, "v:" + json.dumps(item))] = True
        if not value:
            found[above] = value
    else:
        found[above] = value
    return {path: item for path, item in found.items() if path[:2] not in _NOT_OWNED
            and path[:1] not in _NOT_OWNED and path not in {(), ("f:metadata",)}}  # fmt: skip


def _item_key(schema: Schema | None, keys: tuple[str, ...], item: Object) -> str:
    properties = (schema or {}).get("items", {}).get("properties", {})
    named = {k: item.get(k, properties.get(k, {}).get("default")) for k in sorted(keys)}
    return "k:" + json.dumps(named, separators=(",", ":"))


def fields_v1(paths: set[Path]) -> Object:
    """Paths as the nested `fieldsV1` object."""
    tree: Object = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
    for path in paths:
        node = tree
        for element in path:
            node = node[element]
        if node:
            node["."] = {}
    return tree


def paths_of(fields: Object, above: Path = ()) -> set[Path]:
    """The nested `fieldsV1` object as paths."""
    found: set[Path] = set()
    for element, below in fields.items():
        if element == ".":
            found.add(above)
        elif below:
            found |= paths_of(below, (*above, element))
        else:
            found.add((*above, element))
    return found


def printed(path: Path) -> str:
    """A path as it stands in a conflict: `.spec.containers[name="vllm"].image`."""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            keys = json.loads(rest)
            text += "[" + ",".join(f"{k}={json.dumps(v)}" for k, v in keys.items()) + "]"
        else:
            text += f"[={rest}]"
    return text


def within(path: Path, subresource: str, *, has_status: bool) -> bool:
    """Whether a write through this (sub)resource can own the path."""
    if subresource == "status":
        return path[:1] == ("f:status",)
    return not has_status or path[:1] != ("f:status",)


def after_update(
    schema: Schema, before: Object, after: Object, writer: Writer, at: str
) -> list[Object]:
    """The `managedFields` after a write that was no apply: the writer owns what it changed."""
    old, new = leaves(schema, before), leaves(schema, after)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    gone = old.keys() - new.keys()
    entries = []
    found = False
    for entry in before.get("metadata", {}).get("managedFields", []):
        paths = paths_of(entry["fieldsV1"])
        if writer.owns(entry):
            found = True
            kept = (paths | changed) - gone
            moved = kept != paths or bool(changed)
        else:
            kept = paths - changed - gone
            moved = False
        if kept == paths and not moved:
            entries.append(entry)
        elif kept:
            entries.append({**entry, "fieldsV1": fields_v1(kept),
                            "time": at if moved else entry["time"]})  # fmt: skip
    if not found and changed:
        entries.append(writer.entry(changed, at))
    return entries


def apply(
    schema: Schema, live: Object, config: Object, writer: Writer, *, at: str, force: bool
) -> Object:
    """Server-side apply: the merged object with its `managedFields`.

    Raises the 409 that names every field which another manager owns and this would change.
    """
    wanted = leaves(schema, config)
    current = leaves(schema, live)
    entries = live.get("metadata", {}).get("managedFields", [])
    changed = {p for p, value in wanted.items() if p not in current or current[p] != value}
    conflicts = list(_conflicts(entries, changed, writer))
    if conflicts and not force:
        raise errors.apply_conflict(conflicts)
    others: set[Path] = set()
    mine: set[Path] = set()
    kept = []
    for entry in entries:
        paths = paths_of(entry["fieldsV1"])
        if writer.owns(entry):
            mine = paths
            continue
        left = paths - changed
        others |= left
        if left:
            kept.append(entry if left == paths else {**entry, "fieldsV1": fields_v1(left)})
    merged = merge(schema, live, config)
    for path in sorted(mine - wanted.keys(), key=len):
        if not _is_key(path) and not any(o[: len(path)] == path for o in others):
            _remove(merged, path)
    same = next((e for e in entries if writer.owns(e)), None)
    unchanged = same is not None and mine == set(wanted)
    own = same if unchanged and not changed else writer.entry(set(wanted), at)
    merged.setdefault("metadata", {})["managedFields"] = [own, *kept] if wanted else kept
    return merged


def _is_key(path: Path) -> bool:
    """Whether a field is one that its list is keyed by: it goes with the item only."""
    if len(path) < 2 or not path[-2].startswith("k:"):
        return False
    return path[-1].partition(":")[2] in json.loads(path[-2][2:])


def _conflicts(
    entries: list[Object], changed: set[Path], writer: Writer
) -> Iterator[tuple[str, str]]:
    for entry in entries:
        if writer.owns(entry):
            continue
        shown = f'"{entry["manager"]}"'
        if entry.get("subresource"):
            shown += f' with subresource "{entry["subresource"]}"'
        if entry["operation"] == "Update":
            shown += f" using {entry['apiVersion']}"
        for path in sorted(paths_of(entry["fieldsV1"]) & changed):
            yield shown, printed(path)


def merge(schema: Schema | None, live: Any, config: Any) -> Any:
    """The live value with the configured one laid over it, lists by their keys."""
    if isinstance(config, dict) and isinstance(live, dict) and not is_atomic(schema, config):
        merged = dict(live)
        for field, value in config.items():
            merged[field] = merge(child(schema, field), live.get(field), value)
        return merged
    if isinstance(config, list) and isinstance(live, list) and not is_atomic(schema, config):
        return _merged_list(schema or {}, live, config)
    return copied(config)


def _merged_list(schema: Schema, live: list[Any], config: list[Any]) -> list[Any]:
    keys = list_keys(schema)
    if not keys:
        return live + [one for one in config if one not in live]
    merged = list(live)
    for item in config:
        key = _item_key(schema, keys, item)
        at = next((i for i, one in enumerate(merged) if _item_key(schema, keys, one) == key), None)
        if at is None:
            merged.append(copied(item))
        else:
            merged[at] = merge(schema.get("items"), merged[at], item)
    return merged


def _remove(value: Any, path: Path) -> None:
    """Remove what a path points to, in place; nothing happens where it is not there."""
    for element in path[:-1]:
        value = _step(value, element)
        if value is None:
            return
    kind, _, rest = path[-1].partition(":")
    if kind == "f" and isinstance(value, dict):
        value.pop(rest, None)
    elif isinstance(value, list):
        gone = _step(value, path[-1]) if kind == "k" else json.loads(rest)
        value[:] = [one for one in value if one is not gone and one != gone]


def _step(value: Any, element: str) -> Any:
    kind, _, rest = element.partition(":")
    if kind == "f":
        return value.get(rest) if isinstance(value, dict) else None
    if not isinstance(value, list):
        return None
    keys = json.loads(rest)
    for item in value:
        if all(item.get(k, "TCP" if k == "protocol" else None) == v for k, v in keys.items()):
            return item
    return None
