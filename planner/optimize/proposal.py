"""One proposal of the proof loop, and what the twin says of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.domain.forecast import Forecast
from planner.domain.plan import ClassAttainment, PlanStatus
from planner.domain.wording import percent
from planner.optimize.links import carried_bytes_per_s
from planner.optimize.problem import Problem
from planner.optimize.replay import Replay
from planner.optimize.solution import Solution, solution_of
from planner.optimize.usage import moved_bytes_per_s

_NEAR = 1e-9

_UNSERVED_RATIO = 1e-6
"""Of the demand: what is less is none."""

_FULL = 0.999
"""A transfer limit that is used so far is reached."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Round:
    """One proposal and what the twin says of it.

    Parameters
    ----------
    replays : tuple of Replay
        Of windows that the plan has a say in.
    helpless : tuple of Replay
        Of windows that come before anything new is ready and in which all that is there serves:
        predicted, but not held against the plan.
    exhausted : bool
        Nothing satisfied the constraints: the proposal serves as much as can be served.
    unconfirmed : bool
        Kept although the twin does not confirm it, as what else was found serves next to nothing.
    """

    problem: Problem
    solution: Solution
    replays: tuple[Replay, ...]
    helpless: tuple[Replay, ...] = ()
    exhausted: bool
    unconfirmed: bool = False

    @property
    def spare_ratio(self) -> float:
        """Attainment less target of the class that is worst off in any replayed window."""
        return min((r.spare_ratio for r in self.replays), default=1.0)

    @property
    def holds(self) -> bool:
        """Whether every class keeps its promise with 95 % confidence in every replayed window.

        A fleet that takes all there is may not be improved to gain confidence, so for it the
        point estimate decides; that it is not proven is then told (`unproven`). The twin does not
        slow transfers by their limits, so what these keep unserved is not its to judge. One that
        is `unconfirmed` stands for want of a better one.
        """
        if self.unconfirmed:
            return True
        if self.exhausted and lacks_transfers(self.problem, self.solution):
            return False
        if self.exhausted:
            return bool(self.replays) and self.spare_ratio >= 0
        return all(r.proves for r in self.replays)

    @property
    def nothing_confirmed(self) -> bool:
        """Whether requests come, and in no window that the plan has a say in the twin saw them.

        Nor are they in time in all those in which all that is there serves.
        """
        if self.replays or (self.helpless and all(r.proves for r in self.helpless)):
            return False
        return any(self.problem.load_rps(t) > 0 for t in self.problem.window_indices)

    def unproven(self, forecast: Forecast) -> tuple[str, ...]:
        """What the twin did not confirm, in sentences; empty: all that it was asked."""
        seen = sorted((*self.replays, *self.helpless), key=lambda r: r.window)
        if not seen:
            return ("no window could be replayed in the twin",) if self.nothing_confirmed else ()
        return tuple(
            f"{forecast.windows[r.window].start_at:%m-%d %H:%M}: {_seen_text(r, wronged)}"
            + (", and nothing ordered now is ready in time" if r in self.helpless else "")
            for r in seen
            for wronged in r.unproven
        )


def _seen_text(seen: Replay, wronged: ClassAttainment) -> str:
    several = len(seen.prediction.classes) > 1
    of = f" of class {wronged.request_class}" if several else ""
    share, promised = percent(wronged.attainment_ratio), percent(wronged.target_ratio)
    text = f"{share}{of} in time for {promised} promised"
    if wronged.low_ratio is None:
        return text
    return f"{text} (95 % confidence: at least {percent(wronged.low_ratio)})"


def is_helpless(problem: Problem, solution: Solution, t: int) -> bool:
    """Whether window `t` comes before anything new is ready and keeping more would not help it."""
    if problem.best_effort or problem.sheds:
        return False
    if not any(problem.may_fall_short(k, t) for k in problem.stream_indices):
        return False
    kept = np.array(solution.usable)
    kept[:, t] = [o.initial_replicas for o in problem.options]
    most = problem.serves_rps(kept, t)
    return most <= problem.serves_rps(solution.usable, t) * (1 + _NEAR)


def lacks_transfers(problem: Problem, solution: Solution) -> bool:
    """Whether requests stay unserved in a window in which a limit of KV transfers is reached."""
    limit = problem.transfer_bytes_per_s_limit
    for t in problem.window_indices:
        if solution.shortfall_rps[t] <= _UNSERVED_RATIO * problem.load_rps(t):
            continue
        if limit is not None and moved_bytes_per_s(problem, solution, t) >= _FULL * limit:
            return True
        carried = carried_bytes_per_s(problem, solution.moved_rps, t)
        if any(c >= _FULL * i.bytes_per_s for c, i in zip(carried, problem.links, strict=True)):
            return True
    return False


def judged_windows(problem: Problem, solution: Solution) -> Sequence[int]:
    """Windows that the plan has a say in."""
    return [t for t in problem.window_indices if not is_helpless(problem, solution, t)]


def within(problem: Problem, one_way: Round) -> Round:
    """A proposal of one way as one of the whole problem, which has more options."""
    place = {(o.shape, o.purchase_option): i for i, o in enumerate(problem.options)}
    rows = [place[o.shape, o.purchase_option] for o in one_way.problem.options]
    replicas = np.zeros((len(problem.options), len(problem.windows)), dtype=np.int64)
    replicas[rows] = one_way.solution.replicas
    arcs = {(f.source, f.target): i for i, f in enumerate(problem.flips)}
    flips = np.zeros((len(problem.flips), len(problem.windows)), dtype=np.int64)
    for f, flip in enumerate(one_way.problem.flips):
        flips[arcs[rows[flip.source], rows[flip.target]]] = one_way.solution.flips[f]
    found = one_way.solution
    solution = solution_of(
        problem,
        replicas,
        flips=flips,
        status=PlanStatus.FEASIBLE,
        solver_name=found.solver_name,
        gap_ratio=found.gap_ratio,
        wall_s=found.wall_s,
        replayable=found.replayable,
    )
    return replace(one_way, problem=problem, solution=solution)
