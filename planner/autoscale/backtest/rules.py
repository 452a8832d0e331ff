"""The simplest policies, to compare with: constant headroom and a constant fleet.

What divides load by what a replica can do (`rates`) gets it from the same profile as Poolwise.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from planner.autoscale.backtest.pair import PoolPair
from planner.autoscale.fast import batch_in_time
from planner.simulate.policy import Observation, Targets

TICK_S = 5.0
"""Of policies that look at nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What one replica of each role sustains at full use, without any queueing.

    Parameters
    ----------
    prefill_tokens_per_s, decode_tokens_per_s : float
        Prompt tokens and answer tokens.
    """

    prefill_tokens_per_s: float
    decode_tokens_per_s: float


def rates(pair: PoolPair, *, isl: float, osl: float) -> Rates:
    """Throughput at these mean lengths: the most within the objectives and the engine's limits.

    References
    ----------
    Dynamo's planner sizes pools so: the largest batch whose step keeps the objective, over its
    step time, at a context of prompt and half the answer.
    """
    prefill, decode = pair.profiles
    context = isl + osl / 2
    batch = max(batch_in_time(decode, pair.slo, context), 1.0)
    return Rates(
        prefill_tokens_per_s=isl / float(prefill.prefill.extended_at(isl, 0.0)),
        decode_tokens_per_s=batch / float(decode.decode_step.extended_at(batch, context)),
    )


@dataclass(slots=True)
class Lengths:
    """Mean lengths of what ended lately, smoothed."""

    isl: float = 0.0
    osl: float = 0.0

    def take(self, seen: Observation) -> None:
        """The newest observation counts a half."""
        if len(seen.finished_output_tokens) == 0:
            return
        weight = 0.5 if self.isl else 1.0
        self.isl += weight * (float(seen.finished_input_tokens.mean()) - self.isl)
        self.osl += weight * (float(seen.finished_output_tokens.mean()) - self.osl)


@dataclass(slots=True, kw_only=True)
class Static:
    """So many replicas, always; ordered when the warm-up ends.

    It ticks on so that a run in the twin knows from when on a replica is gone.
    """

    replicas: tuple[int, int]
    warm_s: float

    @property
    def first_tick_s(self) -> float:
        """The end of the warm-up, or as soon as anything can be ordered."""
        return max(self.warm_s, TICK_S)

    def on_tick(self, seen: Observation) -> Targets:
        """The same counts."""
        return Targets(replicas=self.replicas, next_tick_s=seen.t_s + TICK_S)


@dataclass(slots=True, kw_only=True)
class Ticking(ABC):
    """What policies share that tick at a constant interval and watch while the warm-up lasts."""

    pair: PoolPair
    warm_s: float
    interval_s: float
    _lengths: Lengths = field(default_factory=Lengths)

    @property
    def first_tick_s(self) -> float:
        """After one interval."""
        return self.interval_s

    def on_tick(self, seen: Observation) -> Targets:
        """The rule's counts, once the warm-up is over."""
        self._lengths.take(seen)
        wanted = None
        if seen.t_s >= self.warm_s and self._lengths.isl > 0:
            wanted = self.bounded(self.wanted(seen))
        return Targets(replicas=wanted, next_tick_s=seen.t_s + self.interval_s)

    @abstractmethod
    def wanted(self, seen: Observation) -> Sequence[float]:
        """The rule itself, in replicas that need not be whole."""

    def bounded(self, wanted: Sequence[float]) -> tuple[int, ...]:
        """Whole replicas within the bounds that hold for every policy."""
        return tuple(
            max(1, min(most, math.ceil(count - 1e-9)))
            for count, most in zip(wanted, self.pair.most_replicas, strict=True)
        )

    @property
    def rates(self) -> Rates:
        """At the lengths of now."""
        return rates(self.pair, isl=self._lengths.isl, osl=self._lengths.osl)


@dataclass(slots=True, kw_only=True)
class LastValue(Ticking):
    """Constant headroom: the load of the last interval at this utilisation."""

    utilization_ratio: float
    interval_s: float = 60.0

    def wanted(self, seen: Observation) -> Sequence[float]:
        """Load over what a replica does at the chosen utilisation."""
        spent_s, able = seen.t_s - seen.since_s, self.rates
        prompts = float(seen.arrived_input_tokens.sum()) / spent_s
        answers = len(seen.arrived_input_tokens) * self._lengths.osl / spent_s
        return (
            prompts / able.prefill_tokens_per_s / self.utilization_ratio,
            answers / able.decode_tokens_per_s / self.utilization_ratio,
        )
