"""What the machine below local workers does: processor and memory by psutil, GPUs by NVML."""

import ipaddress
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import psutil

from serving.telemetry.gpus import Gpu, read_gpus
from serving.telemetry.signals import HardwareSignals, Signal, TargetSignals

ELSEWHERE = "it runs on another machine: its DCGM exporter tells (--hardware, or --prometheus)"
NOT_ON_GPU = "not available: it runs on no GPU of this machine"
NOT_FOUND = "its process was not found on this machine (it may be another user's)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """Processes behind one local address at one instant.

    Parameters
    ----------
    pids : frozenset of int
        The one that listens, and all below it.
    cpu_s, resident_bytes : float
        Processor time so far, and main memory held.
    """

    pids: frozenset[int]
    cpu_s: float
    resident_bytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLook:
    """The machine that Poolwise runs on, at one instant.

    Parameters
    ----------
    behind : tuple of (url, Processes)
        Of those addresses whose processes could be found.
    gpus : tuple of Gpu or None
        None where they cannot be asked; `no_gpus` says why.
    """

    at_s: float
    behind: tuple[tuple[str, Processes], ...]
    gpus: tuple[Gpu, ...] | None
    no_gpus: str = ""

    def processes(self, url: str) -> Processes | None:
        """Those behind an address."""
        return next((found for known, found in self.behind if known == url), None)


def is_local(url: str) -> bool:
    """Whether an address is of this machine's loopback."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def look_at_machine(urls: Iterable[str]) -> MachineLook:
    """Processes behind local addresses, and this machine's GPUs."""
    local = [url for url in urls if is_local(url)]
    listening = _listening() if local else {}
    found = [(url, _processes(listening.get(urlsplit(url).port or 80))) for url in local]
    gpus = read_gpus()
    return MachineLook(
        at_s=time.monotonic(),
        behind=tuple((url, processes) for url, processes in found if processes is not None),
        gpus=None if isinstance(gpus, str) else gpus,
        no_gpus=gpus if isinstance(gpus, str) else "",
    )


def _listening() -> dict[int, int]:
    """Process ids by the TCP port that they listen on, as far as they may be seen."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return {}
    return {
        c.laddr.port: c.pid
        for c in connections
        if c.status == psutil.CONN_LISTEN and c.pid is not None and c.laddr
    }


def _processes(pid: int | None) -> Processes | None:
    if pid is None:
        return None
    try:
        first = psutil.Process(pid)
        family = [first, *first.children(recursive=True)]
    except psutil.Error:
        return None
    cpu_s, resident, pids = 0.0, 0.0, set()
    for process in family:
        try:
            times, memory = process.cpu_times(), process.memory_info()
        except psutil.Error:
            continue
        pids.add(process.pid)
        cpu_s += times.user + times.system
        resident += memory.rss
    return Processes(pids=frozenset(pids), cpu_s=cpu_s, resident_bytes=resident) if pids else None


def with_hardware(
    targets: Sequence[TargetSignals], before: MachineLook, after: MachineLook
) -> tuple[TargetSignals, ...]:
    """The targets with what two looks at this machine tell of those that run on it."""
    return tuple(
        replace(
            target,
            activity=replace(
                target.activity,
                hardware=_hardware(target.url, target.activity.hardware, before, after),
            ),
        )
        if target.answers and not target.activity.hardware.accelerator_ratio.known
        else target
        for target in targets
    )


def _hardware(
    url: str, told: HardwareSignals, before: MachineLook, after: MachineLook
) -> HardwareSignals:
    if not is_local(url):
        return _all_lacking(ELSEWHERE)
    found = after.processes(url)
    if found is None:
        return _all_lacking(NOT_FOUND)
    on_gpu = _on_gpus(found, after)
    return replace(
        told,
        accelerator_ratio=on_gpu.accelerator_ratio,
        memory_used_ratio=on_gpu.memory_used_ratio,
        power_w=on_gpu.power_w,
        memory_bandwidth_ratio=Signal.lacking(after.no_gpus or "NVML does not tell it, DCGM does"),
        tensor_ratio=Signal.lacking(after.no_gpus or "NVML does not tell it, DCGM does"),
        cpu_cores=_cores(before.processes(url), found, after.at_s - before.at_s),
        resident_bytes=Signal(value=found.resident_bytes, metric="resident memory (psutil)"),
    )


def _cores(before: Processes | None, after: Processes, seconds: float) -> Signal:
    if before is None or seconds <= 0:
        return Signal.lacking("it was looked at once: rates need two looks")
    used_s = after.cpu_s - before.cpu_s
    if used_s < 0:
        return Signal.lacking("a process of it ended in the interval")
    return Signal(value=used_s / seconds, metric="processor time (psutil)")


def _on_gpus(found: Processes, machine: MachineLook) -> HardwareSignals:
    """Means over those GPUs that its processes compute on."""
    own = [gpu for gpu in machine.gpus or () if gpu.pids & found.pids]
    if not own:
        return _all_lacking(machine.no_gpus or NOT_ON_GPU)
    power = [gpu.power_w for gpu in own if gpu.power_w is not None]
    return HardwareSignals(
        accelerator_ratio=Signal(value=sum(g.busy_ratio for g in own) / len(own), metric="NVML"),
        memory_used_ratio=Signal(
            value=sum(g.used_bytes for g in own) / sum(g.total_bytes for g in own), metric="NVML"
        ),
        power_w=(
            Signal(value=sum(power), metric="NVML")
            if len(power) == len(own)
            else Signal.lacking("NVML does not tell this GPU's power")
        ),
    )


def _all_lacking(reason: str) -> HardwareSignals:
    lacking = Signal.lacking(reason)
    return HardwareSignals(
        accelerator_ratio=lacking,
        memory_used_ratio=lacking,
        memory_bandwidth_ratio=lacking,
        tensor_ratio=lacking,
        power_w=lacking,
        cpu_cores=lacking,
        resident_bytes=lacking,
    )
