"""How long the slow decision takes, over a whole trace, and what a plan's memory spares.

    python -m benchmarks.bench_decision [--case azure-conv] [--setting qwen-60] [--promise 0.99]
        [--level 0.5] [--slowest 12]

Poolwise's policy steers the deployment of `benchmarks.closed_loop` through a workload in the twin.
Printed are the mean and the longest processor seconds of `decide`, one deployment on one core.
The slowest decisions are then made again from the same inputs, as they are and the old way: without
what a plan remembers of the twin's answers, and with every window of refuted proposals replayed.
Both must make the same plans.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from statistics import mean
from time import process_time
from typing import Protocol

from benchmarks.closed_loop import in_twin
from benchmarks.closed_loop.compare import setting_of
from benchmarks.closed_loop.production import Tuning, production
from benchmarks.closed_loop.settings import SETTINGS
from benchmarks.closed_loop.workloads import CASES, before_of, workload_of
from planner.autoscale import Decision, decide
from planner.autoscale.backtest import first_fleet
from planner.domain.fleet import Fleet
from planner.domain.forecast import Forecast
from planner.domain.spec import Spec
from planner.optimize import prove, rounds
from planner.optimize.problem import Problem
from planner.optimize.proposal import Round
from planner.optimize.rounds import MOST_DOUBTED, Slos, replayed
from planner.optimize.solution import Solution
from planner.rollout import GuardConditions
from planner.service.answers.autoscaling import own_policy


class Again(Protocol):
    """A decision that can be made again."""

    def __call__(self) -> Decision:
        """Make it."""


@dataclass(slots=True)
class Watched:
    """In the place of `decide`: the same, and what it took."""

    seconds: list[float] = field(default_factory=list)
    again: list[Again] = field(default_factory=list)

    def __call__(
        self,
        spec: Spec,
        forecast: Forecast,
        fleet: Fleet,
        *,
        now: datetime,
        conditions: GuardConditions | None = None,
        compare_unchanged: bool = True,
    ) -> Decision:
        again = partial(
            decide,
            spec,
            forecast,
            fleet,
            now=now,
            conditions=conditions,
            compare_unchanged=compare_unchanged,
        )
        self.again.append(again)
        made, seconds = timed(again)
        self.seconds.append(seconds)
        return made

    def slowest(self, count: int) -> list[Again]:
        """Those that took longest."""
        order = sorted(range(len(self.again)), key=lambda i: -self.seconds[i])
        return [self.again[i] for i in order[:count]]


def timed(make: Again) -> tuple[Decision, float]:
    """A decision and its processor seconds."""
    began = process_time()
    made = make()
    return made, process_time() - began


@contextmanager
def replaced(places: Sequence[tuple[object, str, object]]) -> Iterator[None]:
    """Other functions for a while: (module, name, function)."""
    before = [getattr(module, name) for module, name, _ in places]
    for module, name, function in places:
        setattr(module, name, function)
    try:
        yield
    finally:
        for (module, name, _), own in zip(places, before, strict=True):
            setattr(module, name, own)


def whole(
    spec: Spec,
    forecast: Forecast,
    problem: Problem,
    solution: Solution,
    slos: Slos,
    *,
    most_doubted: int = MOST_DOUBTED,
    until_refuted: bool = False,  # noqa: ARG001 (that is the old way)
) -> Round:
    """Replays that do not stop at the first window that is refuted."""
    return replayed(spec, forecast, problem, solution, slos, most_doubted=most_doubted)


def watch(case_name: str, setting_name: str, tuning: Tuning) -> Watched:
    """Steer through a workload; every slow tick is watched."""
    case, watched = CASES[case_name], Watched()
    setting, workload = setting_of(SETTINGS[setting_name], case), workload_of(case.name)
    policy = production(setting, tuning, warm_s=case.warm_s, before=before_of(case.name))
    first = first_fleet(setting.pair, workload, warm_s=case.warm_s)
    with replaced([(own_policy, "decide", watched)]):
        in_twin.replay(setting, workload, policy, first=first)
    return watched


def old_way() -> list[tuple[object, str, object]]:
    """Nothing is remembered, and no replay spared."""
    return [
        (prove, "remembering", nullcontext),
        (prove, "replayed", whole),
        (rounds, "replayed", whole),
    ]


def main() -> int:
    """Print the table; 1 where the two ways make different plans."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--case", default="azure-conv", choices=list(CASES))
    parser.add_argument("--setting", default="qwen-60", choices=list(SETTINGS))
    parser.add_argument("--promise", type=float, default=0.99)
    parser.add_argument("--level", type=float, default=0.5)
    parser.add_argument("--slowest", type=int, default=12)
    asked = parser.parse_args()
    tuning = Tuning(attainment_ratio=asked.promise, demand_level=asked.level)
    watched = watch(asked.case, asked.setting, tuning)
    seconds = watched.seconds
    what = f"{asked.case}, {asked.setting}, promise {asked.promise:.0%} at q{100 * asked.level:g}"
    print(
        f"{what}: {len(seconds)} decisions, {mean(seconds):.2f} s of processor on average, the "
        f"longest {max(seconds):.2f}"
    )
    print("| plan | s | the old way, s | ratio |")
    print("|---|---|---|---|")
    differ, ratios = 0, []
    for again in watched.slowest(asked.slowest):
        made, now_s = timed(again)
        with replaced(old_way()):
            before, old_s = timed(again)
        differ += made.plan.plan_id != before.plan.plan_id
        ratios.append(old_s / now_s)
        text = f"{made.plan.plan_id} ({made.plan.status})"
        print(f"| {text} | {now_s:.2f} | {old_s:.2f} | {ratios[-1]:.1f} |", flush=True)
    print(f"{mean(ratios):.1f} times as fast on average, {differ} plans differ")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
