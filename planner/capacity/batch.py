"""How many sequences a pool decodes together: a birth-death chain with batch-dependent rates.

All sequences of a replica advance one token per step, so a replica is a processor-sharing queue
whose total speed depends on the number present. Its stationary distribution depends on the answer
lengths through their mean only (insensitivity), which makes the chain below exact for Poisson
arrivals to one replica. A pool under a least-loaded router keeps its batches level and is taken
as one chain over the sequences of all replicas.

References
----------
Little (1961); Kelly, *Reversibility and Stochastic Networks* (1979), 3.3 (insensitivity of
processor sharing with state-dependent speed).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.capacity.kernels import chain_at
from planner.capacity.queueing import (
    HIGHEST_STATIONARY_RATIO,
    Wait,
    backlog_of,
)
from planner.domain.errors import OutsideProfileError
from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from planner.domain.profile import EngineLimits, Profile
from planner.domain.workload import Shape

Floats = NDArray[np.float64]

_MOST_STATES = 1024  # more states are grouped: the distribution is smooth by then


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """How many sequences one replica decodes together at the most, and what says so."""

    sequences: int
    limit: Bottleneck


def servable(profile: Profile, role: Role, shape: Shape) -> NDArray[np.bool_]:
    """(buckets,) whether one replica can hold the request at all.

    A prefill replica holds the prompt and one token, the others prompt and answer.
    """
    answer = np.ones_like(shape.output_tokens) if role is Role.PREFILL else shape.output_tokens
    limits = profile.limits
    most = min(limits.kv_capacity_tokens, limits.max_model_len)
    return np.asarray(shape.input_tokens + answer <= most, dtype=np.bool_)


def decode_share(shape: Shape, served: NDArray[np.bool_]) -> Floats:
    """(buckets,) share of decode time: requests in a batch are found in proportion to length."""
    share = shape.weight * shape.output_tokens * served
    return np.asarray(share / share.sum())


def _mean_context(shape: Shape, served: NDArray[np.bool_]) -> float:
    """Tokens that a running sequence has so far: its prompt and half the answer, on average."""
    context = shape.input_tokens + shape.output_tokens / 2
    return float(decode_share(shape, served) @ context)


def admission(profile: Profile, shape: Shape, served: NDArray[np.bool_]) -> Admission:
    """Sequences that one replica runs together: by `max_num_seqs`, KV capacity and measurement.

    A running sequence holds its prompt and the answer so far, half of it on average; of those in
    a batch the long ones are found more often (`decode_share`). Half a block each is not filled.
    First come first served leaves room unused while the first prompt in line does not fit: half
    of it on average, length-biased, E[R^2] / (2 E[R]). The batch is also held to the largest one
    measured at their mean context, since step times beyond it would be extrapolated.
    """
    held = shape.input_tokens + shape.output_tokens / 2 + profile.limits.kv_block_tokens / 2
    held_mean = float(decode_share(shape, served) @ held)
    weight = shape.weight * served
    unused = float(weight @ shape.input_tokens**2) / (2 * float(weight @ shape.input_tokens))
    by_memory = max(int((profile.limits.kv_capacity_tokens - unused) / held_mean), 1)
    measured = profile.decode_step.most_x(_mean_context(shape, served))
    by_batch = min(profile.limits.max_num_seqs, max(int(measured), 1))
    if by_memory < by_batch:
        return Admission(sequences=by_memory, limit=Bottleneck.MEMORY)
    return Admission(sequences=by_batch, limit=Bottleneck.BATCHING)


def step_times(profile: Profile, shape: Shape, served: NDArray[np.bool_], most: int) -> Floats:
    """(most,) seconds of a decode step at batch 1..most, at the mean context of a full batch.

    Raises
    ------
    OutsideProfileError
        When the mean context lies beyond what was measured.
    """
    context = _mean_context(shape, served)
    measured = profile.decode_step.at(np.arange(1, most + 1, dtype=np.float64), context)
    # Measured tables dip by noise; a larger batch is never taken to be faster.
    rising: Floats = np.maximum.accumulate(measured)
    return rising


def steps_before_joining(limits: EngineLimits) -> float:
    """Mean steps between the end of a prompt elsewhere and the step that makes its first token.

    A busy replica looks at the request when a step ends, once to let its KV cache come and once
    more when that is there (a step later with `late_kv_notice`).
    """
    return 2 * steps_to_join(limits) + float(limits.late_kv_notice)


def steps_to_join(limits: EngineLimits) -> float:
    """Mean steps before a request that comes to a busy replica is looked at.

    Half of the one in progress is still to run on average; with asynchronous scheduling the next
    one has been composed already.
    """
    return 0.5 + float(limits.async_scheduling)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchChain:
    """The chain over the sequences present in a pool, ready to be solved for any rate.

    Parameters
    ----------
    replicas : int
    states : (states,) float
        Sequences in the pool, 0 .. replicas x sequences, evenly spaced by `stride`.
    stride : float
    departures_log : (states,) float
        Sum of log departure rates up to each state (departures per second).
    step_s : (states,) float
        Step time that an arrival which finds this state will see, itself included.
    saturation_rps : float
        Departures per second with every slot taken.
    """

    replicas: int
    states: Floats
    stride: float
    departures_log: Floats
    departures_rps: Floats
    step_s: Floats
    saturation_rps: float

    def departures_at(self, present: float) -> float:
        """Departures per second with so many sequences in the pool, between two states."""
        at = min(max(present / self.stride, 0.0), len(self.states) - 1.0)
        low = min(int(at), len(self.states) - 2)
        rate = self.departures_rps
        return float(rate[low] + (at - low) * (rate[low + 1] - rate[low]))


def batch_chain(*, step_s: Floats, tokens: float, hold_s: float, replicas: int) -> BatchChain:
    """Build the chain.

    A sequence holds its slot for `hold_s` (KV transfer, or its own prefill) and then for
    `tokens` steps. With b in the batch: X(b) = b / (tokens x step(b)) per replica, and Little's
    law gives the slots taken: n(b) = X(b) x hold_s + b.

    Parameters
    ----------
    step_s : (sequences,) float
        Step time at batch 1..sequences, seconds.
    tokens : float
        Mean steps of a request.
    hold_s : float
        Mean seconds in a slot outside the batch.
    """
    sequences = len(step_s)
    batch = np.arange(1, sequences + 1, dtype=np.float64)
    per_replica = batch / (max(tokens, 1e-6) * step_s)
    slots = np.maximum.accumulate(batch + per_replica * hold_s)

    total = replicas * sequences
    stride = max(total / _MOST_STATES, 1.0)
    states = np.arange(0.0, total + stride / 2, stride)

    def departures(present: Floats) -> Floats:  # per second, with so many in the pool
        level = np.maximum(present / replicas, 1.0)
        alone = np.minimum(level / slots[0], 1.0)  # below one batch's worth of slots
        share = np.minimum(present / replicas, 1.0)
        rate: Floats = replicas * share * alone * np.interp(level, slots, per_replica)
        return rate

    middle = np.minimum(states[:-1] + (stride + 1) / 2, total)
    departures_log = np.concatenate(([0.0], np.cumsum(stride * np.log(departures(middle)))))
    met = np.clip((states + 1) / replicas, 1.0, sequences)
    in_step = np.interp(met, slots, batch)
    return BatchChain(
        replicas=replicas,
        states=states,
        stride=stride,
        departures_log=departures_log,
        departures_rps=departures(states),
        step_s=np.interp(in_step, batch, step_s),
        saturation_rps=float(departures(np.array([float(total)]))[0]),
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BatchState:
    """The chain solved for one rate.

    Parameters
    ----------
    step_s : (states,) float, not decreasing
        Step time met by an arrival, seconds.
    cumulative : (states,) float
        P(an arrival meets at most this step time).
    mean_step_s : float
    busy_ratio : float
        P(an arrival finds its replica decoding), with a least-loaded router.
    relaxation_s : float
        Time in which the batch forgets a disturbance, seconds.
    wait : Wait
        For a free slot.
    """

    step_s: Floats
    probability: Floats
    cumulative: Floats
    mean_step_s: float
    busy_ratio: float
    relaxation_s: float
    wait: Wait


def solve_chain(
    chain: BatchChain, *, rate_rps: float, stretch: float, arrival_cv2: float, window_s: float
) -> BatchState:
    """Distribution of the batch at an arrival rate (PASTA: what arrivals see).

    Parameters
    ----------
    rate_rps : float
        Arrivals to the whole pool.
    stretch : float
        Slows every step, above 1 on aggregated replicas that also compute prompts.
    """
    saturation_rps = chain.saturation_rps / stretch
    ratio = rate_rps / saturation_rps
    rate = min(ratio, HIGHEST_STATIONARY_RATIO) * saturation_rps
    decay = rate / saturation_rps
    log_rate = math.log(max(rate, 1e-300) * stretch)
    probability, cumulative, mean_state, mean_step_s, full = chain_at(
        log_rate, decay, chain.stride, chain.states, chain.departures_log, chain.step_s
    )
    alone = min(math.ceil(chain.replicas / chain.stride), len(cumulative))
    return BatchState(
        step_s=chain.step_s,
        probability=probability,
        cumulative=cumulative,
        mean_step_s=mean_step_s,
        busy_ratio=max(1 - float(cumulative[alone - 1]), 0.0),
        relaxation_s=_relaxation_s(chain, mean_state) * stretch,
        wait=Wait(
            probability=min(full, 1.0),
            mean_s=(1 + arrival_cv2) / 2 / (saturation_rps * (1 - decay)),
            backlog_s=backlog_of(ratio, window_s),
        ),
    )


def _relaxation_s(chain: BatchChain, state: float) -> float:
    """1 / slope of the departure rate: small where a larger batch clears itself fast."""
    most = float(chain.states[-1])
    width = max(0.05 * len(chain.states) * chain.stride, 1.0)
    low, high = max(state - width, 0.0), min(state + width, most)
    rise = chain.departures_at(high) - chain.departures_at(low)
    slope = rise / max(high - low, 1e-9)
    return 1.0 / max(slope, 1e-9 * chain.saturation_rps)


def check_prefill_range(profile: Profile, shape: Shape, served: NDArray[np.bool_]) -> None:
    """Refuse prompts that the profile never measured.

    Raises
    ------
    OutsideProfileError
        With the lengths asked for and those measured.
    """
    new, cached = prompt_parts(shape)
    inside = profile.prefill.covers(new, cached) | ~served
    if not bool(np.all(inside)):
        worst = int(np.argmax(np.where(inside, 0.0, shape.input_tokens)))
        raise OutsideProfileError(
            f"profile {profile.profile_id} measured prompts up to {profile.prefill.x[-1]:g} new "
            f"and {profile.prefill.y[-1]:g} cached tokens, but the load has prompts of "
            f"{new[worst]:g} new and {cached[worst]:g} cached tokens: measure further "
            "(`poolwise profile run`) or shorten the requests"
        )


def prompt_parts(shape: Shape) -> tuple[Floats, Floats]:
    """(buckets,) prompt tokens to compute, and those taken from the cache."""
    new = shape.uncached_tokens
    return new, np.maximum(shape.input_tokens - new, 0.0)
