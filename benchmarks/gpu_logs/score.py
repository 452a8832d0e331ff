"""The predicted requests of a log against what they saw."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from benchmarks.gpu_logs.fit import fit_steps
from benchmarks.gpu_logs.logs import Deployment, EngineLog, Floats, Seen
from benchmarks.gpu_logs.replay import replay
from benchmarks.gpu_logs.steps import StepTimes
from planner.domain.workload import Workload

BOUND_RATIO = 0.15
BOUNDED = ("TTFT p50", "ITL p50")


def figures(seen: Seen, workload: Workload, which: slice) -> dict[str, float]:
    """Seconds and tokens/s by name.

    ITL is over all gaps, each taken as its request's mean one: the logs have first and last
    tokens only, and the twin is read in the same way.
    """
    those, tokens = seen.of(which), workload.output_tokens[which]
    began_s = float(workload.arrival_offset_s[which].min())
    return {
        "TTFT p50": float(np.quantile(those.ttft_s, 0.5)),
        "TTFT p95": float(np.quantile(those.ttft_s, 0.95)),
        "ITL p50": _quantile(those.tpot_s, tokens - 1.0, 0.5),
        "ITL p95": _quantile(those.tpot_s, tokens - 1.0, 0.95),
        "throughput": float(tokens.sum()) / (float(those.end_s.max()) - began_s),
    }


def _quantile(values: Floats, weight: Floats, level: float) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(cumulative, level * cumulative[-1])])


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """A log's later two thirds, predicted by the twin fitted on the first third."""

    log: EngineLog
    deployment: Deployment

    @cached_property
    def steps(self) -> StepTimes:
        """What was fitted; sees no time of a later request."""
        seen = self.log.seen.of(slice(0, self.log.fitted))
        return fit_steps(self.deployment, self.log.workload, seen)

    @property
    def later(self) -> slice:
        """The requests that are predicted."""
        return slice(self.log.fitted, None)

    @cached_property
    def real(self) -> dict[str, float]:
        """What the later requests saw."""
        return figures(self.log.seen, self.log.workload, self.later)

    @cached_property
    def naive(self) -> dict[str, float]:
        """The alternative: later requests will see what the first third saw."""
        return figures(self.log.seen, self.log.workload, slice(0, self.log.fitted))

    @cached_property
    def predicted(self) -> dict[str, float]:
        """What the twin says that they see."""
        seen = replay(self.deployment, self.steps, self.log.workload)
        return figures(seen, self.log.workload, self.later)

    def error_ratio(self, measure: str) -> float:
        """Predicted over real, less 1."""
        return self.predicted[measure] / self.real[measure] - 1

    def met(self, measure: str) -> bool:
        """Whether the measure is within the bound."""
        return abs(self.error_ratio(measure)) <= BOUND_RATIO


def composed_in_time(deployment: Deployment) -> Deployment:
    """As if steps were composed when they begin, as before asynchronous scheduling."""
    limits = dataclasses.replace(deployment.limits, async_scheduling=False)
    return dataclasses.replace(deployment, limits=limits)


def without_experts(deployment: Deployment) -> Deployment:
    """As if every step read all weights."""
    return dataclasses.replace(deployment, expert_share=0.0)


def in_lockstep(deployment: Deployment) -> Deployment:
    """Data-parallel engines with shared experts as the one engine that their lockstep makes."""
    n, limits = deployment.engines, deployment.limits
    whole = dataclasses.replace(
        limits,
        kv_capacity_tokens=n * limits.kv_capacity_tokens,
        max_num_seqs=n * limits.max_num_seqs,
        max_num_batched_tokens=n * limits.max_num_batched_tokens,
    )
    return dataclasses.replace(deployment, engines=1, limits=whole)
