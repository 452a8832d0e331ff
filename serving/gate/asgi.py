"""The little of ASGI that the gate needs: reading a bounded body, sending an answer whole."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import cast

from serving.gate.refusals import Headers, Refusal

Scope = MutableMapping[str, object]
Message = MutableMapping[str, object]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_TIMEOUT_S = 60.0
"""A body that takes longer to come is given up."""
DRAINED_RATIO = 8
"""Of a body that is too large, so many times the limit is read and thrown away: a client that is
cut off while it sends never reads why."""


def headers_of(scope: Scope) -> Headers:
    """Request headers, names in lower case."""
    return cast("Headers", scope["headers"])


def header(headers: Headers, name: bytes) -> str | None:
    """The first header of a name (lower case), or None."""
    value = next((v for n, v in headers if n == name), None)
    return None if value is None else value.decode("latin-1")


async def read_body(receive: Receive, limit: int, *, keep: bool = True) -> bytes | Refusal | None:
    """The whole body, why it is refused, or None when the client has gone.

    Parameters
    ----------
    keep : bool
        False: it is read to its end and thrown away, since whoever sends it is refused anyhow.
    """
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body = cast("bytes", message.get("body", b""))
            if message.get("more_body"):
                return await _read_on(receive, body, limit, keep=keep)
            return body if len(body) <= limit else _too_large(limit)
    except TimeoutError:
        text = f"the body did not come within {BODY_TIMEOUT_S:.0f} s"
        return Refusal(status=408, reason="slow_body", message=text)


async def _read_on(
    receive: Receive, first: bytes, limit: int, *, keep: bool
) -> bytes | Refusal | None:
    parts, size, more = [first] if keep else [], len(first), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = cast("bytes", message.get("body", b""))
        more = bool(message.get("more_body"))
        size += len(part)
        if size <= limit:
            parts += [part] if keep else []
        else:
            parts.clear()
            if size > DRAINED_RATIO * limit:
                break
    return b"".join(parts) if size <= limit else _too_large(limit)


def _too_large(limit: int) -> Refusal:
    return Refusal(
        status=413,
        reason="too_large",
        message=f"the body is larger than {limit} bytes, the most that this gate takes",
    )


async def answer(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send an answer whole."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def refuse(send: Send, refusal: Refusal) -> None:
    """Send a refusal; of a body that was not read to its end, the connection is closed."""
    headers = refusal.headers
    if refusal.status in (408, 413):
        headers.append((b"connection", b"close"))
    await answer(send, refusal.status, headers, refusal.body)
