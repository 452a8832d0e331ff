"""Label and field selectors."""

import re
from collections.abc import Callable
from typing import Any

from tests.kubernetes import errors

Object = dict[str, Any]
Labels = dict[str, str]

_SET_BASED = re.compile(r"^(?P<key>\S+)\s+(?P<word>in|notin)\s*\((?P<values>[^)]*)\)$")


def label_matcher(text: str) -> Callable[[Labels], bool]:
    """Read `a=b,c!=d,e in (f,g),h,!i`. Raises the 400 of the server when it cannot be read."""
    tests = [_label_test(part.strip()) for part in _split(text)]
    return lambda labels: all(test(labels) for test in tests)


def _split(text: str) -> list[str]:
    return [part for part in re.split(r",(?![^(]*\))", text) if part.strip()]


def _label_test(part: str) -> Callable[[Labels], bool]:
    found = _SET_BASED.match(part)
    if found:
        values = {value.strip() for value in found["values"].split(",")}
        inside = found["word"] == "in"
        key = found["key"]
        return lambda labels: (
            (labels.get(key) in values) if inside else (labels.get(key) not in values)
        )
    for sign in ("!=", "==", "="):
        if sign in part:
            key, value = (side.strip() for side in part.split(sign, 1))
            if sign == "!=":
                return lambda labels: labels.get(key) != value
            return lambda labels: labels.get(key) == value
    if re.fullmatch(r"!?[A-Za-z0-9][-A-Za-z0-9_./]*", part):
        absent = part.startswith("!")
        key = part.removeprefix("!")
        return lambda labels: (key in labels) != absent
    raise errors.bad_request(f"unable to parse requirement: found '{part}', expected: identifier")


def selects(selector: Object | None, labels: Labels) -> bool:
    """Whether a LabelSelector object selects these labels; none selects nothing."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", ()):
        key, values = rule["key"], rule.get("values", [])
        holds = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }[rule["operator"]]
        if not holds:
            return False
    return True


def selector_text(selector: Object | None) -> str:
    """A LabelSelector object as the string that a list call takes."""
    if selector is None:
        return ""
    parts = [f"{key}={value}" for key, value in sorted(selector.get("matchLabels", {}).items())]
    for rule in selector.get("matchExpressions", ()):
        values = "(" + ",".join(rule.get("values", [])) + ")"
        parts.append(
            {
                "In": f"{rule['key']} in {values}",
                "NotIn": f"{rule['key']} notin {values}",
                "Exists": rule["key"],
                "DoesNotExist": "!" + rule["key"],
            }[rule["operator"]]
        )
    return ",".join(parts)


_FIELDS: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): ("spec.nodeName", "spec.restartPolicy", "spec.schedulerName",
                   "spec.serviceAccountName", "status.phase", "status.podIP"),
    ("", "events"): ("involvedObject.kind", "involvedObject.namespace", "involvedObject.name",
                     "involvedObject.uid", "involvedObject.apiVersion",
                     "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
                     "reportingComponent", "source", "type"),
    ("", "nodes"): ("spec.unschedulable",),
    ("", "namespaces"): ("status.phase",),
    ("", "secrets"): ("type",),
    ("apps", "replicasets"): ("status.replicas",),
}  # fmt: skip


def field_matcher(text: str, key: tuple[str, str]) -> Callable[[Object], bool]:
    """Read `metadata.name=a,status.phase!=Running`; only the fields that a kind supports."""
    supported = ("metadata.name", "metadata.namespace", *_FIELDS.get(key, ()))
    tests: list[tuple[str, bool, str]] = []
    for part in _split(text):
        found = re.match(r"^([\w./]+)\s*(!=|==|=)\s*(.*)$", part.strip())
        if not found:
            raise errors.bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
        if found[1] not in supported:
            raise errors.bad_request(f"field label not supported: {found[1]}")
        tests.append((found[1], found[2] == "!=", found[3]))
    return lambda obj: all((_read(obj, path) == value) != negated for path, negated, value in tests)


def _read(obj: Object, path: str) -> str:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value).lower() if isinstance(value, bool) else str(value)
