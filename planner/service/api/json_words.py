"""What is wrong with a body, in JSON's own words: object, array, number, null."""

import json
import re

MOST_DIGITS = 4_300
"""Of a whole number, as Python reads them (`sys.int_info.default_max_str_digits`)."""
_TOO_LONG = re.compile(rb"[0-9]{%d,}" % (MOST_DIGITS + 1))
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{\]}]', re.DOTALL)
"""Texts, so that brackets in them do not count, and brackets."""
_DEEP = 500
"""Levels of arrays and objects that can still be read, about half of what Python's reader can."""
_EXPECTED = {
    "model_attributes_type": "should be an object ({...})",
    "model_type": "should be an object ({...})",
    "dict_type": "should be an object ({...})",
    "dataclass_type": "should be an object ({...})",
    "list_type": "should be an array ([...])",
    "tuple_type": "should be an array ([...])",
    "set_type": "should be an array ([...])",
    "none_required": "should be null",
    "string_type": "should be a string",
    "bool_type": "should be true or false",
}
"""By pydantic's type of an error."""
_NAMES = (("List ", "Array "), ("Tuple ", "Array "), ("Set ", "Array "), ("Dictionary ", "Object "))


def why_unreadable(error: BaseException | None, body: bytes) -> str | None:
    """Why a body could not be read as JSON at all, where, and what to do.

    Parameters
    ----------
    error : BaseException or None
        What reading it raised.

    Returns
    -------
    str or None
        None: it is none of the known reasons.
    """
    if isinstance(error, UnicodeDecodeError):
        return (
            f"the body is not text in {error.encoding.upper()}: {error.reason} (byte "
            f"{error.start}); send JSON in UTF-8"
        )
    if isinstance(error, RecursionError):
        return (
            f"arrays and objects stand within each other more than {_DEEP} deep (byte "
            f"{_too_deep(body)}); no request needs more than a few levels: see the examples in "
            "/openapi.json"
        )
    match = _TOO_LONG.search(body) if isinstance(error, ValueError) else None
    if match is not None:
        return (
            f"a number has {match.end() - match.start():,} digits (byte {match.start()}), more "
            f"than the {MOST_DIGITS:,} that are read: write it shorter"
        )
    return None


def _too_deep(body: bytes) -> int:
    """Where the first bracket of too many is, bytes from the beginning."""
    depth = 0
    for match in _BRACKETS.finditer(body):
        if match[0] in (b"[", b"{"):
            depth += 1
        elif match[0] in (b"]", b"}"):
            depth -= 1
        if depth > _DEEP:
            return match.start()
    return len(body)


def expected(kind: str, message: str, *, whole_body: bool) -> str:
    """What was expected at some place of a body.

    Parameters
    ----------
    kind, message : str
        pydantic's type of the error and its sentence.
    whole_body : bool
        Whether the place is the body itself.
    """
    known = _EXPECTED.get(kind)
    if known is None:
        for python, name in _NAMES:
            if message.startswith(python):
                return name + message.removeprefix(python)
        return message
    if whole_body:
        return f"the body {known}: see the route's examples in /openapi.json"
    return f"Input {known}"


def shown(value: object) -> str:
    """What stood there, as JSON and shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = repr(type(value).__name__)
    return text if len(text) <= 60 else text[:57] + "..."
