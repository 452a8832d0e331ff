"""What to relax when no fleet keeps the promise: the smallest change of each kind that helps."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

import numpy as np

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.spec import Spec
from planner.optimize.loads import with_slo
from planner.optimize.problem import Problem
from planner.optimize.relax_class import softer_for_one_class
from planner.optimize.solve import attempt

_MOST_MORE = 256
_ATTAINMENTS = (0.99, 0.98, 0.97, 0.96, 0.95, 0.92, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
_ALL_THERE_IS = 1e6
"""Stretches every objective to the longest that a spec may hold."""
_STRETCHES = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)

Rebuild = Callable[[Spec], Problem]
_Relaxation = tuple[float, str]


def relaxations(
    problem: Problem, spec: Spec, rebuild: Rebuild, classes: Collection[str] = ()
) -> tuple[str, ...]:
    """Changes of the input that would make the problem solvable, smallest first.

    Each is checked by solving again, window by window (start-up lead time aside).

    Parameters
    ----------
    rebuild : function from Spec to Problem
        Makes the problem again for a spec with relaxed objectives.
    classes : collection of str
        Of the requests that arrive.

    Returns
    -------
    tuple of str
        For example `2 more h100`, `attainment_ratio 0.9 instead of 0.95`.
    """
    failing = [t for t in problem.window_indices if not _serves(problem.alone(t))]

    def helps(relaxed: Problem) -> bool:
        return all(_serves(relaxed.alone(t)) for t in failing)

    if not failing:
        return ()
    found = [
        *_more_accelerators(problem, helps, suffix=""),
        *_higher_bounds(problem, helps),
        *_higher_budget(problem, helps, failing),
    ]
    if not found:
        free = _without_bounds(replace(problem, usd_per_hour_limit=None))
        found += _more_accelerators(free, helps, suffix=", with max_replicas and budget to match")
    found += [*_softer_objectives(problem, spec, rebuild, helps)]
    found += [*softer_for_one_class(problem, spec, rebuild, helps, classes)]
    return tuple(text for _, text in sorted(found))


def _serves(problem: Problem) -> bool:
    """Whether a fleet is found that serves all, in time."""
    found = attempt(problem)
    return found is not None and found.feasible


def _more_accelerators(
    problem: Problem, helps: Callable[[Problem], bool], *, suffix: str
) -> Iterator[_Relaxation]:
    for limit in problem.accelerators:
        if not problem.on(limit.name):
            continue

        def with_more(more: int, name: str = limit.name) -> bool:
            return helps(problem.with_more(name, more))

        more = _smallest(with_more)
        if more is not None:
            ratio = more / max(limit.inventory, 1)
            yield ratio, f"{more} more {limit.name}{suffix}"


def _smallest(helps: Callable[[int], bool]) -> int | None:
    """The smallest number that helps, given that more never helps less."""
    high = 1
    while not helps(high):
        if high >= _MOST_MORE:
            return None
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if helps(middle) else (middle, high)
    return high


def _without_bounds(problem: Problem) -> Problem:
    return replace(problem, bounds=tuple(replace(b, max_replicas=None) for b in problem.bounds))


def _higher_bounds(problem: Problem, helps: Callable[[Problem], bool]) -> Iterator[_Relaxation]:
    for bounds in problem.bounds:
        if bounds.max_replicas is None:
            continue
        now = bounds.max_replicas

        def with_more(more: int, shape: ReplicaShape = bounds.shape) -> bool:
            return helps(problem.with_bounds(shape, more_max=more))

        more = _smallest(with_more)
        if more is not None:
            label = bounds.shape.label
            yield more / max(now, 1), f"max_replicas {now + more} instead of {now} for {label}"


def _higher_budget(
    problem: Problem, helps: Callable[[Problem], bool], failing: list[int]
) -> Iterator[_Relaxation]:
    limit = problem.usd_per_hour_limit
    free = replace(problem, usd_per_hour_limit=None)
    if limit is None or not helps(free):
        return
    hours = [problem.windows[t].window_s / 3600 for t in failing]
    found = [attempt(free.alone(t)) for t in failing]
    usd = max(f.usd / h for f, h in zip(found, hours, strict=True) if f is not None)
    yield usd / max(limit, 1e-9) - 1, f"a budget of {usd:.2f} USD/h instead of {limit:.2f}"


def _softer_objectives(
    problem: Problem, spec: Spec, rebuild: Rebuild, helps: Callable[[Problem], bool]
) -> Iterator[_Relaxation]:
    slos = [s for s in spec.slos if s.model == problem.model]
    target = max(s.attainment_ratio for s in slos)
    for ratio in (a for a in _ATTAINMENTS if a < target):
        if helps(rebuild(with_slo(spec, problem.model, attainment_ratio=ratio))):
            yield 1 - ratio / target, f"attainment_ratio {ratio:g} instead of {target:g}"
            break
    ttft_s, tpot_s = _tightest(spec, problem.model)

    def stretched_until_it_helps(*, ttft: bool, tpot: bool) -> tuple[float, Spec] | None:
        for ratio in _STRETCHES:
            relaxed = with_slo(
                spec,
                problem.model,
                ttft_ratio=ratio if ttft else 1.0,
                tpot_ratio=ratio if tpot else 1.0,
            )
            if helps(rebuild(relaxed)):
                return ratio, relaxed
        return None

    first = stretched_until_it_helps(ttft=True, tpot=False)
    if first is not None:
        ratio, relaxed = first
        softer_s, _ = _tightest(relaxed, problem.model)
        yield ratio - 1, f"ttft_s {softer_s:g} instead of {ttft_s:g}"
    token = stretched_until_it_helps(ttft=False, tpot=True)
    if token is not None:
        ratio, relaxed = token
        _, softer_s = _tightest(relaxed, problem.model)
        yield ratio - 1, f"tpot_s {softer_s:g} instead of {tpot_s:g}"
    both = None if first or token else stretched_until_it_helps(ttft=True, tpot=True)
    if both is not None:
        ratio, relaxed = both
        softer_ttft_s, softer_tpot_s = _tightest(relaxed, problem.model)
        text = f"ttft_s {softer_ttft_s:g} and tpot_s {softer_tpot_s:g}"
        yield ratio - 1, f"{text} instead of {ttft_s:g} and {tpot_s:g}"


def _tightest(spec: Spec, model: str) -> tuple[float, float]:
    """The shortest TTFT and the shortest time per token promised to any class, seconds."""
    slos = [s for s in spec.slos if s.model == model]
    return min(s.ttft_s for s in slos), min(s.tpot_s for s in slos)


def attainable(problem: Problem, spec: Spec, rebuild: Rebuild) -> Problem:
    """The problem with objectives stretched as far as it takes for some fleet to serve at all.

    Where not even an idle replica keeps the objectives, capacities are 0 and tell nothing; with
    stretched ones a best-effort fleet can still be sized. The objectives as promised are what
    its prediction is judged by.
    """
    for stretch in (*_STRETCHES, _ALL_THERE_IS):
        kept_waiting = _served_by_nothing(problem)
        if not kept_waiting and any(_serves_something(problem, t) for t in problem.window_indices):
            break
        problem = rebuild(
            with_slo(
                spec,
                problem.model,
                ttft_ratio=stretch,
                tpot_ratio=stretch,
                classes=kept_waiting,
            )
        )
    return problem


def _served_by_nothing(problem: Problem) -> frozenset[str]:
    """Classes of streams that no pool can serve in time; empty: none, or there is one stream."""
    paths = ((Role.AGGREGATED,), (Role.PREFILL, Role.DECODE))
    return frozenset(
        stream.request_class
        for k, stream in enumerate(problem.streams)
        if stream.request_class
        and not any(all(problem.serving(k, role) for role in roles) for roles in paths)
    )


def _serves_something(problem: Problem, t: int) -> bool:
    one = np.ones((len(problem.options), len(problem.windows)), dtype=np.int64)
    return problem.serves_rps(one, t) > 0
