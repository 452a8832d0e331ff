"""Lets a request through to its route only when whoever sends it may call that; else says why.

Nothing of a request's body is read before that. Cookies are never looked at: a browser sends no
token by itself, so that a page of another origin cannot write in somebody's name.
"""

import asyncio
import logging
from http import HTTPStatus
from ipaddress import ip_address, ip_network
from math import ceil
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from planner.domain.errors import PoolwiseError
from planner.service.api.problems import http_problem, refusal, response
from planner.service.api.rights import Right, methods_of, right_to
from planner.service.api.service import LOOPBACK, Service
from planner.service.security.access import ANONYMOUS, LOCAL, AccessRole, Principal
from planner.service.security.authentication import NO_TOKEN, Authenticator, Refusal
from planner.service.security.rate_limits import Buckets
from planner.service.store.tokens import StoredToken

LOG = logging.getLogger("poolwise.access")
FAILURES_PER_S, FAILURES_AT_ONCE = 1 / 6, 10.0
"""Bad tokens that an address may send: 10 a minute in the long run."""
TELL_PER_S = 1 / 60
"""Refusals of one kind are told once a minute, in the log and the audit log; all are counted."""
READS = frozenset({"GET", "HEAD"})
BODIES = frozenset({"POST", "PUT", "PATCH"})


class RefusedError(Exception):
    """Not let through."""

    def __init__(
        self, reason: str, status: int, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.status = status
        self.detail = detail
        self.headers = headers


class AccessControl:
    """Stands before all routes; `request.state.principal` tells them who is let through."""

    def __init__(self, app: ASGIApp, service: Service, authenticator: Authenticator) -> None:
        self.app = app
        self.service = service
        self.authenticator = authenticator
        rate = service.requests_per_s
        self._requests = Buckets(rate, burst=2 * rate)
        self._failures = Buckets(FAILURES_PER_S, FAILURES_AT_ONCE)
        self._told = Buckets(TELL_PER_S, 1.0)
        self._asking: dict[str, asyncio.Future[StoredToken | None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # nothing else is served
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            await self._let_through(Request(scope))
        except RefusedError as refused:
            self.service.metrics.count_refusal(refused.reason)
            problem = http_problem(refused.status, refused.detail)
            await response(problem, refused.headers)(scope, receive, send)
        except PoolwiseError as error:
            await refusal(error)(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _let_through(self, request: Request) -> None:
        method, path = request.method, str(request.scope["path"])
        right = right_to(method, path)
        if right is not None and right.needed is None:
            return
        principal = await self._principal(request, right)
        self._check_rate(principal, request)
        if right is None or right.needed is None:
            raise _no_route(method, path)
        if not principal.role.may(right.needed):
            await self._tell_audit(principal, right)
            raise RefusedError("role", 403, _too_little(principal, right, right.needed))
        if method in BODIES:
            _check_content_type(request)
        request.state.principal = principal

    async def _principal(self, request: Request, right: Right | None) -> Principal:
        if self.service.insecure_local:
            _check_local(request)
            return LOCAL
        authorization = request.headers.get("authorization")
        token_hash = Authenticator.hash_in(authorization or "")
        if token_hash is None:
            asked = right is not None and right.needed is AccessRole.VIEWER
            if self.service.anonymous_reads and asked and request.method in READS:
                return ANONYMOUS
            if authorization is None:
                raise _unauthorized(NO_TOKEN)
        return await self._by_token(token_hash, _address(request))

    async def _by_token(self, token_hash: str | None, address: str) -> Principal:
        """Whose token it is; an address that sent too many bad ones is not even looked at."""
        known = self.authenticator
        wait_s = self._failures.wait_s(address)
        if wait_s > 0 and not (token_hash and known.is_known(token_hash)):
            raise _too_many("failures", wait_s, f"too many bad tokens came from {address}")
        refusal: Principal | Refusal = NO_TOKEN
        if token_hash is not None:
            found = known.fresh(token_hash) or await self._look_up(token_hash)
            refusal = known.recognise(token_hash, found)
        if isinstance(refusal, Principal):
            return refusal
        self._failures.take(address)
        if self._told.take(f"{address} {refusal.reason}") == 0:
            LOG.warning("authentication failed: from=%s reason=%s", address, refusal.reason)
        raise _unauthorized(refusal)

    async def _look_up(self, token_hash: str) -> StoredToken | None:
        """What the database says; of many requests with one token at once, one asks."""
        asking = self._asking.get(token_hash)
        if asking is None:
            look_up = run_in_threadpool(self.authenticator.look_up, token_hash)
            asking = self._asking[token_hash] = asyncio.ensure_future(look_up)
            asking.add_done_callback(lambda _: self._asking.pop(token_hash, None))
        return await asyncio.shield(asking)

    def _check_rate(self, principal: Principal, request: Request) -> None:
        if self.service.insecure_local:
            return
        key = principal.name if principal.by_token else f"from {_address(request)}"
        wait_s = self._requests.take(key)
        if wait_s > 0:
            rate = self.service.requests_per_s
            raise _too_many("rate", wait_s, f"{principal.name} may send {rate:g} requests a second")

    async def _tell_audit(self, principal: Principal, right: Right) -> None:
        """A role that is too low is no accident for ever: people should see it."""
        if self._told.take(f"{principal.name} {right.route}") > 0:
            return
        detail = f"needs {right.needed}, has {principal.role}"
        add, now = self.service.store.add_audit, self.service.now()
        await run_in_threadpool(add, now, principal.name, "access.refuse", right.route, detail)


def _unauthorized(refusal: Refusal) -> RefusedError:
    return RefusedError(refusal.reason, 401, refusal.detail, {"WWW-Authenticate": "Bearer"})


def _too_many(reason: str, wait_s: float, what: str) -> RefusedError:
    seconds = ceil(wait_s)
    headers = {"Retry-After": str(seconds)}
    return RefusedError(reason, 429, f"{what}; try again in {seconds} s", headers)


def _too_little(principal: Principal, right: Right, needed: AccessRole) -> str:
    return (
        f"{principal.name} is {_a(principal.role)}; {right.route} needs {_a(needed)}: an admin "
        "may give out such a token (`poolwise token create`)"
    )


def _a(role: AccessRole) -> str:
    return f"{'a' if role is AccessRole.VIEWER else 'an'} {role}"


def _no_route(method: str, path: str) -> RefusedError:
    methods = methods_of(path)
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


def _check_content_type(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError("content_type", 415, f"send application/json, not {kind or 'nothing'}")


def _address(request: Request) -> str:
    """Where a request comes from; of IPv6 the network, of which one machine has all."""
    host = request.client.host if request.client else "nowhere"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    mapped = address.ipv4_mapped  # an IPv4 client, of a socket for both
    return str(mapped or ip_network((address, 64), strict=False))
