"""Load as `serve` sees it at the workers beside what was sent, by windows, in overload too."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.serving.rig import RATE_RPS, TRACE, Say, deployed, load, site, workload
from planner.domain.errors import MeasurementError
from planner.domain.fleet import Role
from planner.domain.workload import ObservedWindow
from planner.service.live.observing import Windows
from serving.fleet.deployment import LocalDeployment
from serving.telemetry.reader import StraightReader
from serving.telemetry.signals import NOT_ASKED, DeploymentSignals
from serving.telemetry.targets import targets_of
from serving.telemetry.whole import deployment_signals
from serving.traffic.load import Replay

WINDOW_S, LOOK_S = 30.0, 5.0
STEADY_S, OVERLOAD_S, AFTER_S = 240.0, 90.0, 60.0
OVERLOAD = 4.0
"""Times the steady rate, for so long that a queue grows."""


@dataclass(slots=True)
class Seen:
    """Windows by the product's rule, and by counting what ended alone."""

    arrived: list[ObservedWindow] = field(default_factory=list)
    ended: list[ObservedWindow] = field(default_factory=list)


def run(folder: Path, say: Say) -> str:
    at = site(folder)
    replays = []
    many = workload(OVERLOAD_S, OVERLOAD * RATE_RPS)
    with (
        deployed(at, (Role.PREFILL, Role.DECODE), say) as (deployment, _steering),
        watching(deployment) as seen,
    ):
        for what, requests, seconds in (
            ("steady", workload(STEADY_S), STEADY_S),
            ("more than it can do", many, OVERLOAD_S),
        ):
            say(what)
            with load(deployment.router.url, at, requests, seed=len(replays)) as running:
                time.sleep(seconds)
            replays.append(running.result())
        time.sleep(AFTER_S)
    return _table(seen, _sent(replays), failed=sum(len(r.failures) for r in replays))


@contextmanager
def watching(deployment: LocalDeployment) -> Iterator[Seen]:
    """Look at the deployment's parts as `serve` does."""
    seen, stopped = Seen(), threading.Event()
    makers = (
        Windows(window_s=WINDOW_S, classes=("default",), keep=seen.arrived.extend),
        Windows(window_s=WINDOW_S, classes=("default",), keep=seen.ended.extend),
    )
    parts = targets_of(deployment.endpoints())
    reader = StraightReader(parts, 5.0, sleep=stopped.wait)

    def look() -> None:
        while not stopped.is_set():
            signals = deployment_signals(reader.read(LOOK_S).targets, looked_at=datetime.now(UTC))
            makers[0].take(signals)
            makers[1].take(without_queues(signals))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stopped.set()
        thread.join()


def without_queues(signals: DeploymentSignals) -> DeploymentSignals:
    """The same, to whoever does not know what waits and runs."""
    roles = tuple(
        replace(role, activity=replace(role.activity, running=NOT_ASKED)) for role in signals.roles
    )
    return replace(signals, roles=roles)


def _sent(replays: list[Replay]) -> list[tuple[datetime, int, int]]:
    """When each request was sent, and its lengths in tokens."""
    now, now_s = datetime.now(UTC), time.perf_counter()
    return [
        (
            now - timedelta(seconds=now_s - timing.sent_at_s),
            timing.input_tokens,
            timing.tokens[-1] if timing.tokens else 0,
        )
        for replay in replays
        for timing in replay.timings
    ]


def _table(seen: Seen, sent: list[tuple[datetime, int, int]], *, failed: int) -> str:
    by_ended = {window.start_at: window for window in seen.ended}
    rows, off, off_ended = [], [], []
    whole = [w for w in seen.arrived if w.start_at >= min(at for at, _, _ in sent)]
    for window in whole:
        own = [one for one in sent if window.start_at <= one[0] < window.end_at]
        ended = by_ended[window.start_at].requests if window.start_at in by_ended else 0
        off.append(abs(window.requests - len(own)))
        off_ended.append(abs(ended - len(own)))
        rows.append(f"| {window.start_at:%H:%M:%S} | {len(own)} | {window.requests} | {ended} |")
    if not rows:
        raise MeasurementError("no window was seen whole")
    inside = [one for one in sent if whole[0].start_at <= one[0] < whole[-1].end_at]
    requests = sum(window.requests for window in whole)
    told = sum(w.input_tokens for w in whole), sum(w.output_tokens for w in whole)
    real = sum(one[1] for one in inside), sum(one[2] for one in inside)
    return "\n".join(
        [
            f"Windows of {WINDOW_S:g} s, a look every {LOOK_S:g} s; {TRACE} at {RATE_RPS:g} "
            f"requests/s, then {OVERLOAD:g} times as many for {OVERLOAD_S:g} s; {failed} failed.",
            "",
            "| window | sent | seen | what ended alone |",
            "|---|---|---|---|",
            *rows,
            "",
            f"Requests a window off: {sum(off) / len(off):.1f} on average, {max(off)} at the most; "
            f"by what ended alone {sum(off_ended) / len(off_ended):.1f} and {max(off_ended)}. All "
            f"windows: {requests} seen of {len(inside)} sent, prompt tokens "
            f"x{told[0] / real[0]:.3f}, answer tokens x{told[1] / real[1]:.3f}.",
        ]
    )
