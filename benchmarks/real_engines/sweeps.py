"""Sweeps of the profiler, kept as measured, and their mean."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.real_engines.cases import Case
from benchmarks.real_engines.machine import MachineLoad
from benchmarks.real_engines.recording import machine_load, write_atomically
from profiler.sweep import DecodePoint, Measurements, PrefillPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """One sweep, and the machine meanwhile."""

    measured_at: str
    measurements: Measurements
    machine: MachineLoad


def profiled_case(case: Case) -> str:
    """The case whose measurements stand for this one's workers."""
    return "1p1d" if case.disaggregated else case.name


def sweep_path(folder: Path, case: str, number: int) -> Path:
    """Where a sweep is kept."""
    return folder / f"sweep-{case}-{number}.json"


def write_sweep(path: Path, sweep: Sweep) -> None:
    """Write a sweep, all of it or nothing."""
    write_atomically(path, json.dumps(asdict(sweep)).encode())


def read_sweep(path: Path) -> Sweep:
    """Read it back."""
    data = json.loads(path.read_text())
    measured = data["measurements"]
    return Sweep(
        measured_at=data["measured_at"],
        measurements=Measurements(
            prefill=tuple(PrefillPoint(**p) for p in measured["prefill"]),
            decode=tuple(DecodePoint(**p) for p in measured["decode"]),
            check=PrefillPoint(**measured["check"]),
        ),
        machine=machine_load(data["machine"]),
    )


def mean_of(sweeps: Sequence[Measurements]) -> Measurements:
    """Every point's mean over sweeps of the same plan."""
    return Measurements(
        prefill=tuple(_mean_prefill(p) for p in zip(*(s.prefill for s in sweeps), strict=True)),
        decode=tuple(
            replace(points[0], step_s=float(np.mean([p.step_s for p in points])))
            for points in zip(*(s.decode for s in sweeps), strict=True)
        ),
        check=_mean_prefill([s.check for s in sweeps]),
    )


def _mean_prefill(points: Sequence[PrefillPoint]) -> PrefillPoint:
    def mean(name: str) -> float:
        return float(np.mean([getattr(p, name) for p in points]))

    return replace(
        points[0],
        alone_ttft_s=mean("alone_ttft_s"),
        busy_s=mean("busy_s"),
        transfer_s=mean("transfer_s"),
        transfer_bytes=mean("transfer_bytes"),
    )
