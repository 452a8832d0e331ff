"""The ways a request can take through a deployment, and what it meets on each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.capacity.aggregated import AggregatedLeg, AggregatedState
from planner.capacity.batch import BatchState
from planner.capacity.decode import DecodeLeg
from planner.capacity.prefill import PrefillLeg
from planner.capacity.queueing import Wait, wait_sum_exceeds

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gaps:
    """Distribution over all gaps between tokens: `step_s`, and at times a prompt's chunk on top.

    Parameters
    ----------
    step_s, step_weight : (states,) float
    chunk_s, chunk_weight : (chunks,) float
        Chunk time, and the share of all gaps that holds such a chunk.
    tokens_per_s : float
    """

    step_s: Floats
    step_weight: Floats
    chunk_s: Floats
    chunk_weight: Floats
    tokens_per_s: float

    def within(self, seconds: float) -> float:
        """P(gap <= seconds)."""
        cumulative = np.concatenate(([0.0], np.cumsum(self.step_weight)))
        slack = np.concatenate(([seconds], seconds - self.chunk_s))
        share = np.concatenate(([1 - self.chunk_weight.sum()], self.chunk_weight))
        found = np.searchsorted(self.step_s, slack * (1 + 1e-12), side="right")
        return float(share @ cumulative[found])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Path:
    """One way through the deployment.

    Parameters
    ----------
    share : (buckets,) float
        Share of the bucket's requests that go this way.
    fixed_s : (buckets,) float
        TTFT without waiting.
    tpot_met : function of (buckets,) float
        P(mean gap <= limit) per bucket.
    """

    share: Floats
    fixed_s: Floats
    prompt_wait: Wait
    slot_wait: Wait
    tpot_met: Callable[[Floats], Floats]
    gaps: Gaps

    def ttft_met(self, limit_s: float | Floats) -> Floats:
        """(buckets,) P(TTFT <= limit_s)."""
        return 1.0 - wait_sum_exceeds(self.prompt_wait, self.slot_wait, limit_s - self.fixed_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTraffic:
    """What arrives at one pool.

    Parameters
    ----------
    rate_rps : float
    arrival_cv2 : float
    window_s : float
        How long an overload lasts.
    """

    rate_rps: float
    arrival_cv2: float
    window_s: float


def prefill_wait(leg: PrefillLeg, traffic: PoolTraffic) -> Wait:
    """Wait for a prefill replica."""
    return leg.wait(traffic.rate_rps, arrival_cv2=traffic.arrival_cv2, window_s=traffic.window_s)


def decode_state(leg: DecodeLeg, traffic: PoolTraffic) -> BatchState:
    """The batch of a decode pool."""
    return leg.solve(traffic.rate_rps, arrival_cv2=traffic.arrival_cv2, window_s=traffic.window_s)


def disaggregated_path(
    *,
    share: Floats,
    first_token_s: float,
    prefill: tuple[PrefillLeg, Wait],
    decode: tuple[DecodeLeg, BatchState, PoolTraffic],
) -> Path:
    """Prompt in one pool, KV transfer, answer in another."""
    prefill_leg, prompt_wait = prefill
    leg, state, traffic = decode

    def tpot_met(limit_s: Floats) -> Floats:
        return leg.tpot_met(state, limit_s, arrival_cv2=traffic.arrival_cv2)

    return Path(
        share=share,
        fixed_s=first_token_s + prefill_leg.service_s + leg.transfer_s + leg.joining_s(state),
        prompt_wait=prompt_wait,
        slot_wait=replace(state.wait, backlog_s=max(state.wait.backlog_s, leg.transfer_backlog_s)),
        tpot_met=tpot_met,
        gaps=Gaps(
            # A departing token count of p(N) x rate(N) is the arrival rate x p(N - 1): the gaps
            # are distributed as the step that an arrival meets, itself included.
            step_s=state.step_s,
            step_weight=state.probability,
            chunk_s=np.zeros(0),
            chunk_weight=np.zeros(0),
            tokens_per_s=traffic.rate_rps * float(leg.weight @ leg.tokens),
        ),
    )


def aggregated_path(
    *, share: Floats, first_token_s: float, leg: AggregatedLeg, traffic: PoolTraffic
) -> Path:
    """Prompt and answer in one pool."""
    state = leg.solve(traffic.rate_rps, arrival_cv2=traffic.arrival_cv2, window_s=traffic.window_s)

    def tpot_met(limit_s: Floats) -> Floats:
        return leg.tpot_met(
            state, limit_s, arrival_cv2=traffic.arrival_cv2, rate_rps=traffic.rate_rps
        )

    return Path(
        share=share,
        fixed_s=first_token_s + state.prompt_s + leg.joining_s(state),
        prompt_wait=state.wait,
        slot_wait=state.batch.wait,
        tpot_met=tpot_met,
        gaps=_mixed_gaps(leg, state, traffic),
    )


def _mixed_gaps(leg: AggregatedLeg, state: AggregatedState, traffic: PoolTraffic) -> Gaps:
    """Steps with a chunk, as a share of all steps: rate x chunks / steps per second."""
    weight = leg.prefill.weight
    chunks = np.maximum(np.ceil(leg.chunks), 1.0)
    per_replica_rps = min(traffic.rate_rps, leg.saturation_rps) / leg.prefill.replicas
    steps_per_s = (1 - state.prompt_share) / state.batch.mean_step_s
    share = weight * chunks * per_replica_rps / steps_per_s
    return Gaps(
        step_s=state.batch.step_s,
        step_weight=state.batch.probability,
        chunk_s=leg.prefill.service_s / chunks,
        chunk_weight=share / max(float(share.sum()), 1.0),
        tokens_per_s=traffic.rate_rps * float(weight @ leg.tokens),
    )


def quantile_of(cumulative: Callable[[float], float], level: float, start_s: float) -> float:
    """The smallest time at which a distribution reaches `level`, by bisection (to 1e-3)."""
    low, high = 0.0, max(start_s, 1e-6)
    for _ in range(60):
        if cumulative(high) >= level:
            break
        low, high = high, 2 * high
    for _ in range(10):
        middle = (low + high) / 2
        low, high = (low, middle) if cumulative(middle) >= level else (middle, high)
    return high


def mean_over_paths(paths: Sequence[Path], weight: Floats, met: Callable[[Path], Floats]) -> float:
    """Share of requests (weighted by bucket and path) that a per-bucket probability gives."""
    return float(sum(weight @ (path.share * met(path)) for path in paths))
