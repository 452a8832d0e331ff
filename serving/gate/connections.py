"""Clients' connections: one write for what belongs together, and word when a client goes away.

uvicorn writes the head of an answer before its first piece comes, each in a system call of its
own, and tells of a client that left only to a task that waits for it. Here both cost a request
next to nothing (docs/serving/gate.md has the figures).

uvicorn also waits for ever for the head of a request, of any size, and loses the body of a request
that offers another protocol. Here heads have bounds, and such offers are left alone.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.gate.asgi import Scope
from serving.gate.refusals import Headers, Refusal

_KEY = "poolwise.link"
MOST_HEAD_BYTES = 1 << 16
"""Of a request's head, or of what ends a body in chunks; beyond the piece in which it begins."""
HEAD_TIMEOUT_S = 60.0
"""A head that takes longer to come is given up, as is a connection that sends nothing at first."""
_OFFERS = frozenset({b"upgrade", b"http2-settings"})


class Link:
    """One client's connection, as the application sees it: a context manager and a watch.

    Inside `with link:` what is written is kept, and goes out as one piece at its end.
    """

    __slots__ = ("_left", "_on_leave", "_transport", "_written")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._written: list[bytes] | None = None
        self._on_leave: Callable[[], object] | None = None
        self._left = False

    def __enter__(self) -> None:
        self._written = []

    def __exit__(self, *_failed: object) -> None:
        written, self._written = self._written, None
        if written and not self._transport.is_closing():
            self._transport.write(b"".join(written))

    def write(self, data: bytes) -> None:
        """Write now, or at the end of the block."""
        if self._written is None:
            self._transport.write(data)
        else:
            self._written.append(data)

    def flush(self) -> None:
        """Write what is kept: the connection is to be closed."""
        if self._written:
            self._transport.write(b"".join(self._written))
            self._written.clear()

    def on_leave(self, act: Callable[[], object] | None) -> None:
        """Call this once the client has gone, at once if it has; None: nobody waits for it."""
        self._on_leave = act
        if act is not None and self._left:
            act()

    def left(self) -> None:
        """The client has gone."""
        self._left = True
        if self._on_leave is not None:
            self._on_leave()


class _Joining(asyncio.Transport):
    """A transport whose writes go through a link; all else is the transport's own."""

    def __init__(self, transport: asyncio.Transport, link: Link) -> None:
        super().__init__()
        self._transport, self._link = transport, link

    def get_extra_info(self, name: str, default: object = None) -> object:
        """What the transport knows."""
        return self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        """Read no more for now."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write, or keep until the link's block ends."""
        self._link.write(bytes(data))

    def close(self) -> None:
        """Close once what was written is sent."""
        self._link.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()


class _UntilClosed(int):
    """A length that no answer exceeds or falls short of: the connection's end is its end."""

    def __lt__(self, other: object) -> bool:
        return False

    def __ne__(self, other: object) -> bool:
        return False

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__

    def __sub__(self, other: object) -> "_UntilClosed":
        return self


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection with a link in the scope of its requests, and bounds for heads.

    Clients of HTTP/1.0 do not know chunks, which uvicorn sends them all the same. Clients that
    offer HTTP/2 or another protocol (Java's and curl's do) are answered in HTTP/1.1.
    """

    link: Link
    _unread: int = 0
    _in_head: bool = False
    _offers: bool = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        self.link = Link(transport)
        super().connection_made(_Joining(transport, self.link))
        self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was sent away."""
        self._forget_deadline()
        super().connection_lost(exc)
        self.link.left()

    def data_received(self, data: bytes) -> None:
        """Read on; what is neither a whole head nor a body has bounds."""
        self._unset_keepalive_if_required()
        self._unread += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
            return
        if self._unread > MOST_HEAD_BYTES and not self.transport.is_closing():
            self._send_away(431, f"the head of the request is larger than {MOST_HEAD_BYTES} bytes")
        elif self._in_head and self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            # The parser takes what follows for the other protocol: read the head again without
            # the offer, and then the body.
            rest = data[cast("int", stopped.args[0]) :]
            method = self.parser.get_method()
            if method == b"CONNECT":
                raise httptools.HttpParserError("CONNECT") from None
            version = self.parser.get_http_version().encode()
            lines = [b"%s %s HTTP/%s" % (method, self.url, version)]
            lines += [b"%s: %s" % one for one in _without_offers(self.headers)]
            self._offers = False
            self._feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._unread, self._in_head = 0, True
        cast("Scope", self.scope)[_KEY] = self.link

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head; lines behind a body are none."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head of a request is known."""
        self._unread, self._in_head = 0, False
        self._forget_deadline()
        self._offers = self.parser.should_upgrade()
        if self._offers:
            return
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0" and self.cycle is not None:
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = _UntilClosed()

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request has come to its end."""
        self._unread = 0
        if not self._offers:
            super().on_message_complete()

    def _too_slow(self) -> None:
        self._deadline = None
        if self._is_answering:
            self._deadline = self.loop.call_later(HEAD_TIMEOUT_S, self._too_slow)
        elif not self.transport.is_closing():
            self._send_away(408, f"the head did not come within {HEAD_TIMEOUT_S:.0f} s")

    def _send_away(self, status: int, message: str) -> None:
        """Close the connection, and say why where no answer is under way."""
        if not self._is_answering:
            refusal = Refusal(status=status, reason="bad_head", message=message)
            lines = [b"HTTP/1.1 %d %s" % (status, _PHRASES[status])]
            lines += [b"%s: %s" % one for one in (*refusal.headers, (b"connection", b"close"))]
            self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + refusal.body)
        self.transport.close()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


_PHRASES = {408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


def _without_offers(headers: Headers) -> Headers:
    """Headers without an offer of another protocol."""
    return [
        (name, _without_named(value) if name == b"connection" else value)
        for name, value in headers
        if name not in _OFFERS
    ]


def _without_named(connection: bytes) -> bytes:
    tokens = (token.strip() for token in connection.split(b","))
    return b", ".join(token for token in tokens if token.lower() not in _OFFERS)


def link_of(scope: Scope) -> Link:
    """The connection of a request."""
    return cast("Link", scope[_KEY])
