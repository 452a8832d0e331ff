"""Options that no best fleet needs, because another of the problem does all that they do.

Dominance is not exact in general: what is worse alone may still fill a gap that inventory and
whole replicas leave. So an option is dropped only when every fleet stays within all limits, costs
no more and serves no less with each of its replicas replaced by one of the other option: same role,
accelerator type, purchase option and number formats (or formats judged as good), no more
accelerators, price, power and times, and at least its capacity in a joint pool of any size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from planner.domain.fleet import ReplicaShape, Role
from planner.optimize.inputs import Exclusion, Floats, Option, PoolCapacity
from planner.optimize.problem import Problem

AsGood = Callable[[ReplicaShape, ReplicaShape], bool]

TIGHTENED_RATIO = 2.0
"""Joint pools are compared up to so many times the demand, as plans are made with capacities
divided by a safety factor."""
_ROUNDING = 1e-12


def same_formats(a: ReplicaShape, b: ReplicaShape) -> bool:
    """Whether answers are equally good because weights and KV cache are stored alike."""
    return (a.weight_dtype, a.kv_dtype) == (b.weight_dtype, b.kv_dtype)


def without_dominated(problem: Problem, as_good: AsGood = same_formats) -> Problem:
    """The problem without the options that it can do without; they are listed as excluded."""
    found = dominated(problem, as_good)
    if not found:
        return problem
    dropped = [problem.options[o] for o in found]
    reasons = tuple(
        Exclusion(
            shape=problem.options[o].shape,
            label=problem.options[o].label,
            reason=f"dominated by {problem.options[by].label}: no more accelerators or cost, and "
            "at least its capacity",
            dominated_by=problem.options[by].label,
        )
        for o, by in sorted(found.items())
    )
    kept = problem.only(lambda option: not any(option is gone for gone in dropped))
    return replace(kept, excluded=(*problem.excluded, *reasons))


def dominated(problem: Problem, as_good: AsGood = same_formats) -> Mapping[int, int]:
    """Options that the problem can do without, each with the one that takes its place.

    Parameters
    ----------
    as_good : callable
        Whether answers of the first shape are as good as those of the second.

    Returns
    -------
    Mapping
        Of two that are equal the first stays. Whatever takes another's place stays, or is
        replaced in turn.
    """
    groups = _flip_groups(problem)
    found: dict[int, int] = {}
    for worse in reversed(groups):
        for better in groups:
            if better is worse or any(o in found for o in better):
                continue
            places = _places(problem, worse, better, as_good)
            if places is not None:
                found.update(places)
                break
    return found


def _flip_groups(problem: Problem) -> list[tuple[int, ...]]:
    """Options that flips join; alone where nothing can flip."""
    flips = problem.flips if problem.has_fleet or len(problem.windows) > 1 else ()
    joined = {o: o for o in problem.option_indices}
    for flip in flips:
        first, last = sorted((joined[flip.source], joined[flip.target]))
        joined = {o: first if root == last else root for o, root in joined.items()}
    return [
        tuple(o for o in problem.option_indices if joined[o] == root)
        for root in dict.fromkeys(joined.values())
    ]


def _places(
    problem: Problem, worse: Sequence[int], better: Sequence[int], as_good: AsGood
) -> dict[int, int] | None:
    """Which option takes the place of each; None when one finds none, or could not flip."""
    places: dict[int, int] = {}
    for o in worse:
        by = next((b for b in better if _replaces(problem, b, o, as_good)), None)
        if by is None:
            return None
        places[o] = by
    flips = {(f.source, f.target): f.flip_s for f in problem.flips}
    for (source, target), flip_s in flips.items() if len(worse) > 1 else ():
        if source in places:
            instead = flips.get((places[source], places[target]))
            if instead is None or instead > flip_s:
                return None
    return places


def _replaces(problem: Problem, better: int, worse: int, as_good: AsGood) -> bool:
    """Whether every replica of the one may become one of the other."""
    a, b = problem.options[better], problem.options[worse]
    return (
        _is_the_same_offer(a, b)
        and (same_formats(a.shape, b.shape) or _may_change_format(a, b, as_good))
        and _takes_no_more(a, b)
        and _is_free(problem, a, b)
        and _lateness(problem, better) == _lateness(problem, worse)
        and bool(np.all(problem.work[:, better] <= problem.work[:, worse]))
        and _serves_no_less(problem, better, worse)
    )


def _is_the_same_offer(a: Option, b: Option) -> bool:
    shape, other = a.shape, b.shape
    return (shape.role, shape.model, shape.accelerator, a.purchase_option) == (
        other.role,
        other.model,
        other.accelerator,
        b.purchase_option,
    )


def _may_change_format(a: Option, b: Option, as_good: AsGood) -> bool:
    """Prefill and decode replicas share one format, so none of them changes it alone."""
    return a.shape.role is Role.AGGREGATED and as_good(a.shape, b.shape)


def _takes_no_more(a: Option, b: Option) -> bool:
    mine = (
        a.shape.accelerators,
        a.footprint,
        a.usd_per_hour,
        a.power_w,
        a.start_s,
        a.drain_s,
        a.min_up_s,
        a.interruptions_per_hour,
    )
    other = (
        b.shape.accelerators,
        b.footprint,
        b.usd_per_hour,
        b.power_w,
        b.start_s,
        b.drain_s,
        b.min_up_s,
        b.interruptions_per_hour,
    )
    return all(x <= y for x, y in zip(mine, other, strict=True))


def _is_free(problem: Problem, a: Option, b: Option) -> bool:
    """The one may be as many and change as often as both; nothing holds on to the other."""
    bounds = {bound.shape: bound for bound in problem.bounds}
    of_a, of_b = bounds.get(a.shape), bounds.get(b.shape)
    return (
        a.max_starts is None
        and a.max_stops is None
        and (of_a is None or of_a.max_replicas is None)
        and (of_b is None or of_b.min_replicas == 0)
        and b.initial_replicas == 0
    )


def _lateness(problem: Problem, o: int) -> list[bool]:
    return [problem.comes_too_late(o, t) for t in problem.window_indices]


def _serves_no_less(problem: Problem, better: int, worse: int) -> bool:
    """For every t, m, n: capacity_a(m + n) >= capacity_a(m) + capacity_b(n), up to the demand."""
    compared: set[tuple[int, int, float]] = set()
    for t in problem.window_indices:
        a, b = problem.capacity[better, t], problem.capacity[worse, t]
        most = TIGHTENED_RATIO * problem.most_work_rps(better, t)
        case = id(a), id(b), most
        if case in compared:
            continue
        compared.add(case)
        mine, other = problem.max_replicas[better], problem.max_replicas[worse]
        if not _joint_pool_is_no_worse(a, b, mine, other, most):
            return False
    return True


def _joint_pool_is_no_worse(
    a: PoolCapacity, b: PoolCapacity, most_a: int, most_b: int, most_rps: float
) -> bool:
    alone_a, alone_b = _rates(a, most_a, most_rps), _rates(b, most_b, most_rps)
    joint = np.array([a.at(n) for n in range(len(alone_a) + len(alone_b) - 1)])
    sizes = np.arange(len(alone_a))[:, None] + np.arange(len(alone_b))[None, :]
    parts = np.minimum(alone_a[:, None] + alone_b[None, :], most_rps)
    return bool(np.all(joint[sizes] >= parts * (1 - _ROUNDING)))


def _rates(pool: PoolCapacity, most: int, most_rps: float) -> Floats:
    """Rates of 0, 1, ... replicas, up to the first that is enough."""
    rates = [0.0]
    while len(rates) <= most and rates[-1] < most_rps:
        rates.append(pool.at(len(rates)))
    return np.array(rates)
