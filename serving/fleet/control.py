"""Steering a running deployment from another terminal: a Unix socket in its state directory.

One request a connection, one JSON object a line: the client sends `{"command": …}`, the server
answers with any number of `{"progress": text}` and then one `{"result": …}` or `{"error": text,
"input": bool}`. Only the owner of the state directory may connect (mode 0600).
"""

import json
import os
import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from planner.domain.errors import EngineError, InputError, OperationError, PoolwiseError

SOCKET_NAME = "control.sock"
MOST_BYTES = 64 * 1024
"""Longest request."""
LONGEST_PATH = 100
"""Of a Unix socket, bytes; the kernel's limit is 107."""

Json = dict[str, object]
Say = Callable[[str], None]
Answer = Callable[[Json, Say], Json]
"""Carries out one request; raises PoolwiseError."""


@dataclass(slots=True)
class ControlServer:
    """Listens for requests in a thread of its own. Use as a context manager."""

    state_dir: Path
    answer: Answer
    _server: socketserver.ThreadingUnixStreamServer | None = None
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        path = socket_path(self.state_dir)
        path.unlink(missing_ok=True)
        answer = self.answer

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):  # who asked has gone
                    _serve(self.rfile.readline(MOST_BYTES + 1), self._send, answer)

            def _send(self, line: Json) -> None:
                self.wfile.write(json.dumps(line).encode() + b"\n")

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        before = os.umask(0o177)
        try:
            self._server = Server(str(path), Handler)
        finally:
            os.umask(before)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="poolwise-control", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        socket_path(self.state_dir).unlink(missing_ok=True)


def socket_path(state_dir: Path) -> Path:
    """Where the deployment of a state directory listens.

    Raises
    ------
    InputError
        When the path is too long for a socket.
    """
    path = state_dir / SOCKET_NAME
    if len(os.fsencode(path)) > LONGEST_PATH:
        raise InputError(
            f"{path} is too long for a Unix socket (at most {LONGEST_PATH} bytes): choose a "
            "shorter state directory with POOLWISE_STATE_DIR"
        )
    return path


QUICK = frozenset({"list", "down", "fleet", "preflight"})
ANSWERS_S = 10.0
"""A deployment that lives answers quick commands sooner."""


@dataclass(frozen=True, slots=True)
class ControlClient:
    """Asks the deployment that runs from a state directory."""

    state_dir: Path
    say: Say = field(default=lambda _line: None)

    def ask(self, command: str, **arguments: object) -> Json:
        """Have one command carried out; its result.

        Raises
        ------
        InputError, OperationError
            What the deployment said; EngineError when none runs, or it hangs.
        """
        try:
            if command not in QUICK:  # it takes as long as engines do: first whether it hears
                self._ask("list", {}, tell=False)
            return self._ask(command, arguments)
        except TimeoutError as error:
            raise EngineError(
                f"the deployment of {self.state_dir} does not answer within {ANSWERS_S:g} s: its "
                "process was stopped, or hangs; look at it (endpoints.json has its pid), or end it"
            ) from error

    def _ask(self, command: str, arguments: Json, *, tell: bool = True) -> Json:
        with self._connected() as connection, connection.makefile("rwb") as lines:
            if command in QUICK:
                connection.settimeout(ANSWERS_S)
            lines.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
            lines.flush()
            for line in lines:
                answer = cast("Json", json.loads(line))
                if "progress" in answer:
                    if tell:
                        self.say(str(answer["progress"]))
                elif "error" in answer:
                    text = str(answer["error"])
                    raise InputError(text) if answer.get("input") else OperationError(text)
                else:
                    return cast("Json", answer["result"])
        raise EngineError(
            "the deployment ended before it answered; what it did is in the terminal it ran in"
        )

    def _connected(self) -> socket.socket:
        path = socket_path(self.state_dir)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            raise EngineError(
                f"no deployment runs from {self.state_dir} ({path.name}: {error.strerror}): start "
                "one with `poolwise deployment up`, or name its state directory by "
                "POOLWISE_STATE_DIR"
            ) from error
        return connection


def _serve(line: bytes, send: Callable[[Json], None], answer: Answer) -> None:
    if len(line) > MOST_BYTES:
        send({"error": f"a request may have {MOST_BYTES} bytes", "input": True})
        return
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise TypeError("no JSON object")
    except (ValueError, TypeError) as error:
        send({"error": f"the request is no JSON object: {error}", "input": True})
        return

    def say(text: str) -> None:
        with suppress(OSError):  # who asked has gone; the change goes on
            send({"progress": text})

    try:
        result = answer(cast("Json", request), say)
    except PoolwiseError as error:
        send({"error": str(error), "input": isinstance(error, InputError)})
    except Exception as error:  # the last resort, at the edge: the deployment goes on
        send({"error": f"unexpected {type(error).__name__}: {error}; this is a fault of Poolwise"})
        raise
    else:
        send({"result": result})
