"""What a request class was promised."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DEFAULT_CLASS = "default"
LONGEST_SLO_S = 120.0
"""An objective above this many seconds is taken for milliseconds and refused."""


LONGEST_TOKEN_S = 10.0
"""The same for objectives per token: nobody waits so long for one, but 20-100 ms are common."""

NO_SINGLE_GAPS = (
    "itl_p99_s is not judged by plan or twin, which know the mean gap of a request and not each "
    "one: leave it out, and promise the mean by tpot_s"
)


def check_seconds(field: str, value: float, *, longest_s: float = LONGEST_SLO_S) -> None:
    """Refuse a latency objective that cannot be seconds.

    Raises
    ------
    ValueError
        When `value` is not above 0, or so large that it must be milliseconds.
    """
    if not value > 0:
        raise ValueError(f"{field} must be above 0 s, got {value:g}")
    if value > longest_s:
        raise ValueError(
            f"{field} is {value:g} s, above {longest_s:g} s: objectives are in seconds, "
            f"not milliseconds; did you mean {value / 1000:g}?"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Latency objectives of one request class, each met or missed request by request.

    Parameters
    ----------
    model, request_class : str
        Whom the promise is made to.
    ttft_s : float
        Time to first token, seconds.
    tpot_s : float
        Time per output token, (e2e - ttft) / (output_tokens - 1), seconds. A request with one
        output token has none and passes.
    attainment_ratio : float
        Share of all arrivals in a window that must meet every objective, 0..1.
    itl_p99_s, e2e_s : float or None
        Optional: 99th percentile of a request's own token gaps; end-to-end time. Seconds. The
        first is for judging measured requests (`met`) only: plans and the twin refuse it.

    References
    ----------
    Goodput as the rate of requests within all objectives: DistServe (OSDI 2024), section 2.
    """

    model: str
    request_class: str = DEFAULT_CLASS
    ttft_s: float
    tpot_s: float
    attainment_ratio: float = 0.95
    itl_p99_s: float | None = None
    e2e_s: float | None = None

    def __post_init__(self) -> None:
        check_seconds("ttft_s", self.ttft_s)
        check_seconds("tpot_s", self.tpot_s, longest_s=LONGEST_TOKEN_S)
        if self.itl_p99_s is not None:
            check_seconds("itl_p99_s", self.itl_p99_s, longest_s=LONGEST_TOKEN_S)
        if self.e2e_s is not None and not self.e2e_s > 0:
            raise ValueError(f"e2e_s must be above 0 s, got {self.e2e_s:g}")
        if not 0 < self.attainment_ratio < 1:
            raise ValueError(
                "attainment_ratio must lie between 0 and 1 (exclusive), "
                f"got {self.attainment_ratio:g}"
            )

    def met(
        self,
        *,
        ttft_s: NDArray[np.float64],
        tpot_s: NDArray[np.float64],
        itl_p99_s: NDArray[np.float64] | None = None,
        e2e_s: NDArray[np.float64] | None = None,
    ) -> NDArray[np.bool_]:
        """Which requests met every objective.

        Parameters
        ----------
        ttft_s, tpot_s, itl_p99_s, e2e_s : (requests,) float, seconds
            NaN in `ttft_s` marks a rejected, failed or timed-out request, which misses. NaN in
            `tpot_s` or `itl_p99_s` marks a request with one output token, which passes those.
        """
        met = (ttft_s <= self.ttft_s) & ~(tpot_s > self.tpot_s)
        if self.itl_p99_s is not None and itl_p99_s is not None:
            met &= ~(itl_p99_s > self.itl_p99_s)
        if self.e2e_s is not None and e2e_s is not None:
            met &= ~(e2e_s > self.e2e_s)
        return met
