"""Starting engines: what goes wrong is told, and nothing is left behind."""

import errno
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from planner.domain.errors import (
    EngineError,
    NoFreePortError,
    NotEnoughMemoryError,
    StateDirectoryError,
)
from planner.domain.fleet import ReplicaShape, Role
from serving.workers.engine import EngineFlags, EngineInstall, ModelFiles
from serving.workers.launcher import Launcher, LocalSite
from serving.workers.processes import MARKER, end_orphans, free_port_runs, free_ports, log_tail

PREFILL = ReplicaShape(role=Role.PREFILL, model="tiny", accelerator="cpu-slot")


def site_with(tmp_path: Path, engine: str, **flags: int) -> LocalSite:
    """A site whose engine is a shell script."""
    script = tmp_path / "engine"
    script.write_text(f"#!/bin/sh\n{engine}\n")
    script.chmod(0o755)
    return LocalSite(
        engine=EngineInstall(python=script),
        model=ModelFiles(name="tiny", directory=tmp_path),
        flags=EngineFlags(**flags),
        state_dir=tmp_path / "state",
    )


def test_engine_that_dies_on_start_is_told_with_its_last_log_lines(tmp_path: Path) -> None:
    site = site_with(tmp_path, "echo loading; echo 'RuntimeError: no such model' >&2; exit 3")
    with Launcher(site) as launcher:
        worker = launcher.start(PREFILL)
        with pytest.raises(EngineError, match="died while starting") as raised:
            launcher.await_ready(worker, timeout_s=20)
    assert "RuntimeError: no such model" in str(raised.value)


def test_a_known_cause_is_named_though_the_last_lines_do_not_have_it(tmp_path: Path) -> None:
    dying = "echo 'RuntimeError: NIXL is not available'; seq 1 50; exit 1"
    with Launcher(site_with(tmp_path, dying)) as launcher:
        worker = launcher.start(PREFILL)
        with pytest.raises(EngineError, match="died while starting: the engine has no NIXL"):
            launcher.await_ready(worker, timeout_s=20)


def test_engine_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with Launcher(replace(site_with(tmp_path, "sleep 60"), ready_timeout_s=1.0)) as launcher:
        worker = launcher.start(PREFILL)
        with pytest.raises(EngineError, match="was not ready within 1 s"):
            launcher.await_ready(worker)


def test_leaving_the_launcher_ends_its_workers(tmp_path: Path) -> None:
    with Launcher(site_with(tmp_path, "echo $$; exec sleep 60")) as launcher:
        worker = launcher.start(PREFILL)
        while not log_tail(worker.log_path):
            launcher.check_alive()
    assert not psutil.pid_exists(int(log_tail(worker.log_path)[0]))


def test_nothing_is_started_after_the_launcher_was_left(tmp_path: Path) -> None:
    with Launcher(site_with(tmp_path, "sleep 60")) as launcher:
        pass
    with pytest.raises(EngineError, match="the launcher is not running"):
        launcher.start(PREFILL)


def test_two_owners_of_one_state_directory_are_refused(tmp_path: Path) -> None:
    site = site_with(tmp_path, "sleep 60")
    with (
        Launcher(site),
        pytest.raises(StateDirectoryError, match=f"process {os.getpid()}"),
        Launcher(site),
    ):
        pass


def test_state_directory_is_free_again_after_leaving(tmp_path: Path) -> None:
    site = site_with(tmp_path, "sleep 60")
    with Launcher(site):
        pass
    with Launcher(site) as launcher:
        assert launcher.workers == ()


def test_too_little_memory_is_refused_before_anything_starts(tmp_path: Path) -> None:
    site = site_with(tmp_path, "sleep 60", kv_cache_gib=10**6)
    with Launcher(site) as launcher:
        with pytest.raises(NotEnoughMemoryError, match="GiB of memory"):
            launcher.start(PREFILL)
        assert launcher.workers == ()


def test_no_free_port_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EADDRINUSE, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(NoFreePortError, match="no free port"):
        free_ports(1)


def test_free_ports_are_distinct() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20


def test_runs_of_ports_do_not_overlap() -> None:
    runs = [range(p, p + n) for p, n in zip(free_port_runs((1, 4, 4)), (1, 4, 4), strict=True)]
    assert len({port for run in runs for port in run}) == 9


def test_missing_engine_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="make engine"):
        EngineInstall(python=tmp_path / "nothing")


def test_processes_of_a_crashed_run_are_ended_and_others_left_alone(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    orphan = subprocess.Popen(sleeper, env={MARKER: str(tmp_path.resolve())})
    stranger = subprocess.Popen(sleeper, env={MARKER: str(tmp_path.resolve()) + "-other"})
    try:
        assert end_orphans(tmp_path) >= 1
        assert orphan.wait(timeout=5) == -9
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
        orphan.wait()
