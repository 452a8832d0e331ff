"""Why a plan is as it is: what binds it, and what else was considered and not chosen."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from planner.domain.fleet import Role
from planner.domain.plan import PlanStatus, RejectedAlternative
from planner.optimize.best_service import best_service
from planner.optimize.check import check
from planner.optimize.conflict import said_of
from planner.optimize.in_unit import beside_text, mean_sought
from planner.optimize.inputs import Integers, Objective, Option
from planner.optimize.problem import Problem
from planner.optimize.solution import (
    Solution,
    mean_usd_per_hour,
    nothing_solves,
    solution_of,
)
from planner.optimize.solve import attempt
from planner.optimize.stretch import stretched_note

_CENT = 0.005
_NEAR = 1e-6
NOT_IN_TIME = "not priced in time: raise `loop.solver_time_limit_s` in the spec to know"
_NOT_REPLAYED = "; the twin was not asked whether it keeps the objectives"
_MOST_DOMINATED = 4
"""More shapes than these are not told one by one."""


def telling_windows(problem: Problem, solution: Solution, among: Sequence[int]) -> tuple[int, ...]:
    """Of some windows the first and the one whose demand comes closest to what is sustained."""
    if not among:
        return ()
    fullest = max(among, key=lambda t: fullness(problem, solution, t))
    return tuple(sorted({among[0], fullest}))


def fullness(problem: Problem, solution: Solution, t: int) -> float:
    """A window's demand over what is sustained in it."""
    return problem.load_rps(t) / max(problem.serves_rps(solution.usable, t), 1e-12)


def rejected_alternatives(problem: Problem, solution: Solution) -> tuple[RejectedAlternative, ...]:
    """Other ways to serve the same demand, each with its cost or why it cannot serve.

    Found by solving the same problem with fewer options; the current fleet by looking at it. Where
    promises were stretched, each says for which it was computed.
    """
    problem = replace(problem, best_effort=False)
    usd = mean_usd_per_hour(problem, solution.replicas)
    used = [problem.options[o] for o in problem.option_indices if solution.replicas[o].any()]
    found = [
        _restricted(problem, solution, name, keep)
        for name, keep in _alternatives(problem)
        if not all(keep(option) for option in used)
    ]
    if problem.has_fleet:
        found += _current_fleet(problem, solution, usd)
    note = stretched_note(problem)
    found = [replace(other, reason=other.reason + note) for other in found]
    return (*found, *_left_out(problem))


def _left_out(problem: Problem) -> Iterator[RejectedAlternative]:
    """Pools that were not planned for; many that others do without are told in one sentence."""
    dominated = [e for e in problem.excluded if e.dominated_by]
    told_apart = len(dominated) <= _MOST_DOMINATED
    for e in problem.excluded:
        if told_apart or not e.dominated_by:
            yield RejectedAlternative(name=e.label, reason=e.reason, usd_per_hour=None)
    if not told_apart:
        labels = ", ".join(e.label for e in dominated[:_MOST_DOMINATED])
        yield RejectedAlternative(
            name=f"{labels} and {len(dominated) - _MOST_DOMINATED} more shapes",
            reason="each is dominated by one that was considered: no more accelerators or cost, "
            "and at least its capacity (`poolwise shapes --trace` says by which)",
            usd_per_hour=None,
        )


def _alternatives(problem: Problem) -> Iterator[tuple[str, Callable[[Option], bool]]]:
    roles = {option.shape.role for option in problem.options}
    if Role.AGGREGATED in roles:
        yield "aggregated only", lambda option: option.shape.role is Role.AGGREGATED
    if {Role.PREFILL, Role.DECODE} <= roles:
        yield "disaggregated only", lambda option: option.shape.role is not Role.AGGREGATED
    names = sorted({option.shape.accelerator for option in problem.options})
    for name in names if len(names) > 1 else ():
        yield f"{name} only", _is_on(name)


def _is_on(name: str) -> Callable[[Option], bool]:
    return lambda option: option.shape.accelerator == name


def _restricted(
    problem: Problem, solution: Solution, name: str, keep: Callable[[Option], bool]
) -> RejectedAlternative:
    fewer = problem.only(keep)
    forced = [b.shape.label for b in problem.bounds if b.min_replicas and b not in fewer.bounds]
    note = f" (and min_replicas of {', '.join(forced)} forbids it)" if forced else ""
    other = attempt(fewer) if fewer.options else nothing_solves(fewer, solver_name="none", wall_s=0)
    if other is None:
        return RejectedAlternative(name=name, reason=NOT_IN_TIME + note, usd_per_hour=None)
    if not other.feasible:
        reason = f"{best_service(fewer)}{note}"
        return RejectedAlternative(name=name, reason=reason, usd_per_hour=None)
    usd = mean_usd_per_hour(fewer, other.replicas)
    more = usd - mean_usd_per_hour(problem, solution.replicas)
    reason = f"{_fleet_text(fewer, other.replicas)} in the first window, "
    whole = replace(other, replicas=_placed(problem, fewer, other.replicas))
    reason += _compared(problem, whole, usd, more, solution)
    if more <= _CENT or _in_all(problem, other, solution) <= _CENT:
        reason += _NOT_REPLAYED
    return RejectedAlternative(name=name, reason=reason + note, usd_per_hour=usd)


def _placed(problem: Problem, fewer: Problem, replicas: Integers) -> Integers:
    """Replicas of some options as replicas of all."""
    place = {(o.shape, o.purchase_option): i for i, o in enumerate(problem.options)}
    placed = np.zeros((len(problem.options), replicas.shape[1]), dtype=np.int64)
    placed[[place[o.shape, o.purchase_option] for o in fewer.options]] = replicas
    return placed


