"""Rows of Mooncake's JSONL traces.

One JSON object per line: `timestamp` (ms from the start of the trace), `input_length`,
`output_length` (tokens) and `hash_ids`, the chained ids of the prompt's 512-token blocks. Poolwise
also reads and writes `request_class`, which the published traces do not have.
"""

import json
import math

from forecaster.readers.rows import Row, check_arrival, check_class, check_tokens, shown
from planner.domain.slo import DEFAULT_CLASS

BLOCK_TOKENS = 512
"""Tokens in one block of `hash_ids` (Mooncake, FAST'25, section on the released traces)."""

CLASS_KEY = "request_class"
_LARGEST_ID = 2**63 - 1


class MooncakeRows:
    """Parses one file; the first good row decides whether the file has `hash_ids`."""

    def __init__(self, class_key: str | None = None) -> None:
        self._has_blocks: bool | None = None
        self._class_key = class_key

    def parse(self, text: str) -> Row:
        """The request in this line; a ValueError says what is wrong with it."""
        record = _record(text)
        arrival_s = _arrival_s(record)
        input_tokens = check_tokens("input_length", _integer(record, "input_length"))
        output_tokens = check_tokens("output_length", _integer(record, "output_length"))
        block_ids = self._block_ids(record, input_tokens)
        request_class = self._request_class(record)
        self._has_blocks = block_ids is not None
        return Row(arrival_s, input_tokens, output_tokens, block_ids, request_class)

    def arrival_s(self, text: str) -> float:
        """When the row says that it arrived, whatever else is in it; a ValueError: it does not."""
        return _arrival_s(_record(text))

    def _request_class(self, record: dict[str, object]) -> str:
        key = self._class_key or CLASS_KEY
        if self._class_key is None and key not in record:
            return DEFAULT_CLASS
        value = _field(record, key)
        if not isinstance(value, str):
            raise ValueError(f"{key} must be a text, got {shown(value)}")
        return check_class(value)

    def _block_ids(self, record: dict[str, object], input_tokens: int) -> list[int] | None:
        present = "hash_ids" in record
        if self._has_blocks is not None and present != self._has_blocks:
            raise ValueError(
                "hash_ids is missing, but earlier rows have it"
                if self._has_blocks
                else "hash_ids is given, but earlier rows have none"
            )
        if not present:
            return None
        return _checked_ids(record["hash_ids"], input_tokens)


def _arrival_s(record: dict[str, object]) -> float:
    return check_arrival("timestamp", _number(record, "timestamp") / 1000.0)


def _checked_ids(value: object, input_tokens: int) -> list[int]:
    if not isinstance(value, list):
        raise ValueError(f"hash_ids must be a list of integers, got {shown(value)}")
    ids = [x for x in value if type(x) is int and 0 <= x <= _LARGEST_ID]
    if len(ids) != len(value):
        raise ValueError("hash_ids must hold integers from 0 to 2^63 - 1 only")
    most = math.ceil(input_tokens / BLOCK_TOKENS)
    if len(ids) > most:
        raise ValueError(
            f"hash_ids has {len(ids)} blocks of {BLOCK_TOKENS} tokens, but input_length "
            f"{input_tokens} fills {most}"
        )
    return ids


def _record(text: str) -> dict[str, object]:
    try:
        value: object = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not a JSON object: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("not a JSON object: nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {shown(value)}")
    return value


def _field(record: dict[str, object], name: str) -> object:
    if name not in record:
        raise ValueError(f"{name} is missing")
    return record[name]


def _integer(record: dict[str, object], name: str) -> int:
    value = _field(record, name)
    if type(value) is not int:
        raise ValueError(f"{name} must be an integer, got {shown(value)}")
    return value


def _number(record: dict[str, object], name: str) -> float:
    value = _field(record, name)
    if type(value) is int and abs(value) < 10**40:
        return float(value)
    if type(value) is float and math.isfinite(value):
        return value
    raise ValueError(f"{name} must be a number, got {shown(value)}")
