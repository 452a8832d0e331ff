"""What stands between the socket and the routes: body limit and request count."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from planner.service.api.problems import http_problem, response
from planner.service.telemetry.metrics import Metrics


class BodyLimit:
    """Refuses request bodies above a size, told or not by Content-Length, with 413."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on while its body stays within the limit."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        detail = f"request bodies are limited to {self.max_body_bytes} bytes"
        length = dict(scope["headers"]).get(b"content-length", b"")
        if length.isdigit() and int(length) > self.max_body_bytes:
            await response(http_problem(413, detail))(scope, receive, send)
            return
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.max_body_bytes:
                raise HTTPException(413, detail)
            return message

        await self.app(scope, limited, send)


class RequestCount:
    """Counts answers by method and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the request when its answer begins."""

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.count_request(scope["method"], message["status"])
            await send(message)

        await self.app(scope, receive, counted)
