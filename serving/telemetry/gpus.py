"""NVIDIA GPUs of this machine, by NVML (nvidia-ml-py)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

NO_GPU = "not available: this machine has no NVIDIA driver"
NO_NVML = "not available: nvidia-ml-py is not installed (pip install 'poolwise[gpu]')"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU at one instant; `pids` compute on it."""

    busy_ratio: float
    used_bytes: float
    total_bytes: float
    power_w: float | None
    pids: frozenset[int]


class _Rates(Protocol):
    gpu: int


class _Memory(Protocol):
    used: int
    total: int


class _Process(Protocol):
    pid: int


class _Nvml(Protocol):
    """The part of `pynvml` that is used here."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...  # noqa: N802
    def nvmlDeviceGetUtilizationRates(self, handle: object) -> _Rates: ...  # noqa: N802
    def nvmlDeviceGetMemoryInfo(self, handle: object) -> _Memory: ...  # noqa: N802
    def nvmlDeviceGetPowerUsage(self, handle: object) -> int: ...  # noqa: N802
    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> Sequence[_Process]: ...  # noqa: N802


def read_gpus() -> tuple[Gpu, ...] | str:
    """GPUs of the machine that Poolwise runs on, or why they cannot be asked."""
    try:
        import pynvml
    except ImportError:
        return NO_NVML if _has_driver() else NO_GPU
    nvml: _Nvml = pynvml
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return NO_GPU
    try:
        return tuple(
            _gpu(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
            for index in range(nvml.nvmlDeviceGetCount())
        )
    except nvml.NVMLError as error:
        return f"not available: NVML says {error}"
    finally:
        nvml.nvmlShutdown()


def _has_driver() -> bool:
    return Path("/proc/driver/nvidia/version").exists()


def _gpu(nvml: _Nvml, handle: object) -> Gpu:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        power_w = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
    except nvml.NVMLError:
        power_w = None
    return Gpu(
        busy_ratio=nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100,
        used_bytes=float(memory.used),
        total_bytes=float(memory.total),
        power_w=power_w,
        pids=frozenset(p.pid for p in nvml.nvmlDeviceGetComputeRunningProcesses(handle)),
    )
