"""What is kept of one run when there are many: counts that add up, small enough to send around."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.domain.slo import Slo
from planner.domain.workload import LatencySummary, class_names
from planner.simulate.bins import binned, quantile_s
from planner.simulate.result import Outcome, SimulationResult, Stopped

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCount:
    """How many requests of a class there were, and how many met every objective.

    Requests that had not arrived when a run was stopped count as arrivals that missed: the line
    that stopped it would have been theirs.
    """

    request_class: str
    requests: int
    met: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Digest:
    """Figures of one run, or of several added up.

    Parameters
    ----------
    runs : int
    classes : tuple of ClassCount
        In order of name.
    outcomes : (6,) int
        Requests by `Outcome`.
    ttft_counts, tpot_counts, e2e_counts, gap_counts : (bins,) int
        Requests (gaps between tokens) in bins of 1 % width from 1 microsecond on.
    prompt_tokens, cached_tokens, preemptions, extrapolated_requests : int
    answer_tokens : int
        Of the requests that finished.
    utilization_ratio, kv_peak_ratio, accelerator_hours : (groups,) float
        Mean over the runs; the highest; sum.
    usd, end_s : float
        Sums.
    stopped : tuple of Stopped
        One for every run that was stopped.
    """

    runs: int
    classes: tuple[ClassCount, ...]
    outcomes: Integers
    ttft_counts: Integers
    tpot_counts: Integers
    e2e_counts: Integers
    gap_counts: Integers
    prompt_tokens: int
    answer_tokens: int
    cached_tokens: int
    preemptions: int
    extrapolated_requests: int
    utilization_ratio: Floats
    kv_peak_ratio: Floats
    accelerator_hours: Floats
    usd: float
    end_s: float
    stopped: tuple[Stopped, ...]

    @property
    def requests(self) -> int:
        """All requests, those that never arrived included."""
        return sum(c.requests for c in self.classes)

    @property
    def met(self) -> int:
        """Requests that met every objective of their class."""
        return sum(c.met for c in self.classes)

    def count(self, outcome: Outcome) -> int:
        """Requests that ended so."""
        return int(self.outcomes[outcome])

    def of_class(self, name: str) -> ClassCount:
        """The counts of one class; zeros when it had no request."""
        nothing = ClassCount(request_class=name, requests=0, met=0)
        return next((c for c in self.classes if c.request_class == name), nothing)

    def summary(self) -> LatencySummary:
        """Percentiles within 0.5 %, and attainment."""
        return LatencySummary(
            ttft_p50_s=_quantile_s(self.ttft_counts, 0.5),
            ttft_p95_s=_quantile_s(self.ttft_counts, 0.95),
            tpot_p50_s=_quantile_s(self.tpot_counts, 0.5),
            tpot_p95_s=_quantile_s(self.tpot_counts, 0.95),
            itl_p50_s=_quantile_s(self.gap_counts, 0.5),
            itl_p95_s=_quantile_s(self.gap_counts, 0.95),
            e2e_p95_s=_quantile_s(self.e2e_counts, 0.95),
            attainment_ratio=self.met / self.requests if self.requests else None,
        )


def digest(result: SimulationResult, slos: Sequence[Slo]) -> Digest:
    """The figures of one run.

    Raises
    ------
    InputError
        When a class has no objectives and there are none for `default`.
    """
    return Digest(
        runs=1,
        classes=class_counts(result, slos),
        outcomes=np.bincount(result.outcome, minlength=len(Outcome)),
        ttft_counts=binned(result.ttft_s),
        tpot_counts=binned(result.tpot_s),
        e2e_counts=binned(result.e2e_s),
        gap_counts=np.rint(result.itl_counts).astype(np.int64),
        prompt_tokens=int(result.input_tokens.sum()),
        answer_tokens=int(result.output_tokens[result.outcome == Outcome.FINISHED].sum()),
        cached_tokens=int(result.cached_tokens.sum()),
        preemptions=int(result.preemptions.sum()),
        extrapolated_requests=result.extrapolated_requests,
        utilization_ratio=np.array(result.utilization_ratio),
        kv_peak_ratio=np.array(result.kv_peak_ratio),
        accelerator_hours=np.array(result.accelerator_hours),
        usd=result.usd,
        end_s=result.end_s,
        stopped=() if result.stopped is None else (result.stopped,),
    )


def class_counts(result: SimulationResult, slos: Sequence[Slo]) -> tuple[ClassCount, ...]:
    """How many requests of every class one run had, and how many were in time; by name.

    Raises
    ------
    InputError
        When a class has no objectives and there are none for `default`.
    """
    met = result.met(slos)
    return tuple(
        ClassCount(
            request_class=name,
            requests=int((result.request_class == name).sum()),
            met=int(met[result.request_class == name].sum()),
        )
        for name in class_names(result.request_class)
    )


def together(digests: Sequence[Digest]) -> Digest:
    """Runs of the same groups added up.

    Raises
    ------
    ValueError
        When there is none.
    """
    if not digests:
        raise ValueError("there is no run to add up")
    names = sorted({c.request_class for d in digests for c in d.classes})
    runs = sum(d.runs for d in digests)
    return Digest(
        runs=runs,
        classes=tuple(
            ClassCount(
                request_class=name,
                requests=sum(d.of_class(name).requests for d in digests),
                met=sum(d.of_class(name).met for d in digests),
            )
            for name in names
        ),
        outcomes=_sum([d.outcomes for d in digests]),
        ttft_counts=_sum([d.ttft_counts for d in digests]),
        tpot_counts=_sum([d.tpot_counts for d in digests]),
        e2e_counts=_sum([d.e2e_counts for d in digests]),
        gap_counts=_sum([d.gap_counts for d in digests]),
        prompt_tokens=sum(d.prompt_tokens for d in digests),
        answer_tokens=sum(d.answer_tokens for d in digests),
        cached_tokens=sum(d.cached_tokens for d in digests),
        preemptions=sum(d.preemptions for d in digests),
        extrapolated_requests=sum(d.extrapolated_requests for d in digests),
        utilization_ratio=np.sum([d.utilization_ratio * d.runs for d in digests], axis=0) / runs,
        kv_peak_ratio=np.max([d.kv_peak_ratio for d in digests], axis=0),
        accelerator_hours=np.sum([d.accelerator_hours for d in digests], axis=0),
        usd=sum(d.usd for d in digests),
        end_s=sum(d.end_s for d in digests),
        stopped=tuple(s for d in digests for s in d.stopped),
    )


def _sum(columns: Sequence[Integers]) -> Integers:
    return np.asarray(np.sum(columns, axis=0), dtype=np.int64)


def _quantile_s(counts: Integers, level: float) -> float | None:
    return quantile_s(counts, level, total=int(counts.sum()))
