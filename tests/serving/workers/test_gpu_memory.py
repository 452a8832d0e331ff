"""A worker is not started on GPUs that others fill."""

import pytest

from planner.domain.errors import InputError, NotEnoughMemoryError
from serving.telemetry.gpus import NO_GPU, NO_NVML, Gpu
from serving.workers.gpu_memory import GpuMemory, check_gpu_memory, check_gpus, read_gpu_memory

GIB = 2**30


def gpus(free_gib: float):
    def read(indices):
        return tuple(
            GpuMemory(index=i, total_bytes=80 * GIB, free_bytes=free_gib * GIB) for i in indices
        )

    return read


def test_a_free_gpu_is_taken() -> None:
    check_gpu_memory((0, 1), (), read=gpus(79))


def test_a_filled_gpu_is_refused_by_name() -> None:
    with pytest.raises(NotEnoughMemoryError, match=r"72.0 GiB \(90%\) of GPU 3, but 60.0 GiB"):
        check_gpu_memory((3,), (), read=gpus(60))


@pytest.mark.parametrize(
    "flags",
    [("--gpu-memory-utilization", "0.5"), ("--gpu-memory-utilization=0.5",)],
)
def test_a_smaller_share_is_looked_for_in_the_flags(flags: tuple[str, ...]) -> None:
    check_gpu_memory((0,), flags, read=gpus(60))


def test_where_nobody_can_tell_nothing_is_refused() -> None:
    if read_gpu_memory((0,)):
        pytest.skip("this machine has a GPU that answers")
    check_gpu_memory((0,), ())


IDLE = Gpu(busy_ratio=0.0, used_bytes=0.0, total_bytes=80 * GIB, power_w=None, pids=frozenset())


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (NO_GPU, "--gpus 0,2: this machine has no NVIDIA driver"),
        ((IDLE, IDLE), "there is no GPU 2 here, but 2 of them"),
        ((), "there is no GPU 0 here, but none"),
    ],
)
def test_gpus_that_are_not_here_are_refused(there, said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_gpus((0, 2), read=lambda: there)


@pytest.mark.parametrize("there", [(IDLE, IDLE, IDLE), NO_NVML])
def test_gpus_that_are_here_or_cannot_be_asked_are_taken(there) -> None:
    check_gpus((0, 2), read=lambda: there)
    check_gpus((), read=lambda: NO_GPU)
