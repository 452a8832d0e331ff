"""What else happens on the machine while requests are recorded, and how the quota bites."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from planner.domain.errors import EngineError
from serving.workers.cpu_quota import CpuGroup, make_cpu_group

COMPUTING = "VLLM::Worker"
"""What vLLM's process that computes steps calls itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCpu:
    """Processor use of one worker during a recording.

    Parameters
    ----------
    cores : float
        Mean cores used by all its processes.
    periods, throttled_periods : int
        Quota periods in which it ran, and in which it was stopped for the rest of one.
    throttled_s : float
        Time that its processes were held back, summed over processors, seconds.
    """

    name: str
    cores: float
    periods: int
    throttled_periods: int
    throttled_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLoad:
    """Processor use during a recording, in cores (mean).

    Parameters
    ----------
    neighbour_cores : float
        Everything that is neither a worker nor the client with its router.
    steal_cores : float
        Taken by the hypervisor.
    load_average : float
        Of the last minute, at the end.
    gauge_s : tuple of float
        Processor seconds of a fixed piece of work, read over and over (`gauge.py`).
    """

    span_s: float
    client_cores: float
    neighbour_cores: float
    steal_cores: float
    load_average: float
    gauge_s: tuple[float, ...]
    workers: tuple[WorkerCpu, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All counters at one instant, seconds since some beginning of their own."""

    at_s: float
    busy_s: float
    steal_s: float
    client_s: float
    worker_s: dict[str, float]
    quota: dict[str, tuple[int, int, float]]


@dataclass(slots=True, kw_only=True)
class Meter:
    """Reads the processor use of workers (by supervisor process) and of everybody.

    Parameters
    ----------
    supervisors : dict of str to int
        Process ids by worker name.
    groups : dict of str to CpuGroup
    """

    supervisors: dict[str, int]
    groups: dict[str, CpuGroup]

    def read(self) -> Reading:
        """Read all counters."""
        times = psutil.cpu_times()
        supervised = set(self.supervisors.values())
        worker_s = {name: _tree_s(pid, set()) for name, pid in self.supervisors.items()}
        return Reading(
            at_s=time.monotonic(),
            busy_s=times.user + times.nice + times.system + times.irq + times.softirq,
            steal_s=times.steal,
            client_s=_tree_s(os.getpid(), supervised),
            worker_s=worker_s,
            quota={name: _throttling(group) for name, group in self.groups.items()},
        )

    def between(self, before: Reading, after: Reading, gauge_s: tuple[float, ...]) -> MachineLoad:
        """Means over the time between two readings."""
        span_s = after.at_s - before.at_s
        client_s = after.client_s - before.client_s
        used = {n: after.worker_s[n] - before.worker_s[n] for n in self.supervisors}
        neighbours_s = after.busy_s - before.busy_s - client_s - sum(used.values())
        return MachineLoad(
            span_s=span_s,
            client_cores=client_s / span_s,
            neighbour_cores=max(neighbours_s, 0.0) / span_s,
            steal_cores=(after.steal_s - before.steal_s) / span_s,
            load_average=os.getloadavg()[0],
            gauge_s=gauge_s,
            workers=tuple(
                WorkerCpu(
                    name=name,
                    cores=used[name] / span_s,
                    periods=after.quota[name][0] - before.quota[name][0],
                    throttled_periods=after.quota[name][1] - before.quota[name][1],
                    throttled_s=after.quota[name][2] - before.quota[name][2],
                )
                for name in self.supervisors
            ),
        )


def _tree_s(pid: int, without: set[int]) -> float:
    """Processor seconds of a process and all below it, threads and ended children included."""
    try:
        process = psutil.Process(pid)
        times = process.cpu_times()
        below = [c.pid for c in process.children() if c.pid not in without]
    except psutil.NoSuchProcess:
        return 0.0
    return times.user + times.system + sum(_tree_s(child, without) for child in below)


def _throttling(group: CpuGroup) -> tuple[int, int, float]:
    """(periods, throttled periods, throttled seconds) of a group so far."""
    lines = (group.directory / "cpu.stat").read_text().splitlines()
    stat = {name: int(value) for name, value in (line.split() for line in lines)}
    if group.version == 1:
        throttled_s = stat["throttled_time"] / 1e9
    else:
        throttled_s = stat["throttled_usec"] / 1e6
    return stat["nr_periods"], stat["nr_throttled"], throttled_s


@contextmanager
def gauge(log: Path) -> Iterator[Path]:
    """Run the gauge beside a recording; its readings are lines of `log`."""
    script = Path(__file__).with_name("gauge.py")
    with log.open("wb") as file:
        running = subprocess.Popen([sys.executable, "-I", str(script), "0.25"], stdout=file)
    try:
        yield log
    finally:
        running.terminate()
        running.wait()


def readings(log: Path) -> tuple[float, ...]:
    """Read the gauge's log; a line that was cut off is left out."""
    lines = log.read_text().splitlines(keepends=True)
    return tuple(float(line) for line in lines if line.endswith("\n"))


def weigh_own_processes(weight: float) -> CpuGroup | None:
    """Move this process (and what it starts) into a group without quota and with this weight."""
    group = make_cpu_group(f"client{os.getpid()}", "load")
    if group is None:
        return None
    group.limit(None, weight=weight)
    (group.directory / "cgroup.procs").write_text(str(os.getpid()))
    return group


def free_host_side(supervisor: int, own: CpuGroup) -> None:
    """Move a worker's HTTP server and scheduler out of its quota, to this process.

    Raises
    ------
    EngineError
        When no process of the worker would be left under the quota.
    """
    below = psutil.Process(supervisor).children(recursive=True)
    host = [p for p in below if not _title(p).startswith(COMPUTING)]
    if len(host) == len(below):
        raise EngineError(f"no process of the engine calls itself {COMPUTING}: hold all of it")
    for process in host:
        (own.directory / "cgroup.procs").write_text(str(process.pid))


def _title(process: psutil.Process) -> str:
    return next(iter(process.cmdline()), "")


def leave_group(group: CpuGroup) -> None:
    """Move this process back and remove the group."""
    root: Path = group.directory.parent
    for pid in (group.directory / "cgroup.procs").read_text().split():
        try:
            (root / "cgroup.procs").write_text(pid)
        except ProcessLookupError:
            continue
    group.directory.rmdir()