def _current_fleet(problem: Problem, solution: Solution, usd: float) -> list[RejectedAlternative]:
    kept = np.array(
        [[o.initial_replicas] * len(problem.windows) for o in problem.options], dtype=np.int64
    )
    if np.array_equal(kept, solution.replicas):
        return []
    held = solution_of(problem, kept, status=PlanStatus.FEASIBLE, solver_name="none")
    kept_usd = mean_usd_per_hour(problem, kept)
    faults = check(problem, held)
    if faults:
        reason = _shortage_text(problem, kept) or _fault_text(problem, faults[0])
        return [RejectedAlternative(name="current fleet", reason=reason, usd_per_hour=None)]
    reason = _compared(problem, held, kept_usd, kept_usd - usd, solution)
    if _short_window(problem, held) is None:
        reason = f"serves the demand, {reason}"
    if kept_usd <= usd + _CENT or _in_all(problem, held, solution) <= _CENT:
        reason += _NOT_REPLAYED
    return [RejectedAlternative(name="current fleet", reason=reason, usd_per_hour=kept_usd)]


def _fault_text(problem: Problem, fault: str) -> str:
    """What a fleet does not keep, in words, beside the row that it breaks."""
    row, _, what = fault.partition(": ")
    name, _, within = row.rstrip("]").partition("[")
    index = tuple(int(part) if part.isdigit() else part for part in within.split(","))
    said = said_of(problem, name, index)
    return f"does not keep {said}{what and f' (has {what})'} [{row}]"


def _compared(
    problem: Problem, other: Solution, usd: float, more: float, solution: Solution
) -> str:
    """What another fleet costs beside the plan, and what it leaves unserved.

    Parameters
    ----------
    usd, more : float
        Of the other fleet, and more than the plan, USD/h.
    """
    left, plans = unserved_text(problem, other), unserved_text(problem, solution)
    if not left and not plans:
        return _price_text(problem, usd, more, other, solution)
    said = (left or "serves all that comes") + (f" (the plan {plans})" if plans else "")
    if problem.shortfall_usd_per_request is None:
        return f"{said}; {usd:.2f} USD/h"
    hours = problem.horizon_h
    priced = sum(term.usd for term in other.terms if term.name == "slo_shortfall") / hours
    in_all = _in_all(problem, other, solution)
    compared = f"{abs(in_all):.2f} {'more' if in_all > 0 else 'less'} than the plan in all"
    if abs(in_all) <= _CENT:
        compared = "the same as the plan in all"
    return f"{said}; {usd:.2f} USD/h and {priced:.2f} for what is unserved, {compared}"


def _in_all(problem: Problem, other: Solution, solution: Solution) -> float:
    """What another fleet costs more than the plan in all its terms, USD/h."""
    return (other.usd - solution.usd) / problem.horizon_h


def unserved_text(problem: Problem, solution: Solution) -> str:
    """What a fleet leaves unserved in its worst window; empty: nothing."""
    t = _short_window(problem, solution)
    if t is None:
        return ""
    short, demand = float(solution.shortfall_rps[t]), problem.load_rps(t)
    return f"leaves {short:.3g} of {demand:.3g} requests/s unserved in {_window(t)}"


def _short_window(problem: Problem, other: Solution) -> int | None:
    """The window in which most is left unserved; None: nothing is."""
    t = int(np.argmax(other.shortfall_rps))
    nothing = _NEAR * max(problem.load_rps(t), 1.0)
    return t if float(other.shortfall_rps[t]) > nothing else None


def _shortage_text(problem: Problem, replicas: Integers) -> str | None:
    """The window in which a fleet falls furthest short, or None when it serves everything."""
    missing = [
        (problem.serves_rps(replicas, t) - problem.load_rps(t), t) for t in problem.window_indices
    ]
    short, t = min(missing)
    if short >= 0:
        return None
    demand = problem.load_rps(t)
    return f"serves {demand + short:.3g} of {demand:.3g} requests/s in time in {_window(t)}"


def _fleet_text(problem: Problem, replicas: Integers) -> str:
    parts = [f"{n} x {o.label}" for n, o in zip(replicas[:, 0], problem.options, strict=True) if n]
    return " + ".join(parts) or "nothing"


def _price_text(
    problem: Problem, usd: float, more: float, other: Solution, solution: Solution
) -> str:
    sought, plans = (mean_sought(problem, s.replicas) for s in (other, solution))
    first = beside_text(problem.objective, sought, plans)
    if more > _CENT:
        return f"{first}{usd:.2f} USD/h, {more:.2f} more"
    if more < -_CENT:
        return f"{first}{usd:.2f} USD/h, {-more:.2f} less, but {_why_not(problem, other, solution)}"
    return f"{first}{usd:.2f} USD/h, the same"


def _why_not(problem: Problem, other: Solution, solution: Solution) -> str:
    """Why a fleet that costs less an hour is not the plan."""
    if problem.objective is not Objective.COST:
        return f"{problem.objective} was to be best"
    if other.usd >= solution.usd - _CENT * problem.horizon_h:
        return "not worth the change over the horizon"
    if other.usd >= solution.usd * (1 - solution.gap_ratio):
        return f"the search ended before it was tried (gap {solution.gap_ratio:.1%})"
    return "a bound of the spec or of what runs forbids it"


def _window(t: int) -> str:
    return f"window {t}"
