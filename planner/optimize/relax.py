"""What to relax when no fleet keeps the promise: the smallest change of each kind that helps."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from planner.domain.errors import OutsideProfileError, SpecError
from planner.domain.fleet import Role
from planner.domain.spec import Spec
from planner.optimize.limits import Limit, limits_of
from planner.optimize.loads import with_slo
from planner.optimize.problem import Problem
from planner.optimize.promises import promises_of
from planner.optimize.solution import Solution
from planner.optimize.solve import attempt

RESOLUTION_RATIO = 0.01
"""Times, shares, watts and USD are found to within so much of their value; counts exactly."""

_ALL_THERE_IS = 1e6
"""Stretches every objective to the longest that a spec may hold."""

_STRETCHES = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
_DIGITS = 4
"""Of a value that is told; rounded away from the limit as it is."""

_MOST_IN_PAIRS = 16
"""Of more limits than so many, pairs are not tried one by one."""

Rebuild = Callable[[Spec], Problem]
Move = tuple[Limit, float]
Fleets = tuple[tuple[Problem, Solution, int], ...]
"""A problem, its solution, and the window of it: one for every window that was looked at."""


@dataclass(slots=True, eq=False)
class _Search:
    """Solves the problem with some limits moved.

    Parameters
    ----------
    failing : tuple of int
        Windows that nothing serves by themselves, the busiest first; empty: only all of them
        together have no solution.
    """

    problem: Problem
    spec: Spec
    rebuild: Rebuild
    failing: tuple[int, ...]
    rebuilt: dict[tuple[tuple[str, float], ...], Problem | None] = field(default_factory=dict)

    def fleets(self, moves: Sequence[Move]) -> Fleets | None:
        """What serves everything after these moves; None: nothing does."""
        problem = self._moved(moves)
        if problem is None:
            return None
        if not self.failing:
            solution = _solved(problem)
            if solution is None:
                return None
            return tuple((problem, solution, t) for t in problem.window_indices)
        found = []
        for t in self.failing:
            alone = problem.alone(t)
            solution = _solved(alone)
            if solution is None:
                return None
            found.append((alone, solution, 0))
        return tuple(found)

    def _moved(self, moves: Sequence[Move]) -> Problem | None:
        in_spec = [(limit, value) for limit, value in moves if limit.in_spec is not None]
        problem: Problem | None = self.problem
        if in_spec:
            key = tuple(sorted((limit.field, value) for limit, value in in_spec))
            if key not in self.rebuilt:
                self.rebuilt[key] = self._rebuild(in_spec)
            problem = self.rebuilt[key]
        for limit, value in sorted(moves, key=lambda move: move[0].last):
            if problem is not None and limit.in_problem is not None:
                problem = limit.in_problem(problem, value)
        return problem

    def _rebuild(self, moves: Sequence[Move]) -> Problem | None:
        spec = self.spec
        for limit, value in moves:
            if limit.in_spec is not None:
                spec = limit.in_spec(spec, value)
        try:
            return self.rebuild(spec)
        except (OutsideProfileError, SpecError):
            return None

    def smallest(self, limit: Limit, *, beside: Sequence[Move] = ()) -> float | None:
        """The value nearest to the present one that helps beside other moves; None: none does."""
        fleets = self.fleets([*beside, (limit, limit.loosest)])
        if fleets is None:
            return None
        if limit.whole:
            return self._smallest_count(limit, beside)
        high = _taken(limit, fleets, limit.loosest)
        if math.isinf(high):
            return high
        low = limit.now
        while abs(high - low) > RESOLUTION_RATIO * abs(high):
            middle = _between(low, high)
            fleets = self.fleets([*beside, (limit, middle)])
            if fleets is None:
                low = middle
            else:
                high = _taken(limit, fleets, middle)
        return _outward(high, limit)

    def _smallest_count(self, limit: Limit, beside: Sequence[Move]) -> float:
        """As `smallest` where the loosest is known to help: doubled, then halved."""
        now, most = round(limit.now), round(abs(limit.loosest - limit.now))
        sign = 1 if limit.loosest > limit.now else -1

        def helps(more: int) -> bool:
            return self.fleets([*beside, (limit, float(now + sign * more))]) is not None

        high = 1
        while high < most and not helps(high):
            high = min(2 * high, most)
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if helps(middle) else (middle, high)
        return float(now + sign * high)


def _solved(problem: Problem) -> Solution | None:
    """What serves everything; None where nothing does, or nothing was found in time."""
    solution = attempt(problem)
    return solution if solution is not None and solution.feasible else None


def relaxations(
    problem: Problem, spec: Spec, rebuild: Rebuild, classes: Collection[str] = ()
) -> tuple[str, ...]:
    """Changes of the input that would make the problem solvable, smallest first.

    Every limit that is set and every promise is tried alone; where no limit helps alone, limits
    are tried in pairs, then as many together as it takes; where nothing helped at all, limits and
    promises are. Each answer was
    checked by solving again, window by window (start-up lead time aside), or over all windows
    where only these together cannot be served.

    Parameters
    ----------
    rebuild : function from Spec to Problem
        Makes the problem again for a changed spec.
    classes : collection of str
        Of the requests that arrive.

    Returns
    -------
    tuple of str
        For example `2 more h100`, `attainment_ratio 0.9 instead of 0.95 (to within 1%)`.
    """
    failing = sorted(
        (t for t in problem.window_indices if _solved(problem.alone(t)) is None),
        key=lambda t: -problem.load_rps(t),
    )
    if not failing and _solved(problem) is not None:
        return ()
    search = _Search(problem, spec, rebuild, tuple(failing))
    limits, promises = limits_of(problem, spec), promises_of(problem, spec, classes)
    found = [*_alone(search, limits)]
    if not found:
        found += _in_pairs(search, limits) or _together(search, limits)
    found += _alone(search, promises)
    if not found:
        everything = *limits, *promises
        found += _in_pairs(search, everything) or _together(search, everything)
    return tuple(text for _, text in sorted(found))


def _alone(search: _Search, limits: Iterable[Limit]) -> Iterator[tuple[float, str]]:
    for limit in limits:
        value = search.smallest(limit)
        if value is not None:
            yield _size(limit, value), _text(limit, value)


def _in_pairs(search: _Search, limits: Sequence[Limit]) -> list[tuple[float, str]]:
    """Pairs of which neither helps alone."""
    found: list[tuple[float, str]] = []
    if len(limits) > _MOST_IN_PAIRS:
        return found
    for first, second in combinations(limits, 2):
        if search.fleets([(first, first.loosest), (second, second.loosest)]) is not None:
            found.append(_moved_together(search, (first, second)))
    return found


def _together(search: _Search, limits: Sequence[Limit]) -> list[tuple[float, str]]:
    """As few as it takes, found by keeping one after the other as it is."""
    moved = [limit for limit in limits if limit.field != "rate"]
    if search.fleets([(limit, limit.loosest) for limit in moved]) is None:
        return []
    for limit in reversed(moved):
        fewer = [other for other in moved if other is not limit]
        if search.fleets([(other, other.loosest) for other in fewer]) is not None:
            moved = fewer
    return [_moved_together(search, moved)] if moved else []


def _moved_together(search: _Search, limits: Sequence[Limit]) -> tuple[float, str]:
    """Each as little as it takes while those after it are at their loosest."""
    moves = [(limit, limit.loosest) for limit in limits]
    for i, limit in enumerate(limits):
        value = search.smallest(limit, beside=[*moves[:i], *moves[i + 1 :]])
        if value is not None:
            moves[i] = limit, value
    size = max(_size(limit, value) for limit, value in moves)
    return size, " and ".join(_text(limit, value) for limit, value in moves)


def _taken(limit: Limit, fleets: Fleets, value: float) -> float:
    """What the fleets take of a limit, where that is known and no further than `value`."""
    if limit.used is None:
        return value
    taken = [limit.used(problem, solution, t) for problem, solution, t in fleets]
    known = [x for x in taken if not math.isnan(x)]
    if not known:
        return value
    upwards = limit.loosest > limit.now
    most = max(known) if upwards else min(known)
    if upwards:
        return max(min(most, value), limit.now)
    return min(max(most, value), limit.now)


def _between(low: float, high: float) -> float:
    """Half way, as factors where both are above 0."""
    return math.sqrt(low * high) if low > 0 and high > 0 else (low + high) / 2


def _outward(value: float, limit: Limit) -> float:
    """Few digits, on the side that helps."""
    if value == 0 or math.isinf(value):
        return value
    step = 10.0 ** (math.floor(math.log10(abs(value))) + 1 - _DIGITS)
    up = limit.loosest > limit.now
    rounded = (math.ceil(value / step - 1e-9) if up else math.floor(value / step + 1e-9)) * step
    return min(rounded, limit.loosest) if up else max(rounded, limit.loosest)


def _size(limit: Limit, value: float) -> float:
    """How far a limit is moved: as a ratio above 1, less 1."""
    now, then = max(limit.now, 1e-9), max(value, 1e-9)
    if limit.whole:
        now, then = max(now, 1.0), max(then, 1.0)
    return max(then / now, now / then) - 1


def _text(limit: Limit, value: float) -> str:
    about = "" if limit.whole else f" (to within {RESOLUTION_RATIO:.0%})"
    return limit.text(value) + about


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
