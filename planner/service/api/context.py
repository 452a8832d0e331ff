"""What goes with a request from its first byte to its last line of log: an id, and a span."""

import logging
import re
import time
import uuid
from contextlib import AbstractContextManager

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from planner.service.telemetry.logs import REQUEST_ID, fields
from planner.service.telemetry.tracing import Told, Tracing, no_span

LOG = logging.getLogger("poolwise.api")
HEADER = "X-Request-ID"
_USABLE = re.compile(r"[A-Za-z0-9._-]{1,128}")
_QUIET = ("/metrics", "/healthz", "/readyz")
"""Asked every few seconds by machines: told at level debug."""


class RequestContext:
    """Takes over or makes `X-Request-ID`, answers with it, logs the answer, and opens a span."""

    def __init__(self, app: ASGIApp, tracing: Tracing | None) -> None:
        self.app = app
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its id known to every line that it causes."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(HEADER, "")
        request_id = given if _USABLE.fullmatch(given) else uuid.uuid4().hex
        token = REQUEST_ID.set(request_id)
        try:
            with self._span(scope, headers) as told:
                told["poolwise.request_id"] = request_id
                await self._answer(scope, receive, send, told, request_id)
        finally:
            REQUEST_ID.reset(token)

    def _span(self, scope: Scope, headers: Headers) -> AbstractContextManager[Told]:
        name = f"{scope['method']} request"
        if self.tracing is None or scope["path"] in _QUIET:
            return no_span(name)
        return self.tracing.request(name, dict(headers))

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, told: Told, request_id: str
    ) -> None:
        status, began_s = 500, time.monotonic()

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive, with_id)
        finally:
            route: str = getattr(scope.get("route"), "path", "") or "-"
            told |= {
                "http.request.method": scope["method"],
                "http.route": route,
                "http.response.status_code": status,
            }
            if status >= 500:
                told["error"] = f"answered {status}"
            level = logging.DEBUG if scope["path"] in _QUIET else logging.INFO
            about = fields(
                method=scope["method"],
                path=scope["path"],
                status=status,
                took_s=round(time.monotonic() - began_s, 6),
            )
            LOG.log(level, "request", extra=about)
