"""Policies beside each other on one trace: what each needs to keep the promise."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from planner.autoscale.backtest import (
    MINUTE_S,
    Figures,
    Foresight,
    LastValue,
    PoolPair,
    Static,
    attainable,
    figures,
    first_fleet,
    loads,
    replay,
    schedule,
)
from planner.domain.errors import InputError
from planner.domain.spec import Spec
from planner.domain.workload import Workload
from planner.service.answers.autoscaling.own_policy import OwnPolicy
from planner.simulate import RouterPolicy
from planner.simulate.policy import Policy

UTILIZATION = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
MARGINS = ((-0.5, -0.2, 0.1, 0.25, 0.4, 0.55, 0.7, 0.9, 1.1, 1.4, 1.8), (0.0, 0.3, 0.7))
SMOOTHED_S = 45.0
PEAK_RATIO = 1.7
"""Constant fleets are tried up to so many times what the busiest minute would keep busy."""
MOST_FLEETS = 40


class Contender(StrEnum):
    """Whose policy runs."""

    POOLWISE = "poolwise"
    LAST_VALUE = "last_value"
    STATIC = "static"
    FORESIGHT = "foresight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What one policy came to.

    Parameters
    ----------
    setting : str
        Of the policy's settings the first, from cheap to dear, that keeps the promise; the one that
        attains most where none does.
    kept : bool
        Whether the promise was kept, of the requests that would be in time on an idle fleet.
    tried : int
        Settings that were run.
    """

    contender: Contender
    setting: str
    figures: Figures
    usd: float
    kept: bool
    tried: int


Choice = tuple[str, Callable[[], Policy]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contest:
    """The trace and the pools that all policies meet.

    Parameters
    ----------
    able : (requests,) bool
        Those that would be in time alone on an idle fleet.
    first : (prefill, decode) int
        Replicas until the warm-up ends: enough for its busiest minute.
    """

    spec: Spec
    pair: PoolPair
    workload: Workload
    warm_s: float
    able: NDArray[np.bool_]
    first: tuple[int, int]
    clock: Callable[[], float]

    def run(self, policy: Policy) -> Figures:
        """What the policy comes to."""
        run = replay(
            self.pair,
            self.workload,
            policy,
            first=self.first,
            clock=self.clock,
            router=RouterPolicy(self.spec.routing.balancing.value),
        )
        prefill, decode = self.pair.shapes
        return figures(
            run,
            self.workload,
            slo=self.pair.slo,
            able=self.able,
            accelerators=(prefill.accelerators, decode.accelerators),
            warm_s=self.warm_s,
        )

    def choices(self, contender: Contender) -> Iterator[Choice]:
        """The policy with each of its settings, from cheap to dear."""
        made: dict[Contender, Callable[[], Iterator[Choice]]] = {
            Contender.POOLWISE: self._own,
            Contender.LAST_VALUE: self._last_value,
            Contender.STATIC: self._static,
            Contender.FORESIGHT: self._foresight,
        }
        return made[contender]()

    def _own(self) -> Iterator[Choice]:
        yield (
            "as the spec says",
            partial(
                OwnPolicy,
                self.spec,
                self.pair,
                start_at=self.workload.start_at,
                warm_s=self.warm_s,
            ),
        )

    def _last_value(self) -> Iterator[Choice]:
        for ratio in UTILIZATION:
            yield (
                f"the last minute's load at {100 * ratio:g} %",
                partial(LastValue, pair=self.pair, warm_s=self.warm_s, utilization_ratio=ratio),
            )

    def _static(self) -> Iterator[Choice]:
        after = loads(self.pair, self.workload, MINUTE_S)
        counts = [
            range(
                max(1, math.ceil(load.mean())),
                min(most, math.ceil(PEAK_RATIO * load.max()) + 1) + 1,
            )
            for load, most in zip(after, self.pair.most_replicas, strict=True)
        ]
        prefill, decode = self.pair.shapes
        fleets = sorted(
            itertools.product(*counts),
            key=lambda n: (n[0] * prefill.accelerators + n[1] * decode.accelerators, n),
        )
        for n in fleets[:MOST_FLEETS]:
            text = f"{n[0]} prefill, {n[1]} decode"
            yield text, partial(Static, replicas=(n[0], n[1]), warm_s=self.warm_s)

    def _foresight(self) -> Iterator[Choice]:
        for margin in sorted(itertools.product(*MARGINS), key=lambda m: (sum(m), m)):
            plan = Foresight(margin=(margin[0], margin[1]), smoothed_s=SMOOTHED_S)
            yield (
                plan.text,
                partial(schedule, plan, self.pair, self.workload, warm_s=self.warm_s),
            )


def compare(
    spec: Spec,
    workload: Workload,
    *,
    model: str,
    contenders: Sequence[Contender],
    warm_s: float,
    clock: Callable[[], float],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Compared, ...]:
    """Each policy with the first of its settings, from cheap to dear, that keeps the promise.

    Parameters
    ----------
    warm_s : float
        Until then every policy has the same fleet and only watches; nothing is judged, seconds.
    clock : callable
        Processor seconds, for how long decisions take.
    progress : callable or None
        Called with (policies done, policies).

    Raises
    ------
    SpecError
        When the model has other pools than one prefill and one decode pool.
    InputError
        When the trace ends with the warm-up, or nothing arrives after it.
    """
    pair = PoolPair.of(spec, model)
    if not (workload.arrival_offset_s >= warm_s).any():
        raise InputError(
            f"no request arrives after the warm-up of {warm_s:g} s: the trace lasts "
            f"{workload.duration_s:.0f} s; give a longer trace or a shorter --warm-s"
        )
    contest = Contest(
        spec=spec,
        pair=pair,
        workload=workload,
        warm_s=warm_s,
        able=attainable(pair, workload),
        first=first_fleet(pair, workload, warm_s=warm_s),
        clock=clock,
    )
    found = []
    for done, contender in enumerate(contenders):
        if progress is not None:
            progress(done, len(contenders))
        found.append(_best(contest, contender))
    return tuple(found)


def _best(contest: Contest, contender: Contender) -> Compared:
    promise = contest.pair.slo.attainment_ratio
    best: tuple[str, Figures] | None = None
    tried = 0
    for text, make in contest.choices(contender):
        seen = contest.run(make())
        tried += 1
        if best is None or seen.attainable_ratio > best[1].attainable_ratio:
            best = text, seen
        if seen.attainable_ratio >= promise:
            best = text, seen
            break
    if best is None:
        raise InputError(f"{contender} has no setting for this trace")
    text, seen = best
    usd = sum(h * p for h, p in zip(seen.by_role, contest.pair.usd_per_gpu_hour, strict=True))
    return Compared(
        contender=contender,
        setting=text,
        figures=seen,
        usd=usd,
        kept=seen.attainable_ratio >= promise,
        tried=tried,
    )
