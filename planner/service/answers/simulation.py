"""A fleet or a plan replayed in the twin: against given requests, or against sampled futures."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from forecaster.paths import sample_paths
from forecaster.shapes import shape_of_lengths
from forecaster.windows import arrival_cv2_of
from planner.domain.errors import InputError
from planner.domain.forecast import Demand, Forecast, ForecastWindow, Paths, Quantiles
from planner.domain.slo import Slo
from planner.domain.spec import Spec
from planner.domain.workload import LatencySummary, Workload, class_names
from planner.service.answers.circumstances import (
    PLAIN,
    Replicas,
    replicas_of_fleet,
    replicas_of_plan,
    scenario_of,
)
from planner.service.answers.planning import check_classes
from planner.service.answers.simulation_flags import flags_of, holes
from planner.service.documents.circumstances import CircumstancesDocument
from planner.simulate import Scenario, SimulationResult, simulate
from planner.simulate.digest import Digest, digest
from planner.simulate.futures import (
    ClassVerdict,
    Futures,
    FutureSource,
    Interval,
    Kept,
    OrderedMap,
    Stopping,
    all_hold,
    one_by_one,
    sample_futures,
    target_of,
)

__all__ = [
    "Replicas",
    "Sampling",
    "Simulated",
    "replay",
    "replicas_of_fleet",
    "replicas_of_plan",
    "sample",
    "sampling_like",
    "sampling_through",
    "window_like",
]

MOST_SAMPLED = 50_000_000
"""Expected requests of one future; more are a wrong unit."""

USUAL_FUTURES, MOST_FUTURES = 20, 256
"""How many are drawn when nobody says: at once, and at the most when it depends on them."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedPool:
    """When a run was stopped, and at which pool why."""

    at_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Simulated:
    """What was simulated and what was seen.

    Parameters
    ----------
    scenario : Scenario
        Its groups are the pools, in order.
    duration_s : float
        Interval of the arrivals of one run, seconds.
    total : Digest
        Figures of all runs.
    results : tuple of SimulationResult
        The runs whose requests were kept; at least the first.
    futures : Futures or None
        None: the given requests were replayed.
    flags : tuple of str
        What should be known before the figures are believed.
    """

    pools: tuple[Replicas, ...]
    scenario: Scenario
    slos: tuple[Slo, ...]
    duration_s: float
    total: Digest
    attainment: Interval
    verdicts: tuple[ClassVerdict, ...]
    results: tuple[SimulationResult, ...]
    futures: Futures | None
    stopping: Stopping | None
    flags: tuple[str, ...]

    @property
    def holds(self) -> bool | None:
        """Whether every class keeps its promise; never when a run was stopped."""
        if self.total.stopped:
            return False
        return all_hold([self.keeps(verdict) for verdict in self.verdicts])

    @property
    def latency(self) -> LatencySummary:
        """Percentiles over all runs: exact for given requests, within 0.5 % for futures."""
        if self.futures is not None:
            return self.total.summary()
        return replace(self.results[0].summary(self.slos), attainment_ratio=self.attainment.ratio)

    @property
    def stopped(self) -> StoppedPool | None:
        """The first run that was stopped, if any."""
        if not self.total.stopped:
            return None
        first = self.total.stopped[0]
        label = self.pools[first.group].shape.label
        return StoppedPool(at_s=first.at_s, reason=f"pool {first.group} ({label}): {first.why}")

    def keeps(self, verdict: ClassVerdict) -> bool | None:
        """Whether one class keeps its promise.

        Of given requests: whether these did. Of futures: with confidence; None is not clear.
        """
        if self.futures is not None:
            return verdict.holds
        ratio = verdict.attainment.ratio
        return ratio is None or ratio >= verdict.target_ratio


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sampling:
    """What futures are drawn from.

    Parameters
    ----------
    level : float or None
        Quantile of the rate; None draws it.
    duration_s : float
        Length of a future, seconds.
    flags : tuple of str
        What should be known about it.
    cache_was_seen : bool
        Whether the cached tokens are what replicas found, not what an endless cache would hold.
    forecast : Forecast or None
        Every future follows a path through all its windows; None: a future is `window` alone.
    """

    window: ForecastWindow
    duration_s: float
    level: float | None = None
    flags: tuple[str, ...] = ()
    cache_was_seen: bool = False
    forecast: Forecast | None = None

    @property
    def cached_ratio(self) -> float:
        """Cached share of all prompt tokens."""
        rates = [(d.shape, d.request_rate_rps.median) for d in self.window.demands]
        prompt = sum(rate * float(s.weight @ s.input_tokens) for s, rate in rates)
        cached = sum(rate * float(s.weight @ s.cached_tokens) for s, rate in rates)
        return cached / prompt if prompt > 0 else 0.0


