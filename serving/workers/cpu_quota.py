"""A share of the processor for a group of processes, enforced by the kernel (cgroup v1 or v2).

On a machine without accelerators, workers share cores; a fixed share each makes one worker's
speed independent of how many others run, as it is on GPUs. Where no cgroup can be written the
workers run unlimited, and callers say so.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PERIOD_US = 10_000
"""Bandwidth period. A throttled process pauses at most so long; the kernel's default of 100 ms
would show up in inter-token latency. Shorter ones (2 ms was tried) even out idle engines' steps,
but made steps under traffic a fifth longer than those that the profiler had seen."""

V1_ROOT = Path("/sys/fs/cgroup/cpu")
V2_ROOT = Path("/sys/fs/cgroup")
_PREFIX = "poolwise-"
PATIENCE_S = 3.0
"""For so long groups of processes that were just killed are tried again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuGroup:
    """One control group; `directory` holds its files."""

    directory: Path
    version: int

    def limit(self, cores: float | None, *, weight: float = 1.0) -> None:
        """Allow `cores` cores (0.5 is half of one); None lifts the limit.

        `weight` is the group's share against others where the cores are fought over.
        """
        quota = "-1" if cores is None else str(round(cores * PERIOD_US))
        if self.version == 1:
            (self.directory / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self.directory / "cpu.cfs_quota_us").write_text(quota)
            (self.directory / "cpu.shares").write_text(str(round(1024 * weight)))
        else:
            limit = "max" if cores is None else quota
            (self.directory / "cpu.max").write_text(f"{limit} {PERIOD_US}")
            (self.directory / "cpu.weight").write_text(str(round(100 * weight)))


def make_cpu_group(owner: str, name: str) -> CpuGroup | None:
    """Make a group for one worker, or None where this process may not."""
    for root, version in ((V1_ROOT, 1), (V2_ROOT, 2)):
        if not _has_cpu_controller(root, version):
            continue
        directory = root / f"{_PREFIX}{owner}-{name}"
        try:
            directory.mkdir()
            group = CpuGroup(directory=directory, version=version)
            group.limit(None)
        except OSError:
            with suppress(OSError):  # never made, or of processes that still end
                directory.rmdir()
            return None
        return group
    return None


def _has_cpu_controller(root: Path, version: int) -> bool:
    if version == 1:
        return (root / "cpu.cfs_quota_us").exists()
    try:
        return "cpu" in (root / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False


def remove_empty_groups(owner: str, *, patience_s: float = PATIENCE_S) -> None:
    """Remove groups of this owner that a crashed run left behind; occupied ones stay.

    A killed process leaves its group some time after it was killed, so that is waited for.
    """
    deadline = time.monotonic() + patience_s
    for root in (V1_ROOT, V2_ROOT):
        for directory in root.glob(f"{_PREFIX}{owner}-*"):
            while not _removed(directory) and time.monotonic() < deadline:
                time.sleep(0.05)


def _removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
