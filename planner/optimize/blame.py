"""Whose capacity is discounted for a promise that the twin saw missed."""

import numpy as np

from planner.domain.fleet import Role
from planner.optimize.problem import Discounted
from planner.optimize.proposal import Round
from planner.optimize.solution import taken_rps


def missed(last: Round, *, least: float, every: bool, wide: bool) -> dict[Discounted, float]:
    """Factors for what missed, so large that its present pools no longer suffice.

    Of one stream that is a role; of several only the pools that carry a class whose promise was
    not kept.

    Parameters
    ----------
    every : bool
        Whatever the class goes through, not only the role that kept it.
    wide : bool
        Of several streams: also pools that could carry the class instead.
    """
    factors: dict[Discounted, float] = {}
    for seen, wronged in ((r, c) for r in last.replays for c in r.unproven):
        missed = seen.missed_ratio[wronged.request_class]
        permitted = min(1 - wronged.target_ratio, max(missed.values(), default=0.0))
        for role in (r for r, ratio in missed.items() if every or ratio >= permitted):
            options = _carrying(last, wronged.request_class, role, seen.window, wide=wide)
            sustained = sum(
                last.problem.capacity[o, seen.window].at(int(last.solution.usable[o, seen.window]))
                for o in options
            )
            sent = float(taken_rps(last.problem, last.solution)[options, seen.window].sum())
            if sent > 0:
                factor = max(least, 1.001 * sustained / sent)
                apart = len(last.problem.streams) > 1
                for what in [last.problem.options[o].shape for o in options] if apart else [role]:
                    factors[what] = max(factor, factors.get(what, 1.0))
    return factors


def _carrying(last: Round, request_class: str, role: Role, t: int, *, wide: bool) -> list[int]:
    """Options of a role that a class's requests are sent to in window `t`, or could be."""
    problem, options = last.problem, list(last.problem.in_role(role))
    if len(problem.streams) == 1:
        return options
    its = [k for k, s in enumerate(problem.streams) if s.request_class in ("", request_class)]
    carry = np.isfinite(problem.work) if wide else last.solution.sent_rps[:, :, t] > 0
    return [o for o in options if carry[its, o].any()]
