"""What was promised and to how many requests, as limits that may give way (`Limit`)."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from planner.domain.slo import LONGEST_SLO_S, LONGEST_TOKEN_S, Slo
from planner.domain.spec import Spec
from planner.optimize.limits import Limit
from planner.optimize.loads import promises, with_slo
from planner.optimize.problem import Problem

LEAST_ATTAINMENT_RATIO = 0.5
"""No attainment is lowered further than that."""

MOST_E2E_STRETCH = 1000.0
"""An end-to-end time has no longest that a spec may hold; the others are stretched to theirs."""

LEAST_RATE_RATIO = 0.01
"""Where not even so much of the requests could be served, fewer requests are no way out."""


def tightest(spec: Spec, model: str) -> tuple[float, float]:
    """The shortest TTFT and the shortest time per token promised to any class, seconds."""
    slos = [s for s in spec.slos if s.model == model]
    return min(s.ttft_s for s in slos), min(s.tpot_s for s in slos)


def shortest_e2e_s(spec: Spec, model: str) -> float | None:
    """The shortest end-to-end time promised to any class, seconds; None: to none."""
    promised = (s.e2e_s for s in spec.slos if s.model == model and s.e2e_s is not None)
    return min(promised, default=None)


def promises_of(problem: Problem, spec: Spec, classes: Collection[str] = ()) -> tuple[Limit, ...]:
    """Attainment, times and rate of the problem's model, and of single classes.

    Parameters
    ----------
    classes : collection of str
        Of the requests that arrive; of one alone nothing is said by itself.
    """
    slos = promises(spec, problem.model, classes)
    alone = [limit for slo in slos for limit in _of_class(slo, problem.model)]
    return (
        *_objectives(problem.model, spec),
        *(alone if len(slos) > 1 else ()),
        _rate(problem),
    )


def _of_class(slo: Slo, model: str) -> Iterator[Limit]:
    """One class's TTFT, time per token and end-to-end time."""
    times = slo.ttft_s, slo.tpot_s, slo.e2e_s
    yield from _times(model, times, request_class=slo.request_class)


def _objectives(model: str, spec: Spec) -> Iterator[Limit]:
    target = max(s.attainment_ratio for s in spec.slos if s.model == model)
    if target > LEAST_ATTAINMENT_RATIO:
        yield Limit(
            field="attainment_ratio",
            constraints=(),
            now=target,
            loosest=LEAST_ATTAINMENT_RATIO,
            text=lambda value: f"attainment_ratio {value:.4g} instead of {target:g}",
            in_spec=lambda of, value: with_slo(of, model, attainment_ratio=value),
        )
    times = (*tightest(spec, model), shortest_e2e_s(spec, model))
    yield from _times(model, times)


def _times(
    model: str,
    times: tuple[float, float, float | None],
    *,
    request_class: str | None = None,
) -> Iterator[Limit]:
    """TTFT, time per token and end-to-end time, as far as they are promised.

    Parameters
    ----------
    times : (TTFT, time per token, end-to-end time), seconds
    request_class : str or None
        Whose they are; None: the tightest of all classes, stretched alike.
    """
    whose = "" if request_class is None else f" class {request_class}"
    classes = () if request_class is None else (request_class,)
    longest = LONGEST_SLO_S, LONGEST_TOKEN_S, MOST_E2E_STRETCH * (times[2] or 0.0)
    for name, now, most in zip(("ttft", "tpot", "e2e"), times, longest, strict=True):
        if now is None:
            continue

        def text(value: float, name: str = name, now: float = now) -> str:
            return f"{name}_s {value:.4g} instead of {now:g}{whose and f' for{whose}'}"

        def stretched(of: Spec, value: float, name: str = name, now: float = now) -> Spec:
            ratios = {f"{name}_ratio": value / now}
            return with_slo(of, model, classes=classes, **ratios)

        yield Limit(
            field=f"{name}_s{whose and f' of{whose}'}",
            constraints=(),
            now=now,
            loosest=most,
            text=text,
            in_spec=stretched,
        )


def _rate(problem: Problem) -> Limit:
    most = max((problem.load_rps(t) for t in problem.window_indices), default=0.0)
    return Limit(
        field="rate",
        constraints=(),
        now=1.0,
        loosest=LEAST_RATE_RATIO,
        text=lambda value: (
            f"{value:.1%} of the requests, no more ({value * most:.3g} of {most:.3g}/s)"
        ),
        in_problem=lambda of, value: replace(of, demand_rps=of.demand_rps * value),
    )
