"""Start and stop vLLM workers as supervised processes of this machine."""

import hashlib
import itertools
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

import httpx
import psutil

from planner.domain.errors import EngineError, NoFreeDeviceError, NotEnoughMemoryError
from planner.domain.fleet import ReplicaShape
from planner.domain.topology import Cell, check_cells
from serving.workers.cpu_quota import CpuGroup, make_cpu_group, remove_empty_groups
from serving.workers.engine import (
    Devices,
    EngineFlags,
    EngineInstall,
    ModelFiles,
    Ports,
    command,
    cpu_command,
    environment,
)
from serving.workers.gpu_memory import check_gpu_memory
from serving.workers.processes import (
    MARKER,
    drop_logs,
    end_orphans,
    end_supervised,
    free_port_runs,
    fresh_log,
    kill_supervised,
    lock_directory,
    log_end,
    log_tail,
    spawn_supervised,
)

if TYPE_CHECKING:
    import subprocess

WORKER_BASE_BYTES = 2.2e9
"""Resident memory of one CPU worker without weights and KV cache; 2.5 GiB measured in all with
1 GiB of KV cache, of which unused pages are not resident (vLLM 0.32)."""
STARTING_CORES = 1.0
STARTING_WEIGHT = 0.25
EVERYTHING = Cell(name="local")
"""The one cell of a site that names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A running engine process.

    Parameters
    ----------
    shape : ReplicaShape
        As it was started; its role may have been flipped since.
    cell : str
        The topology cell that it belongs to.
    kv_events : str or None
        Where its KV events are had (see `serving.kv.events.EventAddress`); None: it sends none.
    """

    name: str
    shape: ReplicaShape
    url: str
    log_path: Path
    started_at_s: float
    cell: str = EVERYTHING.name
    kv_events: str | None = None


