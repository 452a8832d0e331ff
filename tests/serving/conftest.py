"""Deployments of stub engines: real launcher, supervisors and routers, workers up in a second."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from planner.domain.fleet import ReplicaShape, Role
from serving.workers.engine import EngineFlags, EngineInstall, ModelFiles
from serving.workers.launcher import LocalSite

STUB = Path(__file__).resolve().parents[1] / "fakes" / "stub_engine.py"
PREFILL = ReplicaShape(role=Role.PREFILL, model="tiny", accelerator="cpu-slot")
DECODE = replace(PREFILL, role=Role.DECODE)
AGGREGATED = replace(PREFILL, role=Role.AGGREGATED)

StubSite = Callable[..., LocalSite]


def stub_sites(folder: Path) -> StubSite:
    """Makes sites below a folder whose engine is a stub; arguments are the stub's options."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STUB} "$@"\n')
    python.chmod(0o755)
    (folder / "model").mkdir()

    def make(*options: str) -> LocalSite:
        return LocalSite(
            engine=EngineInstall(python=python),
            model=ModelFiles(name="tiny", directory=folder / "model"),
            flags=EngineFlags(kv_cache_gib=0, extra=options),
            state_dir=folder / "state",
            cores_per_replica=None,
            worker_base_bytes=64 * 2**20,
        )

    return make


@pytest.fixture
def stub_site(tmp_path: Path) -> StubSite:
    """`stub_sites` below a folder of the test's own."""
    return stub_sites(tmp_path)
