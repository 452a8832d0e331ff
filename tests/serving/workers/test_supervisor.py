"""A supervised child never outlives its owner."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from serving.workers import processes, supervisor
from serving.workers.processes import spawn_supervised

ENVIRONMENT = {"PATH": os.environ["PATH"]}


def wait_for(condition, *, timeout_s: float = 10.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def pids_in(path: Path, count: int) -> list[int]:
    assert wait_for(lambda: path.exists() and len(path.read_text().split()) >= count)
    return [int(p) for p in path.read_text().split()]


def gone(pids: list[int]) -> bool:
    return wait_for(lambda: not any(psutil.pid_exists(p) for p in pids))


FAMILY = """
import os, subprocess, sys, time, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                              start_new_session=True)
with open(sys.argv[1], "w") as file:
    file.write(f"{os.getpid()} {grandchild.pid}")
time.sleep(60)
"""


@pytest.fixture
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A stubborn child with a grandchild in a session of its own, below a supervisor."""
    monkeypatch.setattr(processes, "GRACE_S", 0.5)
    script = tmp_path / "family.py"
    script.write_text(FAMILY)
    pid_file = tmp_path / "pids"
    process = spawn_supervised(
        [sys.executable, str(script), str(pid_file)],
        environment=ENVIRONMENT,
        log_path=tmp_path / "log",
    )
    yield process, pids_in(pid_file, 2)
    if process.poll() is None:
        process.kill()
    if process.stdin:
        process.stdin.close()
    process.wait()


@pytest.mark.parametrize("how", ["pipe closed", "SIGTERM", "SIGINT", "SIGHUP"])
def test_all_descendants_end_with_their_owner(family, how: str) -> None:
    process, pids = family
    if how == "pipe closed":
        process.stdin.close()
    else:
        process.send_signal(getattr(signal, how))
    process.wait(timeout=10)
    assert gone(pids)


def test_child_dies_even_when_its_supervisor_is_killed(family) -> None:
    process, (child, grandchild) = family
    process.kill()
    process.wait()
    assert gone([child])
    os.kill(grandchild, signal.SIGKILL)


def test_descendants_end_when_the_owner_is_killed_with_sigkill(tmp_path: Path) -> None:
    pid_file = tmp_path / "pids"
    script = tmp_path / "family.py"
    script.write_text(FAMILY)
    owner = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time\nfrom pathlib import Path\n"
            "from serving.workers.processes import spawn_supervised\n"
            f"spawn_supervised([sys.executable, {str(script)!r}, {str(pid_file)!r}], "
            f"environment={ENVIRONMENT!r}, log_path=Path({str(tmp_path / 'log')!r}))\n"
            "time.sleep(60)",
        ]
    )
    pids = pids_in(pid_file, 2)
    owner.kill()
    owner.wait()
    assert gone(pids)


def test_exit_status_and_output_reach_the_owner(tmp_path: Path) -> None:
    process = spawn_supervised(
        [sys.executable, "-c", "print('last words'); raise SystemExit(7)"],
        environment=ENVIRONMENT,
        log_path=tmp_path / "log",
    )
    assert process.wait(timeout=10) == 7
    process.stdin.close()
    assert (tmp_path / "log").read_text() == "last words\n"


def test_log_is_rotated_once_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_LIMIT_BYTES", 10)
    log = supervisor.Log(str(tmp_path / "log"))
    for line in (b"first line\n", b"second line\n", b"third line\n"):
        log.write(line)
    log.close()
    assert (tmp_path / "log").read_bytes() == b"third line\n"
    assert (tmp_path / "log.1").read_bytes() == b"second line\n"
