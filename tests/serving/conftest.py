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


@pytest.fixture
def stub_site(tmp_path: Path) -> StubSite:
    """Makes sites whose engine is a stub; arguments are the stub's options."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {STUB} "$@"\n')
    python.chmod(0o755)
    (tmp_path / "model").mkdir()

    def make(*options: str) -> LocalSite:
        return LocalSite(
            engine=EngineInstall(python=python),
            model=ModelFiles(name="tiny", directory=tmp_path / "model"),
            flags=EngineFlags(extra=options),
            state_dir=tmp_path / "state",
            cores_per_replica=None,
        )

    return make
