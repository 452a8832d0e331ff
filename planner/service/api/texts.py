"""Texts that nothing can keep: JSON may escape what neither UTF-8 nor a database holds."""

import json
import re

from fastapi import Depends, HTTPException, Request

_ESCAPED = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
"""Only so can they come into JSON; looked for first, since most bodies have none of it."""


def is_plain(value: object) -> bool:
    """Whether no text of a parsed JSON value holds NUL or half of a surrogate pair."""
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            rest += [*one.keys(), *one.values()]
        elif isinstance(one, list):
            rest += one
        elif isinstance(one, str) and any(c == "\0" or "\ud800" <= c <= "\udfff" for c in one):
            return False
    return True


async def _check_plain(request: Request) -> None:
    body = await request.body()
    if not _ESCAPED.search(body):
        return
    try:
        plain = is_plain(json.loads(body))
    except (ValueError, RecursionError):
        return  # no JSON: told as such
    if not plain:
        raise HTTPException(
            422,
            "the body holds a NUL character or half of a surrogate pair (as \\u0000 or \\ud800), "
            "which no text may hold: leave it out",
        )


PLAIN_TEXT = Depends(_check_plain)
"""Refuses, with 422, a body of which no database could keep a text."""
