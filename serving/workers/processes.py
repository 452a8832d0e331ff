"""Processes of one state directory: started below a supervisor, found again after a crash.

Everything that is started hangs below a supervisor (`supervisor.py`) that ends it when this
process is gone, however it went. What a crashed run left all the same is recognised by a marker
in its environment; nothing else is touched.
"""

import fcntl
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil

from planner.domain.errors import EngineError, NoFreePortError, StateDirectoryError
from serving.workers import supervisor
from serving.workers.cpu_quota import CpuGroup

MARKER = "POOLWISE_DEPLOYMENT_DIR"
"""In the environment of all that a manager starts, with its folder: what a crash left is found."""
GRACE_S = 5.0
"""What is asked to stop is killed after so long, seconds."""
KILL_S = 4.0
"""Within so long after that everything is gone, seconds."""
KEPT_LOGS = 50
"""Files that workers which have ended leave behind; each is at most 8 MB long."""
_WORKER_LOG = re.compile(r"(?P<worker>(prefill|decode|aggregated)-\d+)\.log(\.1|\.old)?")
_PORTS = range(12_000, 32_000)
"""Below the kernel's own range (from 32768 on by default) and above what services are given."""


def spawn_supervised(
    line: list[str],
    *,
    environment: dict[str, str],
    log_path: Path,
    cpu_group: CpuGroup | None = None,
    cpus: Sequence[int] = (),
    keep_fds: Sequence[int] = (),
    grace_s: float = GRACE_S,
) -> "subprocess.Popen[bytes]":
    """Start a command below a supervisor; closing the returned process's stdin ends it.

    Parameters
    ----------
    cpus : sequence of int
        Processors that it may run on; empty: any.
    keep_fds : sequence of int
        Open files, such as a listening socket, that the command has under the same numbers.
    grace_s : float
        What is asked to stop is killed after so long, seconds.

    Raises
    ------
    EngineError
        When the machine makes no process.
    """
    script = [sys.executable, "-I", "-S", supervisor.__file__]
    script += ["--log", str(log_path), "--grace-s", str(grace_s)]
    script += ["--cpu-group", str(cpu_group.directory)] if cpu_group else []
    script += ["--cpus", ",".join(map(str, cpus))] if cpus else []
    script += ["--keep-fds", ",".join(map(str, keep_fds))] if keep_fds else []
    try:
        return subprocess.Popen(
            [*script, "--", *line],
            stdin=subprocess.PIPE,
            env=environment,
            pass_fds=tuple(keep_fds),
            start_new_session=True,
        )
    except OSError as error:
        raise EngineError(f"no process could be made for {log_path.stem}: {error}") from error


def stdin_of(process: "subprocess.Popen[bytes]") -> IO[bytes]:
    """The lifeline of a supervised process.

    Raises
    ------
    EngineError
        When it was started without one.
    """
    if process.stdin is None:
        raise EngineError("a supervisor was started without its lifeline")
    return process.stdin


def end_supervised(
    processes: Iterable["subprocess.Popen[bytes]"], *, grace_s: float = GRACE_S
) -> None:
    """End supervised processes at the same time; all are gone after `grace_s` + KILL_S seconds.

    Parameters
    ----------
    grace_s : float
        That they were started with.
    """
    ending = list(processes)
    for process in ending:
        stdin_of(process).close()
    deadline = time.monotonic() + grace_s + KILL_S
    for process in ending:
        try:
            process.wait(timeout=max(deadline - time.monotonic(), 0.01))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def kill_supervised(process: "subprocess.Popen[bytes]") -> None:
    """Kill a process that does not listen to signals, with all below it, and its supervisor.

    Returns when the supervisor is gone, after KILL_S seconds at the latest.
    """
    try:
        below = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    for one in below:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    try:
        process.wait(timeout=KILL_S)  # it clears away what is left, and ends by itself
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def fresh_log(state_dir: Path, name: str) -> Path:
    """Where a new process logs; what an earlier one of the name wrote is kept as `.old`.

    Raises
    ------
    EngineError
        When the folder takes no file.
    """
    path = state_dir / "logs" / f"{name}.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.replace(path.with_suffix(".log.old"))
    except OSError as error:
        raise EngineError(f"{path.parent} takes no logs: {error}") from error
    return path


