"""Lets a request through to its route only when whoever sends it may call that; else says why.

Nothing of a request's body is read before that. The API looks at no cookies: a browser sends no
token by itself, so that a page of another origin cannot write in somebody's name. Pages are for
browsers and do look at one, which is why they take forms of their own pages only.
"""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from planner.domain.errors import PoolwiseError
from planner.service.api.problems import Problem, http_problem, problem_of, refusal, response
from planner.service.api.recognising import (
    Recognition,
    RefusedError,
    address_of,
    too_many,
    unauthorized,
)
from planner.service.api.rights import OF_API, Right, Rights
from planner.service.api.service import LOOPBACK, Service
from planner.service.security.access import ANONYMOUS, LOCAL, AccessRole, Principal
from planner.service.security.authentication import NO_TOKEN, Authenticator
from planner.service.security.rate_limits import Buckets
from planner.service.security.sessions import comes_from_elsewhere, token_in
from planner.service.security.tokens import hash_of

READS = frozenset({"GET", "HEAD"})
BODIES = frozenset({"POST", "PUT", "PATCH"})
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


class Pages(Protocol):
    """The part of the site that people see: its routes, and how they are told of a refusal."""

    @property
    def rights(self) -> Rights:
        """Who may call which of its routes."""

    def owns(self, path: str) -> bool:
        """Whether a path is one of them."""

    def refused(
        self, request: Request, problem: Problem, headers: Mapping[str, str] | None
    ) -> Response:
        """The page that says why a request was not let through."""


class AccessControl:
    """Stands before all routes; `request.state.principal` tells them who is let through."""

    def __init__(
        self, app: ASGIApp, service: Service, recognition: Recognition, pages: Pages | None
    ) -> None:
        self.app = app
        self.service = service
        self.recognition = recognition
        rate = service.requests_per_s
        self._requests = Buckets(rate, burst=2 * rate)
        self._pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing else is served
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope)
        pages = self._pages
        if pages is not None and not pages.owns(str(scope["path"])):
            pages = None
        try:
            await self._let_through(request, pages)
        except (RefusedError, PoolwiseError) as error:
            await self._refusal(request, pages, error)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _refusal(self, request: Request, pages: Pages | None, error: Exception) -> Response:
        headers = None
        if isinstance(error, RefusedError):
            self.service.metrics.count_refusal(error.reason)
            problem, headers = http_problem(error.status, error.detail), error.headers
        elif pages is None:
            return refusal(error)
        else:
            problem = problem_of(error)
        if pages is None:
            return response(problem, headers)
        return pages.refused(request, problem, headers)

    async def _let_through(self, request: Request, pages: Pages | None) -> None:
        method, path = request.method, str(request.scope["path"])
        rights = OF_API if pages is None else pages.rights
        right = rights.right_to(method, path)
        if pages is not None and method not in READS and comes_from_elsewhere(request.headers):
            raise RefusedError("origin", 403, "a page of another origin made your browser ask this")
        if right is not None and right.needed is None:
            return
        principal = await self._principal(request, right, pages)
        self._check_rate(principal, request)
        if right is None or right.needed is None:
            raise _no_route(method, path, rights)
        if not principal.role.may(right.needed):
            await self._tell_audit(principal, right)
            raise RefusedError("role", 403, _too_little(principal, right, right.needed))
        if method in BODIES:
            _check_content_type(request, JSON if pages is None else FORM)
        request.state.principal = principal

    async def _principal(
        self, request: Request, right: Right | None, pages: Pages | None
    ) -> Principal:
        if self.service.insecure_local:
            _check_local(request)
            return LOCAL
        if pages is None:
            authorization = request.headers.get("authorization")
            token_hash = Authenticator.hash_in(authorization or "")
        else:
            authorization = token_in(request.cookies) or None
            token_hash = None if authorization is None else hash_of(authorization)
        if token_hash is None:
            asked = right is not None and right.needed is AccessRole.VIEWER
            if self.service.anonymous_reads and asked and request.method in READS:
                return ANONYMOUS
            if authorization is None:
                raise unauthorized(NO_TOKEN)
        return await self.recognition.of(token_hash, address_of(request))

    def _check_rate(self, principal: Principal, request: Request) -> None:
        if self.service.insecure_local:
            return
        key = principal.name if principal.by_token else f"from {address_of(request)}"
        wait_s = self._requests.take(key)
        if wait_s > 0:
            rate = self.service.requests_per_s
            raise too_many("rate", wait_s, f"{principal.name} may send {rate:g} requests a second")

    async def _tell_audit(self, principal: Principal, right: Right) -> None:
        """A role that is too low is no accident for ever: people should see it."""
        if self.recognition.told.take(f"{principal.name} {right.route}") > 0:
            return
        detail = f"needs {right.needed}, has {principal.role}"
        add, now = self.service.store.add_audit, self.service.now()
        await run_in_threadpool(add, now, principal.name, "access.refuse", right.route, detail)


def _too_little(principal: Principal, right: Right, needed: AccessRole) -> str:
    return (
        f"{principal.name} is {_a(principal.role)}; {right.route} needs {_a(needed)}: an admin "
        "may give out such a token (`poolwise token create`)"
    )


def _a(role: AccessRole) -> str:
    return f"{'a' if role is AccessRole.VIEWER else 'an'} {role}"


def _no_route(method: str, path: str, rights: Rights) -> RefusedError:
    methods = rights.methods_of(path)
    if not methods:
        return RefusedError("no_route", 404, f"there is no {path}; GET /openapi.json lists all")
    phrase = HTTPStatus.METHOD_NOT_ALLOWED.phrase
    allowed = ", ".join(methods)
    detail = f"{phrase}: {path} takes {allowed}, not {method}"
    return RefusedError("no_route", 405, detail, {"Allow": allowed})


def _check_local(request: Request) -> None:
    """Refuse what a page elsewhere makes a browser on this machine send.

    Its name may resolve to loopback (Host tells), and it may post to localhost without asking
    (Origin tells).
    """
    host = request.headers.get("host", "")
    try:
        hostname = urlsplit(f"//{host}").hostname
    except ValueError:
        hostname = None
    if hostname not in LOOPBACK:
        raise RefusedError("host", 403, "--insecure-local answers to localhost only")
    origin = request.headers.get("origin", f"http://{host}")
    if request.method not in READS and origin.partition("://")[2] != host:
        raise RefusedError(
            "origin", 403, f"--insecure-local takes no writes from a page of {origin}"
        )


def _check_content_type(request: Request, taken: str) -> None:
    kind = request.headers.get("content-type", taken).partition(";")[0].strip().lower()
    if kind != taken:
        raise RefusedError("content_type", 415, f"send {taken}, not {kind or 'nothing'}")