def sampling_through(forecast: Forecast) -> Sampling:
    """What futures are drawn from that run through all windows of a forecast."""
    return Sampling(
        window=forecast.windows[0],
        duration_s=sum(window.window_s for window in forecast.windows),
        forecast=forecast,
        flags=("the replicas stay as they are through all windows of the forecast",),
    )


def replay(
    spec: Spec,
    pools: Sequence[Replicas],
    workload: Workload,
    *,
    model: str,
    circumstances: CircumstancesDocument = PLAIN,
    progress: Progress | None = None,
) -> Simulated:
    """What the requests of a workload experience on these replicas.

    Parameters
    ----------
    progress : function of (arrived, requests) or None

    Raises
    ------
    InputError
        When the replicas cannot serve a request, one of them has no profile, a class has no
        objective, or a circumstance does not fit the pools.
    """
    check_classes(spec, model, set(class_names(workload.request_class)))
    scenario = scenario_of(spec, pools, workload, circumstances)
    slos = _slos(spec, model)
    with _enough_memory(pools):
        result = simulate(scenario, progress=progress)
    total = digest(result, slos)
    prediction = result.prediction(slos)
    attainment = Interval(
        ratio=prediction.attainment_ratio,
        low_ratio=prediction.attainment_low_ratio,
        high_ratio=prediction.attainment_high_ratio,
    )
    if result.stopped is not None:  # the requests that never arrived count, too
        ratio = total.summary().attainment_ratio
        attainment = Interval(ratio=ratio, low_ratio=None, high_ratio=None)
    return Simulated(
        pools=tuple(pools),
        scenario=scenario,
        slos=slos,
        duration_s=workload.duration_s,
        total=total,
        attainment=attainment,
        verdicts=_observed(total, slos),
        results=(result,),
        futures=None,
        stopping=None,
        flags=flags_of(spec, pools, scenario, result, given=True),
    )


def sample(
    spec: Spec,
    pools: Sequence[Replicas],
    sampling: Sampling,
    stopping: Stopping,
    *,
    model: str,
    circumstances: CircumstancesDocument = PLAIN,
    kept: Kept = Kept.FIRST,
    each: OrderedMap = one_by_one,
    progress: Progress | None = None,
) -> Simulated:
    """What requests experience on these replicas in many futures, and how sure that is.

    Parameters
    ----------
    progress : function of (futures done, most futures) or None

    Raises
    ------
    InputError
        As `replay`; and when the futures would be too large.
    """
    window = sampling.window
    windows = (window,) if sampling.forecast is None else sampling.forecast.windows
    check_classes(spec, model, {d.request_class for w in windows for d in w.demands})
    expected = expected_requests(sampling)
    if not expected <= MOST_SAMPLED:
        raise InputError(
            f"a future of {sampling.duration_s:g} s would have some {expected:.2g} requests, more "
            f"than {MOST_SAMPLED:,}: give a shorter duration, or look for a wrong unit in the rate"
        )
    scenario = scenario_of(spec, pools, _nothing(window), circumstances)
    slos = _slos(spec, model)
    paths = _paths(sampling, stopping, seed=spec.loop.seed)
    source = FutureSource(
        scenario=scenario,
        window=window,
        duration_s=sampling.duration_s,
        slos=slos,
        level=sampling.level,
        seed=spec.loop.seed,
        paths=paths,
    )
    with _enough_memory(pools):
        futures = sample_futures(source, stopping, kept=kept, each=each, progress=progress)
    first = futures.results[0]
    return Simulated(
        pools=tuple(pools),
        scenario=scenario,
        slos=slos,
        duration_s=sampling.duration_s,
        total=futures.total,
        attainment=futures.attainment,
        verdicts=futures.verdicts,
        results=futures.results,
        futures=futures,
        stopping=stopping,
        flags=(
            *sampling.flags,
            *(() if paths is None else (paths.rule,)),
            *_assumed_cache(sampling),
            *flags_of(spec, pools, scenario, first, given=False),
        ),
    )


def _paths(sampling: Sampling, stopping: Stopping, *, seed: int) -> Paths | None:
    """A path for every future that may be asked for."""
    if sampling.forecast is None:
        return None
    return sample_paths(sampling.forecast, stopping.most_futures, np.random.default_rng(seed))


