"""What to promise one class of several instead, where its promise is what cannot be kept."""

from collections.abc import Callable, Iterable, Iterator

from planner.domain.slo import LONGEST_SLO_S, LONGEST_TOKEN_S, Slo
from planner.domain.spec import Spec
from planner.optimize.loads import promises, with_slo
from planner.optimize.problem import Problem

_STRETCHES = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def softer_for_one_class(
    problem: Problem,
    spec: Spec,
    rebuild: Callable[[Spec], Problem],
    helps: Callable[[Problem], bool],
    classes: Iterable[str],
) -> Iterator[tuple[float, str]]:
    """For every class the least stretch of its TTFT, else of its TPOT, that helps by itself.

    Parameters
    ----------
    classes : iterable of str
        Those that arrive; of one alone nothing is said here.

    Yields
    ------
    (how much is asked, sentence)
        As in `ttft_s 4 instead of 2 for class batch`.
    """
    slos = promises(spec, problem.model, classes)
    for slo in slos if len(slos) > 1 else ():
        for ttft, name in ((True, "ttft_s"), (False, "tpot_s")):
            ratio = _least(problem, spec, rebuild, helps, slo, ttft=ttft)
            if ratio is not None:
                was = slo.ttft_s if ttft else slo.tpot_s
                text = f"{name} {was * ratio:g} instead of {was:g} for class {slo.request_class}"
                yield ratio - 1, text
                break


def _least(
    problem: Problem,
    spec: Spec,
    rebuild: Callable[[Spec], Problem],
    helps: Callable[[Problem], bool],
    slo: Slo,
    *,
    ttft: bool,
) -> float | None:
    """The smallest stretch of one objective of one class that helps; None where none does."""

    def relaxed(ratio: float) -> Spec:
        return with_slo(
            spec,
            problem.model,
            ttft_ratio=ratio if ttft else 1.0,
            tpot_ratio=1.0 if ttft else ratio,
            classes=(slo.request_class,),
        )

    longest = LONGEST_SLO_S if ttft else LONGEST_TOKEN_S
    within = [r for r in _STRETCHES if r * (slo.ttft_s if ttft else slo.tpot_s) <= longest]
    if not within or not helps(rebuild(relaxed(within[-1]))):
        return None
    return next(r for r in within if helps(rebuild(relaxed(r))))
