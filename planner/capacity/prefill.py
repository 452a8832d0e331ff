"""A pool of prefill replicas: prompts wait for a replica and are computed one after another."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from planner.capacity.batch import check_prefill_range, prompt_parts
from planner.capacity.queueing import Wait, pool_wait
from planner.domain.profile import Profile
from planner.domain.workload import Shape

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PrefillLeg:
    """The prompt side of a request in one pool: an M/G/c queue whose service is the prompt.

    Computing a prompt keeps a replica's arithmetic busy, so prompts computed together gain little
    and are taken one after another.

    Parameters
    ----------
    service_s : (buckets,) float
        Seconds to compute a prompt.
    weight : (buckets,) float
        Share of the requests that come here; sums to 1.
    """

    replicas: int
    service_s: Floats
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
        return cls(
            replicas=replicas,
            # Buckets that nobody serves carry no weight; their value only has to be finite.
            service_s=np.asarray(profile.prefill.extended_at(new, cached)),
            weight=weight / weight.sum(),
        )

    @property
    def service_mean_s(self) -> float:
        """E[S], seconds."""
        return float(self.weight @ self.service_s)

    @property
    def saturation_rps(self) -> float:
        """Requests/s of the pool with every replica always busy: c / E[S]."""
        return self.replicas / self.service_mean_s

    def wait(self, rate_rps: float, *, arrival_cv2: float, window_s: float) -> Wait:
        """Wait for a replica, at `rate_rps` into the pool."""
        mean_s = self.service_mean_s
        variance = float(self.weight @ (self.service_s - mean_s) ** 2)
        return pool_wait(
            servers=self.replicas,
            rate_rps=rate_rps,
            service_mean_s=mean_s,
            service_cv2=variance / mean_s**2,
            arrival_cv2=arrival_cv2,
            window_s=window_s,
        )


def transfer_s(profile: Profile, shape: Shape) -> Floats:
    """(buckets,) seconds to move a prompt's KV cache on an idle path."""
    return profile.transfer.seconds(profile.limits.kv_bytes_per_token * shape.input_tokens)
