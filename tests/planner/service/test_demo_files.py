"""Results appear whole or not at all, and nobody's unfinished work is removed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from planner.domain.errors import EngineError, InputError
from planner.service.cli.demo import staged
from planner.service.demo.signals import ending_on_signals
from planner.service.demo.site import find_engine, remove_left_over
from planner.service.settings import read_settings


def test_results_move_over_when_all_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staged(out) as folder:
        (folder / "summary.json").write_text("{}")
        assert not (out / "summary.json").exists()
    assert [p.name for p in out.iterdir()] == ["summary.json"]


def write_and_fail(out: Path) -> None:
    with staged(out) as folder:
        (folder / "report.html").write_text("half")
        raise InputError("stop")


def test_failure_leaves_no_folder_and_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stop"):
        write_and_fail(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_failure_keeps_earlier_results(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("earlier")
    with pytest.raises(InputError, match="stop"):
        write_and_fail(tmp_path)
    assert (tmp_path / "report.html").read_text() == "earlier"


def test_unfinished_work_of_a_running_demo_is_kept_and_of_a_dead_one_removed(
    tmp_path: Path,
) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    running, dead = tmp_path / f".partial.{os.getpid()}", tmp_path / f".partial.{ended.pid}"
    running.mkdir()
    dead.mkdir()
    remove_left_over(tmp_path, ".partial.*")
    assert running.is_dir()
    assert not dead.exists()


def test_results_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="cannot be written"), staged(tmp_path / "out"):
        pass


@pytest.mark.parametrize(
    "python", ["/usr/bin/python3.99", "python3", "/nonexistent", "/etc/passwd"]
)
def test_advice_never_names_a_folder_from_a_wrong_setting(python: str, tmp_path: Path) -> None:
    environ = {"POOLWISE_ENGINE_PYTHON": python, "POOLWISE_STATE_DIR": str(tmp_path)}
    with pytest.raises(EngineError, match=rf"install {tmp_path}/engine`"):
        find_engine(read_settings(environ))


def test_signal_that_was_ignored_at_the_start_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ending_on_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