def drop_logs(state_dir: Path, *, running: Collection[str]) -> None:
    """Delete the oldest logs of workers that do not run, but for the newest `KEPT_LOGS`.

    Parameters
    ----------
    running : collection of str
        Names of workers whose logs stay.
    """
    ended: list[tuple[float, Path]] = []
    for path in (state_dir / "logs").glob("*.log*"):
        found = _WORKER_LOG.fullmatch(path.name)
        if found is not None and found["worker"] not in running:
            with suppress(OSError):
                ended.append((path.stat().st_mtime, path))
    for _, path in sorted(ended)[:-KEPT_LOGS]:
        with suppress(OSError):
            path.unlink()


def log_tail(path: Path, *, lines: int = 12) -> tuple[str, ...]:
    """Read the last lines of a log; none where there is no log."""
    return tuple(log_end(path, size_bytes=16_384).strip().splitlines()[-lines:])


def log_end(path: Path, *, size_bytes: int) -> str:
    """Read the end of a log; empty where there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size_bytes))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def free_ports(count: int) -> list[int]:
    """Find distinct free loopback ports, below those that the kernel hands out by itself.

    An engine binds its ports up to a minute after they were chosen; meanwhile any outgoing
    connection of the machine may have been given one of the kernel's range.

    Raises
    ------
    NoFreePortError
    """
    return free_port_runs((1,) * count)


def free_port_runs(lengths: Sequence[int]) -> list[int]:
    """The first of each of several runs of free loopback ports, none of them in two runs.

    Raises
    ------
    NoFreePortError
    """
    starts = iter(random.sample(_PORTS, len(_PORTS)))
    taken: set[int] = set()
    found: list[int] = []
    for length in lengths:
        for first in starts:
            run = range(first, first + length)
            if taken.isdisjoint(run) and run[-1] in _PORTS and all(map(_is_free, run)):
                taken.update(run)
                found.append(first)
                break
        else:
            raise NoFreePortError(
                f"no free port on 127.0.0.1 between {_PORTS.start} and {_PORTS.stop - 1}: stop "
                "other servers"
            )
    return found


def check_port(port: int, *, whose: str) -> None:
    """Refuse a loopback port that somebody else listens on.

    Raises
    ------
    NoFreePortError
    """
    if not _is_free(port):
        raise NoFreePortError(
            f"port {port} of 127.0.0.1, wanted for {whose}, is taken: stop what listens there, or "
            "choose another port"
        )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: connections of the one before that linger do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def end_orphans(state_dir: Path) -> int:
    """End processes that carry this state directory's marker; return how many there were.

    Only the directory's owner may call this: it holds the lock, so whoever carries the marker
    has lost its owner.
    """
    marker = f"{MARKER}={state_dir.resolve()}".encode()
    ended = 0
    for _ in range(100):
        pids = [pid for pid in psutil.pids() if pid != os.getpid() and _carries(pid, marker)]
        if not pids:
            break
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            ended += 1
        time.sleep(0.1)
    return ended


def _carries(pid: int, marker: bytes) -> bool:
    try:
        with Path(f"/proc/{pid}/environ").open("rb") as file:
            return marker in file.read().split(b"\0")
    except OSError:
        return False


def lock_directory(directory: Path) -> IO[str]:
    """Become the only owner of a state directory; closing the returned file gives it up.

    Raises
    ------
    StateDirectoryError
        When another process owns it.
    """
    file = (directory / "lock").open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise StateDirectoryError(
            f"{directory} is in use by another running Poolwise (process {owner}): wait for it, "
            "stop it, or choose another directory with POOLWISE_STATE_DIR"
        ) from error
    file.truncate(0)
    file.write(json.dumps(os.getpid()))
    file.flush()
    return file
