"""A deployment whose disk takes nothing, or whose machine makes no process, goes on."""

import os
import sys
from pathlib import Path

import pytest

import serving.fleet.companion as companions
from planner.domain.errors import EngineError
from planner.domain.fleet import Role
from serving.fleet.caretaker import Caretaker, RestartLimits
from serving.fleet.companion import Companion
from serving.fleet.endpoints import FILE_NAME, read_endpoints
from serving.workers.processes import drop_logs, fresh_log, spawn_supervised
from tests.serving.conftest import StubSite
from tests.serving.fleet.test_deployment import LIMITS, ask, kill, ready, running, wait_for

PATIENCE_S = 120.0


def test_a_dead_worker_is_replaced_though_the_endpoints_file_cannot_be_written(
    stub_site: StubSite,
) -> None:
    said: list[str] = []
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        deployment.published.progress = said.append
        folder = deployment.site.published_in
        before = read_endpoints(folder)
        draft = (folder / FILE_NAME).with_suffix(".part")
        draft.mkdir()  # nothing can be written under its name
        with Caretaker(deployment, said.append, LIMITS):
            kill(deployment, deployment.member("prefill-1").worker)
            wait_for(lambda: ready(deployment, Role.PREFILL) == ["prefill-3"], PATIENCE_S)
            assert ask(deployment.router.url)[0].error == ""
            assert read_endpoints(folder) == before
            draft.rmdir()
            wait_for(lambda: read_endpoints(folder) == deployment.endpoints(), PATIENCE_S)
    assert len([line for line in said if "cannot be written" in line]) == 1


def test_what_takes_no_logs_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with pytest.raises(EngineError, match="takes no logs"):
        fresh_log(tmp_path, "decode-1")


def test_a_process_that_cannot_be_made_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no process could be made for decode-1"):
        spawn_supervised(
            ["true"], environment={}, log_path=tmp_path / "decode-1.log", keep_fds=[10_000_000]
        )


def test_a_companion_that_cannot_be_started_again_just_now_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second start fails, for want of room for its log; the third does not."""
    folder, started = tmp_path / "logs", tmp_path / "started"
    said: list[str] = []
    code = f"import os, time\nopen({str(started)!r}, 'a').write(str(os.getpid()) + ' ')\n"
    command = Companion(
        name="gate",
        line=[sys.executable, "-c", code + "time.sleep(600)"],
        state_dir=tmp_path,
        is_up=started.exists,
        progress=said.append,
        limits=RestartLimits(attempts=100, first_pause_s=0.05, longest_pause_s=0.2),
        start_timeout_s=PATIENCE_S,
    )
    monkeypatch.setattr(companions, "LOOK_S", 600.0)
    with command:
        folder.rename(tmp_path / "kept")
        folder.write_text("a file where the folder should be")
        os.kill(int(started.read_text()), 9)
        wait_for(lambda: any("could not be started" in line for line in said), PATIENCE_S)
        folder.unlink()
        wait_for(lambda: len(started.read_text().split()) == 2, PATIENCE_S)


def test_only_the_newest_logs_of_workers_that_ended_are_kept(tmp_path: Path) -> None:
    names = [f"decode-{i}" for i in range(60)]
    for age, name in enumerate(reversed(names)):
        path = fresh_log(tmp_path, name)
        path.write_text(name)
        os.utime(path, (1_000_000 - age, 1_000_000 - age))
    others = [tmp_path / "logs" / name for name in ("router.log", "gate.log.1", "decode-x.log")]
    for path in others:
        path.write_text("not a worker's")
        os.utime(path, (1, 1))
    drop_logs(tmp_path, running=["decode-0"])
    left = {path.stem for path in (tmp_path / "logs").glob("decode-*.log")}
    assert left == {"decode-0", *names[10:], "decode-x"}
    assert all(path.exists() for path in others)
