"""Whether the GPUs that workers are to take are there, with the memory that they will claim."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.domain.errors import InputError, NotEnoughMemoryError
from serving.telemetry.gpus import NO_GPU, Gpu, read_gpus

UTILIZATION_RATIO = 0.9
"""Share of a GPU's memory that vLLM claims unless told otherwise (`--gpu-memory-utilization`)."""
_OPTION = "--gpu-memory-utilization"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMemory:
    """Memory of one GPU, bytes."""

    index: int
    total_bytes: float
    free_bytes: float


ReadGpus = Callable[[Sequence[int]], tuple[GpuMemory, ...]]


def check_gpus(
    gpus: Sequence[int], *, read: Callable[[], tuple[Gpu, ...] | str] = read_gpus
) -> None:
    """Refuse GPUs that this machine does not have; unchecked where nobody can tell.

    Parameters
    ----------
    read : callable
        The machine's GPUs, or why they cannot be asked.

    Raises
    ------
    InputError
    """
    if not gpus:
        return
    there = read()
    given = ",".join(map(str, gpus))
    if there == NO_GPU:
        raise InputError(
            f"--gpus {given}: this machine has no NVIDIA driver, so that no worker would find a "
            "GPU: install the driver, or leave --gpus out for an engine on processors"
        )
    missing = [] if isinstance(there, str) else [g for g in gpus if not 0 <= g < len(there)]
    if missing:
        have = f"{len(there)} of them, numbered from 0" if there else "none"
        raise InputError(f"--gpus {given}: there is no GPU {missing[0]} here, but {have}")


def check_gpu_memory(
    gpus: Sequence[int], engine_flags: Sequence[str], *, read: ReadGpus | None = None
) -> None:
    """Refuse to start a worker on GPUs that others fill; unchecked where nobody can tell.

    vLLM itself gives up only after it has loaded for a while.

    Parameters
    ----------
    engine_flags : sequence of str
        Of the worker; `--gpu-memory-utilization` is looked for.
    read : callable or None
        Reads the GPUs' memory; None: by nvidia-ml-py.

    Raises
    ------
    NotEnoughMemoryError
    """
    share = _share(engine_flags)
    for gpu in (read or read_gpu_memory)(gpus):
        needed = share * gpu.total_bytes
        if gpu.free_bytes < needed:
            raise NotEnoughMemoryError(
                f"a worker claims {needed / 2**30:.1f} GiB ({share:.0%}) of GPU {gpu.index}, but "
                f"{gpu.free_bytes / 2**30:.1f} GiB are free: end what else runs there (see "
                f"nvidia-smi), or give {_OPTION} a smaller share"
            )


def _share(engine_flags: Sequence[str]) -> float:
    for i, flag in enumerate(engine_flags):
        name, _, value = flag.partition("=")
        if name == _OPTION:
            given = value or (engine_flags[i + 1] if i + 1 < len(engine_flags) else "")
            try:
                return float(given)
            except ValueError:
                return UTILIZATION_RATIO
    return UTILIZATION_RATIO


def read_gpu_memory(gpus: Sequence[int]) -> tuple[GpuMemory, ...]:
    """Memory of some GPUs by nvidia-ml-py; nothing where it or the driver is missing."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        return tuple(_memory_of(pynvml.nvmlDeviceGetHandleByIndex(i), i) for i in gpus)
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _memory_of(handle: object, index: int) -> GpuMemory:
    import pynvml

    told = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return GpuMemory(index=index, total_bytes=float(told.total), free_bytes=float(told.free))