def _assumed_cache(sampling: Sampling) -> Iterator[str]:
    if sampling.cached_ratio > 0 and not sampling.cache_was_seen:
        yield (
            f"futures find {sampling.cached_ratio:.1%} of prompt tokens cached, as was given: a "
            "forecast knows what an endless cache that all replicas share would hold; real ones "
            "find less"
        )


def expected_requests(sampling: Sampling) -> float:
    """How many requests a future has at the most, on average."""
    if sampling.forecast is not None:
        return sum(w.request_rate_rps(1.0) * w.window_s for w in sampling.forecast.windows)
    level = 1.0 if sampling.level is None else sampling.level
    return sampling.window.request_rate_rps(level) * sampling.duration_s


def sampling_like(
    spec: Spec,
    pools: Sequence[Replicas],
    workload: Workload,
    circumstances: CircumstancesDocument = PLAIN,
) -> Sampling:
    """What futures like these requests are drawn from.

    Prefix blocks cannot be drawn. Where the requests name some, they are replayed once, and the
    futures find as much of their prompts cached as these replicas did; the trace itself knows
    only what an endless cache that all replicas share would hold.

    Raises
    ------
    InputError
        When there is no request, or as `replay`.
    """
    flags: tuple[str, ...] = ()
    if workload.prefix is not None and circumstances.prefix_cache and len(workload) > 0:
        with _enough_memory(pools):
            asked = scenario_of(spec, pools, workload, circumstances)
            seen = simulate(replace(asked, patience_s=None))
        found = seen.cached_tokens.astype(np.int64)
        workload = replace(workload, cached_tokens=found, prefix=None)
        share = found.sum() / workload.input_tokens.sum()
        flags = (
            f"futures find {share:.1%} of prompt tokens cached, as these replicas did when the "
            "given requests were replayed once",
        )
    return Sampling(
        window=window_like(workload),
        duration_s=workload.duration_s,
        flags=(*flags, *holes(workload.arrival_offset_s, workload.duration_s)),
        cache_was_seen=True,
    )


def window_like(workload: Workload) -> ForecastWindow:
    """A window of futures like these requests: their mean rate, lengths and burstiness.

    Cached tokens are kept per bucket of lengths.

    Raises
    ------
    InputError
        When there is no request.
    """
    if len(workload) == 0:
        raise InputError("futures like these requests need at least one request")
    cv2 = arrival_cv2_of(workload)
    demands = []
    for name in np.unique(workload.request_class):
        rows = workload.request_class == name
        lengths = [
            column[rows]
            for column in (workload.input_tokens, workload.output_tokens, workload.cached_tokens)
        ]
        totals = [len(lengths[0]), int(lengths[0].sum()), int(lengths[1].sum())]
        rates = [Quantiles(levels=(0.5,), values=(n / workload.duration_s,)) for n in totals]
        demands.append(
            Demand(
                request_class=str(name),
                request_rate_rps=rates[0],
                input_tokens_per_s=rates[1],
                output_tokens_per_s=rates[2],
                shape=shape_of_lengths(*lengths),
                arrival_cv2=cv2,
            )
        )
    return ForecastWindow(
        start_at=workload.start_at, window_s=workload.duration_s, demands=tuple(demands)
    )


@contextmanager
def _enough_memory(pools: Sequence[Replicas]) -> Iterator[None]:
    try:
        yield
    except MemoryError as error:
        raise InputError(
            f"this machine has too little memory for {sum(p.replicas for p in pools):,} replicas "
            f"and these requests: simulate a part of them ({error})"
        ) from error


def _slos(spec: Spec, model: str) -> tuple[Slo, ...]:
    return tuple(slo for slo in spec.slos if slo.model == model)


def _nothing(window: ForecastWindow) -> Workload:
    """No requests yet: every future brings its own."""
    none = np.zeros(0, dtype=np.int64)
    return Workload(
        start_at=window.start_at,
        arrival_offset_s=np.zeros(0),
        input_tokens=none,
        output_tokens=none,
        cached_tokens=none,
        request_class=np.zeros(0, dtype=np.str_),
        duration_s=window.window_s,
    )


def _observed(total: Digest, slos: Sequence[Slo]) -> tuple[ClassVerdict, ...]:
    """What each class of the given requests saw; one run tells no interval."""
    return tuple(
        ClassVerdict(
            request_class=c.request_class,
            requests=c.requests,
            target_ratio=target_of(c.request_class, slos),
            attainment=Interval(ratio=c.met / c.requests, low_ratio=None, high_ratio=None),
        )
        for c in total.classes
    )
