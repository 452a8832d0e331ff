"""Steering over the socket: what is wrong is told, and changes outlive who asked for them."""

import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from planner.domain.errors import EngineError, InputError, OperationError
from serving.fleet.control import ControlClient, ControlServer, socket_path


def answer(request, say):
    if request["command"] == "boom":
        raise EngineError("the worker died")
    if request["command"] == "wrong":
        raise InputError("no such role")
    say("half")
    return {"echo": request}


def test_progress_comes_before_the_result(tmp_path: Path) -> None:
    said: list[str] = []
    with ControlServer(tmp_path, answer):
        told = ControlClient(tmp_path, said.append).ask("add", role="prefill")
    assert told == {"echo": {"command": "add", "role": "prefill"}}
    assert said == ["half"]


@pytest.mark.parametrize(
    ("command", "error", "text"),
    [("boom", OperationError, "the worker died"), ("wrong", InputError, "no such role")],
)
def test_errors_keep_their_kind(tmp_path: Path, command: str, error: type, text: str) -> None:
    with ControlServer(tmp_path, answer), pytest.raises(error, match=text):
        ControlClient(tmp_path).ask(command)


def test_only_the_owner_may_connect(tmp_path: Path) -> None:
    with ControlServer(tmp_path, answer):
        mode = socket_path(tmp_path).stat().st_mode
    assert stat.S_IMODE(mode) & 0o077 == 0
    assert not socket_path(tmp_path).exists()


def test_no_deployment_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="poolwise deployment up"):
        ControlClient(tmp_path).ask("list")


@pytest.mark.parametrize("line", [b"{\n", b"[]\n", b'"' + b"x" * 70_000 + b'"\n'])
def test_what_is_no_request_is_refused(tmp_path: Path, line: bytes) -> None:
    with ControlServer(tmp_path, answer), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(socket_path(tmp_path)))
        client.sendall(line)
        assert b'"error"' in client.makefile("rb").readline()


def test_a_change_goes_on_when_who_asked_has_gone(tmp_path: Path) -> None:
    went, done = threading.Event(), threading.Event()

    def slow(_request, say):
        went.wait(5)
        for _ in range(100):
            say("x" * 10_000)
        done.set()
        return {}

    with ControlServer(tmp_path, slow):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(socket_path(tmp_path)))
        client.sendall(b'{"command": "add"}\n')
        client.close()
        went.set()
        assert done.wait(5)


def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shorter state directory"):
        socket_path(tmp_path / ("x" * 120))
    assert os.path.lexists(tmp_path)
