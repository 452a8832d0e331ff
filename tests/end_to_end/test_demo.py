"""`poolwise demo` as a user runs it: real engines, real traffic, three kinds of it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pytest

from forecaster.readers import TraceFormat
from forecaster.writers import write_trace
from planner.domain.workload import Workload
from serving.workers.processes import MARKER

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

WINDOW_S = 25


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of traffic: lengths around a mean, at a steady pace."""

    input_tokens: int
    output_tokens: int
    request_rate_rps: float


PROMPT_HEAVY = Kind(input_tokens=700, output_tokens=6, request_rate_rps=20)
OUTPUT_HEAVY = Kind(input_tokens=40, output_tokens=150, request_rate_rps=20)
IDLE = Kind(input_tokens=150, output_tokens=10, request_rate_rps=0.2)


def write_kind(kind: Kind, path: Path, duration_s: float = 900.0) -> Path:
    rng = np.random.default_rng(5)
    count = int(kind.request_rate_rps * duration_s)
    arrivals = np.sort(rng.uniform(0, duration_s, count))

    def around(mean: int) -> np.ndarray:
        return np.maximum(rng.normal(mean, mean / 5, count).astype(np.int64), 1)

    workload = Workload(
        start_at=datetime(2026, 1, 1, tzinfo=UTC),
        arrival_offset_s=arrivals,
        input_tokens=around(kind.input_tokens),
        output_tokens=around(kind.output_tokens),
        cached_tokens=np.zeros(count, dtype=np.int64),
        request_class=np.full(count, "default"),
        duration_s=duration_s,
    )
    write_trace(workload, path, TraceFormat.AZURE)
    return path


def demo_command(out: Path, *options: str | Path) -> list[str]:
    line = [sys.executable, "-m", "planner.service.cli.main", "demo", "--yes", "--out", str(out)]
    return [*line, "--window-s", str(WINDOW_S), *map(str, options)]


def demo_environment(state_dir: Path) -> dict[str, str]:
    return {**os.environ, "POOLWISE_STATE_DIR": str(state_dir), "PYTHONUNBUFFERED": "1"}


