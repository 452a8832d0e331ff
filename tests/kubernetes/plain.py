"""Copies of plain JSON values."""

from typing import TypeVar

Value = TypeVar("Value")


def copied(value: Value) -> Value:
    """A deep copy of dicts, lists and scalars: several times faster than `copy.deepcopy`."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, list):
        return [copied(item) for item in value]  # type: ignore[return-value]
    return value
