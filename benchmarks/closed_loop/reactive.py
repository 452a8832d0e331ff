"""The rules of others, and the simplest ones: each a policy of a few lines.

Those that divide load by what a replica can do (`rates`) get it from the same profile as Poolwise,
which is more than their projects have. What HPA and KEDA do with any metric is in `Stabilized`:
growth at once, no fewer than any recommendation of the last five minutes.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.closed_loop.settings import MOST_REPLICAS, Setting
from planner.simulate.policy import Observation, Targets

TICK_S = 5.0
"""Of policies that look at nothing."""
HPA_INTERVAL_S = 15.0
HPA_STABILIZATION_S = 300.0
HPA_TOLERANCE_RATIO = 0.1
"""Kubernetes' defaults: sync period, `scaleDown.stabilizationWindowSeconds`, tolerance."""


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


def rates(setting: Setting, *, isl: float, osl: float) -> Rates:
    """Throughput at these mean lengths: the most within the objectives and the engine's limits.

    References
    ----------
    Dynamo's planner sizes pools so: the largest batch whose step keeps the objective, over its
    step time, at a context of prompt and half the answer.
    """
    timing, engine = setting.timing, setting.engine
    prompt_s = timing.prefill_base_s + timing.prefill_token_s * isl
    context = isl + osl / 2
    batch = np.arange(1, engine.max_num_seqs + 1, dtype=np.float64)
    step_s = timing.decode_base_s + batch * (
        timing.decode_sequence_s + timing.decode_context_token_s * context
    )
    fits = (step_s <= setting.tpot_s) & (batch * context <= engine.kv_capacity_tokens)
    best = int(np.flatnonzero(fits)[-1]) if fits.any() else 0
    return Rates(
        prefill_tokens_per_s=isl / prompt_s,
        decode_tokens_per_s=float(batch[best] / step_s[best]),
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


@dataclass(slots=True)
class Stabilized:
    """The largest recommendation of the last so many seconds, per role."""

    within_s: float
    _asked: deque[tuple[float, tuple[int, ...]]] = field(default_factory=deque)

    def apply(self, now_s: float, wanted: Sequence[int]) -> tuple[int, ...]:
        """What is recommended now, or was lately if that was more."""
        self._asked.append((now_s, tuple(wanted)))
        while self._asked[0][0] < now_s - self.within_s:
            self._asked.popleft()
        return tuple(max(counts) for counts in zip(*(a for _, a in self._asked), strict=True))


def bounded(wanted: float) -> int:
    """Whole replicas within the bounds that hold for every policy."""
    return max(1, min(MOST_REPLICAS, math.ceil(wanted - 1e-9)))


@dataclass(slots=True, kw_only=True)
class Static:
    """So many replicas, always; ordered when the warm-up ends.

    It ticks on so that a run in the twin knows from when on a replica is gone.
    """

    replicas: tuple[int, int]
    warm_s: float

    @property
    def first_tick_s(self) -> float:
        """The end of the warm-up."""
        return self.warm_s

    def on_tick(self, seen: Observation) -> Targets:
        """The same counts."""
        return Targets(replicas=self.replicas, next_tick_s=seen.t_s + TICK_S)


@dataclass(slots=True, kw_only=True)
class Ticking:
    """What policies share that tick at a constant interval and watch while the warm-up lasts."""

    setting: Setting
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
            wanted = self.wanted(seen)
        return Targets(replicas=wanted, next_tick_s=seen.t_s + self.interval_s)

    def wanted(self, seen: Observation) -> tuple[int, ...]:
        """The rule itself."""
        raise NotImplementedError

    @property
    def rates(self) -> Rates:
        """At the lengths of now."""
        return rates(self.setting, isl=self._lengths.isl, osl=self._lengths.osl)


@dataclass(slots=True, kw_only=True)
class LastValue(Ticking):
    """Constant headroom: the load of the last interval at this utilisation."""

    utilization_ratio: float
    interval_s: float = 60.0

    def wanted(self, seen: Observation) -> tuple[int, ...]:
        """Load over what a replica does at the chosen utilisation."""
        spent_s, able = seen.t_s - seen.since_s, self.rates
        prompts = float(seen.arrived_input_tokens.sum()) / spent_s
        answers = len(seen.arrived_input_tokens) * self._lengths.osl / spent_s
        return (
            bounded(prompts / able.prefill_tokens_per_s / self.utilization_ratio),
            bounded(answers / able.decode_tokens_per_s / self.utilization_ratio),
        )


@dataclass(slots=True, kw_only=True)
class Keda(Ticking):
    """llm-d's recommendation: prompts in flight over the time that they have, KV use over 0.8.

    References
    ----------
    prefill = ceil(inflight_tokens / V_P / (TTFT - ISL / V_P)), decode = ceil(sum KV use / 0.8);
    llm-d, workload autoscaling with KEDA (2026-09).
    """

    interval_s: float = HPA_INTERVAL_S
    kv_use_ratio: float = 0.8
    _stabilized: Stabilized = field(default_factory=lambda: Stabilized(HPA_STABILIZATION_S))

    def wanted(self, seen: Observation) -> tuple[int, ...]:
        """The rule, behind an HPA."""
        prefill, decode = seen.groups
        rate, isl = self.rates.prefill_tokens_per_s, self._lengths.isl
        inflight = prefill.queued_prompt_tokens + prefill.running_requests * isl
        left_s = max(self.setting.ttft_s - isl / rate, 0.1 * self.setting.ttft_s)
        return self._stabilized.apply(
            seen.t_s,
            (
                bounded(inflight / rate / left_s),
                bounded(decode.kv_usage_ratio * decode.ready / self.kv_use_ratio),
            ),
        )


@dataclass(slots=True, kw_only=True)
class QueueHpa(Ticking):
    """A HorizontalPodAutoscaler on requests that wait (prefill) and that run (decode).

    Parameters
    ----------
    waiting, running : float
        Targets per replica.
    """

    waiting: float
    running: float
    interval_s: float = HPA_INTERVAL_S
    _stabilized: Stabilized = field(default_factory=lambda: Stabilized(HPA_STABILIZATION_S))

    def wanted(self, seen: Observation) -> tuple[int, ...]:
        """ceil(replicas * metric / target), with HPA's tolerance and stabilization."""
        prefill, decode = seen.groups
        metrics = (
            (prefill.ready, prefill.waiting_requests / self.waiting),
            (decode.ready, (decode.running_requests + decode.waiting_requests) / self.running),
        )
        wanted = [
            ready if abs(asked / max(ready, 1) - 1) <= HPA_TOLERANCE_RATIO else bounded(asked)
            for ready, asked in metrics
        ]
        return self._stabilized.apply(seen.t_s, wanted)


@dataclass(slots=True, kw_only=True)
class DecodeRate(Ticking):
    """HeteroScale's way: both pools follow decode tokens/s, in a ratio that stays.

    The ratio is what the lengths of the warm-up ask for.

    References
    ----------
    HeteroScale (arXiv 2508.19559): decode tokens/s as the signal, coordinated scaling of pools.
    """

    utilization_ratio: float
    interval_s: float = 60.0
    _ratio: float = 0.0

    def wanted(self, seen: Observation) -> tuple[int, ...]:
        """Decode by its rate, prefill by the ratio."""
        able = self.rates
        if not self._ratio:
            prefill_s = self._lengths.isl / able.prefill_tokens_per_s
            self._ratio = prefill_s / (self._lengths.osl / able.decode_tokens_per_s)
        answered = float(seen.finished_output_tokens.sum()) / (seen.t_s - seen.since_s)
        decode = answered / able.decode_tokens_per_s / self.utilization_ratio
        return bounded(self._ratio * decode), bounded(decode)
