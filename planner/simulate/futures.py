"""Many sampled futures of one deployment, and how sure one can be of their attainment.

Requests of one run share their queues, so they are not independent and no interval may be made
from their number. Futures are independent: attainment is estimated as a ratio over futures, and
its interval comes from how the futures differ.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from planner.domain.forecast import ForecastWindow, Paths
from planner.domain.slo import DEFAULT_CLASS, Slo
from planner.domain.workload import Workload
from planner.simulate.digest import ClassCount, Digest, digest, together
from planner.simulate.paths import sample_path
from planner.simulate.result import SimulationResult, wilson
from planner.simulate.sample import sample_workload
from planner.simulate.scenario import Scenario
from planner.simulate.twin import simulate

Integers = NDArray[np.int64]

FEWEST_FUTURES = 8
"""The first look of a sequential run: fewer tell too little of how futures differ."""

MOST_FUTURES = 10_000


Ended = Literal["count", "precision", "clear"]


class Kept(StrEnum):
    """Of which futures the requests are kept, beside the figures."""

    FIRST = "first"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A share with its confidence interval; None where nothing arrived or one run says nothing."""

    ratio: float | None
    low_ratio: float | None
    high_ratio: float | None

    @property
    def half_width_ratio(self) -> float | None:
        """Half of the interval's width."""
        if self.low_ratio is None or self.high_ratio is None:
            return None
        return (self.high_ratio - self.low_ratio) / 2

    def clears(self, target_ratio: float) -> bool | None:
        """Whether it lies at or above the target (True), below it (False), or neither (None)."""
        if self.low_ratio is None or self.high_ratio is None:
            return None
        if self.low_ratio >= target_ratio:
            return True
        return False if self.high_ratio < target_ratio else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassVerdict:
    """The attainment of one class beside what it was promised."""

    request_class: str
    requests: int
    target_ratio: float
    attainment: Interval

    @property
    def holds(self) -> bool | None:
        """Whether the promise is kept, with confidence; None: not clear. No request: kept."""
        return True if self.requests == 0 else self.attainment.clears(self.target_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """When enough futures have been seen.

    Parameters
    ----------
    most_futures : int
        No more than these; without the other two exactly these.
    precision_ratio : float or None
        Stop when the attainment's interval reaches no further than this to either side (half
        its width).
    until_clear : bool
        Stop when every class is clearly at or above its target, or one is clearly below.
    confidence_ratio : float
    """

    most_futures: int
    precision_ratio: float | None = None
    until_clear: bool = False
    confidence_ratio: float = 0.95

    def __post_init__(self) -> None:
        if not 1 <= self.most_futures <= MOST_FUTURES:
            raise ValueError(f"futures must lie between 1 and {MOST_FUTURES:,}")
        if self.precision_ratio is not None and not 0 < self.precision_ratio < 1:
            raise ValueError(
                f"precision_ratio must lie between 0 and 1, got {self.precision_ratio:g}"
            )
        if not 0 < self.confidence_ratio < 1:
            raise ValueError(
                f"confidence_ratio must lie between 0 and 1, got {self.confidence_ratio:g}"
            )

    def looks(self) -> tuple[int, ...]:
        """After how many futures the interval is looked at: 8, 16, 32, ... and the most."""
        if self.precision_ratio is None and not self.until_clear:
            return (self.most_futures,)
        doubling = []
        count = FEWEST_FUTURES
        while count < self.most_futures:
            doubling.append(count)
            count *= 2
        return (*doubling, self.most_futures)

    @property
    def miss_ratio(self) -> float:
        """How often the interval of one look may miss the truth.

        The permitted error is spent in equal parts on the looks, fixed beforehand; by the union
        bound all looks' intervals hold together with at least `confidence_ratio`, whatever the
        dependence between looks and whenever one stops.

        References
        ----------
        Spending an error over looks: Lan and DeMets, "Discrete sequential boundaries for clinical
        trials", Biometrika 70 (1983).
        """
        return (1 - self.confidence_ratio) / len(self.looks())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FutureSource:
    """What every future has in common. Future `i` of equal sources is always the same.

    Parameters
    ----------
    scenario : Scenario
        The deployment; its workload is replaced by each future's own.
    window : ForecastWindow
        What may come.
    level : float or None
        Quantile of the rate; None draws the rate from its quantiles, too.
    duration_s : float
        Length of a future, seconds.
    slos : tuple of Slo
        Of one model.
    paths : Paths or None
        Future `i` follows path `i` through all its windows, and `window`, `level` and
        `duration_s` are not looked at; at least as many paths as futures. None: a future is one
        window.
    """

    scenario: Scenario
    window: ForecastWindow
    duration_s: float
    slos: tuple[Slo, ...]
    level: float | None = None
    seed: int = 0
    paths: Paths | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FutureRun:
    """One future: its figures, and its requests where they were kept."""

    digest: Digest
    result: SimulationResult | None


class OrderedMap(Protocol):
    """Results in the order of what is asked; may work on several at once."""

    def __call__(
        self, function: Callable[[int], FutureRun], items: Iterable[int]
    ) -> Iterator[FutureRun]:
        """Apply the function to every item."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Futures:
    """What was seen in all futures.

    Parameters
    ----------
    count : int
        How many there were.
    total : Digest
        Their figures added up.
    verdicts : tuple of ClassVerdict
        In order of class name.
    looks : int
        How often the interval was looked at.
    ended_by : Ended
        `count` (all were seen), `precision` or `clear`.
    results : tuple of SimulationResult
        The futures whose requests were kept, in order.
    """

    count: int
    total: Digest
    attainment: Interval
    verdicts: tuple[ClassVerdict, ...]
    looks: int
    ended_by: Ended
    results: tuple[SimulationResult, ...]

    @property
    def holds(self) -> bool | None:
        """Whether every class keeps its promise, with confidence; None: not clear."""
        return _all_hold(self.verdicts)


def play(source: FutureSource, kept: Kept, future: int) -> FutureRun:
    """Draw one future and replay it; equal arguments give equal runs, in any process."""
    workload = _workload(source, future)
    result = simulate(replace(source.scenario, workload=workload))
    keeps = kept is Kept.ALL or future == 0
    return FutureRun(digest=digest(result, source.slos), result=result if keeps else None)


def _workload(source: FutureSource, future: int) -> Workload:
    rng = np.random.default_rng([source.seed, future])
    if source.paths is not None:
        return sample_path(source.paths, future, rng=rng)
    return sample_workload(source.window, level=source.level, duration_s=source.duration_s, rng=rng)


def one_by_one(function: Callable[[int], FutureRun], items: Iterable[int]) -> Iterator[FutureRun]:
    """An `OrderedMap` in this process."""
    return map(function, items)


def sample_futures(
    source: FutureSource,
    stopping: Stopping,
    *,
    kept: Kept = Kept.FIRST,
    each: OrderedMap = one_by_one,
    progress: Callable[[int, int], None] | None = None,
) -> Futures:
    """Replay futures until enough have been seen.

    Looks are fixed beforehand and futures are numbered, so the answer depends on the seed alone,
    not on how many processes `each` uses.

    Parameters
    ----------
    progress : function of (futures done, most futures) or None

    Raises
    ------
    InputError
        When a class has no objectives and there are none for `default`.
    """
    tally = _Tally()
    for look, until in enumerate(stopping.looks(), start=1):
        for run in each(partial(play, source, kept), range(len(tally.counts), until)):
            tally.add(run)
            if progress is not None:
                progress(len(tally.counts), stopping.most_futures)
        seen = tally.futures(source.slos, stopping, looks=look)
        if seen.ended_by != "count":
            break
    return seen


class _Tally:
    """What has been seen so far; figures are added up as they come, so that memory stays flat."""

    def __init__(self) -> None:
        self.counts: list[tuple[ClassCount, ...]] = []
        self._results: list[SimulationResult] = []
        self._total: list[Digest] = []

    def add(self, run: FutureRun) -> None:
        """Take a future in."""
        self.counts.append(run.digest.classes)
        self._total = [together([*self._total, run.digest])]
        if run.result is not None:
            self._results.append(run.result)

    def futures(self, slos: Sequence[Slo], stopping: Stopping, *, looks: int) -> Futures:
        """Look at the interval."""
        attainment, verdicts = judge(self.counts, slos, miss_ratio=stopping.miss_ratio)
        return Futures(
            count=len(self.counts),
            total=self._total[0],
            attainment=attainment,
            verdicts=verdicts,
            looks=looks,
            ended_by=_ended_by(stopping, attainment, verdicts),
            results=tuple(self._results),
        )


def judge(
    counts: Sequence[Sequence[ClassCount]], slos: Sequence[Slo], *, miss_ratio: float
) -> tuple[Interval, tuple[ClassVerdict, ...]]:
    """The attainment of all requests together, and of every class beside its target.

    Parameters
    ----------
    counts : (futures,) of the classes' counts
    miss_ratio : float
        How often the interval of all requests may miss the truth; and how often any of the
        classes' intervals may, who share it in equal parts.
    """
    tables = [{c.request_class: c for c in future} for future in counts]
    names = sorted({name for table in tables for name in table})
    met = np.array([[t[n].met if n in t else 0 for n in names] for t in tables])
    requests = np.array([[t[n].requests if n in t else 0 for n in names] for t in tables])
    verdicts = tuple(
        ClassVerdict(
            request_class=name,
            requests=int(requests[:, i].sum()),
            target_ratio=target_of(name, slos),
            attainment=attainment_interval(
                met[:, i], requests[:, i], miss_ratio=miss_ratio / len(names)
            ),
        )
        for i, name in enumerate(names)
    )
    everything = attainment_interval(
        met.sum(axis=1).astype(np.int64),
        requests.sum(axis=1).astype(np.int64),
        miss_ratio=miss_ratio,
    )
    return everything, verdicts


def target_of(request_class: str, slos: Sequence[Slo]) -> float:
    """What a class is promised, or else the default class."""
    targets = {slo.request_class: slo.attainment_ratio for slo in slos}
    return targets.get(request_class, targets.get(DEFAULT_CLASS, 1.0))


def attainment_interval(met: Integers, requests: Integers, *, miss_ratio: float) -> Interval:
    """Share of requests that met their objectives, with an interval from how futures differ.

    The share is the ratio estimator R = sum(met) / sum(requests). Its variance is that of the
    residuals met - R * requests over futures: K sum(d^2) / ((K - 1) sum(requests)^2). From it
    follows how many independent requests would be as telling, n = R (1 - R) / variance, never
    more than there were; the interval is Wilson's for n requests, with Student's quantile for
    K - 1 degrees of freedom instead of the normal one. It stays within 0 and 1 and is not empty
    where all futures agree.

    Parameters
    ----------
    met, requests : (futures,) int
    miss_ratio : float
        How often the interval may miss the truth.

    References
    ----------
    Ratio estimator and its variance over clusters: Cochran, Sampling Techniques (3rd ed., 1977),
    chapters 3 (proportions in cluster sampling) and 6. Wilson's interval with the effective
    sample size: Dean and Pagano, "Evaluating confidence interval methods for binomial proportions
    in clustered surveys" (J. Survey Statistics and Methodology, 2015).
    """
    total, futures = int(requests.sum()), len(requests)
    if total == 0:
        return Interval(ratio=None, low_ratio=None, high_ratio=None)
    ratio = int(met.sum()) / total
    if futures < 2:
        return Interval(ratio=ratio, low_ratio=None, high_ratio=None)
    residual = met - ratio * requests
    variance = futures / (futures - 1) * float(residual @ residual) / total**2
    count = float(total)
    if variance > 0:
        count = min(count, ratio * (1 - ratio) / variance)
    t = float(stdtrit(futures - 1, 1 - miss_ratio / 2))
    low, high = wilson(ratio, count, t)
    return Interval(ratio=ratio, low_ratio=min(low, ratio), high_ratio=max(high, ratio))


def _ended_by(stopping: Stopping, attainment: Interval, verdicts: Sequence[ClassVerdict]) -> Ended:
    if stopping.until_clear and _all_hold(verdicts) is not None:
        return "clear"
    half, precision = attainment.half_width_ratio, stopping.precision_ratio
    if precision is not None and half is not None and half <= precision:
        return "precision"
    return "count"


def _all_hold(verdicts: Sequence[ClassVerdict]) -> bool | None:
    return all_hold([verdict.holds for verdict in verdicts])


def all_hold(each: Sequence[bool | None]) -> bool | None:
    """False when any is, None when it is not clear for all of them."""
    if False in each:
        return False
    return None if None in each else True
