"""What the twin saw, as columns, and the figures that people ask for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.domain.plan import ClassAttainment, Prediction
from planner.domain.slo import DEFAULT_CLASS, NO_SINGLE_GAPS, Slo
from planner.domain.workload import LatencySummary, class_names
from planner.simulate.bins import quantile_s
from planner.simulate.observe import GroupSeries
from planner.simulate.state import (
    ABORTED,
    FAILED,
    FINISHED,
    REJECTED,
    UNDER_WAY,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Small = NDArray[np.int32]

_Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


class Outcome(IntEnum):
    """How a request ended."""

    IN_FLIGHT = UNDER_WAY
    FINISHED = FINISHED
    REJECTED = REJECTED
    ABORTED = ABORTED
    FAILED = FAILED
    NOT_ARRIVED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Why a run stopped before its end."""

    at_s: float
    group: int
    role: Role
    why: str

    @property
    def reason(self) -> str:
        """The group and why."""
        return f"group {self.group} ({self.role}): {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimulationResult:
    """One run of the twin; requests in order of arrival.

    Parameters
    ----------
    arrival_s, ttft_s, tpot_s, e2e_s : (requests,) float, seconds
        NaN in `ttft_s`: no token. NaN in `tpot_s` and `e2e_s`: not finished; in `tpot_s` also:
        one output token.
    prompt_started_s, prompt_done_s, decode_started_s : (requests,) float, seconds
        Instants: the prompt left the line; it was computed; the request joined the batch that
        writes its answer. NaN: not reached.
    outcome : (requests,) int8
        One of `Outcome`.
    prompt_group, decode_group : (requests,) int
        The groups that computed the prompt and wrote the answer; -1 none.
    cached_tokens : (requests,) int
        Prompt tokens that were found in a prefix cache, or given as cached.
    preemptions : (requests,) int
        How often the request lost its KV cache and was computed again.
    request_class : (requests,) str
    gap_counts : (bins,) int
        All gaps between tokens by mean steps, in bins of 1 % width from 1 microsecond on.
    itl_counts : (bins,) float
        The same with the spread of single steps that the profiles measured.
    utilization_ratio : tuple of float
        Per group: share of its replicas' time with work in progress (a decode replica is busy
        while it has any sequence).
    series : GroupSeries
    end_s : float
        When the last request ended, or the workload's end if later; when the run was stopped.
        Seconds.
    accelerator_hours : tuple of float
        Per group, from ordering a replica until it is gone.
    usd : float
        Their price.
    kv_peak_ratio : tuple of float
        Per group: the highest share of KV blocks in use on one replica.
    stopped : Stopped or None
        None when the run came to its end.
    extrapolated_requests : int
        Requests for which times beyond the measured range were used.
    """

    arrival_s: Floats
    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    prompt_started_s: Floats
    prompt_done_s: Floats
    decode_started_s: Floats
    outcome: NDArray[np.int8]
    prompt_group: Small
    decode_group: Small
    cached_tokens: Small
    preemptions: Small
    input_tokens: Integers
    output_tokens: Integers
    request_class: NDArray[np.str_]
    gap_counts: Integers
    itl_counts: Floats
    utilization_ratio: tuple[float, ...]
    series: GroupSeries
    end_s: float
    accelerator_hours: tuple[float, ...]
    usd: float
    kv_peak_ratio: tuple[float, ...]
    stopped: Stopped | None
    extrapolated_requests: int

    @property
    def requests(self) -> int:
        """Arrivals: finished + rejected + aborted + failed + in flight."""
        return int((self.outcome != Outcome.NOT_ARRIVED).sum())

    def count(self, outcome: Outcome) -> int:
        """Requests that ended so."""
        return int((self.outcome == outcome).sum())

    @property
    def finished_requests(self) -> int:
        """Requests that were answered to the end."""
        return self.count(Outcome.FINISHED)

    @property
    def rejected_requests(self) -> int:
        """Requests that no replica could hold, or that were not let in."""
        return self.count(Outcome.REJECTED)

    @property
    def tokens_per_s(self) -> float:
        """Output tokens of finished requests per second of the run."""
        done = self.outcome == Outcome.FINISHED
        return float(self.output_tokens[done].sum()) / self.end_s if self.end_s > 0 else 0.0

    def itl_quantile_s(self, level: float) -> float | None:
        """Quantile over all gaps of all requests, within 0.5 %; None when there were no gaps."""
        return quantile_s(self.itl_counts, level, total=int(self.gap_counts.sum()))

    def met(self, slos: Sequence[Slo]) -> NDArray[np.bool_]:
        """(requests,) which ones finished and met TTFT, TPOT and end-to-end objectives.

        A class without its own objectives is judged by those of `default`. `itl_p99_s` is
        refused: the twin keeps gaps over all requests, not per request.

        Raises
        ------
        InputError
            When a class has no objectives and there are none for `default`, or `itl_p99_s`.
        """
        by_class = {s.request_class: s for s in slos}
        met = np.zeros(len(self.outcome), dtype=np.bool_)
        for name in class_names(self.request_class):
            slo = _objectives(by_class, name)
            those = self.request_class == name
            met[those] = slo.met(
                ttft_s=self.ttft_s[those], tpot_s=self.tpot_s[those], e2e_s=self.e2e_s[those]
            )
        met &= self.outcome == Outcome.FINISHED
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
            attainment_ratio=float(self.met(slos).sum()) / self.requests,
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
        low, high = (None, None) if attained is None else wilson(attained, self.requests)
        return Prediction(
            attainment_ratio=attained,
            attainment_low_ratio=low,
            attainment_high_ratio=high,
            ttft_p50_s=summary.ttft_p50_s,
            ttft_p95_s=summary.ttft_p95_s,
            tpot_p95_s=summary.tpot_p95_s,
            itl_p95_s=summary.itl_p95_s,
            source="twin",
            classes=self.attainments(slos),
        )

    def attainments(self, slos: Sequence[Slo]) -> tuple[ClassAttainment, ...]:
        """Every class that arrived under its own promise, with Wilson 95 % intervals.

        Raises
        ------
        InputError
            When a class has no objectives and there are none for `default`.
        """
        by_class = {s.request_class: s for s in slos}
        met, arrived = self.met(slos), self.outcome != Outcome.NOT_ARRIVED
        found = []
        for name in class_names(self.request_class):
            own = arrived & (self.request_class == name)
            requests = int(own.sum())
            if requests:
                ratio = float(met[own].mean())
                low, high = wilson(ratio, requests)
                found.append(
                    ClassAttainment(
                        request_class=name,
                        target_ratio=_objectives(by_class, name).attainment_ratio,
                        attainment_ratio=ratio,
                        low_ratio=low,
                        high_ratio=high,
                        requests=requests,
                    )
                )
        return tuple(found)


