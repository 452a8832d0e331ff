"""Mixed load through the gate, changes every minute: memory flat, no KV held, no zombie."""

import os
import random
import time
from dataclasses import replace
from pathlib import Path

import psutil

from benchmarks.serving.changes import BEFORE_S, one_change
from benchmarks.serving.gate import spec_for
from benchmarks.serving.rig import Say, Span, deployed, load, site, workload
from planner.domain.errors import EngineError
from planner.domain.fleet import Role
from planner.service.fleet.deploying import gate
from planner.service.fleet.gate import GateOptions
from serving.fleet.caretaker import Caretaker
from serving.fleet.deployment import LocalDeployment

SECONDS = 600.0
EVERY_S = 60.0
LEASE_S = 40.0
"""KV caches that nobody fetched are dropped after 30 s."""


Resident = tuple[float, float, float]
"""MiB: manager with load generator, router, gate."""


def run(folder: Path, say: Say, *, seconds: float = SECONDS) -> str:
    rng = random.Random(2)
    at = replace(site(folder), endpoints_dir=folder)
    options = GateOptions(spec=spec_for(folder), port=0, anonymous=True, admission=False)
    roles = (Role.PREFILL, Role.PREFILL, Role.DECODE)
    memory: list[Resident] = []
    done: list[Span] = []
    refused: list[str] = []
    with (
        deployed(at, roles, say) as (deployment, steering),
        Caretaker(deployment, say),
        gate(deployment, options),
    ):
        began = time.monotonic()
        requests = workload(seconds + BEFORE_S)
        with load(str(deployment.endpoints().gate), at, requests, seed=31) as running:
            while (left := began + seconds - time.monotonic()) > 0:
                memory.append(_resident(deployment))
                number = len(done) + len(refused)
                pause = number * EVERY_S + EVERY_S / 2 - (seconds - left)
                time.sleep(min(max(pause, 1.0), left))
                try:
                    done.append(one_change(steering, rng, len(done)))
                except EngineError as error:  # the fleet goes on as it was
                    refused.append(str(error).partition("\n")[0])
                    say(f"no change: {refused[-1]}")
                else:
                    say(f"{done[-1].what}, {done[-1].took_s:.1f} s; MiB {_said(memory[-1])}")
        replay = running.result()
        time.sleep(LEASE_S)
        usage = [deployment.reading(m.worker).kv_usage_ratio for m in deployment.members]
        memory.append(_resident(deployment))
        zombies = [p.pid for p in _below() if p.status() == psutil.STATUS_ZOMBIE]
    settled = memory[len(memory) // 3]
    rows = zip(("manager and load generator", "router", "gate"), settled, memory[-1], strict=True)
    kinds = [s.what.split()[0] for s in done]
    return "\n".join(
        [
            f"{seconds:.0f} s of load through the gate, {len(done)} changes "
            f"({', '.join(f'{kinds.count(k)} {k}' for k in sorted(set(kinds)))}); "
            f"{len(replay.timings)} requests, {len(replay.failures)} failed (asked: 0).",
            *(f"A change was not made, and the fleet went on: {why}" for why in refused),
            "",
            "| MiB | at a third | at the end |",
            "|---|---|---|",
            *(f"| {name} | {before:.0f} | {after:.0f} |" for name, before, after in rows),
            "",
            f"KV usage of the workers {LEASE_S:.0f} s after the last answer: "
            f"{', '.join(f'{u:.4f}' for u in usage)} (asked: 0). "
            f"Zombies: {len(zombies)} (asked: 0).",
        ]
    )


def _resident(deployment: LocalDeployment) -> Resident:
    own = psutil.Process().memory_info().rss / 2**20
    router = _sum_mib(psutil.Process(deployment.router.pid).children(recursive=True))
    gates = [p for p in _below() if _is_gate(p)]
    return own, router, _sum_mib(gates)


def _said(memory: Resident) -> str:
    return ", ".join(f"{one:.0f}" for one in memory)


def _below() -> list[psutil.Process]:
    return psutil.Process(os.getpid()).children(recursive=True)


def _is_gate(process: psutil.Process) -> bool:
    try:
        line = process.cmdline()
    except psutil.NoSuchProcess:
        return False
    return "--listen-fd" in line and not process.children()


def _sum_mib(processes: list[psutil.Process]) -> float:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20
