"""A pool of aggregated replicas: prompts are computed in the steps that decode, and stall them."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainc, ndtr

from planner.capacity.batch import (
    Admission,
    BatchChain,
    BatchState,
    admission,
    batch_chain,
    prompt_parts,
    solve_chain,
    step_times,
)
from planner.capacity.decode import life_spread
from planner.capacity.prefill import PrefillLeg
from planner.capacity.queueing import HIGHEST_STATIONARY_RATIO, Wait, pool_wait
from planner.domain.profile import Profile
from planner.domain.workload import Shape

Floats = NDArray[np.float64]

_EDGES = ndtr(np.linspace(-3.5, 3.5, 25))  # quantile levels that resolve both tails
_LEVELS = (_EDGES[:-1] + _EDGES[1:]) / 2
_LEVEL_WEIGHT = np.diff(_EDGES) / (_EDGES[-1] - _EDGES[0])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AggregatedState:
    """The pool solved for one rate.

    Parameters
    ----------
    prompt_share : float
        Share of a replica's time that goes into prompts, rho_p.
    prompt_s : (buckets,) float
        Seconds from the start of a prompt to its first token, decode steps within included.
    wait : Wait
        For earlier prompts.
    """

    batch: BatchState
    prompt_share: float
    prompt_s: Floats
    wait: Wait


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AggregatedLeg:
    """Prompt and answer on the same replica.

    Time adds up: of each second, rho_p = rate x E[S] goes into prompts and 1 - rho_p is left for
    decode steps, so a step of d(b) seconds takes d(b) / (1 - rho_p) on average.

    Parameters
    ----------
    chunks : (buckets,) float
        Prompt length over the token budget of a step.
    tokens : (buckets,) float
        Decode steps of a request; the first token comes with its prompt.
    """

    prefill: PrefillLeg
    chain: BatchChain
    admission: Admission
    chunks: Floats
    tokens: Floats

    @classmethod
    def of(
        cls, profile: Profile, shape: Shape, served: NDArray[np.bool_], *, replicas: int
    ) -> Self:
        """The leg of `replicas` replicas.

        Raises
        ------
        OutsideProfileError
            When prompts or contexts are longer than those measured.
        """
        prefill = PrefillLeg.of(profile, shape, served, replicas=replicas)
        admitted = admission(profile, shape, served)
        tokens = shape.output_tokens - 1.0
        chain = batch_chain(
            step_s=step_times(profile, shape, served, admitted.sequences),
            tokens=float(prefill.weight @ tokens),
            hold_s=prefill.service_mean_s,
            replicas=replicas,
        )
        new, _ = prompt_parts(shape)
        budget = max(profile.limits.max_num_batched_tokens - admitted.sequences / 2, 1.0)
        return cls(
            prefill=prefill,
            chain=chain,
            admission=admitted,
            chunks=new / budget,
            tokens=tokens,
        )

    @property
    def saturation_rps(self) -> float:
        """Requests/s at which prompts and full-batch steps fill all time: c / (E[S] + tokens)."""
        per_request_s = self.prefill.service_mean_s + self.prefill.replicas / max(
            self.chain.saturation_rps, 1e-12
        )
        return self.prefill.replicas / per_request_s

    def solve(self, rate_rps: float, *, arrival_cv2: float, window_s: float) -> AggregatedState:
        """Prompt queue and batch at `rate_rps` into the pool."""
        prefill = self.prefill
        highest_rps = HIGHEST_STATIONARY_RATIO * self.saturation_rps
        share = min(rate_rps, highest_rps) / prefill.saturation_rps
        batch = solve_chain(
            self.chain,
            rate_rps=rate_rps,
            stretch=1 / (1 - share),
            arrival_cv2=arrival_cv2,
            window_s=window_s,
        )
        prompt_s = prefill.service_s + np.ceil(self.chunks) * batch.mean_step_s
        # Under load chunks of several prompts share a step, so fewer steps are paid for.
        packed_s = prefill.service_s + self.chunks * batch.mean_step_s
        mean_s = float(prefill.weight @ packed_s)
        cv2 = float(prefill.weight @ (packed_s - mean_s) ** 2) / mean_s**2
        wait = pool_wait(
            servers=prefill.replicas,
            rate_rps=rate_rps,
            service_mean_s=mean_s,
            service_cv2=cv2,
            arrival_cv2=arrival_cv2,
            window_s=window_s,
        )
        return AggregatedState(batch=batch, prompt_share=share, prompt_s=prompt_s, wait=wait)

    def tpot_met(
        self, state: AggregatedState, limit_s: Floats, *, arrival_cv2: float, rate_rps: float
    ) -> Floats:
        """(buckets,) P(mean gap over the request's life <= limit_s); 1 for one-token answers.

        A gap is a decode step plus what prompts take out of it. Over a life of m steps the prompt
        part has mean d rho / (1 - rho) and variance rate E[S^2] d / (m (1 - rho)^3) (compound
        Poisson arrivals of work over the time that the life really takes); it is taken as gamma
        distributed with these moments. The decode part is as in `DecodeLeg.tpot_met`.
        """
        batch, idle = state.batch, 1 - state.prompt_share
        step_s = batch.mean_step_s
        spread = life_spread(batch, self.tokens, arrival_cv2=arrival_cv2)
        found = np.searchsorted(batch.cumulative, _LEVELS * batch.cumulative[-1])
        met_step_s = batch.step_s[np.minimum(found, len(batch.step_s) - 1)]
        steps_s = step_s + (met_step_s[:, None] - step_s) * spread[None, :]
        slack_s = limit_s - steps_s
        mean_s = step_s * state.prompt_share / idle
        if mean_s <= 0:
            met = _LEVEL_WEIGHT @ (slack_s >= 0)
            return np.where(self.tokens < 1, 1.0, met)
        prefill = self.prefill
        second_moment = float(prefill.weight @ prefill.service_s**2)
        work = arrival_cv2 * min(rate_rps, self.saturation_rps) / prefill.replicas * second_moment
        variance = np.maximum(
            work * step_s / (np.maximum(self.tokens, 1.0) * idle**3), 1e-9 * mean_s**2
        )
        alpha = mean_s**2 / variance
        within = gammainc(alpha[None, :], np.maximum(slack_s, 0.0) * alpha[None, :] / mean_s)
        met = _LEVEL_WEIGHT @ np.where(slack_s >= 0, within, 0.0)
        return np.where(self.tokens < 1, 1.0, met)
