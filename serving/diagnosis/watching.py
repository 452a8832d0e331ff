"""Looking at live targets several times, for a diagnosis."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from planner.domain.fleet import Role
from serving.diagnosis.pool import LEAST_LOOKS
from serving.diagnosis.watched import Look as Moment
from serving.diagnosis.watched import Watch, WatchedWorker, Yardsticks, look_of
from serving.telemetry.signals import TargetKind, TargetSignals
from serving.telemetry.targets import Look, Target, look, signals_of

DEADLINE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchPlan:
    """How long to watch, and how often to look, seconds."""

    for_s: float = 20.0
    every_s: float = 0.5


def watch(
    targets: Sequence[Target],
    plan: WatchPlan,
    yardsticks: Yardsticks,
    *,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Watch:
    """Look at all targets until the time is over, and at least as often as a judgement needs.

    Parameters
    ----------
    clock, sleep : callable
        Monotonic seconds, and waiting.
    """
    begun_s = clock()
    series: list[tuple[Look, ...]] = [look(targets, deadline_s=DEADLINE_S)]
    while clock() - begun_s < plan.for_s or len(series) <= LEAST_LOOKS:
        sleep(max(begun_s + len(series) * plan.every_s - clock(), 0.0))
        series.append(look(targets, deadline_s=DEADLINE_S))
    of_each = tuple(zip(*series, strict=True))
    return watch_of(of_each, seconds=clock() - begun_s, yardsticks=yardsticks)


def watch_of(of_each: Sequence[Sequence[Look]], *, seconds: float, yardsticks: Yardsticks) -> Watch:
    """What looks at several targets come to.

    Parameters
    ----------
    of_each : sequence of sequence of Look
        Those at each target, oldest first.
    seconds : float
        From the first to the last.
    """
    workers: list[WatchedWorker] = []
    fronts: list[TargetSignals] = []
    for looks in of_each:
        answered = [one for one in looks if one.page is not None]
        first = answered[0] if answered and answered[0] is not looks[-1] else None
        whole = signals_of(first, looks[-1])
        if whole.kind is TargetKind.ENGINE:
            moments = (look_of(signals_of(None, one)) for one in answered)
            workers.append(
                WatchedWorker(
                    role=whole.role or Role.AGGREGATED,
                    signals=whole,
                    looks=tuple(m for m in moments if isinstance(m, Moment)),
                )
            )
        elif whole.kind in (TargetKind.GATE, TargetKind.ROUTER):
            fronts.append(whole)
    return Watch(
        seconds=seconds, workers=tuple(workers), front=_front(fronts), yardsticks=yardsticks
    )


def _front(fronts: Sequence[TargetSignals]) -> TargetSignals | None:
    """The gate, else the router, of those that tell times to first token."""
    telling = [f for f in fronts if f.answers and f.activity.ttft.mean_s.known]
    gates = [f for f in telling if f.kind is TargetKind.GATE]
    best = gates or telling
    return best[0] if best else None
