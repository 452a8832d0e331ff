"""A sweep of the benchmark on real engines is read back as it was written."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from benchmarks.real_engines.machine import MachineLoad
from benchmarks.real_engines.sweeps import Sweep, read_sweep, samples_path, write_sweep
from planner.domain.errors import ProfileError
from profiler.measure.journal import open_journal
from profiler.samples import Kind, Point, Sample

NOW = datetime(2026, 11, 25, tzinfo=UTC)
LOAD = MachineLoad(
    span_s=60.0,
    client_cores=0.05,
    neighbour_cores=0.1,
    steal_cores=0.0,
    load_average=1.0,
    gauge_s=(0.1, 0.2),
    workers=(),
)


def test_sweep_is_read_back_with_its_samples(tmp_path: Path) -> None:
    path = tmp_path / "sweep-1p1d-0.json"
    journal = open_journal(samples_path(path), {"case": "1p1d"}, began_at=NOW)
    taken = Sample(
        point=Point(Kind.PREFILL, 64, 0), values={"busy_s": 0.1}, measured_at=NOW, took_s=1.0
    )
    journal.add(taken)
    written = Sweep(measured_at=NOW.isoformat(), samples=journal.samples, machine=LOAD)
    write_sweep(path, written)
    found = read_sweep(path)
    assert found.samples.taken == [taken]
    assert (found.measured_at, found.machine) == (written.measured_at, LOAD)


def test_sweep_without_its_samples_is_said(tmp_path: Path) -> None:
    path = tmp_path / "sweep-1p1d-0.json"
    journal = open_journal(samples_path(path), {"case": "1p1d"}, began_at=NOW)
    write_sweep(path, Sweep(measured_at=NOW.isoformat(), samples=journal.samples, machine=LOAD))
    samples_path(path).unlink()
    with pytest.raises(ProfileError, match=r"sweep-1p1d-0.journal.jsonl is missing"):
        read_sweep(path)