def run_demo(state_dir: Path, out: Path, *options: str | Path) -> dict:
    done = subprocess.run(
        demo_command(out, *options),
        env=demo_environment(state_dir),
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    assert engine_processes(state_dir) == []
    return json.loads((out / "summary.json").read_text())


def engine_processes(state_dir: Path) -> list[int]:
    marker = f"{MARKER}={(state_dir / 'local').resolve()}".encode()
    found = []
    for pid in psutil.pids():
        try:
            with Path(f"/proc/{pid}/environ").open("rb") as file:
                if marker in file.read().split(b"\0"):
                    found.append(pid)
        except OSError:
            continue
    return found


def planned(summary: dict) -> dict[str, int]:
    pools = summary["plan"]["windows"][0]["pools"]
    return {p["role"]: p["replicas"] for p in pools}


@pytest.fixture(scope="module")
def prompt_heavy_out(state_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a whole run; its profile spares the other runs their sweep."""
    folder = tmp_path_factory.mktemp("prompt-heavy")
    trace = write_kind(PROMPT_HEAVY, folder / "trace.csv")
    run_demo(state_dir, folder / "out", "--trace", trace)
    return folder / "out"


@pytest.fixture(scope="module")
def profile(prompt_heavy_out: Path) -> Path:
    return prompt_heavy_out / "profile.json"


def test_prompt_heavy_traffic_gets_more_prefill(prompt_heavy_out: Path) -> None:
    summary = json.loads((prompt_heavy_out / "summary.json").read_text())
    assert planned(summary) == {"prefill": 2, "decode": 1}
    assert summary["before"]["fleet"] == {"prefill": 1, "decode": 1}
    assert summary["after"]["fleet"] == {"prefill": 2, "decode": 1}
    assert [s["kind"] for s in summary["steps_applied"]] == ["start", "route"]
    assert summary["requests_during_rollout"] > 0
    assert summary["failed_during_rollout"] == 0
    for window in (summary["before"], summary["after"]):
        assert window["kv_tokens_transferred"] > 0
        assert window["prompt_tokens_computed_by_decode"] == 0
        assert window["prefill_tokens_per_s"] > 0
        assert window["decode_tokens_per_s"] > 0
    assert summary["attainment_rose"] or len(summary["verdict"]) > 1
    page = (prompt_heavy_out / "report.html").read_text()
    assert "plotly" in page.lower()
    assert 'src="http' not in page


def test_output_heavy_traffic_gets_more_decode_by_a_flip(
    state_dir: Path, tmp_path: Path, profile: Path
) -> None:
    trace = write_kind(OUTPUT_HEAVY, tmp_path / "trace.csv")
    options = ("--trace", trace, "--start-fleet", "2P1D", "--profile", profile)
    summary = run_demo(state_dir, tmp_path / "out", *options)
    assert planned(summary) == {"prefill": 1, "decode": 2}
    assert "flip" in [s["kind"] for s in summary["steps_applied"]]
    assert summary["after"]["fleet"] == {"prefill": 1, "decode": 2}
    assert summary["failed_during_rollout"] == 0


def test_idle_traffic_leaves_the_fleet_alone(
    state_dir: Path, tmp_path: Path, profile: Path
) -> None:
    trace = write_kind(IDLE, tmp_path / "trace.csv")
    summary = run_demo(state_dir, tmp_path / "out", "--trace", trace, "--profile", profile)
    assert summary["steps_applied"] == []
    assert summary["after"]["fleet"] == {"prefill": 1, "decode": 1}


AS_AT_A_TERMINAL = ("env", "--default-signal=INT,HUP")
"""Undoes what a shell's `&` and nohup leave behind: both signals ignored in all children."""


def interrupt(
    state_dir: Path, tmp_path: Path, *options: str | Path, stage: str, number: signal.Signals
) -> tuple[int, float]:
    """Run the demo until it announces a stage, send a signal, and time the end of all it began."""
    out = tmp_path / "out"
    log = tmp_path / "log"
    trace = write_kind(IDLE, tmp_path / "trace.csv")
    with log.open("w") as file:
        process = subprocess.Popen(
            [*AS_AT_A_TERMINAL, *demo_command(out, "--trace", trace, *options)],
            env=demo_environment(state_dir),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    while f"({stage})" not in log.read_text() or len(engine_processes(state_dir)) < 4:
        assert process.poll() is None, log.read_text()
        time.sleep(0.2)
    time.sleep(1.0)
    process.send_signal(number)
    sent_s = time.monotonic()
    status = process.wait(timeout=30)
    while engine_processes(state_dir):
        assert time.monotonic() - sent_s < 30
        time.sleep(0.1)
    took_s = time.monotonic() - sent_s
    assert "Traceback" not in log.read_text()
    return status, took_s


@pytest.mark.parametrize(
    ("stage", "number", "status"),
    [
        ("a", signal.SIGINT, 130),
        ("a", signal.SIGTERM, 143),
        ("a", signal.SIGHUP, 129),
        ("a", signal.SIGKILL, -9),
        ("b", signal.SIGINT, 130),
    ],
)
def test_no_process_outlives_a_demo_interrupted_while_it_sets_up(
    state_dir: Path, tmp_path: Path, stage: str, number: signal.Signals, status: int
) -> None:
    check_interrupted(state_dir, tmp_path, stage=stage, number=number, status=status)


def test_no_process_outlives_a_demo_killed_while_it_replays(
    state_dir: Path, tmp_path: Path, profile: Path
) -> None:
    options = ("--profile", profile)
    number = signal.SIGKILL
    check_interrupted(state_dir, tmp_path, *options, stage="d", number=number, status=-9)


def check_interrupted(
    state_dir: Path,
    tmp_path: Path,
    *options: str | Path,
    stage: str,
    number: signal.Signals,
    status: int,
) -> None:
    got, took_s = interrupt(state_dir, tmp_path, *options, stage=stage, number=number)
    assert got == status
    assert took_s < 30  # 5 to 7 s on an idle machine; this one is shared
    assert not (tmp_path / "out" / "summary.json").exists()
    if number is not signal.SIGKILL:
        assert list((tmp_path / "out").glob("*")) == []
