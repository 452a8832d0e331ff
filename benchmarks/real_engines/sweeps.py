"""Sweeps of the profiler, kept as measured, and all of a case together."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.real_engines.cases import Case
from benchmarks.real_engines.machine import MachineLoad
from benchmarks.real_engines.recording import machine_load, write_atomically
from planner.domain.errors import ProfileError
from profiler.measure.journal import read_journal
from profiler.samples import Samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One sweep, and the machine meanwhile."""

    measured_at: str
    samples: Samples
    machine: MachineLoad


def profiled_case(case: Case) -> str:
    """The case whose measurements stand for this one's workers."""
    return "1p1d" if case.disaggregated else case.name


def sweep_path(folder: Path, case: str, number: int) -> Path:
    """Where the machine's load during a sweep is kept; its samples lie beside it."""
    return folder / f"sweep-{case}-{number}.json"


def samples_path(path: Path) -> Path:
    """The journal of a sweep."""
    return path.with_suffix(".journal.jsonl")


def write_sweep(path: Path, sweep: Sweep) -> None:
    """Write what is known beside the samples, all of it or nothing."""
    content = {"measured_at": sweep.measured_at, "machine": asdict(sweep.machine)}
    write_atomically(path, json.dumps(content).encode())


def read_sweep(path: Path) -> Sweep:
    """Read it back, with its samples."""
    data = json.loads(path.read_text())
    journal = read_journal(samples_path(path))
    if journal is None:
        raise ProfileError(f"{samples_path(path)} is missing: it holds the samples of {path}")
    return Sweep(
        measured_at=data["measured_at"],
        samples=journal.samples,
        machine=machine_load(data["machine"]),
    )


def together(sweeps: Sequence[Samples]) -> Samples:
    """The samples of several sweeps of the same workers."""
    return Samples([sample for sweep in sweeps for sample in sweep.taken])
