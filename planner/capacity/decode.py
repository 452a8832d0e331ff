"""A pool of decode replicas: continuous batching with a batch-dependent step time."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.capacity.batch import (
    Admission,
    BatchChain,
    BatchState,
    admission,
    batch_chain,
    solve_chain,
    step_times,
    steps_before_joining,
)
from planner.capacity.kernels import averaging, steps_within
from planner.capacity.prefill import transfer_s
from planner.domain.profile import Profile
from planner.domain.workload import Shape

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DecodeLeg:
    """The answer side of a request in one pool.

    Parameters
    ----------
    tokens : (buckets,) float
        Steps of a request: after a KV transfer the first token comes from a decode step too.
    transfer_s : (buckets,) float
        KV transfer, during which the slot is held.
    transfer_backlog_s : float
        Wait that overloaded links have built up at the end of the window.
    weight : (buckets,) float
        Share of requests; sums to 1.
    steps_before_joining : float
        Mean steps that a request waits for at a busy replica.
    """

    chain: BatchChain
    admission: Admission
    tokens: Floats
    transfer_s: Floats
    weight: Floats
    steps_before_joining: float
    transfer_backlog_s: float = 0.0

    @classmethod
    def of(
        cls,
        profile: Profile,
        shape: Shape,
        served: NDArray[np.bool_],
        *,
        replicas: int,
        moving_s: Floats | None = None,
    ) -> Self:
        """The leg of `replicas` replicas.

        Parameters
        ----------
        moving_s : (buckets,) float or None
            Seconds of a KV transfer; None: on the idle path that the profile measured.

        Raises
        ------
        OutsideProfileError
            When contexts are longer than those measured.
        """
        weight = shape.weight * served / float((shape.weight * served).sum())
        admitted = admission(profile, shape, served)
        moving = transfer_s(profile, shape) if moving_s is None else moving_s
        chain = batch_chain(
            step_s=step_times(profile, shape, served, admitted.sequences),
            tokens=float(weight @ shape.output_tokens),
            hold_s=float(weight @ moving),
            replicas=replicas,
        )
        return cls(
            chain=chain,
            admission=admitted,
            tokens=shape.output_tokens,
            transfer_s=moving,
            weight=weight,
            steps_before_joining=steps_before_joining(profile.limits),
        )

    @property
    def saturation_rps(self) -> float:
        """Requests/s of the pool with every slot taken."""
        return self.chain.saturation_rps

    def solve(self, rate_rps: float, *, arrival_cv2: float, window_s: float) -> BatchState:
        """The batch at `rate_rps` into the pool."""
        return solve_chain(
            self.chain,
            rate_rps=rate_rps,
            stretch=1.0,
            arrival_cv2=arrival_cv2,
            window_s=window_s,
        )

    def joining_s(self, state: BatchState) -> float:
        """Mean seconds from the end of the prompt to the first token, without the transfer."""
        return (1 + state.busy_ratio * self.steps_before_joining) * state.mean_step_s

    def tpot_met(self, state: BatchState, limit_s: Floats, *, arrival_cv2: float) -> Floats:
        """(buckets,) P(mean step over the request's life <= limit_s); 1 for one-token answers.

        The step time averaged over a life has the mean of the step time at an instant and a
        smaller spread (`averaging`); its distribution is taken as the instantaneous one drawn
        together around its mean.
        """
        spread = life_spread(state, self.tokens, arrival_cv2=arrival_cv2)
        met = steps_within(state.step_s, state.cumulative, state.mean_step_s, spread, limit_s)
        return np.where(self.tokens <= 1, 1.0, met)


def life_spread(state: BatchState, tokens: Floats, *, arrival_cv2: float) -> Floats:
    """(buckets,) spread of a life's mean step, as a share of the spread at one instant.

    Arrivals burstier than Poisson widen the batch by the peakedness z = (1 + ca2) / 2.

    References
    ----------
    Peakedness of GI/M/infinity in heavy traffic: Eckberg (1983); Whitt, "Heavy-traffic
    approximations for service systems with blocking" (1984).
    """
    share = averaging(tokens * state.mean_step_s, state.relaxation_s)
    return np.sqrt(np.maximum(share * (1 + arrival_cv2) / 2, 1e-8))
