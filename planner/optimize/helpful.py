"""Which relaxations help: each is tried in the proof loop before it is offered as proven."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from planner.domain.errors import OutsideProfileError, SolverError, SpecError
from planner.domain.forecast import Forecast
from planner.domain.slo import LONGEST_SLO_S, LONGEST_TOKEN_S
from planner.domain.spec import Spec
from planner.domain.wording import percent
from planner.optimize.loads import promises
from planner.optimize.problem import Problem
from planner.optimize.promises import LEAST_ATTAINMENT_RATIO, promises_of
from planner.optimize.proposal import Round
from planner.optimize.relax import Rebuild, Relaxation, relaxations
from planner.optimize.rounds import MAX_ROUNDS, rounds_that_serve
from planner.optimize.stretch import keeps_some

NOT_PROVEN = "by the model only, not proven in the twin"

_MOST_PROPOSALS = 24
"""Of all trials of one plan together; a proposal is a solve and the replay of a few windows."""

_MOST_EACH = MAX_ROUNDS
"""Proposals of one trial, as many as a plan's: what holds or misses here does there."""

_ENLARGED = (1.5, 3.0, 8.0)
"""Where the twin refutes it, a limit is moved so many times as far as the model says."""

_NO_TIME = (
    f"and no single promise of up to {LONGEST_SLO_S:g} s TTFT or {LONGEST_TOKEN_S:g} s a token, "
    "the longest that a spec may hold, helps"
)

_HALVINGS = 2
"""So often it is tried half way back to what missed."""


@dataclass(slots=True, eq=False)
class _Trials:
    """Runs the proof loop for relaxed specs, as long as there is something left to spend.

    Parameters
    ----------
    rebuild : function from Spec to Problem
        Without any discounts.
    left : int
        Proposals that may still be made.
    """

    spec: Spec
    forecast: Forecast
    rebuild: Rebuild
    classes: Collection[str]
    model: str
    left: int

    def proves(self, relaxed: Relaxation) -> bool | None:
        """Whether a fleet keeps every promise with confidence then; None: nothing left to ask."""
        if self.left <= 0:
            return None
        spec = relaxed.changed(self.spec)

        def rebuild(changed: Spec) -> Problem:
            return relaxed.applied(self.rebuild(changed))

        try:
            rounds = rounds_that_serve(
                spec,
                _fewer(self.forecast, relaxed),
                rebuild(spec),
                promises(spec, self.model, self.classes),
                rebuild,
                most=min(_MOST_EACH, self.left),
            )
        except (OutsideProfileError, SolverError, SpecError):
            self.left -= 1
            return False
        self.left -= len(rounds)
        last = rounds[-1]
        if last.exhausted or last.nothing_confirmed:
            return False
        if last.holds:
            return True
        return None if self.left <= 0 and len(rounds) < _MOST_EACH else False


def helpful(
    problem: Problem,
    spec: Spec,
    forecast: Forecast,
    rebuild: Rebuild,
    *,
    classes: Collection[str],
    final: Round,
    discounted: Rebuild,
    prove: bool = True,
) -> tuple[str, ...]:
    """What to relax where no fleet keeps the promise, the smallest changes first.

    What stands there without a remark was proven: the proof loop of a plan, with its confidence,
    found a fleet for it. What the twin refuted is enlarged and tried again, or left out; what could
    not be tried within `_MOST_PROPOSALS` is marked with `NOT_PROVEN`.

    Parameters
    ----------
    problem : Problem
        As it was discounted at last.
    rebuild, discounted : function from Spec to Problem
        Without any discounts, and with the last ones.
    final : Round
        The best fleet that was found.
    prove : bool
        False: nothing is tried.
    """
    asked = relaxations(problem, spec, discounted, classes)
    if not prove:
        return tuple(_unproven(r) for r in asked) or _reached(final)
    trials = _Trials(spec, forecast, rebuild, classes, problem.model, _MOST_PROPOSALS)
    tried = [(r, trials.proves(r)) for r in asked or _softer(problem, spec, final, classes)]
    enlarged = (_enlarged(trials, r) for r, proven in tried if proven is False)
    proven = [r for r, said in tried if said] + [r for r in enlarged if r is not None]
    proven.sort(key=lambda r: (r.size, r.text))
    told = [r.text for r in proven] + [_unproven(r) for r, said in tried if said is None and asked]
    return tuple(told) or _reached(final)


def _softer(
    problem: Problem, spec: Spec, final: Round, classes: Collection[str]
) -> tuple[Relaxation, ...]:
    """Softer promises where the model finds nothing wrong with the fleet, and the twin does.

    The attainment that was reached, and all else a little softer.
    """
    low = _low_ratio(final)
    found = []
    for limit in promises_of(problem, spec, classes):
        relaxed = Relaxation(moves=((limit, limit.now),), is_least=False).times(1.0)
        if limit.field == "attainment_ratio" and LEAST_ATTAINMENT_RATIO <= low < limit.now:
            relaxed = Relaxation(moves=((limit, low),), is_least=False)
        found.append(relaxed)
    return tuple(found)


def _enlarged(trials: _Trials, refuted: Relaxation) -> Relaxation | None:
    """The least of a few larger relaxations that is proven; None: none was."""
    missed = refuted
    for factor in _ENLARGED:
        held = refuted.times(factor)
        said = trials.proves(held)
        if said is None:
            return None
        if said:
            break
        missed = held
    else:
        return None
    for _ in range(_HALVINGS):
        middle = held.half_way_from(missed)
        if middle.text in (missed.text, held.text):
            break
        if trials.proves(middle):
            held = middle
        else:
            missed = middle
    return held


def _fewer(forecast: Forecast, relaxed: Relaxation) -> Forecast:
    """The forecast with so much of the requests as the relaxation leaves."""
    ratio = math.prod(value for limit, value in relaxed.moves if limit.field == "rate")
    if ratio == 1:
        return forecast
    return replace(forecast, windows=tuple(w.times(ratio) for w in forecast.windows))


def _unproven(relaxed: Relaxation) -> str:
    return f"{relaxed.text} ({NOT_PROVEN})"


def _low_ratio(final: Round) -> float:
    """Attainment of the class that is worst off, with confidence, in three digits."""
    seen = [c for r in final.replays for c in r.prediction.classes]
    ratios = (c.attainment_ratio if c.low_ratio is None else c.low_ratio for c in seen)
    return math.floor(1000 * min(ratios, default=0.0)) / 1000


def _reached(final: Round) -> tuple[str, ...]:
    """What the best fleet found reaches, where no change was found to help."""
    seen = [c for r in final.replays for c in r.prediction.classes]
    if not seen and not any(keeps_some(final.problem, t) for t in final.problem.window_indices):
        return (f"no request is in time, whatever the fleet, {_NO_TIME}: find faster replicas",)
    if not seen:
        return ("nothing that was tried alone: relax the objectives and the limits together",)
    worst = min(seen, key=lambda c: c.spare_ratio)
    low = worst.attainment_ratio if worst.low_ratio is None else worst.low_ratio
    of = f" of class {worst.request_class}" if len({c.request_class for c in seen}) > 1 else ""
    reached = math.floor(1000 * low) / 1000
    if reached == 0:
        slow = f"no request{of} is in time, whatever the fleet"
        return (f"{slow}, {_NO_TIME}: find faster replicas",)
    if reached < LEAST_ATTAINMENT_RATIO:
        return (
            f"nothing that was tried is enough: the best fleet found keeps {percent(reached)}{of} "
            f"in time, {_NO_TIME}: relax several together",
        )
    return (f"attainment_ratio {reached:.3f}{of}, which the best fleet found reaches",)
