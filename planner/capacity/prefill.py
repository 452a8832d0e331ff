"""A pool of prefill replicas: prompts wait for a replica and share its steps."""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.capacity.batch import check_prefill_range, prompt_parts
from planner.capacity.queueing import Wait, wait_behind
from planner.domain.profile import Profile
from planner.domain.workload import Shape

Floats = NDArray[np.float64]

_ITERATIONS = 12  # of the fixed point of prompts in a step


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefillLeg:
    """The prompt side of a request in one pool: replicas that compute prompts in batches.

    A step costs a fixed part f and the work v of its prompts. Alone a prompt takes f + v. Prompts
    that wait when a step begins share it, up to the token budget, so a busy replica pays f less
    often: with arrivals at rate r per replica and n prompts in a step on average,

        n = a + exp(-a),   a = r (f + n v)

    (a step starts with what came during the last one, a Poisson number, or with one prompt), and
    a prompt takes f / n + v of a replica's time.

    Parameters
    ----------
    service_s : (buckets,) float
        Seconds to compute a prompt alone.
    fixed_s : float
        The part of a step that its prompts share, seconds.
    most_prompts : float
        Prompts in a step at the most: token budget over mean prompt, or `max_num_seqs`.
    weight : (buckets,) float
        Share of the requests that come here; sums to 1.

    References
    ----------
    Batch service with gathering: Bailey, "On queueing processes with bulk service" (1954); here
    with a fixed and a proportional part, the mean batch as a fixed point.
    """

    replicas: int
    service_s: Floats
    fixed_s: float
    most_prompts: float
    weight: Floats

    @classmethod
    def of(
        cls, profile: Profile, shape: Shape, served: NDArray[np.bool_], *, replicas: int
    ) -> Self:
        """The leg of `replicas` replicas.

        Raises
        ------
        OutsideProfileError
            When prompts are longer than those measured.
        """
        check_prefill_range(profile, shape, served)
        new, cached = prompt_parts(shape)
        weight = shape.weight * served
        weight = weight / weight.sum()
        service_s = np.asarray(profile.prefill.extended_at(new, cached))
        limits = profile.limits
        fixed = float(weight @ step_without_tokens_s(profile, cached))
        return cls(
            replicas=replicas,
            # Buckets that nobody serves carry no weight; their value only has to be finite.
            service_s=service_s,
            fixed_s=min(fixed, float(weight @ service_s)),
            most_prompts=max(
                min(limits.max_num_batched_tokens / float(weight @ new), limits.max_num_seqs), 1.0
            ),
            weight=weight,
        )

    @property
    def service_mean_s(self) -> float:
        """Mean seconds of a prompt that has a step to itself."""
        return float(self.weight @ self.service_s)

    @property
    def work_mean_s(self) -> float:
        """E[v]: mean seconds that a prompt adds to a step."""
        return self.service_mean_s - self.fixed_s

    def in_decode_steps(self) -> Self:
        """The same prompts in steps that decode anyway: the fixed part is not theirs."""
        work_s = np.maximum(self.service_s - self.fixed_s, 1e-9)
        return replace(self, service_s=work_s, fixed_s=0.0)

    @property
    def saturation_rps(self) -> float:
        """Requests/s of the pool with every step full: c / (E[v] + f / n_max)."""
        return self.replicas / (self.work_mean_s + self.fixed_s / self.most_prompts)

    def prompts_in_step(self, rate_rps: float) -> float:
        """Mean prompts that share a step at `rate_rps` into the pool."""
        if self.most_prompts <= 1 or self.fixed_s <= 0:
            return 1.0
        rate, work_s, prompts = rate_rps / self.replicas, self.work_mean_s, 1.0
        for _ in range(_ITERATIONS):
            came = rate * (self.fixed_s + prompts * work_s)
            prompts = min(came + math.exp(-came), self.most_prompts)
        return prompts

    def wait(self, rate_rps: float, *, arrival_cv2: float, window_s: float) -> Wait:
        """Wait for a replica, at `rate_rps` into the pool.

        With one prompt a step this is GI/G/c (`pool_wait`). With n, a step of f + n v is in
        service, those ahead go at the rate of full steps, and the others in one's own step take
        (n - 1) v.
        """
        prompts = self.prompts_in_step(rate_rps)
        step_s = self.fixed_s + prompts * self.work_mean_s
        variance = float(self.weight @ (self.service_s - self.service_mean_s) ** 2)
        cv2 = variance / self.service_mean_s**2 / prompts
        wait = wait_behind(
            servers=self.replicas,
            busy_ratio=rate_rps * step_s / prompts / self.replicas,
            in_service_s=step_s,
            load_ratio=rate_rps / self.saturation_rps,
            apart_s=1 / self.saturation_rps,
            spread=(arrival_cv2 + cv2) / 2,
            window_s=window_s,
        )
        return replace(wait, mean_s=wait.mean_s + (prompts - 1) * self.work_mean_s)


def step_without_tokens_s(profile: Profile, cached: Floats) -> Floats:
    """(buckets,) the part of a prompt's seconds that does not grow with its tokens.

    The first measured segment continued to 0 new tokens, as the twin does; 0 with one point.
    """
    table = profile.prefill
    if len(table.x) == 1:
        return np.zeros_like(cached)
    found = cached if len(table.y) > 1 else cached[:1]  # else the same for all
    first, second = table.extended_at(table.x[:2, None], found[None, :])
    slope = (second - first) / (table.x[1] - table.x[0])
    none_s = np.minimum(np.maximum(first - slope * table.x[0], 0.0), first)
    return np.asarray(np.broadcast_to(none_s, cached.shape))


def kv_bytes(profile: Profile, shape: Shape) -> Floats:
    """(buckets,) bytes of a prompt's KV cache."""
    return np.asarray(profile.limits.kv_bytes_per_token * shape.input_tokens)


def transfer_s(profile: Profile, shape: Shape) -> Floats:
    """(buckets,) seconds to move a prompt's KV cache on an idle path."""
    return profile.transfer.seconds(kv_bytes(profile, shape))
