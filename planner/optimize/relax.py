"""What to relax when no fleet keeps the promise: the smallest change of each kind that helps."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from planner.domain.errors import OutsideProfileError, SpecError
from planner.domain.spec import Spec
from planner.optimize.limits import Limit, limits_of
from planner.optimize.problem import Problem
from planner.optimize.promises import promises_of
from planner.optimize.solution import Solution
from planner.optimize.solve import attempt

RESOLUTION_RATIO = 0.01
"""Times, shares, watts and USD are found to within so much of their value; counts exactly."""

_DIGITS = 4
"""Of a value that is told; rounded away from the limit as it is."""

_LEAST_STEP_RATIO = 0.02
"""A value that the twin refuted is moved at least so much further."""

_MOST_IN_PAIRS = 16
"""Of more limits than so many, pairs are not tried one by one."""

Rebuild = Callable[[Spec], Problem]
Move = tuple[Limit, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Relaxation:
    """Limits and promises that give way together.

    Parameters
    ----------
    moves : tuple of (Limit, float)
        Each with its new value.
    is_least : bool
        Nothing that is smaller by more than the resolution helps.
    """

    moves: tuple[Move, ...]
    is_least: bool = True

    @property
    def size(self) -> float:
        """How far the limit that moves furthest is moved: as a ratio above 1, less 1."""
        return max(_size(limit, value) for limit, value in self.moves)

    @property
    def text(self) -> str:
        """The change as a sentence's part."""
        return " and ".join(_text(m, value, exact=self.is_least) for m, value in self.moves)

    def times(self, factor: float) -> "Relaxation":
        """All limits moved so many times as far, none beyond its loosest."""
        moves = tuple((m, _further(m, value, factor)) for m, value in self.moves)
        return Relaxation(moves=moves, is_least=False)

    def half_way_from(self, smaller: "Relaxation") -> "Relaxation":
        """Half way between this and a smaller one of the same limits."""
        pairs = zip(smaller.moves, self.moves, strict=True)
        moves = tuple((m, _middle(m, low, high)) for (m, low), (_, high) in pairs)
        return Relaxation(moves=moves, is_least=False)

    def changed(self, spec: Spec) -> Spec:
        """The spec with those changes that are made in it."""
        for limit, value in self.moves:
            spec = spec if limit.in_spec is None else limit.in_spec(spec, value)
        return spec

    def applied(self, problem: Problem) -> Problem:
        """The problem of the changed spec with those changes that are made in the problem."""
        for limit, value in sorted(self.moves, key=lambda move: move[0].last):
            problem = problem if limit.in_problem is None else limit.in_problem(problem, value)
        return problem


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
        moved = Relaxation(moves=tuple(moves))
        in_spec = [(limit.field, value) for limit, value in moves if limit.in_spec is not None]
        problem: Problem | None = self.problem
        if in_spec:
            key = tuple(sorted(in_spec))
            if key not in self.rebuilt:
                self.rebuilt[key] = self._rebuild(moved)
            problem = self.rebuilt[key]
        return None if problem is None else moved.applied(problem)

    def _rebuild(self, moved: Relaxation) -> Problem | None:
        try:
            return self.rebuild(moved.changed(self.spec))
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
) -> tuple[Relaxation, ...]:
    """Changes of the input that would make the problem solvable, smallest first.

    Every limit that is set and every promise is tried alone; where no limit helps alone, limits
    are tried in pairs, then as many together as it takes; where nothing helped at all, limits and
    promises are. Each answer was checked by solving again, window by window (start-up lead time
    aside), or over all windows where only these together cannot be served; the twin is not asked
    (`planner.optimize.helpful`).

    Parameters
    ----------
    rebuild : function from Spec to Problem
        Makes the problem again for a changed spec.
    classes : collection of str
        Of the requests that arrive.

    Returns
    -------
    tuple of Relaxation
        With texts like `2 more h100`, `attainment_ratio 0.9 instead of 0.95 (to within 1%)`.
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
    return tuple(sorted(found, key=lambda r: (r.size, r.text)))


def _alone(search: _Search, limits: Iterable[Limit]) -> Iterator[Relaxation]:
    for limit in limits:
        value = search.smallest(limit)
        if value is not None:
            yield Relaxation(moves=((limit, value),))


def _in_pairs(search: _Search, limits: Sequence[Limit]) -> list[Relaxation]:
    """Pairs of which neither helps alone."""
    found: list[Relaxation] = []
    if len(limits) > _MOST_IN_PAIRS:
        return found
    for first, second in combinations(limits, 2):
        if search.fleets([(first, first.loosest), (second, second.loosest)]) is not None:
            found.append(_moved_together(search, (first, second)))
    return found


def _together(search: _Search, limits: Sequence[Limit]) -> list[Relaxation]:
    """As few as it takes, found by keeping one after the other as it is."""
    moved = [limit for limit in limits if limit.field != "rate"]
    if search.fleets([(limit, limit.loosest) for limit in moved]) is None:
        return []
    for limit in reversed(moved):
        fewer = [other for other in moved if other is not limit]
        if search.fleets([(other, other.loosest) for other in fewer]) is not None:
            moved = fewer
    return [_moved_together(search, moved)] if moved else []


def _moved_together(search: _Search, limits: Sequence[Limit]) -> Relaxation:
    """Each as little as it takes while those after it are at their loosest."""
    moves = [(limit, limit.loosest) for limit in limits]
    for i, limit in enumerate(limits):
        value = search.smallest(limit, beside=[*moves[:i], *moves[i + 1 :]])
        if value is not None:
            moves[i] = limit, value
    return Relaxation(moves=tuple(moves))


def _further(limit: Limit, value: float, factor: float) -> float:
    """The value so many times as far from the present one; at least `_LEAST_STEP_RATIO` far."""
    if math.isinf(value):
        return value
    up = limit.loosest > limit.now
    if limit.whole or limit.now <= 0:
        moved = (value - limit.now) * factor
        value = limit.now + (math.copysign(math.ceil(abs(moved)), moved) if limit.whole else moved)
    else:
        ratio = 1 + max(_size(limit, value), _LEAST_STEP_RATIO) * factor
        value = limit.now * ratio if up else limit.now / ratio
    return _outward(min(value, limit.loosest) if up else max(value, limit.loosest), limit)


def _middle(limit: Limit, low: float, high: float) -> float:
    if math.isinf(high) or limit.whole:
        return high if math.isinf(high) else float(round(low + high) // 2)
    return _outward(_between(low, high), limit)


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


def _text(limit: Limit, value: float, *, exact: bool) -> str:
    about = "" if limit.whole or not exact else f" (to within {RESOLUTION_RATIO:.0%})"
    return limit.text(value) + about
