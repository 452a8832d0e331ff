"""Keep one child process, and end it with all its descendants when its owner dies.

Runs as a script of its own, on the standard library alone, so that it survives whatever
happens to Poolwise: `python -I -S supervisor.py --log FILE --grace-s 5 [--cpu-group DIR]
[--cpus 0,1] -- COMMAND ...`. Standard input is a pipe whose other end the owner holds; the end
of that pipe means that the owner is gone (SIGKILL included). The child's output goes to the
log, which is rotated once. The supervisor ends with the child's exit status.

Descendants are found as processes that hang below this one: it is a subreaper, so whatever the
child leaves behind is handed to it.
"""

import argparse
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_S = 0.2
LOG_LIMIT_BYTES = 8_000_000
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Log:
    """A log file that keeps itself and one older part below a size."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115, PTH123  stays open, no pathlib

    def write(self, chunk: bytes) -> None:
        """Append; start a new file when this one is full. A full disk loses lines, no more."""
        try:
            if self._file.tell() > LOG_LIMIT_BYTES:
                self._file.close()
                os.replace(self._path, self._path + ".1")  # noqa: PTH105  no pathlib here
                self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115, PTH123
            self._file.write(chunk)
        except OSError:
            return

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def descendants() -> list[int]:
    """Process ids below this process, nearest first."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208  no pathlib here
        if name.isdigit():
            parent = _parent_of(name)
            if parent is not None:
                children.setdefault(parent, []).append(int(name))
    found: list[int] = []
    queue = [os.getpid()]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += below
    return found


def _parent_of(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  no pathlib here
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[1])


def end(child: "subprocess.Popen[bytes]", *, grace_s: float) -> None:
    """Ask the child to stop, then end every descendant that is left."""
    _signal(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    for _ in range(40):
        alive = descendants()
        if not alive:
            return
        for pid in alive:
            _signal(pid, signal.SIGKILL)
        _reap()
        time.sleep(0.05)


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def start(
    command: list[str], *, cpu_group: str | None, cpus: list[int], keep_fds: list[int]
) -> "subprocess.Popen[bytes]":
    """Start the child in a session of its own; it dies with this process at the latest."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if cpu_group:
            with open(f"{cpu_group}/cgroup.procs", "w") as file:  # noqa: PTH123
                file.write(str(os.getpid()))
        if cpus:
            os.sched_setaffinity(0, cpus)

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        pass_fds=keep_fds,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=in_child,  # noqa: PLW1509  this process has one thread
    )


def watch(child: "subprocess.Popen[bytes]", log: Log) -> None:
    """Copy output into the log until the child ends or the owner goes away."""
    assert child.stdout is not None
    output = child.stdout.fileno()
    inputs = [output, 0]
    while True:
        ready, _, _ = select.select(inputs, [], [], POLL_S)
        if output in ready:
            chunk = os.read(output, 65536)
            if chunk:
                log.write(chunk)
            else:
                inputs.remove(output)
        if 0 in ready and not os.read(0, 4096):
            return
        if child.poll() is not None and output not in ready:
            return


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="keep one child process")
    parser.add_argument("--log", required=True)
    parser.add_argument("--grace-s", type=float, default=5.0)
    parser.add_argument("--cpu-group", default=None)
    parser.add_argument("--cpus", default="")
    parser.add_argument("--keep-fds", default="")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    log = Log(arguments.log)
    child = None
    try:
        for number in _STOP_SIGNALS:
            signal.signal(number, _raise_exit)
        child = start(
            command,
            cpu_group=arguments.cpu_group,
            cpus=_numbers(arguments.cpus),
            keep_fds=_numbers(arguments.keep_fds),
        )
        watch(child, log)
    except (OSError, subprocess.SubprocessError) as error:
        log.write(f"supervisor: {error}\n".encode())
        return 127
    except SystemExit:
        pass
    finally:
        for number in _STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if child is not None:
            end(child, grace_s=arguments.grace_s)
            if arguments.cpu_group:
                _remove_group(arguments.cpu_group)
    return child.returncode if child is not None and child.returncode is not None else 1


def _numbers(text: str) -> list[int]:
    return [int(x) for x in text.split(",") if x]


def _raise_exit(_number: int, _frame: object) -> None:
    raise SystemExit(0)


def _remove_group(directory: str) -> None:
    for _ in range(20):
        try:
            os.rmdir(directory)  # noqa: PTH106  no pathlib here
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
