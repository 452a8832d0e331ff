"""Start and stop vLLM workers as supervised processes of this machine.

Every worker hangs below a supervisor (`supervisor.py`) that ends it when this process is gone,
however it went. What a crashed run left all the same is recognised by a marker in its
environment, and ended before anything is started; nothing else is touched.
"""

import fcntl
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx
import psutil

from planner.domain.errors import (
    EngineError,
    NoFreePortError,
    NotEnoughMemoryError,
    StateDirectoryError,
)
from planner.domain.fleet import ReplicaShape
from serving import supervisor
from serving.cpu_quota import CpuGroup, make_cpu_group, remove_empty_groups
from serving.engine import (
    Devices,
    EngineFlags,
    EngineInstall,
    ModelFiles,
    Ports,
    command,
    cpu_command,
    environment,
)

MARKER = "POOLWISE_STATE_DIR"
_PORTS = range(12_000, 32_000)
"""Below the kernel's own range (from 32768 on by default) and above what services are given."""
WORKER_BASE_BYTES = 2.2e9
"""Resident memory of one CPU worker without weights and KV cache; 2.5 GiB measured in all with
1 GiB of KV cache, of which unused pages are not resident (vLLM 0.32)."""
STARTING_CORES = 1.0
STARTING_WEIGHT = 0.25
GRACE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A running engine process."""

    name: str
    shape: ReplicaShape
    url: str
    log_path: Path
    started_at_s: float


@dataclass(slots=True)
class _Process:
    worker: Worker
    supervisor: "subprocess.Popen[bytes]"
    lifeline: IO[bytes]
    cpu_group: CpuGroup | None
    devices: Devices


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSite:
    """What this machine offers to workers.

    Parameters
    ----------
    cores_per_replica : float or None
        Processor share of one accelerator slot, cores; None: no limit.
    cpu_weight : float
        A worker's weight against other processes where the cores are fought over; 1 is theirs.
    gpus : tuple of int
        Device indices; empty on a machine without GPUs.
    ready_timeout_s : float
        A worker has its first token by then, or has failed; large models load for many minutes.
    """

    engine: EngineInstall
    model: ModelFiles
    flags: EngineFlags
    state_dir: Path
    cores_per_replica: float | None = 0.5
    cpu_weight: float = 1.0
    gpus: tuple[int, ...] = ()
    ready_timeout_s: float = 300.0


@dataclass(slots=True)
class Launcher:
    """Owner of all worker processes of one state directory. Use as a context manager."""

    site: LocalSite
    progress: Callable[[str], None] = lambda _line: None
    _processes: dict[str, _Process] = field(default_factory=dict)
    _lock: IO[str] | None = None
    _started: int = 0

    def __enter__(self) -> Self:
        self.site.state_dir.mkdir(parents=True, exist_ok=True)
        self._lock = _lock_directory(self.site.state_dir)
        ended = end_orphans(self.site.state_dir)
        remove_empty_groups(self._owner)
        if ended:
            self.progress(f"ended {ended} processes that an earlier run had left behind")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def _owner(self) -> str:
        """A short name for this state directory, for control groups."""
        return hashlib.sha256(str(self.site.state_dir.resolve()).encode()).hexdigest()[:8]

    @property
    def workers(self) -> tuple[Worker, ...]:
        """Workers that were started and not stopped, oldest first."""
        return tuple(p.worker for p in self._processes.values())

    @property
    def quota_is_enforced(self) -> bool:
        """Whether every running worker is held to its processor share by the kernel."""
        return bool(self._processes) and all(
            p.cpu_group is not None for p in self._processes.values()
        )

    def start(self, shape: ReplicaShape) -> Worker:
        """Start a worker and return at once; `await_ready` waits for it.

        Raises
        ------
        NotEnoughMemoryError, NoFreePortError, EngineError
        """
        self._check_memory()
        devices = self._free_devices(shape)
        self._started += 1
        name = f"{shape.role}-{self._started}"
        http_port, nixl_port = free_ports(2)
        ports = Ports(http=http_port, nixl=nixl_port)
        line = command(self.site.engine, self.site.model, self.site.flags, shape, ports)
        worker = Worker(
            name=name,
            shape=shape,
            url=f"http://127.0.0.1:{ports.http}",
            log_path=self._fresh_log(name),
            started_at_s=time.monotonic(),
        )
        group = None if devices.gpus else self._cpu_group(name)
        marker = {MARKER: str(self.site.state_dir.resolve())}
        started = spawn_supervised(
            line if devices.gpus else cpu_command(line),
            environment=environment(self.site.flags, devices, ports, marker),
            log_path=worker.log_path,
            cpu_group=group,
        )
        self._processes[name] = _Process(
            worker=worker,
            supervisor=started,
            lifeline=_stdin_of(started),
            cpu_group=group,
            devices=devices,
        )
        return worker

    def await_ready(self, worker: Worker, *, timeout_s: float | None = None) -> float:
        """Wait until the worker has generated a token; return seconds since its start.

        Raises
        ------
        EngineError
            When it dies or is not ready in time, with its last log lines.
        """
        process = self._processes[worker.name]
        timeout_s = self.site.ready_timeout_s if timeout_s is None else timeout_s
        deadline = worker.started_at_s + timeout_s
        with httpx.Client(base_url=worker.url, timeout=60.0) as client:
            while not _answers(client, self.site.model.name):
                if process.supervisor.poll() is not None:
                    raise self._failure(worker, "died while starting")
                if time.monotonic() > deadline:
                    raise self._failure(worker, f"was not ready within {timeout_s:.0f} s")
                time.sleep(0.25)
        if process.cpu_group is not None:
            process.cpu_group.limit(self.site.cores_per_replica, weight=self.site.cpu_weight)
        return time.monotonic() - worker.started_at_s

    def process_of(self, worker: Worker) -> tuple[int, CpuGroup | None]:
        """Id of the process that a worker's processes hang below, and their control group."""
        process = self._processes[worker.name]
        return process.supervisor.pid, process.cpu_group

    def check_alive(self) -> None:
        """Raise EngineError for the first worker that died by itself."""
        for process in self._processes.values():
            if process.supervisor.poll() is not None:
                raise self._failure(process.worker, "died")

    def stop(self, worker: Worker) -> None:
        """End a worker with all its processes; returns when they are gone."""
        process = self._processes.pop(worker.name)
        process.lifeline.close()
        _wait_or_kill(process.supervisor)

    def stop_all(self) -> None:
        """End all workers at the same time."""
        processes = list(self._processes.values())
        self._processes.clear()
        for process in processes:
            process.lifeline.close()
        for process in processes:
            _wait_or_kill(process.supervisor)

    def _check_memory(self) -> None:
        if self.site.gpus:
            return
        weights = sum(p.stat().st_size for p in self.site.model.directory.glob("*.safetensors"))
        needed = WORKER_BASE_BYTES + 2 * weights + self.site.flags.kv_cache_gib * 2**30
        starting = sum(1 for p in self._processes.values() if _is_young(p.worker))
        free = psutil.virtual_memory().available - starting * needed
        if free < needed:
            raise NotEnoughMemoryError(
                f"one more worker needs {needed / 2**30:.1f} GiB of memory, but "
                f"{max(free, 0) / 2**30:.1f} GiB are free: stop something, or plan fewer replicas"
            )

    def _free_devices(self, shape: ReplicaShape) -> Devices:
        if not self.site.gpus:
            return Devices()
        used = {gpu for p in self._processes.values() for gpu in p.devices.gpus}
        free = [gpu for gpu in self.site.gpus if gpu not in used]
        if len(free) < shape.accelerators:
            raise EngineError(
                f"{shape.label} needs {shape.accelerators} GPUs, but {len(free)} of "
                f"{len(self.site.gpus)} are free: stop a worker first"
            )
        return Devices(gpus=tuple(free[: shape.accelerators]))

    def _cpu_group(self, name: str) -> CpuGroup | None:
        if self.site.cores_per_replica is None:
            return None
        group = make_cpu_group(self._owner, name)
        if group is not None:
            group.limit(STARTING_CORES, weight=STARTING_WEIGHT)
        return group

    def _fresh_log(self, name: str) -> Path:
        folder = self.site.state_dir / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.log"
        path.unlink(missing_ok=True)
        return path

    def _failure(self, worker: Worker, what: str) -> EngineError:
        return EngineError(
            f"worker {worker.name} {what}; its whole log is {worker.log_path}",
            log_tail=log_tail(worker.log_path),
        )


