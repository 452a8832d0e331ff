"""Watching live engines for a while: what each served in every interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.domain.errors import EngineError
from serving.telemetry import Traffic, TrafficReading

ReadTraffic = Callable[[str], TrafficReading]
"""Scrape the engine at a URL; raises EngineError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPlan:
    """How long to watch, and how often to look, seconds."""

    interval_s: float
    for_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """What one engine did between two looks.

    Parameters
    ----------
    seconds : float
    running : float
        Requests in the batch, mean of those looks at which there were any.
    traffic : Traffic
        What was served in it.
    """

    seconds: float
    running: float
    traffic: Traffic


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One engine over the whole watch.

    Parameters
    ----------
    restarts : int
        Times that its counters began anew; those intervals are left out.
    missed : int
        Looks at which it did not answer.
    """

    url: str
    model: str | None
    intervals: tuple[Interval, ...]
    restarts: int
    missed: int


@dataclass(slots=True)
class _Seen:
    """What is known of one engine so far."""

    reading: TrafficReading
    at_s: float
    intervals: list[Interval]
    restarts: int = 0
    missed: int = 0


def watch(
    urls: Sequence[str],
    read: ReadTraffic,
    plan: WatchPlan,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> tuple[Watched, ...]:
    """Look at every engine in turn until the time is over.

    Parameters
    ----------
    clock, sleep : callable
        Monotonic seconds, and waiting.

    Raises
    ------
    EngineError
        When one does not answer, or is no vLLM, at the first or at the last look.
    """
    begun_s = clock()
    seen = {url: _Seen(read(url), clock(), []) for url in urls}
    looks = max(round(plan.for_s / plan.interval_s), 1)
    for look in range(1, looks + 1):
        sleep(max(begun_s + look * plan.interval_s - clock(), 0.0))
        for url, state in seen.items():
            _look(url, state, read, clock, is_last=look == looks)
    return tuple(
        Watched(
            url=url,
            model=state.reading.model,
            intervals=tuple(state.intervals),
            restarts=state.restarts,
            missed=state.missed,
        )
        for url, state in seen.items()
    )


def _look(
    url: str, state: _Seen, read: ReadTraffic, clock: Callable[[], float], *, is_last: bool
) -> None:
    try:
        now, at_s = read(url), clock()
    except EngineError:
        if is_last:
            raise
        state.missed += 1
        return
    before = state.reading
    served = now.total - before.total
    if served.went_back or now.started_at_s != before.started_at_s:
        state.restarts += 1
    else:
        busy = [r.running for r in (before, now) if r.running > 0]
        state.intervals.append(
            Interval(
                seconds=at_s - state.at_s,
                running=sum(busy) / len(busy) if busy else 0.0,
                traffic=served,
            )
        )
    state.reading, state.at_s = now, at_s
