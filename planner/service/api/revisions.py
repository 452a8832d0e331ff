"""Strong ETags, and what If-Match and If-None-Match make of them (RFC 9110, section 13)."""

import re
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response

IfNoneMatch = Annotated[
    str | None,
    Header(description="ETag that you have: 304 while it is the same", max_length=2_000),
]
_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
_TAGS = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e]*"\s*(?:,\s*(?:W/)?"[\x21\x23-\x7e]*"\s*)*')


def etag(revision: int) -> str:
    """The strong ETag of a revision."""
    return f'"{revision}"'


def expected(
    if_match: Annotated[
        str | None,
        Header(
            description="ETag of what you looked at: 412 when it has changed since",
            max_length=2_000,
        ),
    ] = None,
) -> int | None:
    """The revision that a request was made for; None: any. -1: one that never was.

    Raises
    ------
    HTTPException
        422 when the header holds no ETags.
    """
    if if_match is None or if_match.strip() == "*":
        return None
    tags = [tag for weak, tag in _tags(if_match, "If-Match") if not weak]
    numbers = [int(tag) for tag in tags if tag.isdecimal() and len(tag) < 10]
    return max(numbers, default=-1)


Revision = Annotated[int | None, Depends(expected)]
"""The revision that the If-Match of a request names."""


UNCHANGED: dict[int | str, dict[str, object]] = {
    304: {"description": "It is still what If-None-Match says"}
}


class NotModifiedError(Exception):
    """Whoever asks has it already: answered with 304.

    Parameters
    ----------
    revision : int
        What it is at.
    """

    def __init__(self, revision: int) -> None:
        super().__init__("not modified")
        self.revision = revision


def install(app: FastAPI) -> None:
    """Answer NotModifiedError with 304."""
    app.add_exception_handler(NotModifiedError, _not_modified)


def _not_modified(_request: Request, error: Exception) -> Response:
    if not isinstance(error, NotModifiedError):
        raise error
    return Response(status_code=304, headers={"ETag": etag(error.revision)})


def check_new(if_none_match: str | None, revision: int) -> None:
    """Raise NotModifiedError where whoever asks has this revision already."""
    if _is_known(if_none_match, revision):
        raise NotModifiedError(revision)


def _is_known(if_none_match: str | None, revision: int) -> bool:
    """Whether whoever asks has this revision already. Raises as `expected`."""
    if if_none_match is None:
        return False
    if if_none_match.strip() == "*":
        return True
    return any(tag == str(revision) for _, tag in _tags(if_none_match, "If-None-Match"))


def _tags(text: str, header: str) -> list[tuple[str, str]]:
    if not _TAGS.fullmatch(text):
        raise HTTPException(422, f'{header}: give ETags in double quotes, as "17", or *')
    return _TAG.findall(text)