@dataclass(slots=True)
class _Process:
    worker: Worker
    supervisor: "subprocess.Popen[bytes]"
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
    cells : tuple of Cell
        Topology cells, each behind a router of its own.
    kv_events : bool
        Every worker publishes what its KV cache stores and evicts.
    endpoints_dir : Path or None
        Where commands that only look find the endpoints file; None: in the state directory.
    worker_base_bytes : float
        Memory of one worker on a CPU without weights and KV cache, bytes.
    """

    engine: EngineInstall
    model: ModelFiles
    flags: EngineFlags
    state_dir: Path
    cores_per_replica: float | None = 0.5
    cpu_weight: float = 1.0
    gpus: tuple[int, ...] = ()
    ready_timeout_s: float = 300.0
    cells: tuple[Cell, ...] = (EVERYTHING,)
    kv_events: bool = False
    endpoints_dir: Path | None = None
    worker_base_bytes: float = WORKER_BASE_BYTES

    def __post_init__(self) -> None:
        if not self.cells:
            raise ValueError("a site has at least one cell")
        check_cells(self.cells)

    @property
    def published_in(self) -> Path:
        """Folder of the endpoints file."""
        return self.endpoints_dir or self.state_dir

    def cell(self, name: str) -> Cell:
        """The cell of this name.

        Raises
        ------
        EngineError
            When the site has none of this name.
        """
        found = next((c for c in self.cells if c.name == name), None)
        if found is None:
            known = ", ".join(c.name for c in self.cells)
            raise EngineError(f"there is no cell {name} here: take one of {known}")
        return found

    def gpus_of(self, cell: Cell) -> tuple[int, ...]:
        """GPUs that workers of a cell may take."""
        named = {g for c in self.cells for g in c.gpus}
        return cell.gpus or tuple(g for g in self.gpus if g not in named)


@dataclass(slots=True)
class Launcher:
    """Owner of all worker processes of one state directory. Use as a context manager."""

    site: LocalSite
    progress: Callable[[str], None] = lambda _line: None
    _processes: dict[str, _Process] = field(default_factory=dict)
    _lock: IO[str] | None = None
    _open: bool = False
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __enter__(self) -> Self:
        self.site.state_dir.mkdir(parents=True, exist_ok=True)
        self._lock = lock_directory(self.site.state_dir)
        self._open = True
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
        self._open = False  # what another thread wants to start now would outlive us
        self.stop_all()
        end_orphans(self.site.state_dir)  # below a supervisor that somebody killed
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
        return tuple(p.worker for p in list(self._processes.values()))

    @property
    def quota_is_enforced(self) -> bool:
        """Whether every running worker is held to its processor share by the kernel."""
        return bool(self._processes) and all(
            p.cpu_group is not None for p in self._processes.values()
        )

    def start(self, shape: ReplicaShape, cell: str | None = None) -> Worker:
        """Start a worker and return at once; `await_ready` waits for it.

        Parameters
        ----------
        cell : str or None
            Name of its cell; None: the first one.

        Raises
        ------
        NotEnoughMemoryError, NoFreeDeviceError, NoFreePortError, EngineError
        """
        if not self._open:
            raise EngineError("nothing can be started: the launcher is not running")
        home = self.site.cells[0] if cell is None else self.site.cell(cell)
        self._check_memory()
        devices = self._free_devices(shape, home)
        name = f"{shape.role}-{next(self._numbers)}"
        drop_logs(self.site.state_dir, running=list(self._processes))
        ports = self._free_ports(shape)
        line = command(self.site.engine, self.site.model, self.site.flags, shape, ports)
        worker = Worker(
            name=name,
            shape=shape,
            url=f"http://127.0.0.1:{ports.http}",
            log_path=fresh_log(self.site.state_dir, name),
            started_at_s=time.monotonic(),
            cell=home.name,
            kv_events=ports.kv_events_address(shape.dp),
        )
        group = None if devices.gpus else self._cpu_group(name)
        marker = {MARKER: str(self.site.state_dir.resolve())}
        started = spawn_supervised(
            line if devices.gpus else cpu_command(line),
            environment=environment(self.site.flags, devices, ports, marker),
            log_path=worker.log_path,
            cpu_group=group,
            cpus=devices.cpus,
        )
        self._processes[name] = _Process(
            worker=worker, supervisor=started, cpu_group=group, devices=devices
        )
        return worker

    def await_ready(self, worker: Worker, *, timeout_s: float | None = None) -> float:
        """Wait until the worker has generated a token; return seconds since its start.

        Raises
        ------
        EngineError
            When it dies or is not ready in time, with its last log lines.
        """
        process = self._process(worker)
        timeout_s = self.site.ready_timeout_s if timeout_s is None else timeout_s
        deadline = worker.started_at_s + timeout_s
        with httpx.Client(base_url=worker.url, timeout=60.0) as client:
            while not _answers(client, self.site.model.name):
                if process.supervisor.poll() is not None:
                    stopped = worker.name not in self._processes
                    how = "was stopped while it started" if stopped else "died while starting"
                    raise self._failure(worker, how)
                if time.monotonic() > deadline:
                    raise self._failure(worker, f"was not ready within {timeout_s:.0f} s")
                time.sleep(0.25)
        if process.cpu_group is not None:
            with suppress(OSError):  # it died just now, and its group with it: that is found
                process.cpu_group.limit(self.site.cores_per_replica, weight=self.site.cpu_weight)
        return time.monotonic() - worker.started_at_s

    def process_of(self, worker: Worker) -> tuple[int, CpuGroup | None]:
        """Id of the process that a worker's processes hang below, and their control group."""
        process = self._process(worker)
        return process.supervisor.pid, process.cpu_group

    def check_alive(self, *, but: Collection[str] = ()) -> None:
        """Raise EngineError for the first worker that died by itself, but for these names."""
        for worker in self.dead():
            if worker.name not in but:
                raise self._failure(worker, "died")

    def dead(self) -> tuple[Worker, ...]:
        """Workers that ended by themselves and were not stopped since."""
        return tuple(
            p.worker
            for p in list(self._processes.values())
            if p.supervisor.poll() is not None and p.worker.name in self._processes
        )

    def is_alive(self, worker: Worker) -> bool:
        """Whether its process runs."""
        process = self._processes.get(worker.name)
        return process is not None and process.supervisor.poll() is None

    def stop(self, worker: Worker) -> None:
        """End a worker with all its processes; returns when they are gone."""
        process = self._process(worker)
        del self._processes[worker.name]
        end_supervised([process.supervisor])

    def kill(self, worker: Worker) -> None:
        """Kill a worker that hangs; it then counts as one that died by itself."""
        kill_supervised(self._process(worker).supervisor)

    def stop_all(self) -> None:
        """End all workers at the same time."""
        processes = list(self._processes.values())
        self._processes.clear()
        end_supervised(p.supervisor for p in processes)

    def _process(self, worker: Worker) -> _Process:
        process = self._processes.get(worker.name)
        if process is None:
            raise EngineError(f"worker {worker.name} does not run any more: it was stopped")
        return process

    def _check_memory(self) -> None:
        if self.site.gpus:
            return
        weights = sum(p.stat().st_size for p in self.site.model.directory.glob("*.safetensors"))
        caches = self.site.flags.kv_cache_gib * 2**30
        needed = self.site.worker_base_bytes + 2 * weights + caches
        starting = sum(1 for worker in self.workers if _is_young(worker))
        free = psutil.virtual_memory().available - starting * needed
        if free < needed:
            raise NotEnoughMemoryError(
                f"one more worker needs {needed / 2**30:.1f} GiB of memory, but "
                f"{max(free, 0) / 2**30:.1f} GiB are free: stop something, or plan fewer replicas"
            )

    def _free_devices(self, shape: ReplicaShape, cell: Cell) -> Devices:
        if not self.site.gpus:
            return Devices(cpus=cell.cpus)
        here = self.site.gpus_of(cell)
        used = {gpu for p in list(self._processes.values()) for gpu in p.devices.gpus}
        free = [gpu for gpu in here if gpu not in used]
        if len(free) < shape.accelerators:
            raise NoFreeDeviceError(
                f"{shape.label} needs {shape.accelerators} GPUs, but {len(free)} of {len(here)} "
                f"in cell {cell.name} are free: stop a worker first"
            )
        gpus = tuple(free[: shape.accelerators])
        check_gpu_memory(gpus, self.site.flags.extra + shape.engine_flags)
        return Devices(gpus=gpus, cpus=cell.cpus)

    def _free_ports(self, shape: ReplicaShape) -> Ports:
        ranks = shape.dp
        if not self.site.kv_events:
            http, nixl = free_port_runs((1, ranks))
            return Ports(http=http, nixl=nixl)
        http, nixl, events, replay = free_port_runs((1, ranks, ranks, ranks))
        return Ports(http=http, nixl=nixl, kv_events=events, kv_replay=replay)

    def _cpu_group(self, name: str) -> CpuGroup | None:
        if self.site.cores_per_replica is None:
            return None
        group = make_cpu_group(self._owner, name)
        if group is not None:
            group.limit(STARTING_CORES, weight=STARTING_WEIGHT)
        return group

    def _failure(self, worker: Worker, what: str) -> EngineError:
        cause = _known_cause(worker.log_path)
        return EngineError(
            f"worker {worker.name} {what}{cause}; its whole log is {worker.log_path}",
            log_tail=log_tail(worker.log_path),
        )


def _answers(client: httpx.Client, model: str) -> bool:
    try:
        if client.get("/health", timeout=2.0).status_code != 200:
            return False
        body = {"model": model, "prompt": "ready", "max_tokens": 1, "temperature": 0}
        answer = client.post("/v1/completions", json=body)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200


_KNOWN_CAUSES = {
    "NIXL is not available": "the engine has no NIXL, which moves KV caches: install the package "
    "nixl into its environment",
}
_CAUSE_BYTES = 65_536
"""vLLM's own error stands above the traceback of each process that it ends."""


def _known_cause(log_path: Path) -> str:
    """What is known to end engines, where the log has it; the last lines mostly do not."""
    text = log_end(log_path, size_bytes=_CAUSE_BYTES)
    found = next((told for said, told in _KNOWN_CAUSES.items() if said in text), None)
    return "" if found is None else f": {found}"


def _is_young(worker: Worker) -> bool:
    """Whether a worker may not have taken its memory yet."""
    return time.monotonic() - worker.started_at_s < 20.0
