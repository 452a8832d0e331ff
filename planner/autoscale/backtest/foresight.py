"""Schedules made with the whole workload known: what an autoscaler could have done at best.

At every instant a role has its load, in replicas' full use, and a margin that grows with the root
of the load (square-root staffing) and is searched for each role; a replica is ordered one start-up
time before it is needed, and one that is needed again before a new one could have come is kept.
Candidates are run in the twin: the best that was found, not a bound.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.autoscale.backtest.pair import PoolPair
from planner.autoscale.backtest.rules import TICK_S, rates
from planner.domain.workload import Workload
from planner.simulate.policy import Observation, Targets

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

GRID_S = 5.0
MINUTE_S = 60.0
FIRST_RATIO = 1.5
"""Of what the busiest minute of the warm-up keeps busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foresight:
    """How a schedule is made.

    Parameters
    ----------
    margin : (prefill, decode) float
        Replicas beyond the load, in roots of the load (Halfin and Whitt, Operations Research 29
        (1981): the margin that keeps delays alike at any size).
    smoothed_s : float
        Load is the mean over so long around an instant, seconds.
    """

    margin: tuple[float, float]
    smoothed_s: float

    @property
    def text(self) -> str:
        """For the table."""
        prefill, decode = self.margin
        return f"margins {prefill:g} and {decode:g} over {self.smoothed_s:g} s"


@dataclass(slots=True)
class Schedule:
    """Counts that are changed at set times.

    Parameters
    ----------
    steps : sequence of (float, (int, int))
        From when on how many are to be there or coming, seconds; in order.
    """

    steps: Sequence[tuple[float, tuple[int, int]]]
    _next: int = 0

    @property
    def first_tick_s(self) -> float:
        """The first change."""
        return self.steps[0][0] if self.steps else math.inf

    def on_tick(self, seen: Observation) -> Targets:
        """The counts of now."""
        replicas = None
        while self._next < len(self.steps) and self.steps[self._next][0] <= seen.t_s:
            replicas = self.steps[self._next][1]
            self._next += 1
        left = self._next < len(self.steps)
        change_s = self.steps[self._next][0] if left else math.inf
        return Targets(replicas=replicas, next_tick_s=min(change_s, seen.t_s + TICK_S))


def schedule(
    plan: Foresight,
    pair: PoolPair,
    workload: Workload,
    *,
    warm_s: float,
    unannounced_s: float | None = None,
) -> Schedule:
    """The counts of a plan.

    Parameters
    ----------
    unannounced_s : float or None
        What is needed from then on is not ordered before.
    """
    needed = [
        np.clip(np.ceil(load + m * np.sqrt(load) - 1e-9), 1, most).astype(np.int64)
        for m, load, most in zip(
            plan.margin,
            loads(pair, workload, plan.smoothed_s, unannounced_s),
            pair.most_replicas,
            strict=True,
        )
    ]
    ahead = math.ceil(pair.start_s / GRID_S)
    change = None if unannounced_s is None else int(unannounced_s / GRID_S)
    ordered = [_ordered(counts, ahead, change) for counts in needed]
    steps: list[tuple[float, tuple[int, int]]] = []
    for i in range(int(warm_s / GRID_S), len(ordered[0])):
        counts = (int(ordered[0][i]), int(ordered[1][i]))
        if not steps or steps[-1][1] != counts:
            steps.append((i * GRID_S, counts))
    return Schedule(steps)


def _ordered(needed: Integers, ahead: int, change: int | None) -> Integers:
    """What has to be there or coming at each instant: the most of the next start-up time."""
    ordered = np.empty_like(needed)
    for i in range(len(needed)):
        until = min(i + ahead, len(needed) - 1)
        if change is not None and i < change:
            until = min(until, change - 1)
        ordered[i] = needed[i : until + 1].max()
    return ordered


def loads(
    pair: PoolPair,
    workload: Workload,
    smoothed_s: float,
    unannounced_s: float | None = None,
) -> tuple[Floats, Floats]:
    """(instants,) replicas of each role that would be busy all the time, `GRID_S` apart.

    Answers are written from arrival on, at the pace of a full batch. What comes from
    `unannounced_s` on is no part of any mean before it.
    """
    if unannounced_s is not None:
        parts = [
            loads(pair, workload.between(start_s, end_s), smoothed_s)
            for start_s, end_s in (
                (0.0, unannounced_s),
                (unannounced_s, workload.duration_s + 1e-3),
            )
        ]
        count = int(unannounced_s / GRID_S)
        return (
            np.concatenate([parts[0][0][:count], parts[1][0]]),
            np.concatenate([parts[0][1][:count], parts[1][1]]),
        )
    bins = math.ceil(workload.duration_s / GRID_S) + 1
    at = (workload.arrival_offset_s / GRID_S).astype(np.int64)
    prompts = np.bincount(at, workload.input_tokens, bins).astype(np.float64)
    answers = np.bincount(at, workload.output_tokens, bins).astype(np.float64)
    came = np.maximum(np.bincount(at, minlength=bins).astype(np.float64), 1e-9)
    width = max(1, round(smoothed_s / GRID_S))
    over = max(width, round(300 / GRID_S))
    isl = _mean(prompts, over) / np.maximum(_mean(came, over), 1e-9)
    osl = _mean(answers, over) / np.maximum(_mean(came, over), 1e-9)
    able = [rates(pair, isl=max(i, 1.0), osl=max(o, 1.0)) for i, o in zip(isl, osl, strict=True)]
    prefill = np.array([a.prefill_tokens_per_s for a in able])
    decode = np.array([a.decode_tokens_per_s for a in able])
    return (
        _mean(prompts, width) / GRID_S / prefill,
        _mean(answers, width) / GRID_S / decode,
    )


def first_fleet(pair: PoolPair, workload: Workload, *, warm_s: float) -> tuple[int, int]:
    """What serves until the warm-up is over, for every policy: enough for its busiest minute."""
    needed = loads(pair, workload.between(0.0, max(warm_s, MINUTE_S)), MINUTE_S)
    prefill, decode = (
        min(most, max(1, round(FIRST_RATIO * float(load.max()) + 0.5)))
        for load, most in zip(needed, pair.most_replicas, strict=True)
    )
    return prefill, decode


def _mean(values: Floats, width: int) -> Floats:
    """Centred moving mean; shorter at the ends."""
    kernel = np.ones(min(width, len(values)))
    total = np.convolve(values, kernel, mode="same")
    count = np.convolve(np.ones(len(values)), kernel, mode="same")
    return np.asarray(total / count, dtype=np.float64)


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Of (attainment, hours): those that no other one beats, from the cheapest on."""
    order = sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0]))
    best, kept = -1.0, []
    for i in order:
        if points[i][0] > best:
            best = points[i][0]
            kept.append(i)
    return kept
