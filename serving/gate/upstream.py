"""Passes one request to an upstream and its answer back, byte for byte.

aiohttp is the client: of those measured it costs least per streamed piece (docs/serving/gate.md).
"""

import asyncio
import io
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import aiohttp

from serving.gate.answer import AnswerMeter
from serving.gate.asgi import Message, Send
from serving.gate.connections import Link
from serving.gate.refusals import Headers, Refusal

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 2.0
"""Shorter than servers keep idle connections (uvicorn: 5 s), so that none is closed in our face."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 0.5
"""Between two rounds of attempts to connect."""
LARGE_BODY_BYTES = 1 << 20
SENT_AT_ONCE_BYTES = 1 << 14
"""Bodies up to this fit into a socket's buffer: they are sent before an answer can come."""
WHOLE_ANSWER_BYTES = 1 << 20
"""Answers of a known length up to this are passed on in one piece."""

_ONE_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers that belong to one connection: RFC 9110, section 7.6.1."""
_OURS = _ONE_HOP | {
    b"host",
    b"content-length",
    b"authorization",  # the key is the gate's, nobody behind it needs to know it
    b"expect",
    b"x-poolwise-class",
    b"x-smg-target-worker",  # who computes is the router's to choose
    b"x-data-parallel-rank",
}


class End(StrEnum):
    """How an exchange ended."""

    COMPLETE = "complete"
    FAILED = "failed"
    CANCELLED = "cancelled"


class NoConnectionError(Exception):
    """The upstream took no connection; nothing was sent to it."""


class NotReadyError(Exception):
    """A router that has nobody to ask yet: 503, and no word on when to come again."""


class NoAnswerError(Exception):
    """The upstream closed the connection before it answered."""


@dataclass(slots=True)
class Upstream:
    """A client for all upstreams. Open it inside the running event loop."""

    _session: aiohttp.ClientSession | None = field(default=None)

    async def open(self) -> None:
        """Make the client."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=KEEPALIVE_S,
                socket_factory=lambda address: _HeardOut(*address[:3]),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),  # one client's cookies are not another's
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    async def request(
        self, method: str, url: str, headers: Headers, body: bytes | None
    ) -> "Answering":
        """Send a request; its answer, to be left as a context manager.

        Raises
        ------
        NoConnectionError, NoAnswerError
            As they say.
        """
        assert self._session is not None
        # aiohttp writes UTF-8: what is none was refused (`not_passed_on`).
        passed = [(n.decode(), v.decode()) for n, v in _without(_OURS, headers)]
        data = io.BytesIO(body) if body is not None and len(body) > LARGE_BODY_BYTES else body
        try:
            response = await self._session.request(
                method, url, headers=passed, data=data, allow_redirects=False
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NoConnectionError(_reason(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswerError(_reason(error)) from error
        return Answering(response, large=body is not None and len(body) > SENT_AT_ONCE_BYTES)


class _HeardOut(socket.socket):
    """A connection that is read to its end though the other side takes no more of what is sent.

    An upstream that refuses a large body answers and closes while the body is still being sent.
    asyncio gives up a connection at the first write that fails, and with it an answer that has
    come already. Here such writes vanish, and reading tells how the connection ended.
    """

    def send(self, data: "ReadableBuffer", flags: int = 0, /) -> int:
        try:
            return super().send(data, flags)
        except (BrokenPipeError, ConnectionResetError):
            return memoryview(data).nbytes

    def sendmsg(  # asyncio's way from Python 3.12 on
        self,
        buffers: "Iterable[ReadableBuffer]",
        ancdata: "Iterable[tuple[int, int, ReadableBuffer]]" = (),
        flags: int = 0,
        address: "tuple[object, ...] | str | ReadableBuffer | None" = None,
        /,
    ) -> int:
        pieces = list(buffers)
        try:
            return super().sendmsg(pieces, ancdata, flags, address)
        except (BrokenPipeError, ConnectionResetError):
            return sum(memoryview(piece).nbytes for piece in pieces)


@dataclass(frozen=True, slots=True)
class Answering:
    """An upstream's answer, whose connection is closed if it is not read to the end.

    Parameters
    ----------
    large : bool
        The request was so large that it may not have been taken whole: where it is refused its
        connection is not used again.
    """

    response: aiohttp.ClientResponse
    large: bool = False

    def __enter__(self) -> aiohttp.ClientResponse:
        return self.response

    def __exit__(self, *_failed: object) -> None:
        cut_short = self.large and self.response.status >= 400
        if self.response.content.at_eof() and not cut_short:
            self.response.release()
        else:
            self.response.close()


def not_passed_on(headers: Headers) -> Refusal | None:
    """Why the headers cannot be passed on byte for byte; None: they can.

    aiohttp's headers are text that it writes as UTF-8, and other bytes would get lost on the way.
    """
    for name, value in headers:
        if value.isascii() or name in _OURS:
            continue
        try:
            value.decode()
        except UnicodeDecodeError:
            return Refusal(
                status=400,
                reason="bad_header",
                message=f"the header {name.decode('latin-1')} holds bytes that are neither ASCII "
                "nor UTF-8, which the gate cannot pass on: encode it, or leave it out",
            )
    return None


def _without(dropped: frozenset[bytes], headers: Headers) -> Headers:
    """Headers (names in lower case) but for these, and for those that `Connection` names."""
    for name, value in headers:
        if name == b"connection":
            dropped |= {token.strip().lower() for token in value.split(b",")}
    return [(name, value) for name, value in headers if name not in dropped]


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


@dataclass(slots=True)
class Patience:
    """Whether to try all ways once more, after growing pauses.

    Parameters
    ----------
    until_s : float
        On the monotonic clock, seconds.
    """

    until_s: float
    _pause_s: float = FIRST_PAUSE_S

    async def again(self) -> bool:
        """Wait a little; False once patience is at its end."""
        left_s = self.until_s - time.monotonic()
        if left_s <= 0:
            return False
        await asyncio.sleep(min(self._pause_s, left_s))
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        return True


def is_not_ready(response: aiohttp.ClientResponse) -> bool:
    """Whether the upstream answers that it cannot serve anybody just now.

    One that sheds on purpose says `Retry-After` with it, and is believed.
    """
    return response.status == 503 and "retry-after" not in response.headers


async def relay(
    response: aiohttp.ClientResponse,
    send: Send,
    link: Link,
    meter: AnswerMeter,
    begun: Callable[[], None],
) -> End:
    """Pass an answer on as it comes.

    An answer that the upstream breaks off is left unfinished, so that the server closes the
    client's connection as the upstream closed ours.

    Parameters
    ----------
    begun : callable
        Called once, with the first token.
    """
    headers = _without(_ONE_HOP, [(n.lower(), v) for n, v in response.raw_headers])
    head: Message = {
        "type": "http.response.start",
        "status": response.status,
        "headers": headers,
    }
    length = response.content_length
    whole = length is not None and length <= WHOLE_ANSWER_BYTES
    if whole:  # a broken answer is then told by its status, not in its middle
        try:
            body = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise NoAnswerError(_reason(error)) from error
        with link:
            await send(head)
            await send({"type": "http.response.body", "body": body, "more_body": False})
        meter.take(body, time.monotonic())
        meter.finish()
        return End.COMPLETE
    content = response.content
    try:
        with link:  # the first piece mostly came with the head
            await send(head)
            data = content.read_nowait(-1)
            more = await _pass(data, content, send, meter, begun) if data else True
        while more:
            data = await content.readany()
            more = await _pass(data, content, send, meter, begun)
    except (aiohttp.ClientError, OSError):
        return End.FAILED
    meter.finish()
    return End.COMPLETE


async def _pass(
    data: bytes,
    content: aiohttp.StreamReader,
    send: Send,
    meter: AnswerMeter,
    begun: Callable[[], None],
) -> bool:
    """Pass on a piece of an answer; whether more is to come."""
    now_s = time.monotonic()
    more = bool(data) and not content.at_eof()  # the end is told with the last piece
    await send({"type": "http.response.body", "body": data, "more_body": more})
    waiting = meter.first_token_s is None
    meter.take(data, now_s)
    if waiting and meter.first_token_s is not None:
        begun()
    return more


class ClientWatch:
    """Cancels the current task when its client goes away; a context manager.

    Parameters
    ----------
    gone : bool
        Whether the client went away before the answer was complete.
    """

    __slots__ = ("_link", "_task", "gone")

    def __init__(self, link: Link) -> None:
        self._link = link
        self._task = asyncio.current_task()
        self.gone = False

    def __enter__(self) -> "ClientWatch":
        self._link.on_leave(self._leave)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> bool:
        """Swallow the cancellation that this watch caused, no other."""
        self._link.on_leave(None)
        if self.gone and self._task is not None and self._task.uncancel() > 0:
            return False
        return self.gone and kind is not None and issubclass(kind, asyncio.CancelledError)

    def _leave(self) -> None:
        if self._task is not None:
            self.gone = True
            self._task.cancel()
