"""How much of what has a limit a fleet takes in a window."""

import math

import numpy as np

from planner.domain.fleet import Role
from planner.optimize.problem import PATH, Problem, spot_options
from planner.optimize.solution import Solution


def watts(problem: Problem, solution: Solution, t: int) -> float:
    """What the replicas of window `t` draw, W."""
    return float(np.array([o.power_w for o in problem.options]) @ solution.replicas[:, t])


def moved_bytes_per_s(problem: Problem, solution: Solution, t: int) -> float:
    """KV cache that moves between prefill and decode replicas in window `t`, bytes/s."""
    if problem.kv_bytes is None:
        return 0.0
    prefilled = solution.sent_rps[:, list(problem.in_role(Role.PREFILL)), t].sum(axis=1)
    return float(problem.kv_bytes @ prefilled)


def spot_share(problem: Problem, solution: Solution, t: int) -> float:
    """The largest share of a model's role that is spot in window `t`, 0..1."""
    shares = [0.0]
    for model in problem.models:
        for role in PATH:
            of = problem.in_role(role, model=model)
            have = int(solution.replicas[list(of), t].sum())
            if have:
                spot = int(solution.replicas[list(spot_options(problem, of)), t].sum())
                shares.append(spot / have)
    return max(shares)


def prefill_per_decode(problem: Problem, solution: Solution, t: int) -> float:
    """Prefill replicas per decode replica of the first model in window `t`; NaN without."""
    prefill, decode = (
        int(solution.replicas[list(problem.in_role(role, model=problem.model)), t].sum())
        for role in (Role.PREFILL, Role.DECODE)
    )
    return prefill / decode if decode else math.nan
