"""Replay one window of a solution in the twin, on sampled futures until its verdict is clear."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from planner.domain.fleet import Role
from planner.domain.forecast import ForecastWindow
from planner.domain.plan import ClassAttainment, Prediction
from planner.domain.slo import Slo
from planner.domain.spec import Spec
from planner.optimize.flow import served_rps
from planner.optimize.problem import Problem
from planner.optimize.remembered import Draw, Question, answered, drawn
from planner.optimize.solution import Solution, admitted, is_sent_as_one
from planner.simulate import (
    ReplicaGroup,
    Route,
    RouterPolicy,
    Scenario,
    SimulationResult,
    pooled,
    sample_workload,
    simulate,
)
from planner.simulate.digest import class_counts
from planner.simulate.futures import Interval, attainment_interval, target_of

LOOKS = (4, 8, 16, 32)
"""After so many futures it is asked whether every class keeps its promise with confidence."""

MISS_RATIO = 0.05 / len(LOOKS)
"""How often the interval of one look may miss the truth: all looks' hold together with 95 %."""

_MIN_REQUESTS, _MAX_REQUESTS = 900, 60_000
_MOST_REQUESTS = 240_000
"""No further look where that would take more requests than these; the first is always taken."""

_NEARLY = 0.9
"""Arrivals are random: so few less than wanted are still enough."""
_Z95 = 1.959963984540054  # 97.5 % quantile of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the twin saw in one window; every class is judged by its own promise.

    Parameters
    ----------
    missed_ratio : Mapping of class name, to a Mapping from Role to float
        Of the requests of the class that a role took, the share that it kept from its promise:
        prefill those whose prompt alone took longer than TTFT, decode those that were late or
        slow after it, aggregated all that missed. A missed end-to-end time is held against both.
    """

    window: int
    prediction: Prediction
    missed_ratio: Mapping[str, Mapping[Role, float]]

    @property
    def spare_ratio(self) -> float:
        """Of the class that is worst off: attainment less target; 1 where nothing arrived."""
        return min((c.spare_ratio for c in self.prediction.classes), default=1.0)

    @property
    def unproven(self) -> tuple[ClassAttainment, ...]:
        """Classes whose attainment is not at or above their target with confidence."""
        return tuple(c for c in self.prediction.classes if not _is_proven(c))

    @property
    def proves(self) -> bool:
        """Whether every class keeps its promise, with 95 % confidence."""
        return not self.unproven


def _is_proven(seen: ClassAttainment) -> bool:
    """Whether a class keeps its promise.

    One so rare that the longest replay has too few of its requests for a verdict is judged by
    what was seen of it.
    """
    needed = min(_telling(seen.target_ratio), _MAX_REQUESTS / 2)
    if seen.requests is not None and seen.requests < _NEARLY * needed:
        return seen.spare_ratio >= 0
    return seen.low_ratio is not None and seen.low_ratio >= seen.target_ratio


def _needs_more(classes: Sequence[ClassAttainment]) -> bool:
    """Whether every class was seen to keep its promise, and not yet with confidence.

    What is seen to miss is not proven by more futures but by luck.
    """
    return all(c.spare_ratio >= 0 for c in classes) and not all(_is_proven(c) for c in classes)


def replay(
    spec: Spec,
    problem: Problem,
    solution: Solution,
    window: ForecastWindow,
    *,
    t: int,
    slos: Sequence[Slo],
    demand_ratio: float = 1.0,
    until_clear: bool = True,
    first_future: int = 0,
) -> Replay | None:
    """Attainment and latencies of window `t` with the replicas that serve in it.

    Each future is as long as the window, so that an overload has its time to show, or longer
    where it takes longer to see enough requests for a verdict on the target. The rate is the
    forecast's at the spec's demand level. Requests of one future share their queues and their
    bursts, so futures are what is counted: intervals come from how they differ, and more are
    seen as long as the promises are kept but not yet with confidence (`LOOKS`).

    Parameters
    ----------
    slos : sequence of Slo
        What each class is promised (`planner.optimize.loads.promises`).
    demand_ratio : float
        So many times the requests come.
    until_clear : bool
        False: one look is enough, for a point estimate.
    first_future : int
        Futures are numbered; those from `LOOKS[-1]` on are others than proposals are proven on.

    Returns
    -------
    Replay or None
        None without traffic, or when no replica serves.
    """
    if served_rps(problem, solution.usable, t) <= 0:
        return None
    question = question_of(
        spec,
        problem,
        solution,
        window,
        t=t,
        slos=slos,
        demand_ratio=demand_ratio,
        until_clear=until_clear,
        first_future=first_future,
    )
    return answered(question, partial(_answer, question))


def question_of(
    spec: Spec,
    problem: Problem,
    solution: Solution,
    window: ForecastWindow,
    *,
    t: int,
    slos: Sequence[Slo],
    demand_ratio: float = 1.0,
    until_clear: bool = True,
    first_future: int = 0,
) -> Question:
    """What `replay` asks; equal questions have equal answers."""
    return Question(
        groups=_groups(spec, problem, solution, t),
        routes=_routes(problem, solution, t),
        router=RouterPolicy(spec.routing.balancing.value),
        window=admitted(problem, solution, window, t),
        t=t,
        demand_ratio=demand_ratio,
        level=spec.forecast.demand_level,
        seed=spec.loop.seed,
        slos=tuple(slos),
        until_clear=until_clear,
        first_future=first_future,
    )


def _answer(asked: Question) -> Replay | None:
    """What the twin sees."""
    slos, window = asked.slos, asked.window.times(asked.demand_ratio)
    rate_rps = window.request_rate_rps(asked.level)
    if rate_rps <= 0:
        return None
    duration_s = _duration_s(window, asked.level, slos)
    results: list[SimulationResult] = []
    for look in LOOKS if asked.until_clear else LOOKS[:1]:
        if results and look * duration_s * rate_rps > _MOST_REQUESTS:
            break
        futures = range(asked.first_future + len(results), asked.first_future + look)
        results.extend([_replayed(asked, window, duration_s, future) for future in futures])
        everything, classes = _judged(results, slos)
        if not _needs_more(classes):
            break
    together = pooled(results)
    if together.requests == 0:
        return None
    roles = [g.role for g in asked.groups]
    return Replay(
        window=asked.t,
        prediction=replace(
            together.prediction(slos),
            attainment_low_ratio=everything.low_ratio,
            attainment_high_ratio=everything.high_ratio,
            classes=classes,
        ),
        missed_ratio={slo.request_class: _missed_by_role(together, roles, slo) for slo in slos},
    )


def _replayed(
    asked: Question, window: ForecastWindow, duration_s: float, future: int
) -> SimulationResult:
    """One future; `window` has the demand asked for."""
    number = (asked.seed, asked.t, future)
    draw = Draw(
        window=asked.window,
        demand_ratio=asked.demand_ratio,
        level=asked.level,
        duration_s=duration_s,
        number=number,
    )
    rng = np.random.default_rng(number)
    sample = partial(sample_workload, window, level=asked.level, duration_s=duration_s, rng=rng)
    scenario = Scenario(
        groups=asked.groups,
        workload=drawn(draw, sample),
        router=asked.router,
        routes=asked.routes,
        routes_seed=asked.seed + 2 * LOOKS[-1] * asked.t + future,
    )
    return simulate(scenario)


def _judged(
    results: Sequence[SimulationResult], slos: Sequence[Slo]
) -> tuple[Interval, tuple[ClassAttainment, ...]]:
    """All requests together, and every class that came, with intervals from how futures differ.

    All classes have to be proven, so none of their intervals has to be wider for there being more
    of them.
    """
    counts = [{c.request_class: c for c in class_counts(r, slos)} for r in results]
    names = sorted({name for future in counts for name in future})
    met = np.array([[f[n].met if n in f else 0 for n in names] for f in counts], dtype=np.int64)
    came = np.array(
        [[f[n].requests if n in f else 0 for n in names] for f in counts], dtype=np.int64
    )
    found = []
    for i, name in enumerate(names):
        seen = attainment_interval(met[:, i], came[:, i], miss_ratio=MISS_RATIO)
        if seen.ratio is not None:
            found.append(
                ClassAttainment(
                    request_class=name,
                    target_ratio=target_of(name, slos),
                    attainment_ratio=seen.ratio,
                    low_ratio=seen.low_ratio,
                    high_ratio=seen.high_ratio,
                    requests=int(came[:, i].sum()),
                )
            )
    everything = attainment_interval(met.sum(axis=1), came.sum(axis=1), miss_ratio=MISS_RATIO)
    return everything, tuple(found)


def _routes(problem: Problem, solution: Solution, t: int) -> tuple[Route, ...]:
    """The shares by which the solution sends its streams; none where one stream is all there is."""
    if is_sent_as_one(problem, solution, t):
        return ()
    groups = [o for o in problem.option_indices if solution.usable[o, t] > 0]
    return tuple(
        Route(**asdict(stream.kind), shares=tuple(solution.sent_rps[k, groups, t].tolist()))
        for k, stream in enumerate(problem.streams)
        if len(problem.streams) > 1
    )


def _missed_by_role(
    seen: SimulationResult, roles: Sequence[Role], slo: Slo
) -> Mapping[Role, float]:
    its = seen.request_class == slo.request_class
    late = ~(seen.ttft_s <= slo.ttft_s)
    slow = seen.tpot_s > slo.tpot_s
    over = np.zeros_like(late) if slo.e2e_s is None else seen.e2e_s > slo.e2e_s
    in_time = seen.prompt_done_s - seen.arrival_s <= slo.ttft_s
    missed: dict[Role, float] = {}
    for role in set(roles):
        own = [g for g, r in enumerate(roles) if r is role]
        if role is Role.DECODE:
            taken, bad = np.isin(seen.decode_group, own), slow | (late & in_time) | over
        else:
            taken = np.isin(seen.prompt_group, own)
            bad = late | slow | over if role is Role.AGGREGATED else (late & ~in_time) | over
        taken &= its
        missed[role] = float(bad[taken].mean()) if taken.any() else 0.0
    return missed


def requests_needed(attainment_ratio: float) -> int:
    """Requests that tell an attainment from one a quarter of the allowed misses away."""
    return int(min(max(_telling(attainment_ratio), _MIN_REQUESTS), _MAX_REQUESTS))


def _telling(attainment_ratio: float) -> int:
    """So many, by the normal approximation: z^2 a (1 - a) / ((1 - a) / 4)^2."""
    return math.ceil(16 * _Z95**2 * attainment_ratio / (1 - attainment_ratio))


def _duration_s(window: ForecastWindow, level: float, slos: Sequence[Slo]) -> float:
    """As long as the window, or until every class has enough requests for a verdict."""
    rate_rps = window.request_rate_rps(level)
    targets = {slo.request_class: slo.attainment_ratio for slo in slos}
    wanted = [requests_needed(max(targets.values()))]
    for demand in window.demands if len(window.demands) > 1 else ():
        share = demand.request_rate_rps.at(level) / rate_rps
        if share > 0:
            wanted.append(math.ceil(_telling(targets[demand.request_class]) / share))
    enough_s = min(max(wanted), _MAX_REQUESTS) / LOOKS[0] / rate_rps
    return max(enough_s, min(window.window_s, _MAX_REQUESTS / rate_rps))


def _groups(spec: Spec, problem: Problem, solution: Solution, t: int) -> tuple[ReplicaGroup, ...]:
    groups = []
    for o, option in enumerate(problem.options):
        profile, count = spec.profile_of(option.shape), int(solution.usable[o, t])
        if profile is not None and count > 0:
            groups.append(ReplicaGroup(profile=profile, role=option.shape.role, replicas=count))
    return tuple(groups)
