"""What the twin saw, as columns, and the figures that people ask for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.domain.errors import InputError
from planner.domain.plan import Prediction
from planner.domain.slo import DEFAULT_CLASS, Slo
from planner.domain.workload import LatencySummary
from planner.simulate.state import GAP_RATIO, GAP_SHORTEST_S

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QueueSeries:
    """Queues at evenly spaced instants.

    Parameters
    ----------
    t_s : (points,) float, seconds from the start
    prefill_queue : (points,) int
        Requests whose prompt has not been begun.
    decode_running : (points,) int
        Sequences being decoded.
    """

    t_s: Floats
    prefill_queue: Integers
    decode_running: Integers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimulationResult:
    """One run of the twin; requests in order of arrival.

    Parameters
    ----------
    arrival_s, ttft_s, tpot_s, e2e_s : (requests,) float, seconds
        NaN in `ttft_s`: rejected, no replica could ever hold it. NaN in `tpot_s`: rejected or one
        output token.
    request_class : (requests,) str
    gap_counts : (bins,) int
        All gaps between tokens, in bins of 1 % width from 1 microsecond on.
    utilization_ratio : tuple of float
        Per group: share of its replicas' time with work in progress (a decode replica is busy
        while it has any sequence).
    end_s : float
        When the last request was answered, or the workload's end if later. Seconds.
    extrapolated_requests : int
        Requests for which times beyond the measured range were used.
    """

    arrival_s: Floats
    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    request_class: NDArray[np.str_]
    gap_counts: Integers
    utilization_ratio: tuple[float, ...]
    queues: QueueSeries
    end_s: float
    extrapolated_requests: int

    @property
    def requests(self) -> int:
        """Arrivals: finished + rejected."""
        return len(self.arrival_s)

    @property
    def finished_requests(self) -> int:
        """Requests that were answered to the end."""
        return int(np.isfinite(self.e2e_s).sum())

    @property
    def rejected_requests(self) -> int:
        """Requests that no replica could hold."""
        return int(np.isnan(self.ttft_s).sum())

    def itl_quantile_s(self, level: float) -> float | None:
        """Quantile over all gaps of all requests, within 0.5 %; None when there were no gaps."""
        total = int(self.gap_counts.sum())
        if total == 0:
            return None
        rank = max(math.ceil(level * total), 1)
        found = int(np.searchsorted(np.cumsum(self.gap_counts), rank))
        return float(GAP_SHORTEST_S * GAP_RATIO ** (found + 0.5))

    def met(self, slos: Sequence[Slo]) -> NDArray[np.bool_]:
        """(requests,) which arrivals met TTFT, TPOT and end-to-end objectives of their class.

        A class without its own objectives is judged by those of `default`. `itl_p99_s` is not
        judged: the twin keeps gaps over all requests, not per request.

        Raises
        ------
        InputError
            When a class has no objectives and there are none for `default`.
        """
        by_class = {s.request_class: s for s in slos}
        met = np.zeros(self.requests, dtype=np.bool_)
        for name in np.unique(self.request_class):
            slo = _objectives(by_class, str(name))
            those = self.request_class == name
            met[those] = slo.met(
                ttft_s=self.ttft_s[those], tpot_s=self.tpot_s[those], e2e_s=self.e2e_s[those]
            )
        return met

    def summary(self, slos: Sequence[Slo]) -> LatencySummary:
        """Percentiles over the answered requests, attainment over all arrivals."""
        if self.requests == 0:
            return LatencySummary()
        return LatencySummary(
            ttft_p50_s=_quantile(self.ttft_s, 0.5),
            ttft_p95_s=_quantile(self.ttft_s, 0.95),
            tpot_p50_s=_quantile(self.tpot_s, 0.5),
            tpot_p95_s=_quantile(self.tpot_s, 0.95),
            itl_p50_s=self.itl_quantile_s(0.5),
            itl_p95_s=self.itl_quantile_s(0.95),
            e2e_p95_s=_quantile(self.e2e_s, 0.95),
            attainment_ratio=float(self.met(slos).mean()),
        )

    def prediction(self, slos: Sequence[Slo]) -> Prediction:
        """The same as a prediction, with a Wilson 95 % interval of the attainment.

        The interval takes requests as independent; neighbours in a queue are not, so the true
        interval of one short run is wider.

        References
        ----------
        Wilson, "Probable inference, the law of succession, and statistical inference" (1927).
        """
        summary = self.summary(slos)
        attained = summary.attainment_ratio
        low, high = (None, None) if attained is None else _wilson(attained, self.requests)
        return Prediction(
            attainment_ratio=attained,
            attainment_low_ratio=low,
            attainment_high_ratio=high,
            ttft_p50_s=summary.ttft_p50_s,
            ttft_p95_s=summary.ttft_p95_s,
            tpot_p95_s=summary.tpot_p95_s,
            itl_p95_s=summary.itl_p95_s,
            source="twin",
        )


def _objectives(by_class: Mapping[str, Slo], name: str) -> Slo:
    slo = by_class.get(name, by_class.get(DEFAULT_CLASS))
    if slo is None:
        raise InputError(
            f"the workload has requests of class {name!r}, but objectives were given for "
            f"{', '.join(sorted(by_class)) or 'no class'}: add an SLO for {name!r} or "
            f"{DEFAULT_CLASS!r}"
        )
    return slo


def _quantile(values: Floats, level: float) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.quantile(known, level)) if len(known) else None


def _wilson(ratio: float, count: int) -> tuple[float, float]:
    spread = _Z95**2 / count
    centre = (ratio + spread / 2) / (1 + spread)
    half = _Z95 / (1 + spread) * math.sqrt(ratio * (1 - ratio) / count + spread / (4 * count))
    return max(centre - half, 0.0), min(centre + half, 1.0)
