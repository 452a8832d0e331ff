"""What one more of something is worth: solved again with a stated change, not read off LP duals.

A dual of a relaxation says what a fraction of a replica would save; fleets change by whole ones.
Each change is small, named, and priced by the difference of two solutions; where that lies within
their gaps, nothing can be said.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from planner.domain.errors import OutsideProfileError, SpecError
from planner.domain.plan import ShadowPrice
from planner.domain.slo import LONGEST_SLO_S, LONGEST_TOKEN_S
from planner.domain.spec import Spec
from planner.optimize.limits import Limit, limits_of
from planner.optimize.loads import with_slo
from planner.optimize.problem import Problem
from planner.optimize.promises import shortest_e2e_s
from planner.optimize.solve import attempt
from planner.optimize.sought import Worth, difference_text, worth_of
from planner.optimize.stretch import stretched_note, with_stretched

TTFT_STEP_RATIO, TPOT_STEP_RATIO, E2E_STEP_RATIO = 0.05, 0.05, 0.05
"""Objectives are tightened and relaxed by so much."""

RATE_STEP_RATIO = 0.1
NOT_IN_TIME = "is not priced: nothing was found in time"

Rebuild = Callable[[Spec], Problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A stated perturbation of the problem."""

    name: str
    problem: Callable[[], Problem]


def shadow_prices(
    problem: Problem, spec: Spec, rebuild: Rebuild, *, kept: bool = True
) -> tuple[ShadowPrice, ...]:
    """What each change adds to (above 0) or takes from what was to be best, in its own unit.

    For `cost` USD/h of all named terms, for `power` W, for `accelerators` accelerators, for
    `goodput` requests/s that are served; beside it what the bill does.

    Parameters
    ----------
    problem : Problem
        As the plan was made from, tightened where the twin asked for it. Where its promises were
        stretched, changes are of these, and every sentence says so.
    rebuild : function from Spec to Problem
        Makes the problem again for a spec with other objectives, tightened alike.
    kept : bool
        False: no fleet keeps the promise. Then it is told how many requests/s more are served.
    """
    if problem.stretched:  # a fleet may keep these
        spec, problem = with_stretched(spec, problem), replace(problem, best_effort=False)
        sized = attempt(problem)
        kept = sized is None or sized.feasible
    problem = replace(problem, best_effort=not kept)
    note = stretched_note(problem)
    prices = _prices(problem, spec, rebuild, kept=kept)
    return tuple(replace(price, sentence=price.sentence + note) for price in prices)


def _prices(
    problem: Problem, spec: Spec, rebuild: Rebuild, *, kept: bool
) -> tuple[ShadowPrice, ...]:
    found = attempt(problem)
    if found is None:
        return (_unpriced(NOT_IN_TIME),)
    if not found.feasible:
        return (_unpriced("is not priced: no fleet keeps all rows that are told as binding"),)
    before = worth_of(problem, found)
    if not kept and not problem.sheds and not found.shortfall_rps.any():
        return (
            _unpriced("is not priced: it is the twin that refutes every fleet for this demand"),
        )
    return tuple(_priced(change, before, kept=kept) for change in _changes(problem, spec, rebuild))


def _unpriced(sentence: str, change: str = "any small change", unit: str = "USD/h") -> ShadowPrice:
    return ShadowPrice(change=change, usd_per_hour=None, sentence=sentence, unit=unit)


def _priced(change: _Change, before: Worth, *, kept: bool) -> ShadowPrice:
    unit = before.unit
    try:
        changed = replace(change.problem(), best_effort=not kept)
    except (OutsideProfileError, SpecError) as refused:
        return _unpriced(f"is not priced: {refused}", change.name, unit)
    found = attempt(changed)
    if found is None:
        return _unpriced("is not priced in time", change.name, unit)
    if not found.feasible:
        return _unpriced("cannot be served within the limits", change.name, unit)
    after = worth_of(changed, found)
    return ShadowPrice(
        change=change.name,
        usd_per_hour=after.usd_per_hour - before.usd_per_hour,
        sentence=difference_text(before, after),
        more=after.sought - before.sought,
        unit=unit,
    )


def _changes(problem: Problem, spec: Spec, rebuild: Rebuild) -> Iterator[_Change]:
    for limit in limits_of(problem, spec):
        value = _stepped(limit)
        if limit.in_problem is not None and value is not None:
            name = limit.text(value).replace("1 more ", "one more ", 1)
            if (value - limit.now) * (limit.loosest - limit.now) <= 0:
                name += " (no more is possible)"
            yield _Change(name=name, problem=partial(limit.in_problem, problem, value))
    yield from _of_promises(problem, spec, rebuild)
    if problem.demand_rps.any():
        yield _Change(
            name=f"{RATE_STEP_RATIO:.0%} more requests",
            problem=lambda: replace(problem, demand_rps=problem.demand_rps * (1 + RATE_STEP_RATIO)),
        )


def _stepped(limit: Limit) -> float | None:
    """A small step from where a limit is; the other way where it is as loose as it can be.

    None where it has no step either way.
    """
    if not limit.step:
        return None
    room = abs(limit.loosest - limit.now)
    if room > 0:
        return limit.now + math.copysign(min(abs(limit.step), room), limit.step)
    return limit.now - limit.step if limit.now >= limit.step else None


def _of_promises(problem: Problem, spec: Spec, rebuild: Rebuild) -> Iterator[_Change]:
    """Times a little shorter and, up to the longest that a spec may promise, longer."""
    slos = [s for s in spec.slos if s.model == problem.model]
    ttft_s, tpot_s = min(s.ttft_s for s in slos), min(s.tpot_s for s in slos)
    e2e_s = shortest_e2e_s(spec, problem.model)
    for sign in (-1, 1):
        ttft = min(1 + sign * TTFT_STEP_RATIO, LONGEST_SLO_S / ttft_s)
        tpot = min(1 + sign * TPOT_STEP_RATIO, LONGEST_TOKEN_S / tpot_s)
        if ttft != 1:
            yield _Change(
                name=f"{_ms((ttft - 1) * ttft_s)} of TTFT ({ttft_s * ttft:g} s)",
                problem=_with_objectives(spec, problem.model, rebuild, ttft=ttft),
            )
        if tpot != 1:
            yield _Change(
                name=f"{_ms((tpot - 1) * tpot_s)} a token ({1e3 * tpot_s * tpot:g} ms)",
                problem=_with_objectives(spec, problem.model, rebuild, tpot=tpot),
            )
        if e2e_s is not None:
            e2e = 1 + sign * E2E_STEP_RATIO
            yield _Change(
                name=f"{_ms(sign * E2E_STEP_RATIO * e2e_s)} end to end ({e2e_s * e2e:g} s)",
                problem=_with_objectives(spec, problem.model, rebuild, e2e=e2e),
            )


def _with_objectives(
    spec: Spec,
    model: str,
    rebuild: Rebuild,
    *,
    ttft: float = 1.0,
    tpot: float = 1.0,
    e2e: float = 1.0,
) -> Callable[[], Problem]:
    return lambda: rebuild(with_slo(spec, model, ttft_ratio=ttft, tpot_ratio=tpot, e2e_ratio=e2e))


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:+,.0f} ms" if abs(seconds) >= 1e-3 else f"{1e3 * seconds:+.2g} ms"
