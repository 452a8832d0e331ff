"""The rules of others: each a policy of a few lines.

Those that divide load by what a replica can do get it from the same profile as Poolwise, which is
more than their projects have. The simplest rules are the product's own. What HPA and KEDA do with
any metric is in `Stabilized`: growth at once, no fewer than any recommendation of the last five
minutes.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from planner.autoscale.backtest import Ticking
from planner.simulate.policy import Observation

HPA_INTERVAL_S = 15.0
HPA_STABILIZATION_S = 300.0
HPA_TOLERANCE_RATIO = 0.1
"""Kubernetes' defaults: sync period, `scaleDown.stabilizationWindowSeconds`, tolerance."""


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

    def wanted(self, seen: Observation) -> Sequence[float]:
        """The rule, behind an HPA."""
        prefill, decode = seen.groups
        rate, isl = self.rates.prefill_tokens_per_s, self._lengths.isl
        inflight = prefill.queued_prompt_tokens + prefill.running_requests * isl
        left_s = max(self.pair.slo.ttft_s - isl / rate, 0.1 * self.pair.slo.ttft_s)
        wanted = inflight / rate / left_s, decode.kv_usage_ratio * decode.ready / self.kv_use_ratio
        return self._stabilized.apply(seen.t_s, self.bounded(wanted))


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

    def wanted(self, seen: Observation) -> Sequence[float]:
        """ceil(replicas * metric / target), with HPA's tolerance and stabilization."""
        prefill, decode = seen.groups
        metrics = (
            (prefill.ready, prefill.waiting_requests / self.waiting),
            (decode.ready, (decode.running_requests + decode.waiting_requests) / self.running),
        )
        wanted = [
            ready if abs(asked / max(ready, 1) - 1) <= HPA_TOLERANCE_RATIO else asked
            for ready, asked in metrics
        ]
        return self._stabilized.apply(seen.t_s, self.bounded(wanted))


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

    def wanted(self, seen: Observation) -> Sequence[float]:
        """Decode by its rate, prefill by the ratio."""
        able = self.rates
        if not self._ratio:
            prefill_s = self._lengths.isl / able.prefill_tokens_per_s
            self._ratio = prefill_s / (self._lengths.osl / able.decode_tokens_per_s)
        answered = float(seen.finished_output_tokens.sum()) / (seen.t_s - seen.since_s)
        decode = answered / able.decode_tokens_per_s / self.utilization_ratio
        return self._ratio * decode, decode
