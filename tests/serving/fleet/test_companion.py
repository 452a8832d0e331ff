"""A command beside a deployment is there, comes back, and ends with it."""

import os
import socket
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from planner.domain.errors import EngineError
from serving.fleet.caretaker import RestartLimits
from serving.fleet.companion import Companion
from serving.workers.processes import free_ports
from tests.serving.fleet.test_deployment import wait_for


def companion(tmp_path: Path, code: str) -> Companion:
    started = tmp_path / "started"
    return Companion(
        name="gate",
        line=[sys.executable, "-c", code.format(started=started)],
        state_dir=tmp_path,
        is_up=started.exists,
        limits=RestartLimits(attempts=2, first_pause_s=0.05),
        start_timeout_s=10.0,
    )


SLEEPS = (
    "import os, time\nopen({str!r}, 'a').write(str(os.getpid()) + ' ')\n".replace(
        "{str!r}", "'{started}'"
    )
    + "time.sleep(60)"
)


def pids(tmp_path: Path) -> list[int]:
    return [int(p) for p in (tmp_path / "started").read_text().split()]


def test_it_comes_back_after_a_kill_and_ends_with_its_context(tmp_path: Path) -> None:
    with companion(tmp_path, SLEEPS):
        (first,) = pids(tmp_path)
        os.kill(first, 9)
        deadline = time.monotonic() + 15
        while len(pids(tmp_path)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second = pids(tmp_path)[1]
    assert not psutil.pid_exists(second)


def test_one_that_dies_too_often_lets_its_clients_go(tmp_path: Path) -> None:
    """Its socket is closed: who comes is turned away instead of waiting for ever."""
    told: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dying = replace(
            companion(tmp_path, SLEEPS), listener=listener, given_up=lambda: told.append("gone")
        )
        with dying:
            address = listener.getsockname()
            deadline = time.monotonic() + 30
            while not told:
                assert time.monotonic() < deadline
                for pid in pids(tmp_path):
                    with suppress(ProcessLookupError):
                        os.kill(pid, 9)
                time.sleep(0.05)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address, timeout=5).close()


def test_one_that_hangs_is_killed_and_started_again(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/"

    def is_up() -> bool:
        try:
            return httpx.get(url, timeout=1.0).status_code == 200
        except httpx.HTTPError:
            return False

    beside = Companion(
        name="gate",
        line=[sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"],
        state_dir=tmp_path,
        is_up=is_up,
        limits=RestartLimits(attempts=2, first_pause_s=0.05),
        hangs_after_s=0.5,
    )
    with beside:
        pid = beside.pid
        (hanging,) = psutil.Process(pid).children(recursive=True)
        hanging.suspend()
        wait_for(lambda: not hanging.is_running(), timeout_s=30)
        wait_for(is_up, timeout_s=30)
        assert beside.pid != pid


def test_silence_counts_from_the_question_that_got_no_answer(tmp_path: Path) -> None:
    """A question that takes long to fail is part of the silence: clients wait meanwhile, too."""
    asked: list[int] = []

    def is_up() -> bool:
        asked.append(beside.pid)
        if len(set(asked)) > 1 or asked.count(asked[0]) == 1:
            return True
        time.sleep(1.0)
        return False

    beside = replace(companion(tmp_path, SLEEPS), is_up=is_up, hangs_after_s=0.9)
    with beside:
        wait_for(lambda: len(set(asked)) > 1, timeout_s=30)
    assert asked.count(asked[0]) == 2


def test_what_it_is_to_finish_may_take_as_long_as_it_was_given(tmp_path: Path) -> None:
    code = (
        "import signal, sys, time, pathlib\n"
        "def leave(*_):\n"
        "    time.sleep(7)\n"
        "    pathlib.Path('{started}.done').touch()\n"
        "    sys.exit()\n"
        "signal.signal(signal.SIGTERM, leave)\n"
        "open('{started}', 'a').write('x')\n"
        "time.sleep(60)"
    )
    with replace(companion(tmp_path, code), grace_s=20.0):
        pass
    assert (tmp_path / "started.done").exists()


def test_one_that_does_not_come_up_is_told_with_its_log(tmp_path: Path) -> None:
    with (
        pytest.raises(EngineError, match="the gate did not come up") as raised,
        companion(tmp_path, "raise SystemExit('no such command {started}')"),
    ):
        pass
    assert "no such command" in str(raised.value)
