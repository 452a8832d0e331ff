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
    steps_to_join,
)
from planner.capacity.decode import life_spread
from planner.capacity.kernels import work_within
from planner.capacity.prefill import PrefillLeg
from planner.capacity.queueing import HIGHEST_STATIONARY_RATIO, Wait, pool_wait
from planner.domain.profile import Profile
from planner.domain.workload import Shape

Floats = NDArray[np.float64]

_EDGES = ndtr(np.linspace(-3.5, 3.5, 9))  # quantile levels that resolve both tails
_LEVELS = (_EDGES[:-1] + _EDGES[1:]) / 2
_LEVEL_WEIGHT = np.diff(_EDGES) / (_EDGES[-1] - _EDGES[0])
_TAIL = -np.log1p(-np.array([0.1, 0.3, 0.5, 0.7, 0.9]))  # an exponential in five equal parts
_BACKLOGS = np.concatenate(([0.0], _TAIL / _TAIL.mean()))
_LIVES = 16


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
    backlog_mean_s : float
        Prompt work that has queued up behind a request, where there is any, seconds.
    """

    batch: BatchState
    prompt_share: float
    prompt_s: Floats
    wait: Wait
    backlog_mean_s: float


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
    shown : (lives,) int
        Buckets of different `tokens`, growing, that stand for the others: what prompts do to a
        life depends on its length only, and smoothly.
    steps_to_join : float
        Mean decode steps before a prompt that comes to a busy replica is looked at.

    References
    ----------
    Pollaczek-Khinchine and the equality of what departures leave and arrivals meet: Kleinrock,
    *Queueing Systems I* (1975), 5.3-5.6. Gamma tail: Wilson and Hilferty (1931).
    """

    prefill: PrefillLeg
    chain: BatchChain
    admission: Admission
    chunks: Floats
    tokens: Floats
    shown: NDArray[np.intp]
    steps_to_join: float

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
        prefill = PrefillLeg.of(profile, shape, served, replicas=replicas).in_decode_steps()
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
            shown=_spread_over(tokens),
            steps_to_join=steps_to_join(profile.limits),
        )

    @property
    def budget_s(self) -> float:
        """Seconds of prompts in one step at the most."""
        prefill = self.prefill
        return max(
            prefill.service_mean_s / float(prefill.weight @ self.chunks),
            float(prefill.service_s.min()),
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
        return AggregatedState(
            batch=batch,
            prompt_share=share,
            prompt_s=prompt_s,
            wait=wait,
            backlog_mean_s=max(wait.mean_s, prefill.service_mean_s),
        )

    def joining_s(self, state: AggregatedState) -> float:
        """Mean seconds until a prompt is looked at that need not wait for others."""
        return state.batch.busy_ratio * self.steps_to_join * state.batch.mean_step_s

    def tpot_met(
        self, state: AggregatedState, limit_s: Floats, *, arrival_cv2: float, rate_rps: float
    ) -> Floats:
        """(buckets,) P(mean gap over the request's life <= limit_s); 1 for one-token answers.

        A gap is a decode step plus what prompts take out of it, which over a life of m steps is

        - the backlog: prompts that queued up behind the request while its own was waiting and
          computed. They are there with the probability of waiting (a departing request leaves
          behind what an arriving one meets), are exponential as the wait is, and run in the
          first steps;
        - later arrivals: compound Poisson work over the time that the life takes, of mean
          life x rho and variance rate E[S^2] life / (1 - rho)^2; given that there is any, it is
          taken as gamma distributed with these moments.

        No step holds more than one token budget of prompts. The decode part is as in
        `DecodeLeg.tpot_met`.
        """
        batch, shown = state.batch, self.shown
        tokens = self.tokens[shown]
        steps = np.maximum(tokens, 1.0)
        spread = life_spread(batch, tokens, arrival_cv2=arrival_cv2)
        found = np.searchsorted(batch.cumulative, _LEVELS * batch.cumulative[-1])
        met_step_s = batch.step_s[np.minimum(found, len(batch.step_s) - 1)]
        own_s = batch.mean_step_s + (met_step_s[:, None] - batch.mean_step_s) * spread[None, :]
        slack_s = steps * (limit_s[shown] - own_s)
        fullest_s = steps * self.budget_s
        backlog_s = np.minimum(
            _BACKLOGS[:, None] * state.backlog_mean_s / (1 - state.prompt_share), fullest_s
        )
        waiting = state.wait.probability
        share = np.concatenate(([1 - waiting], np.full(len(_TAIL), waiting / len(_TAIL))))
        rate = min(rate_rps, self.saturation_rps) / self.prefill.replicas
        some, given_s, alpha = self._arrivals(state, steps, arrival_cv2, rate)
        met = work_within(slack_s, fullest_s, backlog_s, share, _LEVEL_WEIGHT, some, given_s, alpha)
        return np.where(self.tokens < 1, 1.0, np.interp(self.tokens, tokens, met))

    def _arrivals(
        self, state: AggregatedState, steps: Floats, arrival_cv2: float, rate: float
    ) -> tuple[Floats, Floats, Floats]:
        """Of prompts that arrive during lives of `steps`: P(any), mean work, its gamma shape."""
        prefill, idle = self.prefill, 1 - state.prompt_share
        life_s = steps * state.batch.mean_step_s / idle
        mean_s = life_s * state.prompt_share
        second = float(prefill.weight @ prefill.service_s**2)
        variance = np.maximum(arrival_cv2 * rate * second * life_s / idle**2, 1e-6 * mean_s**2)
        # Gamma gaps: burstier arrivals are likelier to come soon after one another. More even
        # ones are taken as Poisson here: their variance below is smaller anyway.
        cv2 = max(arrival_cv2, 1.0)
        some = np.maximum(gammainc(1 / cv2, rate * life_s / cv2), 1e-12)
        given_mean = mean_s / some
        given_variance = (variance + mean_s**2) / some - given_mean**2
        alpha = given_mean**2 / np.maximum(given_variance, 1e-6 * given_mean**2)
        return some, np.maximum(given_mean, 1e-12), alpha


def _spread_over(tokens: Floats) -> NDArray[np.intp]:
    """Indices of at most `_LIVES` different values, evenly over their ranking, growing."""
    _, different = np.unique(tokens, return_index=True)
    count = min(len(different), _LIVES)
    return different[np.linspace(0, len(different) - 1, count).round().astype(np.intp)]
