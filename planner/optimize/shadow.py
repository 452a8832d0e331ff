"""What one more of something is worth: solved again with a stated change, not read off LP duals.

A dual of a relaxation says what a fraction of a replica would save; fleets change by whole ones.
Each change is small, named, and priced by the difference of two solutions; where that lies within
their gaps, nothing can be said.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from planner.domain.errors import OutsideProfileError, SpecError
from planner.domain.plan import ShadowPrice
from planner.domain.spec import Objective, Spec
from planner.optimize.limits import limits_of
from planner.optimize.loads import with_slo
from planner.optimize.objective import slo_shortfall
from planner.optimize.problem import Problem
from planner.optimize.promises import shortest_e2e_s
from planner.optimize.solution import Solution, mean_usd_per_hour
from planner.optimize.solve import attempt

TTFT_STEP_RATIO, TPOT_STEP_RATIO, E2E_STEP_RATIO = 0.05, 0.05, 0.05
"""Objectives are tightened and relaxed by so much."""

RATE_STEP_RATIO = 0.1
_CENT = 0.005
_SAME_RATIO = 1e-3
"""Of the requests that are served: a smaller difference is none."""

Rebuild = Callable[[Spec], Problem]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Change:
    """A stated perturbation of the problem."""

    name: str
    problem: Callable[[], Problem]


def shadow_prices(problem: Problem, spec: Spec, rebuild: Rebuild) -> tuple[ShadowPrice, ...]:
    """Mean USD/h that each change costs (above 0) or saves (below 0).

    With what unserved requests are priced at, where they are. With goodput as the objective it is
    also said how many requests more are served.

    Parameters
    ----------
    problem : Problem
        As the plan was made from, tightened where the twin asked for it.
    rebuild : function from Spec to Problem
        Makes the problem again for a spec with other objectives, tightened alike.
    """
    before = attempt(replace(problem, best_effort=False))
    if before is None or not before.feasible:
        return ()
    usd, served = _usd_per_hour(problem, before), _served_rps(problem, before)
    found = []
    for change in _changes(problem, spec, rebuild):
        try:
            changed = replace(change.problem(), best_effort=False)
        except (OutsideProfileError, SpecError):
            continue
        after = attempt(changed)
        if after is None or not after.feasible:
            text = "not priced in time" if after is None else "cannot be served within the limits"
            found.append(ShadowPrice(change=change.name, usd_per_hour=None, sentence=text))
            continue
        more = _usd_per_hour(changed, after) - usd
        noise = usd * (before.gap_ratio + after.gap_ratio)
        sentence = _sentence(more, noise)
        if problem.objective is Objective.GOODPUT:
            sentence = _goodput_sentence(more, _served_rps(changed, after) - served, served)
        found.append(ShadowPrice(change=change.name, usd_per_hour=more, sentence=sentence))
    return tuple(found)


def _usd_per_hour(problem: Problem, solution: Solution) -> float:
    """Mean over the horizon of what the fleet costs and what it leaves unserved, USD/h."""
    hours = sum(w.window_s for w in problem.windows) / 3600
    unserved = sum(term.usd for term in solution.terms if term.name == slo_shortfall.__name__)
    return mean_usd_per_hour(problem, solution.replicas) + unserved / hours


def _served_rps(problem: Problem, solution: Solution) -> float:
    """Mean over the horizon, requests/s."""
    seconds = np.array([w.window_s for w in problem.windows])
    served = (problem.demand_rps - solution.unserved_rps).sum(axis=0)
    return float(served @ seconds / seconds.sum())


def _goodput_sentence(more_usd: float, more_rps: float, served_rps: float) -> str:
    if abs(more_rps) <= _SAME_RATIO * max(served_rps, _SAME_RATIO):
        return "changes nothing that is served"
    served = f"serves {abs(more_rps):.3g} requests/s {'more' if more_rps > 0 else 'less'}"
    if abs(more_usd) <= _CENT:
        return f"{served} at the same cost"
    return f"{served}, for {abs(more_usd):.2f} USD/h {'more' if more_usd > 0 else 'less'}"


def _sentence(more: float, noise: float) -> str:
    if abs(more) <= max(noise, _CENT) and noise > _CENT:
        return f"not distinguishable: within the solver's gap of {noise:.2f} USD/h"
    if more > _CENT:
        return f"costs {more:.2f} USD/h"
    if more < -_CENT:
        return f"saves {-more:.2f} USD/h"
    return "changes nothing"


def _changes(problem: Problem, spec: Spec, rebuild: Rebuild) -> Iterator[_Change]:
    for limit in limits_of(problem, spec):
        if limit.in_problem is not None and limit.step is not None:
            value = limit.now + limit.step
            name = limit.text(value).replace("1 more ", "one more ", 1)
            yield _Change(name=name, problem=partial(limit.in_problem, problem, value))
    slos = [s for s in spec.slos if s.model == problem.model]
    ttft_s, tpot_s = min(s.ttft_s for s in slos), min(s.tpot_s for s in slos)
    for sign in (-1, 1):
        ttft, tpot = 1 + sign * TTFT_STEP_RATIO, 1 + sign * TPOT_STEP_RATIO
        yield _Change(
            name=f"{_ms(sign * TTFT_STEP_RATIO * ttft_s)} of TTFT ({ttft_s * ttft:g} s)",
            problem=_with_objectives(spec, problem.model, rebuild, ttft=ttft),
        )
        yield _Change(
            name=f"{_ms(sign * TPOT_STEP_RATIO * tpot_s)} a token ({1e3 * tpot_s * tpot:g} ms)",
            problem=_with_objectives(spec, problem.model, rebuild, tpot=tpot),
        )
        e2e_s, e2e = shortest_e2e_s(spec, problem.model), 1 + sign * E2E_STEP_RATIO
        if e2e_s is not None:
            yield _Change(
                name=f"{_ms(sign * E2E_STEP_RATIO * e2e_s)} end to end ({e2e_s * e2e:g} s)",
                problem=_with_objectives(spec, problem.model, rebuild, e2e=e2e),
            )
    yield _Change(
        name=f"{RATE_STEP_RATIO:.0%} more requests",
        problem=lambda: replace(problem, demand_rps=problem.demand_rps * (1 + RATE_STEP_RATIO)),
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
