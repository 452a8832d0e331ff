"""Processor, memory, disk, packages, and the engine's own Python."""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil

from planner.service.doctor.finding import Finding, failed, good, note, skipped

LEAST_CORES, LEAST_MEMORY_BYTES, LEAST_DISK_BYTES = 2, 2e9, 1e9
LEAST_PYTHON = (3, 11)
LONGEST_START_S = 120.0
"""An engine's packages may take so long to import, seconds."""
_NAME = re.compile(r"[A-Za-z0-9._-]+")


def look_at_machine(state_dir: Path) -> list[Finding]:
    """Whether a service can work here."""
    cores, memory = os.cpu_count() or 1, psutil.virtual_memory().total
    found = f"{cores} cores, {memory / 1e9:.1f} GB of memory"
    small = cores < LEAST_CORES or memory < LEAST_MEMORY_BYTES
    todo = f"give it {LEAST_CORES} cores and {LEAST_MEMORY_BYTES / 1e9:g} GB: plans take long else"
    return [
        note("machine", found, todo) if small else good("machine", found),
        _disk(state_dir),
    ]


def _disk(state_dir: Path) -> Finding:
    there = next(path for path in (state_dir, *state_dir.parents) if path.exists())
    free = shutil.disk_usage(there).free
    found = f"{free / 1e9:.1f} GB free in {there}"
    if not os.access(there, os.W_OK | os.X_OK):
        todo = "let this user write there, or name another folder by POOLWISE_STATE_DIR"
        return failed("disk", f"{there} may not be written to", todo)
    if free < LEAST_DISK_BYTES:
        return failed("disk", found, "make space, or name another folder by POOLWISE_STATE_DIR")
    return good("disk", found)


def look_at_packages() -> list[Finding]:
    """Whether all that Poolwise needs is installed."""
    python = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info < LEAST_PYTHON:
        least = ".".join(str(part) for part in LEAST_PYTHON)
        return [
            failed("python", f"Python {python}", f"install Poolwise for Python {least} or newer")
        ]
    try:
        needed = requires("poolwise") or []
    except PackageNotFoundError:
        return [
            note("python", f"Python {python}; Poolwise runs from a source tree", "pip install .")
        ]
    names = [match[0] for line in needed if "extra ==" not in line and (match := _NAME.match(line))]
    missing = [name for name in names if not _is_there(name)]
    if missing:
        todo = f"pip install {' '.join(missing)}"
        return [failed("python", f"Python {python}; not installed: {', '.join(missing)}", todo)]
    return [good("python", f"Python {python}, all {len(names)} packages are installed")]


def _is_there(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def look_at_engine(python: Path | None) -> Finding:
    """Whether the interpreter that starts engines has one."""
    if python is None:
        return skipped(
            "engine", "no POOLWISE_ENGINE_PYTHON: needed only to start engines on this machine"
        )
    try:
        ran = subprocess.run(
            [python, "-c", "import vllm; print(vllm.__version__)"],
            capture_output=True,
            text=True,
            timeout=LONGEST_START_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = "it does not answer" if isinstance(error, subprocess.TimeoutExpired) else str(error)
        return failed("engine", f"{python}: {why}", "correct POOLWISE_ENGINE_PYTHON")
    if ran.returncode:
        said = (ran.stderr.strip().splitlines() or ["no message"])[-1]
        todo = "install vLLM there (`make engine`), or correct POOLWISE_ENGINE_PYTHON"
        return failed("engine", f"{python} cannot import vLLM: {said}", todo)
    return good("engine", f"vLLM {ran.stdout.strip().splitlines()[-1]} by {python}")
