"""Changes at random under a replayed trace: nothing may fail, streams may hardly slow down."""

import random
import time
from pathlib import Path

from benchmarks.serving.rig import (
    RATE_RPS,
    TRACE,
    Say,
    Span,
    deployed,
    gaps_within,
    load,
    p95_ms,
    site,
    timed,
    workload,
)
from planner.domain.errors import MeasurementError
from planner.domain.fleet import Role
from serving.fleet.changes import Changes
from serving.fleet.members import WorkerState

CHANGES = 20
BEFORE_S = 60.0
PAUSE_S = 5.0
MOST_WORKERS = 3
KINDS = ("add", "remove", "flip")


def run(folder: Path, say: Say, *, changes: int = CHANGES) -> str:
    rng = random.Random(1)
    at = site(folder)
    roles = (Role.PREFILL, Role.PREFILL, Role.DECODE)
    with deployed(at, roles, say) as (deployment, steering):
        requests = workload(BEFORE_S + changes * 120.0)
        with load(deployment.router.url, at, requests, seed=11) as running:
            time.sleep(5.0)
            quiet = timed("before", lambda: time.sleep(BEFORE_S))
            done = []
            for number in range(changes):
                span = one_change(steering, rng, number)
                say(f"{number + 1}/{changes}: {span.what}, {span.took_s:.1f} s")
                done.append(span)
                time.sleep(PAUSE_S)
        replay = running.result()
        moved = [deployment.reading(m.worker).counters for m in deployment.members]
    if len(replay.timings) < changes:
        raise MeasurementError(f"only {len(replay.timings)} requests were sent")
    before_ms = p95_ms(gaps_within(replay, [quiet]))
    lines = [
        f"{changes} changes at random (seed 1) of at most {MOST_WORKERS} workers under "
        f"{RATE_RPS:g} requests/s of {TRACE}; p95 ITL before: {before_ms:.0f} ms over "
        f"{quiet.took_s:.0f} s.",
        "",
        "| change | times | mean, s | longest, s | p95 ITL, ms | over before (asked: <= 1.2) |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        spans = [s for s in done if s.what.startswith(kind)]
        if spans:
            took = [s.took_s for s in spans]
            during_ms = p95_ms(gaps_within(replay, spans))
            lines.append(
                f"| {kind} | {len(spans)} | {sum(took) / len(took):.1f} | {max(took):.1f} | "
                f"{during_ms:.0f} | {during_ms / before_ms:.2f} |"
            )
    transferred = sum(c.prompt_tokens_transferred for c in moved)
    failed = list(replay.failures)
    lines += [
        "",
        f"Requests: {len(replay.timings)}, failed or truncated: {len(failed)} (asked: 0)"
        + (f": {failed[:3]}" if failed else "")
        + f". Prompt tokens moved to workers still there: {transferred:,.0f}; failed transfers "
        f"{sum(c.failed_transfers for c in moved):.0f}.",
    ]
    return "\n".join(lines)


def one_change(steering: Changes, rng: random.Random, number: int) -> Span:
    """One change that leaves a pair."""
    ready = [m for m in steering.deployment.members if m.state is WorkerState.READY]
    count = {r: sum(1 for m in ready if m.role is r) for r in (Role.PREFILL, Role.DECODE)}
    if len(ready) < MOST_WORKERS:
        role = rng.choice((Role.PREFILL, Role.DECODE))
        return timed(f"add {role}", lambda: steering.add(role))
    spare = next(r for r, n in count.items() if n > 1)
    name = rng.choice([m.name for m in ready if m.role is spare])
    # Removing costs a start afterwards; every third change or so.
    if rng.random() < 0.35 and number:
        return timed(f"remove {spare}", lambda: steering.remove(name))
    to = Role.DECODE if spare is Role.PREFILL else Role.PREFILL
    return timed(f"flip {spare} to {to}", lambda: steering.flip(name, to))