def pooled(results: Sequence[SimulationResult]) -> SimulationResult:
    """Runs of the same groups as one: requests, costs and durations added up.

    Utilisation is the mean, the peak of KV use the highest; `series` is the first run's, `stopped`
    the first one's that was stopped.

    Raises
    ------
    ValueError
        When there is no run.
    """
    if not results:
        raise ValueError("there is no run to pool")
    return replace(
        results[0],
        arrival_s=np.concatenate([r.arrival_s for r in results]),
        ttft_s=np.concatenate([r.ttft_s for r in results]),
        tpot_s=np.concatenate([r.tpot_s for r in results]),
        e2e_s=np.concatenate([r.e2e_s for r in results]),
        prompt_started_s=np.concatenate([r.prompt_started_s for r in results]),
        prompt_done_s=np.concatenate([r.prompt_done_s for r in results]),
        decode_started_s=np.concatenate([r.decode_started_s for r in results]),
        outcome=np.concatenate([r.outcome for r in results]),
        prompt_group=np.concatenate([r.prompt_group for r in results]),
        decode_group=np.concatenate([r.decode_group for r in results]),
        cached_tokens=np.concatenate([r.cached_tokens for r in results]),
        preemptions=np.concatenate([r.preemptions for r in results]),
        input_tokens=np.concatenate([r.input_tokens for r in results]),
        output_tokens=np.concatenate([r.output_tokens for r in results]),
        request_class=np.concatenate([r.request_class for r in results]),
        gap_counts=np.sum([r.gap_counts for r in results], axis=0),
        itl_counts=np.sum([r.itl_counts for r in results], axis=0),
        utilization_ratio=_column_means([r.utilization_ratio for r in results]),
        kv_peak_ratio=tuple(np.max([r.kv_peak_ratio for r in results], axis=0).tolist()),
        end_s=sum(r.end_s for r in results),
        accelerator_hours=tuple(np.sum([r.accelerator_hours for r in results], axis=0).tolist()),
        usd=sum(r.usd for r in results),
        stopped=next((r.stopped for r in results if r.stopped is not None), None),
        extrapolated_requests=sum(r.extrapolated_requests for r in results),
    )


def _column_means(rows: list[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(np.mean(rows, axis=0).tolist())


def _objectives(by_class: Mapping[str, Slo], name: str) -> Slo:
    slo = by_class.get(name, by_class.get(DEFAULT_CLASS))
    if slo is None:
        raise InputError(
            f"the workload has requests of class {name!r}, but objectives were given for "
            f"{', '.join(sorted(by_class)) or 'no class'}: add an SLO for {name!r} or "
            f"{DEFAULT_CLASS!r}"
        )
    if slo.itl_p99_s is not None:
        raise InputError(NO_SINGLE_GAPS)
    return slo


def _quantile(values: Floats, level: float) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.quantile(known, level)) if len(known) else None


def wilson(ratio: float, count: float, quantile: float = _Z95) -> tuple[float, float]:
    """Ends of Wilson's interval of a share that was seen in `count` independent requests."""
    spread = quantile**2 / count
    centre = (ratio + spread / 2) / (1 + spread)
    half = quantile / (1 + spread) * math.sqrt(ratio * (1 - ratio) / count + spread / (4 * count))
    return max(centre - half, 0.0), min(centre + half, 1.0)