def spawn_supervised(
    line: list[str],
    *,
    environment: dict[str, str],
    log_path: Path,
    cpu_group: CpuGroup | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a command below a supervisor; closing the returned process's stdin ends it."""
    script = [sys.executable, "-I", "-S", supervisor.__file__]
    script += ["--log", str(log_path), "--grace-s", str(GRACE_S)]
    script += ["--cpu-group", str(cpu_group.directory)] if cpu_group else []
    return subprocess.Popen(
        [*script, "--", *line],
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )


def free_ports(count: int) -> list[int]:
    """Find distinct free loopback ports, below those that the kernel hands out by itself.

    An engine binds its ports up to a minute after they were chosen; meanwhile any outgoing
    connection of the machine may have been given one of the kernel's range.

    Raises
    ------
    NoFreePortError
    """
    found: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        if len(found) == count:
            break
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    if len(found) < count:
        raise NoFreePortError(
            f"no free port on 127.0.0.1 between {_PORTS.start} and {_PORTS.stop - 1}: stop other "
            "servers"
        )
    return found


def log_tail(path: Path, *, lines: int = 12) -> tuple[str, ...]:
    """Read the last lines of a log; none where there is no log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(text.strip().splitlines()[-lines:])


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


def _lock_directory(directory: Path) -> IO[str]:
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


def _answers(client: httpx.Client, model: str) -> bool:
    try:
        if client.get("/health", timeout=2.0).status_code != 200:
            return False
        body = {"model": model, "prompt": "ready", "max_tokens": 1, "temperature": 0}
        answer = client.post("/v1/completions", json=body)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


def _is_young(worker: Worker) -> bool:
    """Whether a worker may not have taken its memory yet."""
    return time.monotonic() - worker.started_at_s < 20.0


def _stdin_of(process: "subprocess.Popen[bytes]") -> IO[bytes]:
    if process.stdin is None:
        raise EngineError("a supervisor was started without its lifeline")
    return process.stdin


def _wait_or_kill(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(timeout=GRACE_S + 4.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
