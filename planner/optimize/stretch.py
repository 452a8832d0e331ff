"""Promises that no pool keeps, stretched until a fleet can be sized: which, and to what.

Where not even an idle replica keeps an objective, capacities are 0 and tell nothing. What is told
of such a plan is told for the stretched promises, and says so.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from planner.domain.fleet import Role
from planner.domain.forecast import Forecast
from planner.domain.plan import StretchedPromise, stretched_text
from planner.domain.spec import Spec
from planner.optimize.loads import promises, with_slo
from planner.optimize.problem import Problem
from planner.optimize.unkept import hopeless_classes

_ALL_THERE_IS = 1e6
"""Stretches every objective to the longest that a spec may hold."""

_STRETCHES = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)

_OBJECTIVES = ("ttft_s", "tpot_s", "e2e_s")

Rebuild = Callable[[Spec], Problem]


def attainable(problem: Problem, spec: Spec, forecast: Forecast, rebuild: Rebuild) -> Problem:
    """The problem with objectives stretched as far as it takes for some fleet to serve at all.

    Those of the classes that no pool keeps, and of these only the objective that is in the way
    where one alone is. The objectives as promised are what its prediction is judged by.

    Returns
    -------
    Problem
        With what was stretched in `Problem.stretched`; as it is where some fleet serves.
    """
    if _serves(problem):
        return problem
    names = sorted({d.request_class for w in forecast.windows for d in w.demands})
    shapes = list(dict.fromkeys(option.shape for option in problem.options))
    classes = {*hopeless_classes(spec, shapes, forecast)}
    stretched = problem
    for by in (*_STRETCHES, _ALL_THERE_IS):
        classes |= _served_by_nothing(stretched)
        softer = with_slo(spec, problem.model, ttft_ratio=by, tpot_ratio=by, classes=classes)
        stretched = _rebuilt(softer, spec, names, rebuild)
        if not _serves(stretched):
            continue
        for alone in _one_alone(spec, problem.model, by, classes):
            fewer = _rebuilt(alone, spec, names, rebuild)
            if _serves(fewer):
                return fewer
        break
    return stretched


def _one_alone(spec: Spec, model: str, by: float, classes: Collection[str]) -> Iterator[Spec]:
    """The spec with each objective stretched by itself."""
    yield with_slo(spec, model, ttft_ratio=by, e2e_ratio=1.0, classes=classes)
    yield with_slo(spec, model, tpot_ratio=by, e2e_ratio=1.0, classes=classes)
    if any(slo.model == model and slo.e2e_s is not None for slo in spec.slos):
        yield with_slo(spec, model, e2e_ratio=by, classes=classes)


def _rebuilt(softer: Spec, spec: Spec, names: Sequence[str], rebuild: Rebuild) -> Problem:
    problem = rebuild(softer)
    return replace(problem, stretched=_changed(spec, softer, problem.model, names))


def _changed(
    spec: Spec, softer: Spec, model: str, names: Sequence[str]
) -> tuple[StretchedPromise, ...]:
    """What is promised otherwise in another spec, class by class."""
    pairs = zip(promises(spec, model, names), promises(softer, model, names), strict=True)
    return tuple(
        StretchedPromise(
            request_class=was.request_class if len(names) > 1 else "",
            objective=name,
            promised_s=getattr(was, name),
            planned_s=getattr(now, name),
        )
        for was, now in pairs
        for name in _OBJECTIVES
        if getattr(was, name) != getattr(now, name)
    )


def with_stretched(spec: Spec, problem: Problem) -> Spec:
    """The spec with the promises that the problem was made for."""
    for one in problem.stretched:
        name = one.objective.removesuffix("_s")
        ratios = {"ttft_ratio": 1.0, "tpot_ratio": 1.0, "e2e_ratio": 1.0}
        ratios[f"{name}_ratio"] = one.planned_s / one.promised_s
        classes = (one.request_class,) if one.request_class else ()
        spec = with_slo(spec, problem.model, classes=classes, **ratios)
    return spec


def stretched_note(problem: Problem) -> str:
    """To end a sentence with that is so for the stretched promises only; empty: it is for all."""
    text = stretched_text(problem.stretched)
    return f" (for {text}, which no pool keeps)" if text else ""


def _serves(problem: Problem) -> bool:
    """Whether there is something of which some pool serves every stream."""
    return not _served_by_nothing(problem) and any(
        keeps_some(problem, t) for t in problem.window_indices
    )


def keeps_some(problem: Problem, t: int) -> bool:
    """Whether one replica of everything serves anything in time in window `t`."""
    one = np.ones((len(problem.options), len(problem.windows)), dtype=np.int64)
    return problem.serves_rps(one, t) > 0


def _served_by_nothing(problem: Problem) -> frozenset[str]:
    """Classes of streams that no pool can serve in time; empty: none, or there is one stream."""
    paths = ((Role.AGGREGATED,), (Role.PREFILL, Role.DECODE))
    return frozenset(
        stream.request_class
        for k, stream in enumerate(problem.streams)
        if stream.request_class
        and not stream.beyond
        and not any(all(problem.serving(k, role) for role in roles) for roles in paths)
    )
