"""Mixed load with a change every minute: memory flat, KV caches empty at the end, no zombie."""

import os
import time
from pathlib import Path

import psutil

from benchmarks.serving.changes import BEFORE_S
from benchmarks.serving.rig import Say, Span, deployed, load, site, timed, workload
from planner.domain.fleet import Role
from serving.fleet.caretaker import Caretaker
from serving.fleet.changes import Changes
from serving.fleet.deployment import LocalDeployment
from serving.fleet.members import WorkerState

SECONDS = 600.0
EVERY_S = 60.0
LEASE_S = 40.0
"""KV caches that nobody fetched are dropped after 30 s."""


def run(folder: Path, say: Say, *, seconds: float = SECONDS) -> str:
    at = site(folder)
    roles = (Role.PREFILL, Role.PREFILL, Role.DECODE)
    memory: list[tuple[float, float, float]] = []
    done: list[Span] = []
    with deployed(at, roles, say) as (deployment, steering), Caretaker(deployment, say):
        requests = workload(seconds + BEFORE_S)
        began = time.monotonic()
        with load(deployment.router.url, at, requests, seed=31) as running:
            while time.monotonic() - began < seconds:
                memory.append((time.monotonic() - began, *_resident(deployment)))
                time.sleep(EVERY_S / 2)
                if len(memory) % 2 == 0:
                    done.append(_change(steering))
                    say(f"{done[-1].what}, {done[-1].took_s:.1f} s")
        replay = running.result()
        time.sleep(LEASE_S)
        usage = [deployment.reading(m.worker).kv_usage_ratio for m in deployment.members]
        memory.append((time.monotonic() - began, *_resident(deployment)))
        zombies = [
            p.pid
            for p in psutil.Process(os.getpid()).children(recursive=True)
            if p.status() == psutil.STATUS_ZOMBIE
        ]
    settled = memory[len(memory) // 3]
    return "\n".join(
        [
            f"{seconds:.0f} s of load, {len(done)} changes; {len(replay.timings)} requests, "
            f"{len(replay.failures)} failed (asked: 0).",
            "",
            "| | at a third | at the end |",
            "|---|---|---|",
            f"| manager and load generator, MiB | {settled[1]:.0f} | {memory[-1][1]:.0f} |",
            f"| router, MiB | {settled[2]:.0f} | {memory[-1][2]:.0f} |",
            "",
            f"KV usage of the workers {LEASE_S:.0f} s after the last answer: "
            f"{', '.join(f'{u:.4f}' for u in usage)} (asked: 0). "
            f"Zombies: {len(zombies)} (asked: 0).",
        ]
    )


def _resident(deployment: LocalDeployment) -> tuple[float, float]:
    own = psutil.Process().memory_info().rss / 2**20
    below = psutil.Process(deployment.router.pid).children(recursive=True)
    return own, sum(p.memory_info().rss for p in below) / 2**20


def _change(steering: Changes) -> Span:
    """Flips the spare worker to and fro."""
    ready = [m for m in steering.deployment.members if m.state is WorkerState.READY]
    by_role = {r: [m.name for m in ready if m.role is r] for r in (Role.PREFILL, Role.DECODE)}
    spare = max(by_role, key=lambda r: len(by_role[r]))
    to = Role.DECODE if spare is Role.PREFILL else Role.PREFILL
    return timed(f"flip {spare} to {to}", lambda: steering.flip(by_role[spare][0], to))
