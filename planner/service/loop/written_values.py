"""Domain values as JSON and back, whole: what a decision was made from, to make it once more.

Unlike the documents, which are for people and other programs, this keeps everything that a value
holds, and only values of the core can come out of it.
"""

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, tzinfo
from enum import Enum
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import JsonValue

from planner.domain.errors import InputError

_KIND = "$"
_PACKAGES = ("planner.domain.", "planner.rollout.", "planner.autoscale.")
"""Nothing else is ever made from a text."""


def written(value: object) -> str:
    """A value as text: equal values give equal texts.

    Raises
    ------
    TypeError
        When it holds something that is no value of the core.
    """
    return json.dumps(_tree(value), separators=(",", ":"), ensure_ascii=False)


def tree_of(text: str) -> JsonValue:
    """The JSON in a text, to be compared.

    Raises
    ------
    InputError
        When it is no JSON.
    """
    try:
        tree: JsonValue = json.loads(text)
    except ValueError as error:
        raise InputError(f"a stored value is not readable: {error}") from error
    return tree


def value_in(text: str) -> object:
    """The value that `written` made a text of.

    Raises
    ------
    InputError
        When this version of Poolwise has no such value.
    """
    tree = tree_of(text)
    try:
        return _value(tree)
    except (ImportError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"a stored value was written by another version of Poolwise and cannot be read by this "
            f"one: {error}"
        ) from error


def differences(before: JsonValue, after: JsonValue, *, at: str = "") -> list[str]:
    """Where two trees differ, as `plan.windows[0].pools[1].replicas: 3 before, 4 now`."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [k for k in dict.fromkeys([*before, *after]) if k != _KIND]
        found = [
            line
            for key in keys
            for line in differences(
                before.get(key), after.get(key), at=f"{at}.{key}" if at else key
            )
        ]
        return found or [f"{at}: {before.get(_KIND)} before, {after.get(_KIND)} now"]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [d for i, (b, a) in pairs for d in differences(b, a, at=f"{at}[{i}]")]
    return [f"{at}: {_short(before)} before, {_short(after)} now"]


def _short(tree: JsonValue) -> str:
    if isinstance(tree, list):
        return f"{len(tree)} of them"
    text = json.dumps(tree, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _tree(value: object) -> JsonValue:
    if isinstance(value, Enum):
        return {_KIND: _name(type(value)), "value": value.value}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple):
        return [_tree(item) for item in value]
    if is_dataclass(value) and type(value).__module__.startswith(_PACKAGES):
        kept = {f.name: _tree(getattr(value, f.name)) for f in fields(value) if f.init}
        return {_KIND: _name(type(value)), **kept}
    return _plain_tree(value)


def _plain_tree(value: object) -> JsonValue:
    """What is of Python's or NumPy's own kinds."""
    tree: dict[str, JsonValue]
    if isinstance(value, np.generic):
        return _tree(value.item())
    if isinstance(value, np.ndarray):
        kept: list[JsonValue] = value.ravel().tolist()
        tree = {"type": str(value.dtype), "shape": list(value.shape), "values": kept}
        return {_KIND: "array", **tree}
    if isinstance(value, Mapping):
        pairs: list[JsonValue] = [[_tree(k), _tree(v)] for k, v in value.items()]
        return {_KIND: "mapping", "items": pairs}
    if isinstance(value, date | time):
        return {_KIND: type(value).__name__, "value": value.isoformat()}
    if isinstance(value, tzinfo):
        return {_KIND: "zone", "value": str(value)}
    raise TypeError(f"{type(value).__module__}.{type(value).__name__} is no value of the core")


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _value(tree: JsonValue) -> object:
    if isinstance(tree, list):
        return tuple(_value(item) for item in tree)
    if not isinstance(tree, dict):
        return tree
    kind = str(tree[_KIND])
    if kind in _PLAIN:
        return _PLAIN[kind](tree)
    module, _, name = kind.partition(":")
    if not module.startswith(_PACKAGES):
        raise KeyError(kind)
    made = getattr(importlib.import_module(module), name)
    if isinstance(made, type) and issubclass(made, Enum):
        return made(tree["value"])
    if not (isinstance(made, type) and is_dataclass(made)):
        raise KeyError(kind)
    return made(**{key: _value(item) for key, item in tree.items() if key != _KIND})


def _array(tree: Mapping[str, JsonValue]) -> object:
    values = np.array(tree["values"], dtype=np.dtype(str(tree["type"])))
    shape = tree["shape"]
    return values.reshape([int(str(n)) for n in shape] if isinstance(shape, list) else -1)


def _mapping(tree: Mapping[str, JsonValue]) -> object:
    items = tree["items"]
    pairs = [_value(pair) for pair in items] if isinstance(items, list) else []
    return {pair[0]: pair[1] for pair in pairs if isinstance(pair, tuple)}


_PLAIN: dict[str, Callable[[Mapping[str, JsonValue]], object]] = {
    "array": _array,
    "mapping": _mapping,
    "datetime": lambda tree: datetime.fromisoformat(str(tree["value"])),
    "date": lambda tree: date.fromisoformat(str(tree["value"])),
    "time": lambda tree: time.fromisoformat(str(tree["value"])),
    "zone": lambda tree: ZoneInfo(str(tree["value"])),
}
