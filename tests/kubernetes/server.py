"""The API over HTTP on a loopback port, with the ordered faults and the log of calls."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.kubernetes import errors
from tests.kubernetes.access import ANONYMOUS
from tests.kubernetes.api import Answer, Api
from tests.kubernetes.faults import Call, Fault, Faults
from tests.kubernetes.routing import Request, route


class Log:
    """The calls of clients, oldest first."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    def add(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)

    def calls(self) -> list[Call]:
        with self._lock:
            return list(self._calls)

    def clear(self) -> None:
        with self._lock:
            self._calls.clear()


class ApiServer(ThreadingHTTPServer):
    """Listens on a free port of 127.0.0.1 from its making until `close`."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 64

    def __init__(self, api: Api, tls: ssl.SSLContext | None = None) -> None:
        self.api = api
        self._tls = tls
        self.faults = Faults()
        self.log = Log()
        self.failures: list[Exception] = []
        self.stopping = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Exchange)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        """Stop listening, close every connection, wait for their threads."""
        self.stopping.set()
        with self.api.store.lock:
            self.api.store.changed.notify_all()
        self.shutdown()
        with self._lock:
            for one in self._sockets:
                _hang_up(one)
        self.server_close()
        self._thread.join()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            # The handshake is left to the connection's own thread, at its first read.
            connection = self._tls.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        with self._lock:
            self._sockets.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no news."""


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


class _CutError(Exception):
    """The connection is to be closed without an answer."""


class Exchange(BaseHTTPRequestHandler):
    """One connection: request after request, until it closes or is cut."""

    protocol_version = "HTTP/1.1"
    server: ApiServer

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = route(self.command, self.path, headers, body, ANONYMOUS)
        call = _logged(request)
        self.server.log.add(call)
        try:
            self._exchange(request, call)
        except _CutError:
            self.close_connection = True
            _hang_up(self.connection)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def _exchange(self, request: Request, call: Call) -> None:
        striking = self.server.faults.striking(call)
        answer: Answer | None = None
        try:
            self._strike(striking, "before", call)
            user = self.server.api.access.user_of(request.authorization)
            call.user = user.name
            request = replace(request, user=user)
            if request.verb == "watch" and request.plural:
                located = self.server.api.located(request)
                self._stream(located, call)
                return
            answer = self.server.api.answer(request)
            self._strike(striking, "after", call)
        except errors.PageNotFoundError:
            answer = Answer(code=404, body="404 page not found\n")
        except errors.ApiError as error:
            answer = Answer(code=error.code, body=error.status_body, headers=error.headers)
        except (_CutError, OSError):
            raise
        except Exception as error:
            # A fault of the fake itself: the test is to hear of it, see `FakeCluster.close`.
            self.server.failures.append(error)
            broken = errors.internal_error(f"the fake API server failed: {error!r}")
            answer = Answer(code=500, body=broken.status_body)
        self._send(answer, call)

    def _strike(self, striking: list[Fault], moment: str, call: Call) -> None:
        for fault in striking:
            if fault.latency_s and moment == "before":
                self.server.stopping.wait(fault.latency_s)
            if fault.moment != moment:
                continue
            if fault.hook is not None:
                fault.hook(call)
            if fault.hang:
                self._wait_for_client()
                raise _CutError
            if fault.cut:
                raise _CutError
            if fault.status is not None:
                raise fault.error(call)

    def _wait_for_client(self) -> None:
        """Until the client closes the connection, or the server stops."""
        if isinstance(self.connection, ssl.SSLSocket):
            # Its state cannot be peeked at.
            self.server.stopping.wait()
            return
        self.connection.settimeout(0.1)
        while not self.server.stopping.is_set():
            try:
                if self.connection.recv(1, socket.MSG_PEEK) == b"":
                    return
                time.sleep(0.05)
            except TimeoutError:
                continue
            except OSError:
                return

    def _send(self, answer: Answer, call: Call) -> None:
        if isinstance(answer.body, str):
            content, kind = answer.body.encode(), "text/plain; charset=utf-8"
        else:
            content, kind = json.dumps(answer.body).encode(), "application/json"
        call.code, call.answer = answer.code, answer.body
        self.send_response(answer.code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, request: Request, call: Call) -> None:
        events = self.server.api.reading.watch(request, self.server.stopping.is_set)
        first = next(events, None)
        call.code = 200
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in _with_first(first, events):
            if event is None:
                if self._client_gone():
                    self.close_connection = True
                    return
                continue
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.write(b"0\r\n\r\n")

    def _client_gone(self) -> bool:
        if isinstance(self.connection, ssl.SSLSocket):
            # Cannot be peeked at; the next event that is written finds out.
            return False
        self.connection.settimeout(0.0)
        try:
            return self.connection.recv(1, socket.MSG_PEEK) == b""
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            return True
        finally:
            self.connection.settimeout(None)

    def log_message(self, format: str, *args: Any) -> None:
        """The log of calls is `Log`; nothing goes to standard error."""


def _with_first(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _logged(request: Request) -> Call:
    return Call(
        verb=request.verb if request.plural else "get",
        path=request.path,
        query=request.query,
        group=request.group,
        version=request.version,
        resource=request.plural,
        subresource=request.subresource,
        namespace=request.namespace,
        name=request.name,
        manager=request.manager,
        content_type=request.content_type if request.body is not None else "",
        body=request.body,
        at=datetime.now(UTC),
    )
