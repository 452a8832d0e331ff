"""What was promised and to how many requests, as limits that may give way (`Limit`)."""

from collections.abc import Collection, Iterator
from dataclasses import replace

from planner.domain.slo import LONGEST_SLO_S, LONGEST_TOKEN_S, Slo
from planner.domain.spec import Spec
from planner.optimize.limits import Limit
from planner.optimize.loads import promises, with_slo
from planner.optimize.problem import Problem

LEAST_ATTAINMENT_RATIO = 0.5
MOST_STRETCH = 30.0
"""No promise is stretched, and no attainment lowered, further than that."""

MOST_CLASS_STRETCH = 1000.0
"""One class's promise may be far from those of the others."""

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
    name = slo.request_class
    yield Limit(
        field=f"ttft_s of class {name}",
        constraints=(),
        now=slo.ttft_s,
        loosest=min(MOST_CLASS_STRETCH * slo.ttft_s, LONGEST_SLO_S),
        text=lambda value: f"ttft_s {value:.4g} instead of {slo.ttft_s:g} for class {name}",
        in_spec=lambda of, value: with_slo(
            of, model, ttft_ratio=value / slo.ttft_s, classes=(name,)
        ),
    )
    yield Limit(
        field=f"tpot_s of class {name}",
        constraints=(),
        now=slo.tpot_s,
        loosest=min(MOST_CLASS_STRETCH * slo.tpot_s, LONGEST_TOKEN_S),
        text=lambda value: f"tpot_s {value:.4g} instead of {slo.tpot_s:g} for class {name}",
        in_spec=lambda of, value: with_slo(
            of, model, tpot_ratio=value / slo.tpot_s, classes=(name,)
        ),
    )
    if (e2e_s := slo.e2e_s) is not None:
        yield Limit(
            field=f"e2e_s of class {name}",
            constraints=(),
            now=e2e_s,
            loosest=MOST_CLASS_STRETCH * e2e_s,
            text=lambda value: f"e2e_s {value:.4g} instead of {e2e_s:g} for class {name}",
            in_spec=lambda of, value: with_slo(of, model, e2e_ratio=value / e2e_s, classes=(name,)),
        )


def _objectives(model: str, spec: Spec) -> Iterator[Limit]:
    target = max(s.attainment_ratio for s in spec.slos if s.model == model)
    ttft_s, tpot_s = tightest(spec, model)
    if target > LEAST_ATTAINMENT_RATIO:
        yield Limit(
            field="attainment_ratio",
            constraints=(),
            now=target,
            loosest=LEAST_ATTAINMENT_RATIO,
            text=lambda value: f"attainment_ratio {value:.4g} instead of {target:g}",
            in_spec=lambda of, value: with_slo(of, model, attainment_ratio=value),
        )
    yield Limit(
        field="ttft_s",
        constraints=(),
        now=ttft_s,
        loosest=min(MOST_STRETCH * ttft_s, LONGEST_SLO_S),
        text=lambda value: f"ttft_s {value:.4g} instead of {ttft_s:g}",
        in_spec=lambda of, value: with_slo(of, model, ttft_ratio=value / ttft_s),
    )
    yield Limit(
        field="tpot_s",
        constraints=(),
        now=tpot_s,
        loosest=min(MOST_STRETCH * tpot_s, LONGEST_TOKEN_S),
        text=lambda value: f"tpot_s {value:.4g} instead of {tpot_s:g}",
        in_spec=lambda of, value: with_slo(of, model, tpot_ratio=value / tpot_s),
    )
    e2e_s = shortest_e2e_s(spec, model)
    if e2e_s is not None:
        yield Limit(
            field="e2e_s",
            constraints=(),
            now=e2e_s,
            loosest=MOST_STRETCH * e2e_s,
            text=lambda value: f"e2e_s {value:.4g} instead of {e2e_s:g}",
            in_spec=lambda of, value: with_slo(of, model, e2e_ratio=value / e2e_s),
        )


def _rate(problem: Problem) -> Limit:
    most = max((problem.load_rps(t) for t in problem.window_indices), default=0.0)
    return Limit(
        field="rate",
        constraints=(),
        now=1.0,
        loosest=LEAST_RATE_RATIO,
        text=lambda value: f"{value:.1%} of the requests ({value * most:.3g} of {most:.3g}/s)",
        in_problem=lambda of, value: replace(of, demand_rps=of.demand_rps * value),
    )
