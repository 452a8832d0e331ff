"""Long lists in pages: newest first, each page with an opaque cursor to the next.

A cursor names the last item of its page, so that what is added meanwhile moves nothing.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated, TypeVar

from fastapi import HTTPException, Query, Request, Response

from planner.service.api.texts import is_plain

MOST = 1_000
"""Items of a page."""

CursorParameter = Annotated[
    str | None,
    Query(description="`next` of the page before; left out: the first page", max_length=400),
]
Item = TypeVar("Item")


def cursor(*position: str | int) -> str:
    """An item's place in its list as text for a URL."""
    text = json.dumps(position, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def place(text: str | None, *kinds: type) -> list[str | int] | None:
    """The place that a cursor stands for; None: at the start.

    Raises
    ------
    HTTPException
        422 when it is none that this list gave.
    """
    if text is None:
        return None
    try:
        parts = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        parts = None
    fits = isinstance(parts, list) and len(parts) == len(kinds) and is_plain(parts)
    if not fits or not all(type(p) is kind for p, kind in zip(parts, kinds, strict=True)):
        raise HTTPException(422, "cursor: not one that this list gave; leave it out to begin anew")
    return list(parts)


def before(text: str | None) -> int | None:
    """The number that a cursor of a numbered list stands for; None: at the start. Raises 422."""
    at = place(text, int)
    if at is None:
        return None
    return max(0, min(int(at[0]), 2**31 - 1))


def page(found: Sequence[Item], limit: int) -> tuple[Sequence[Item], bool]:
    """The items of a page, of one more than may be on it; and whether another page follows."""
    return found[:limit], len(found) > limit


def link(request: Request, response: Response, following: str | None) -> None:
    """Name the next page in the header, too (RFC 8288)."""
    if following is not None:
        url = request.url.include_query_params(cursor=following)
        response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
