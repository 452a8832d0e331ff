"""kill -9 of each part under load through the gate: what failed, when service was whole again."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil

from benchmarks.serving.gate import spec_for
from benchmarks.serving.rig import (
    Say,
    deployed,
    ended_s,
    kill_below,
    kinds_of,
    load,
    site,
    workload,
)
from planner.domain.errors import MeasurementError, PoolwiseError
from planner.domain.fleet import Role
from planner.service.fleet.deploying import gate
from planner.service.fleet.gate import GateOptions
from serving.fleet.caretaker import Caretaker
from serving.fleet.companion import Companion
from serving.fleet.deployment import LocalDeployment
from serving.fleet.endpoints import Endpoints, read_endpoints
from serving.fleet.members import WorkerState
from serving.traffic.load import Replay
from serving.workers.processes import MARKER, free_ports

SETTLE_S = 15.0
AFTER_S = 15.0
PATIENCE_S = 600.0
"""A start takes minutes where the machine has other work."""
RATE_RPS = 1.5
PARTS = ("prefill", "decode", "router", "gate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Killing:
    """One kill and what came of it."""

    part: str
    in_flight: int
    failed_in_flight: int
    failed_after: int
    sent: int
    errors: str
    answers_again_s: float
    whole_again_s: float

    def row(self) -> str:
        return (
            f"| {self.part} | {self.sent} | {self.in_flight} | {self.failed_in_flight} | "
            f"{self.failed_after} | {self.errors} | {self.answers_again_s:.1f} | "
            f"{self.whole_again_s:.1f} |"
        )


def run(folder: Path, say: Say) -> str:
    at = replace(site(folder), endpoints_dir=folder)  # where the gate looks
    with deployed(at, (Role.PREFILL, Role.DECODE), say) as (deployment, steering):
        steering.add(Role.DECODE, standby=True, say=say)
        options = GateOptions(
            spec=spec_for(folder),
            port=0,
            anonymous=True,
            admission=False,
            direct=False,  # every request takes both workers
        )
        with Caretaker(deployment, say), gate(deployment, options) as front:
            assert front is not None
            killings = [_kill(deployment, front, part, say) for part in PARTS]
    launcher = _kill_launcher(folder, say)
    lines = [
        f"1 prefill, 1 decode, 1 standby under {RATE_RPS:g} requests/s through the gate (no "
        "admission, no direct way). In flight: sent before "
        "the kill and not ended by then.",
        "",
        "| killed | sent | in flight | of them failed | failed, sent later (asked: 0) | as | "
        "first answer of a later request, s | whole again, s |",
        "|---|---|---|---|---|---|---|---|",
        *(k.row() for k in killings),
        "",
        launcher,
    ]
    return "\n".join(lines)


def _kill(deployment: LocalDeployment, front: Companion, part: str, say: Say) -> Killing:
    def kill() -> None:
        if part == "gate":
            kill_below(front.pid)
            return
        if part == "router":
            kill_below(deployment.router.pid)
            return
        (member,) = [
            m for m in deployment.members if m.role.value == part and m.state is WorkerState.READY
        ]
        kill_below(deployment.launcher.process_of(member.worker)[0])

    def whole() -> bool:
        (cell,) = deployment.cells()
        known = deployment.router.workers() if deployment.router.is_alive() else ()
        here = (cell.prefill, cell.decode, cell.standby) == (1, 1, 1) and len(known) == 2
        return here and front.is_up()

    # The kill before took the standby: the next one is to find another that has started.
    _wait(lambda: any(m.state is WorkerState.STANDBY for m in deployment.members))
    requests = workload(SETTLE_S + PATIENCE_S + AFTER_S, RATE_RPS)
    seed = sum(map(ord, part))
    url = deployment.endpoints().gate
    assert url is not None
    with load(url, deployment.site, requests, seed) as running:
        time.sleep(SETTLE_S)
        killed_s = time.perf_counter()
        kill()
        say(f"killed {part}")
        time.sleep(1.0)
        whole_s = _wait(whole) - killed_s
        say(f"whole again after {whole_s:.1f} s")
        time.sleep(AFTER_S)
    judged = _judged(part, running.result(), killed_s, whole_s)
    say(judged.row())  # kept, should a later part break off
    return judged


def _judged(part: str, replay: Replay, killed_s: float, whole_s: float) -> Killing:
    timings = replay.timings
    in_flight = [
        t for t in timings if t.sent_at_s <= killed_s and (t.error or ended_s(t) > killed_s)
    ]
    later = [t for t in timings if t.sent_at_s > killed_s]
    failed = [t.error for t in (*in_flight, *later) if t.error]
    answered = [ended_s(t) for t in later if not t.error]
    return Killing(
        part=part,
        in_flight=len(in_flight),
        failed_in_flight=sum(1 for t in in_flight if t.error),
        failed_after=sum(1 for t in later if t.error),
        sent=len(timings),
        errors=kinds_of(failed),
        answers_again_s=min(answered, default=float("nan")) - killed_s,
        whole_again_s=whole_s,
    )


def _wait(condition: Callable[[], bool]) -> float:
    deadline = time.perf_counter() + PATIENCE_S
    while time.perf_counter() < deadline:
        with suppress(PoolwiseError):
            if condition():
                return time.perf_counter()
        time.sleep(0.1)
    raise MeasurementError(f"the deployment was not whole again after {PATIENCE_S:.0f} s")


def _kill_launcher(folder: Path, say: Say) -> str:
    """The manager itself: everything below it ends with it, and `--keep` starts it again."""
    state = folder / "launcher"
    state.mkdir(parents=True, exist_ok=True)
    models = Path(os.environ["POOLWISE_STATE_DIR"]) / "models"
    if not (state / "models").exists():
        (state / "models").symlink_to(models)
    line = [sys.executable, "-m", "planner.service.cli.main", "deployment", "up", "--keep"]
    line += ["--spec", str(spec_for(folder)), "--gate", "--anonymous"]
    line += ["--gate-port", str(free_ports(1)[0])]
    with (state / "up.log").open("ab") as log:
        keeper = subprocess.Popen(
            line, env={**os.environ, "POOLWISE_STATE_DIR": str(state)}, stdout=log, stderr=log
        )
    try:
        first = _serving(keeper, state, other_than=0)
        requests = workload(SETTLE_S + PATIENCE_S + AFTER_S, RATE_RPS)
        assert first.gate is not None
        with load(first.gate, site(folder), requests, seed=5) as running:
            time.sleep(SETTLE_S)
            below = _marked(state)
            killed_s = time.perf_counter()
            os.kill(first.pid, signal.SIGKILL)
            say("killed the launcher")
            while set(below) & set(_marked(state)):
                time.sleep(0.1)
            gone_s = time.perf_counter() - killed_s
            _serving(keeper, state, other_than=first.pid)
            back_s = time.perf_counter()
            time.sleep(AFTER_S)
        keeper.terminate()
        status = keeper.wait(timeout=60)
    finally:
        keeper.kill()
    return _launcher_text(running.result(), killed_s, back_s, gone_s) + (
        f" SIGTERM ended it with status {status}, {len(_marked(state))} processes left."
    )


def _launcher_text(replay: Replay, killed_s: float, back_s: float, gone_s: float) -> str:
    failed = [t for t in replay.timings if t.error]
    in_flight = sum(1 for t in failed if t.sent_at_s <= killed_s)
    meanwhile = sum(1 for t in failed if killed_s < t.sent_at_s <= back_s)
    after = sum(1 for t in failed if t.sent_at_s > back_s)
    return (
        f"kill -9 of the launcher (`poolwise deployment up --keep --gate`, 1P1D) under the same "
        f"load: all its processes gone after {gone_s:.1f} s, service back by itself after "
        f"{back_s - killed_s:.0f} s; of {len(replay.timings)} requests {in_flight} failed in "
        f"flight, {meanwhile} while nothing served, {after} after that (asked: 0)."
    )


def _serving(keeper: "subprocess.Popen[bytes]", state: Path, *, other_than: int) -> Endpoints:
    """Where a new manager's deployment answers, once its workers and its gate do."""
    deadline = time.perf_counter() + PATIENCE_S
    while time.perf_counter() < deadline:
        if keeper.poll() is not None:
            raise MeasurementError((state / "up.log").read_text()[-800:])
        with suppress(PoolwiseError, httpx.HTTPError):
            told = read_endpoints(state)
            whole = told.pid != other_than and len(told.workers) == 2 and told.gate is not None
            if whole and httpx.get(f"{told.gate}/readyz", timeout=5.0).status_code == 200:
                return told
        time.sleep(0.2)
    raise MeasurementError(f"the launcher's deployment did not serve within {PATIENCE_S:.0f} s")


def _marked(state: Path) -> list[int]:
    marker = f"{MARKER}={(state / 'local').resolve()}".encode()
    found = []
    for pid in psutil.pids():
        with suppress(OSError):
            if marker in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(pid)
    return found
