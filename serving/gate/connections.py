"""Clients' connections: one write for what belongs together, and word when a client goes away.

uvicorn writes the head of an answer before its first piece comes, each in a system call of its
own, and tells of a client that left only to a task that waits for it. Here both cost a request
next to nothing (docs/serving/gate.md has the figures).
"""

import asyncio
from collections.abc import Callable
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.gate.asgi import Scope

_KEY = "poolwise.link"


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
    """uvicorn's HTTP connection with a link in the scope of its requests.

    Clients of HTTP/1.0 do not know chunks, which uvicorn sends them all the same.
    """

    link: Link

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come."""
        self.link = Link(transport)
        super().connection_made(_Joining(transport, self.link))

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone, or was sent away."""
        super().connection_lost(exc)
        self.link.left()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        cast("Scope", self.scope)[_KEY] = self.link

    def on_headers_complete(self) -> None:
        """The head of a request is known."""
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0" and self.cycle is not None:
            self.cycle.chunked_encoding = False
            self.cycle.expected_content_length = _UntilClosed()


def link_of(scope: Scope) -> Link:
    """The connection of a request."""
    return cast("Link", scope[_KEY])
