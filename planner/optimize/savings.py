"""From a proven fleet to cheaper ones that the twin proves as well.

While proposals miss, capacities are only ever discounted, and where the closed form is too careful
nothing raises them. So once a fleet is proven, it is asked of the twin with one replica less, or
with one exchanged for a cheaper one. Where that is proven, capacities are taken to be what the
smaller fleet showed, all is solved again, and what comes out is proven like any other proposal.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from planner.domain.fleet import Role
from planner.optimize.inputs import Integers
from planner.optimize.problem import Discounted, Problem
from planner.optimize.proposal import Round
from planner.optimize.replay import Replay
from planner.optimize.solution import Solution, taken_rps
from planner.optimize.ways import per_replica, worth

MOST_TRIES = 6
"""Proposals that are solved and proven to save something."""

MOST_LOOKS = 12
"""Fleets that the twin is asked about before anything is solved."""

MOST_WINDOWS = 12
"""With more windows not all that the closed form doubts would be replayed."""

_ROOM = 1.001
"""What is to be enough sustains so much more than is sent; what is not, so much less."""

_WAYS = ((Role.AGGREGATED,), (Role.PREFILL, Role.DECODE))
"""The roles that serve a request between them."""

Factors = dict[Discounted, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Twin:
    """What the search asks.

    Parameters
    ----------
    look : function of (proposal, usable, window)
        One look at a window with other replicas, on futures that no proposal is proven on.
    propose : function of (problem, best so far)
        The best fleet of a problem, and what the twin says of it; None where there is none that is
        better than the best so far. The twin need not say all of one that it refutes.
    """

    look: Callable[[Round, Integers, int], Replay | None]
    propose: Callable[[Problem, Round], Round | None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Step:
    """A cheaper fleet in one window, and the factors with which it just suffices.

    Parameters
    ----------
    saves : float
        Of what is to be least, per hour.
    stretch : float
        So many times more than it is said to sustain a role or a shape has to take.
    """

    name: tuple[str, str]
    usable: Integers
    factors: Factors
    saves: float
    stretch: float


def win_back(
    problem: Problem, best: Round, factors: Factors, twin: Twin
) -> list[tuple[Round, Factors]]:
    """Cheaper proven proposals in the order in which they were found; none where there is none.

    What was refuted once is not tried again, as later fleets are smaller.

    Parameters
    ----------
    problem : Problem
        With undiscounted capacities.
    best : Round
        A proposal that holds.
    factors : dict
        It was made with them.
    """
    found: list[tuple[Round, Factors]] = []
    refuted: set[tuple[str, str]] = set()
    tries = looks = 0
    while tries < MOST_TRIES and looks < MOST_LOOKS and _may_save(problem, best):
        t = min(best.replays, key=lambda r: r.spare_ratio).window
        steps = [s for s in _steps(best, factors, t) if s.name not in refuted]
        if not steps:
            break
        step = min(steps, key=lambda s: (s.name[1] != "", s.stretch, -s.saves))
        looks += 1
        if len(problem.streams) == 1:
            seen = twin.look(best, step.usable, t)
            if seen is None or seen.spare_ratio < 0:
                refuted.add(step.name)
                continue
        tries += 1
        tried = twin.propose(problem.tightened(step.factors), best)
        if tried is None or not tried.holds:
            refuted.add(step.name)
            continue
        best, factors = tried, step.factors
        found.append((best, factors))
    return found


def _may_save(problem: Problem, best: Round) -> bool:
    """Whether there is something to save, and the twin saw what it would be judged by."""
    settled = best.holds and not best.exhausted and best.replays
    return bool(settled) and not problem.sheds and len(problem.windows) <= MOST_WINDOWS


def is_better(problem: Problem, solution: Solution, best: Round) -> bool:
    """Whether a proposal, if it holds, is to be kept instead of the best so far."""
    return worth(problem, solution) < worth(best.problem, best.solution)


def _steps(best: Round, factors: Factors, t: int) -> Iterator[_Step]:
    """One replica less of a pool in window `t`, or instead of it a cheaper one of another."""
    problem, usable = best.problem, best.solution.usable
    each = per_replica(problem)
    for o in (o for o in problem.option_indices if usable[o, t] > 0):
        less = np.array(usable)
        less[o, t] -= 1
        yield from _step(best, factors, t, less, out=o, into=None)
        for p in problem.option_indices:
            if p != o and each[p] < each[o] and _may_replace(problem, o, p):
                other = np.array(less)
                other[p, t] += 1
                yield from _step(best, factors, t, other, out=o, into=p)
    if len(problem.streams) == 1:
        for roles, rest in (_WAYS, _WAYS[::-1]):
            yield from _way_less(best, factors, t, roles=roles, rest=rest)


def _way_less(
    best: Round, factors: Factors, t: int, *, roles: tuple[Role, ...], rest: tuple[Role, ...]
) -> Iterator[_Step]:
    """The last replicas of one way to serve less, one a role: the other way takes what they had."""
    problem, usable = best.problem, best.solution.usable
    last = [o for role in roles for o in problem.in_role(role) if usable[o, t] > 0]
    if not last or any(usable[list(problem.in_role(role)), t].sum() != 1 for role in roles):
        return
    moved_rps = float(taken_rps(problem, best.solution)[last, t].sum()) / len(roles)
    changed, stretch = dict(factors), 0.0
    for role in rest:
        alike = problem.in_role(role)
        needed = _stretch(best, t, usable, alike[0], moved_rps=moved_rps) if alike else None
        if needed is None:
            return
        stretch = max(stretch, needed)
        if needed > 1:
            changed[role] = changed.get(role, 1.0) / (needed * _ROOM)
    if stretch <= 1:
        return
    less = np.array(usable)
    less[last, t] = 0
    yield _Step(
        name=(" + ".join(problem.options[o].label for o in last), "none"),
        usable=less,
        factors=changed,
        saves=float(per_replica(problem)[last].sum()),
        stretch=stretch,
    )


def _may_replace(problem: Problem, o: int, p: int) -> bool:
    """An aggregated replica stands for no prefill or decode replica; and there has to be room."""
    roles = {problem.options[o].shape.role, problem.options[p].shape.role}
    return (len(roles) == 1 or Role.AGGREGATED not in roles) and problem.max_replicas[p] > 0


def _step(
    best: Round, factors: Factors, t: int, usable: Integers, *, out: int, into: int | None
) -> Iterator[_Step]:
    """The factors that make other replicas in window `t` just enough; nothing where none do."""
    problem, each = best.problem, per_replica(best.problem)
    changed = dict(factors)
    stretch = _stretch(best, t, usable, out)
    if stretch is None:
        return
    key = _key(problem, out)
    if stretch > 1:
        changed[key] = changed.get(key, 1.0) / (stretch * _ROOM)
    if into is not None and (other := _key(problem, into)) != key:
        needed = _stretch(best, t, best.solution.usable, into)
        if needed is None or not 0 < needed <= 1:
            return
        changed[other] = changed.get(other, 1.0) * _ROOM / needed
    elif stretch <= 1:
        return  # the solver knew that this much is enough, and may not have it
    labels = [problem.options[o].label for o in (out, *(() if into is None else (into,)))]
    yield _Step(
        name=(labels[0], labels[1] if into is not None else ""),
        usable=usable,
        factors=changed,
        saves=float(each[out] - (0.0 if into is None else each[into])),
        stretch=stretch,
    )


def _key(problem: Problem, o: int) -> Discounted:
    """What is discounted for an option: of one stream its role, of several its shape."""
    shape = problem.options[o].shape
    return shape if len(problem.streams) > 1 else shape.role


def _stretch(
    best: Round, t: int, usable: Integers, o: int, *, moved_rps: float = 0.0
) -> float | None:
    """What is sent through an option's role (or shape) over what it is said to sustain.

    None where nothing would be left of it.

    Parameters
    ----------
    moved_rps : float
        Sent besides, requests/s.
    """
    problem, shape = best.problem, best.problem.options[o].shape
    alike = problem.in_role(shape.role) if len(problem.streams) == 1 else problem.of_shape(shape)
    sustained = sum(problem.capacity[a, t].at(int(usable[a, t])) for a in alike)
    sent = float(taken_rps(problem, best.solution)[list(alike), t].sum())
    return (sent + moved_rps) / sustained if sustained > 0 else None
