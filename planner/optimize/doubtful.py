"""Classes whose promise the twin confirms for no fleet, though the model says that one keeps it.

Classes that share a pool are judged each by its own promise, so one that is never confirmed would
take the others with it: each discount makes serving all of them dearer, until none is served.
"""

from collections.abc import Mapping, Sequence

from planner.optimize.problem import Problem
from planner.optimize.proposal import Round
from planner.optimize.stretch import keeps_some

_NEAR = 1e-6
"""Of the demand: what is less is none."""


def doubtful_classes(rounds: Sequence[Round], without: Mapping[str, Problem]) -> frozenset[str]:
    """Classes that the twin confirmed in none of the proposals that serve them.

    Where it was asked about none, as nothing is served: the one without which the others are.

    Parameters
    ----------
    without : dict from str to Problem
        With each class that is not left out yet left out.

    Returns
    -------
    frozenset of str
        Empty where there is none, or no other one to save.
    """
    names = sorted(without)
    if len(names) < 2:
        return frozenset()
    proven: dict[str, bool] = {}
    for seen in (r for last in rounds for r in last.replays):
        wronged = {c.request_class for c in seen.unproven}
        for c in seen.prediction.classes:
            kept = proven.get(c.request_class, False)
            proven[c.request_class] = kept or c.request_class not in wronged
    if not proven:
        return frozenset([name for name in names if _serves(without[name])][:1])
    found = frozenset(name for name in names if not proven.get(name, True))
    return found if len(found) < len(names) else frozenset()


def leaves_some(proposal: Round) -> bool:
    """Whether requests stay unserved on purpose."""
    problem, short = proposal.problem, proposal.solution.shortfall_rps
    return problem.sheds and any(
        short[t] > _NEAR * problem.load_rps(t) for t in problem.window_indices
    )


def _serves(problem: Problem) -> bool:
    return any(keeps_some(problem, t) for t in problem.window_indices)
