"""What a run gave, in the same columns for both simulators."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.domain.slo import Slo

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """One run; rows by arrival, then prompt length, then answer length.

    Parameters
    ----------
    ttft_s, tpot_s, e2e_s : (requests,) float, seconds
        NaN: not answered; in `tpot_s` also one output token.
    itl_p50_s, itl_p95_s : float
        Over all gaps between tokens, from each simulator's own histogram (bins of 0.4 % and 1 %).
    simulated_s : float
        Processor seconds of simulating, without reading the trace.
    """

    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    cached_tokens: Floats
    itl_p50_s: float
    itl_p95_s: float
    simulated_s: float

    def figures(self, slo: Slo) -> dict[str, float]:
        """The compared measures by name: seconds, and attainment as a ratio."""
        met = slo.met(ttft_s=self.ttft_s, tpot_s=self.tpot_s, e2e_s=self.e2e_s)
        answered = np.isfinite(self.ttft_s)
        return {
            "TTFT p50": float(np.nanquantile(self.ttft_s, 0.5)),
            "TTFT p95": float(np.nanquantile(self.ttft_s, 0.95)),
            "ITL p50": self.itl_p50_s,
            "ITL p95": self.itl_p95_s,
            "attainment": float((met & answered).sum()) / len(met),
        }

    def same_ttft_ratio(self, other: "Outcome") -> float:
        """Share of requests whose TTFT is the same in both within 1 %."""
        return float(np.isclose(self.ttft_s, other.ttft_s, rtol=0.01, equal_nan=True).mean())
