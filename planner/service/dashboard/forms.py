"""Forms of our own pages: read, and refused where another page made them."""

from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, HTTPException, Request

from planner.service.security import sessions

MOST_FIELDS = 100


class Form:
    """The fields of a form, each once."""

    def __init__(self, fields: dict[str, str]) -> None:
        self._fields = fields

    @property
    def fields(self) -> dict[str, str]:
        """Everything that was written into it, but what proves its page."""
        return {name: text for name, text in self._fields.items() if name != sessions.FIELD}

    def text(self, name: str, *, most: int = 2_000) -> str:
        """What stands in a field, without space around it; empty: nothing.

        Raises
        ------
        HTTPException
            422 when it is longer than it may be.
        """
        found = self._fields.get(name, "").strip()
        if len(found) > most:
            raise HTTPException(422, f"{name}: at most {most:,} characters, got {len(found):,}")
        return found

    def whole(self, name: str, *, bounds: tuple[int, int] | None = None) -> int | None:
        """The whole number in a field; None: there is nothing in it.

        Raises
        ------
        HTTPException
            422 when it is none, or outside its bounds.
        """
        text = self.text(name, most=12)
        if not text:
            return None
        if text.isdecimal() and text.isascii():
            number = int(text)
            if bounds is None or bounds[0] <= number <= bounds[1]:
                return number
        within = "" if bounds is None else f" from {bounds[0]:,} to {bounds[1]:,}"
        raise HTTPException(422, f"{name}: a whole number{within}, got {text}")

    def revision(self) -> int | None:
        """The revision of what the page showed; None: the form does not say. Raises as `whole`."""
        return self.whole("revision")


async def own_form(request: Request) -> Form:
    """The form of a request.

    Raises
    ------
    HTTPException
        403 when it was not made for this session: by another page, or before somebody logged in
        or out; 422 when it cannot be read.
    """
    try:
        pairs = parse_qsl(
            (await request.body()).decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS
        )
    except ValueError as error:
        raise HTTPException(422, "the form cannot be read") from error
    fields = dict(pairs)
    if not sessions.is_own_form(fields.get(sessions.FIELD, ""), request.cookies):
        raise HTTPException(
            403,
            "this form was not made for your session: go back, load the page anew, and send it "
            "again (cookies have to be allowed for this site)",
        )
    return Form(fields)


OwnForm = Annotated[Form, Depends(own_form)]
