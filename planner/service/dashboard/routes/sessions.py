"""Logging in with a token, and out."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from planner.service.api.recognising import Recognition, RefusedError, address_of
from planner.service.api.service import ServiceParameter
from planner.service.dashboard.forms import OwnForm
from planner.service.dashboard.pages import own_path, page, see, set_cookie
from planner.service.security import sessions
from planner.service.security.tokens import hash_of

ROUTER = APIRouter()


def recognition_of(request: Request) -> Recognition:
    """Whose tokens are sent to this process."""
    found = request.app.state.recognition
    if not isinstance(found, Recognition):
        raise TypeError("app.state.recognition is not Recognition: use create_site")
    return found


@ROUTER.get("/login")
async def get_login(
    request: Request,
    service: ServiceParameter,
    back_to: Annotated[str, Query(alias="next", max_length=2_000)] = "/",
    ended: Annotated[bool, Query()] = False,
) -> Response:
    """The form that asks for a token; a server that asks for none has no such page."""
    if service.insecure_local:
        return see("/")
    return _form(request, back_to=own_path(back_to), problem="", ended=ended)


@ROUTER.post("/login")
async def post_login(
    request: Request,
    service: ServiceParameter,
    form: OwnForm,
    recognition: Annotated[Recognition, Depends(recognition_of)],
) -> Response:
    """Begin a session with a good token."""
    back_to = own_path(form.text("next") or "/")
    token = form.text("token").removeprefix("Bearer ").strip()
    if not token or len(token) > sessions.MOST_CHARACTERS or not token.isascii():
        problem = "Paste the token as it was given to you: it begins with pw_."
        return _form(request, back_to=back_to, problem=problem, status=422)
    try:
        await recognition.of(hash_of(token), address_of(request))
    except RefusedError as refused:
        service.metrics.count_refusal(refused.reason)
        return _form(request, back_to=back_to, problem=_said(refused), status=refused.status)
    response = see(back_to)
    set_cookie(request, response, sessions.SESSION, token)
    return response


@ROUTER.post("/logout")
async def post_logout(request: Request, _form: OwnForm) -> Response:
    """End the session of this browser; the token goes on."""
    response = see("/login")
    set_cookie(request, response, sessions.SESSION, "")
    set_cookie(request, response, sessions.FORM, "")
    return response


def _form(
    request: Request, *, back_to: str, problem: str, ended: bool = False, status: int = 200
) -> Response:
    values = {"back_to": back_to, "problem": problem, "ended": ended}
    return page(request, "login.html.j2", values, status=status)


def _said(refused: RefusedError) -> str:
    if refused.reason == "unknown_token":
        return "Nobody has this token. Look whether all of it was pasted, or ask an admin."
    return refused.detail[:1].upper() + refused.detail[1:] + "."
