"""`poolwise deployment` as people use it, with stub engines: up, steer, down, and bad input."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from planner.domain.errors import EngineError
from planner.service.cli.main import run
from serving.fleet.endpoints import read_endpoints
from serving.telemetry.gpus import NO_GPU, read_gpus
from tests.planner.service.examples import write_spec
from tests.planner.service.stubbed import start, write_engine


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(tmp_path / "s"))
    monkeypatch.setenv("POOLWISE_ENGINE_PYTHON", str(write_engine(tmp_path)))
    return dict(os.environ)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A deployment that tests look at and do not change: its folder, and its process."""
    folder = tmp_path_factory.mktemp("running")
    environment = {
        **os.environ,
        "POOLWISE_STATE_DIR": str(folder / "s"),
        "POOLWISE_ENGINE_PYTHON": str(write_engine(folder)),
    }
    process = start(environment, folder, "--standby", "1")
    yield folder, process.pid
    process.kill()
    process.communicate()


@pytest.fixture
def standing(running: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, int]:
    """The commands of this test are for that deployment."""
    folder, _ = running
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(folder / "s"))
    monkeypatch.setenv("POOLWISE_ENGINE_PYTHON", str(folder / "python"))
    return running


@pytest.fixture
def up(environment: dict[str, str], tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(environment, tmp_path, "--standby", "1")
    yield process
    process.kill()
    process.communicate()


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    capsys.readouterr()
    assert run(["deployment", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def workers(capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    return {w["name"]: (w["role"], w["state"]) for w in told(capsys, "list")["workers"]}


def test_first_workers_stand_in_cells_where_they_find_each_other(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start(environment, tmp_path, "--cells", "2", "--decode", "2")
    try:
        listed = told(capsys, "list")
        homes = {w["name"]: w["cell"] for w in listed["workers"]}
        assert homes == dict.fromkeys(("prefill-1", "decode-2", "decode-3"), "cell-0")
        assert [c["lacks"] for c in listed["cells"]] == [[], []]
        assert run(["deployment", "down"]) == 0
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.communicate()


def test_it_is_steered_while_it_runs(
    up: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert workers(capsys) == {
        "prefill-1": ("prefill", "ready"),
        "decode-2": ("decode", "ready"),
        "decode-3": ("decode", "standby"),
    }
    told(capsys, "promote", "decode-3", "prefill")
    told(capsys, "flip", "prefill-1", "decode")
    told(capsys, "add", "decode")
    told(capsys, "remove", "decode-2")
    assert told(capsys, "replace", "--max-num-seqs", "4")["replaced"] == 3
    roles = sorted(role for role, state in workers(capsys).values() if state == "ready")
    assert roles == ["decode", "decode", "prefill"]
    assert run(["deployment", "list"]) == 0
    assert "1 prefill, 2 decode" in capsys.readouterr().out
    assert run(["deployment", "down"]) == 0
    assert up.wait(timeout=20) == 0


def test_a_guard_refuses_with_a_reason(
    standing: tuple[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["deployment", "remove", "prefill-1"]) == 1
    assert "is the last prefill worker of cell local" in capsys.readouterr().err
    assert run(["deployment", "flip", "nobody", "decode"]) == 1
    assert "there is no worker nobody here; there is prefill-1" in capsys.readouterr().err
    assert run(["deployment", "add", "decode", "--cell", "mars"]) == 1
    assert "there is no cell mars here" in capsys.readouterr().err


def test_ctrl_c_ends_it_and_what_it_started(
    environment: dict[str, str], tmp_path: Path, up: subprocess.Popen[str]
) -> None:
    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=20) == 130
    assert not (tmp_path / "s" / "endpoints.json").exists()
    assert not (tmp_path / "s" / "local" / "control.sock").exists()


def test_it_goes_on_when_nobody_reads_what_it_says(
    up: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As in `poolwise deployment up 2>&1 | head`: what dies is replaced all the same."""
    assert up.stderr is not None
    up.stderr.close()
    up.stderr = None
    before = workers(capsys)
    below = psutil.Process(up.pid).children(recursive=True)
    engine = next(p for p in below if any("stub_engine" in part for part in p.cmdline()[:4]))
    engine.kill()
    deadline = time.monotonic() + 120
    while len(set(workers(capsys)) - set(before)) == 0 or len(workers(capsys)) < len(before):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_kept_one_is_back_by_itself_when_its_manager_is_killed(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start(environment, tmp_path, "--keep")
    try:
        first = read_endpoints(tmp_path / "s").pid
        assert first != process.pid
        os.kill(first, signal.SIGKILL)
        until = time.monotonic() + 60
        while not (told_by := answering(tmp_path)) or told_by == first:
            assert time.monotonic() < until
            time.sleep(0.2)
        assert {state for _, state in workers(capsys).values()} == {"ready"}
        process.terminate()
        process.communicate(timeout=30)
        assert process.returncode in (0, 143)
        assert answering(tmp_path) is None
    finally:
        process.kill()


def answering(tmp_path: Path) -> int | None:
    """The manager whose deployment has both workers."""
    try:
        there = read_endpoints(tmp_path / "s")
    except EngineError:
        return None
    return there.pid if len(there.workers) == 2 else None


def test_a_second_one_on_the_same_state_directory_is_refused(
    standing: tuple[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, pid = standing
    assert run(["deployment", "up", "--model", str(folder / "model")]) == 1
    assert f"process {pid}" in capsys.readouterr().err
    assert len(workers(capsys)) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--decode", "0"), "at least one prefill and one decode worker"),
        (("--router", "nginx"), "take one of smg, vllm-router"),
        (("--router", "vllm-router", "--aggregated", "1"), "take --router smg"),
        (("--model", "nowhere"), "neither a folder with a config.json"),
        (("--gpus", "a"), "give indices as in 0,1"),
        (("--prefill-policy", "best"), "take one of least_load, cache_aware"),
        (("--router", "vllm-router", "--decode-policy", "cache_aware"), "by its own policy"),
    ],
)
def test_bad_input_is_told(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str], options: tuple, said: str
) -> None:
    assert run(["deployment", "up", *options]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_role_that_there_is_not_is_told_and_changes_nothing(
    standing: tuple[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    before = workers(capsys)
    for line in (["add", "wizard"], ["flip", "prefill-1", "wizard"]):
        assert run(["deployment", *line]) == 2
        assert "is not one of 'prefill'" in " ".join(capsys.readouterr().err.split())
    assert workers(capsys) == before


def test_a_worker_that_never_becomes_ready_is_given_up_and_the_fleet_unharmed(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = start(environment, tmp_path, "--ready-timeout", "20")
    try:
        before = workers(capsys)
        never = ["replace", "--engine-flag", "--stub-start-s", "--engine-flag", "600"]
        assert run(["deployment", *never]) == 1
        said = capsys.readouterr().err
        assert "0 of 2 workers were replaced" in said
        assert "was not ready within 20 s; its whole log is" in said
        assert workers(capsys) == before
    finally:
        process.kill()
        process.communicate()


def test_a_port_that_is_taken_is_told_before_anything_starts(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
        line = ["deployment", "up", "--model", str(tmp_path / "model"), "--cores", "0"]
        assert run([*line, "--port", port]) == 1
    said = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1, wanted for the router, is taken" in said
    assert "are starting" not in said


def test_a_port_of_the_gate_that_is_taken_is_told_before_anything_starts(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = ["--gate", "--anonymous", "--spec", str(write_spec(tmp_path))]
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = str(held.getsockname()[1])
        line = ["deployment", "up", "--model", str(tmp_path / "model"), "--cores", "0"]
        assert run([*line, *spec, "--gate-port", port]) == 1
    said = capsys.readouterr().err
    assert f"port {port} of 127.0.0.1, wanted for the gate (--gate-port), is taken" in said
    assert "are starting" not in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--port", "9001", "--gate-port", "9001"), "--port and --gate-port are both 9001"),
        (
            ("--port", "9001", "--gate-port", "9002", "--cells", "2"),
            "--gate-port 9002 is the port of the router of cell",
        ),
        (("--port", "65535", "--cells", "2"), "there is none above 65535"),
        (("--name", "other"), "lets requests for tiny through"),
    ],
)
def test_a_gate_that_could_not_work_is_told_before_anything_starts(
    environment: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    said: str,
) -> None:
    spec = ["--gate", "--anonymous", "--spec", str(write_spec(tmp_path))]
    line = ["deployment", "up", "--model", str(tmp_path / "model"), "--cores", "0"]
    assert run([*line, *spec, *more]) == 2
    told_text = " ".join(capsys.readouterr().err.split())
    assert said in told_text
    assert "are starting" not in told_text


def test_a_deployment_that_was_stopped_is_told_and_not_waited_for(
    up: subprocess.Popen[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.fleet.control.ANSWERS_S", 1.0)
    up.send_signal(signal.SIGSTOP)
    try:
        for command in (["list"], ["down"], ["add", "decode"]):
            assert run(["deployment", *command]) == 1
            assert "does not answer within 1 s" in capsys.readouterr().err
    finally:
        up.send_signal(signal.SIGCONT)


def test_a_missing_router_is_told_before_anything_starts(
    environment: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.routers.process.find_spec", lambda _package: None)
    line = ["deployment", "up", "--model", str(tmp_path / "model"), "--cores", "0"]
    assert run(line) == 1
    said = capsys.readouterr().err
    assert "the router smg is not installed: pip install 'poolwise[serve]'" in said
    assert "are starting" not in said


def test_a_worker_that_dies_at_its_start_ends_all_with_its_log(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    line = ["deployment", "up", "--model", str(tmp_path / "model"), "--cores", "0"]
    assert run([*line, "--engine-flag", "--stub-dies"]) == 1
    assert "RuntimeError: told to die" in capsys.readouterr().err
    assert time.monotonic() - began < 60
    assert not (tmp_path / "s" / "endpoints.json").exists()


def test_without_a_deployment_the_way_to_one_is_told(
    environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["deployment", "list"]) == 1
    assert "poolwise deployment up" in capsys.readouterr().err


def test_manifests_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deploy"
    line = ["deployment", "render", "--model", "org/m", "--out", str(out)]
    assert run(line) == 0
    assert {p.name for p in out.iterdir()} == {
        "access.yaml",
        "cell-local.yaml",
        "kustomization.yaml",
    }
    assert run([*line, "--target", "nomad"]) == 2
    assert run([*line, "--namespace", "No_Name"]) == 2


@pytest.mark.skipif(read_gpus() != NO_GPU, reason="this machine has an NVIDIA driver")
def test_gpus_without_a_driver_are_refused_before_anything_starts(
    environment: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["deployment", "up", "--model", str(tmp_path / "model"), "--gpus", "0,1"]
    assert run(line) == 2
    assert "--gpus 0,1: this machine has no NVIDIA driver" in capsys.readouterr().err
    assert not (tmp_path / "s" / "local").exists()
