"""How traffic is spread over given replicas, and what they leave unserved."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog

from planner.domain.fleet import Role
from planner.optimize.inputs import Floats, Integers
from planner.optimize.problem import PATH, Problem


def spread(problem: Problem, usable: Integers, t: int) -> tuple[Floats, Floats]:
    """Traffic per stream and pool in window `t`, and what stays unserved.

    As little as possible stays unserved, streams of high priority first; then all pools are
    loaded as evenly as the streams allow: the highest share of its capacity that a pool is at is
    minimized.

    Parameters
    ----------
    usable : (options, windows) int

    Returns
    -------
    sent : (streams, options) float, requests/s
    shortfall : (streams,) float, requests/s
    """
    if all(problem.is_plain(k) for k in problem.stream_indices):
        return _in_proportion(problem, usable, t)
    return _by_program(problem, usable, t)


def served_rps(problem: Problem, usable: Integers, t: int) -> float:
    """Requests/s that replicas could serve in window `t`; of several streams, of their demand.

    Parameters
    ----------
    usable : (options, windows) int
    """
    if all(problem.is_plain(k) for k in problem.stream_indices):
        return problem.serves_rps(usable, t)
    _, unserved = spread(problem, usable, t)
    return problem.load_rps(t) - float(unserved.sum())


def _in_proportion(problem: Problem, usable: Integers, t: int) -> tuple[Floats, Floats]:
    """Every path takes the same share of its capacity; within a role, every pool."""
    sent = np.zeros((len(problem.streams), len(problem.options)))
    shortfall = np.zeros(len(problem.streams))
    for k, stream in enumerate(problem.streams):
        pools = {role: list(problem.in_role(role, model=stream.model)) for role in PATH}
        rates = np.zeros(len(problem.options))
        for own in pools.values():
            rates[own] = [problem.capacity[o, t].at(int(usable[o, t])) for o in own]
        through = min(float(rates[pools[r]].sum()) for r in (Role.PREFILL, Role.DECODE))
        for role in (Role.PREFILL, Role.DECODE):
            total = float(rates[pools[role]].sum())
            if total > 0:
                rates[pools[role]] *= through / total
        total = through + float(rates[pools[Role.AGGREGATED]].sum())
        demand = float(problem.demand_rps[k, t])
        if total > 0:
            sent[k] = rates * min(demand / total, 1.0)
        shortfall[k] = max(demand - total, 0.0)
    return sent, shortfall


def _by_program(problem: Problem, usable: Integers, t: int) -> tuple[Floats, Floats]:
    """Linear programs: shortfall by priority, then the highest load."""
    there = {o for o in problem.option_indices if usable[o, t] > 0}
    pairs = [
        (k, o) for k in problem.stream_indices for o in problem.serving(k, *PATH) if o in there
    ]
    streams = len(problem.streams)
    count = len(pairs) + streams + 1  # sent, shortfall, highest load
    equal, demand = _balances(problem, pairs, t, count)
    within, capacity = _capacities(problem, pairs, usable, t)
    upper = np.full(count, np.inf)
    for priority in sorted({s.priority for s in problem.streams}, reverse=True):
        cost = np.zeros(count)
        level = [k for k, s in enumerate(problem.streams) if s.priority == priority]
        cost[[len(pairs) + k for k in level]] = 1.0
        fixed = _solved(cost, (within, capacity), (equal, demand), upper)
        for k in level:
            upper[len(pairs) + k] = max(fixed[len(pairs) + k], 0.0) * (1 + 1e-9) + 1e-9
    cost = np.zeros(count)
    cost[-1] = 1.0
    loads = np.array(within)
    loads[: len(capacity), -1] = -capacity
    upper[-1] = 1.0 + 1e-9
    found = _solved(cost, (loads, np.zeros(len(capacity))), (equal, demand), upper)
    sent = np.zeros((streams, len(problem.options)))
    for i, (k, o) in enumerate(pairs):
        sent[k, o] = max(found[i], 0.0)
    shortfall = np.maximum(found[len(pairs) : len(pairs) + streams], 0.0)
    shortfall[shortfall <= 2e-9] = 0.0
    return sent, shortfall


def _balances(
    problem: Problem, pairs: Sequence[tuple[int, int]], t: int, count: int
) -> tuple[Floats, Floats]:
    streams = len(problem.streams)
    equal, equal_to = np.zeros((2 * streams, count)), np.zeros(2 * streams)
    for i, (k, o) in enumerate(pairs):
        role = problem.options[o].shape.role
        if role is not Role.DECODE:
            equal[k, i] = 1.0
        if role is not Role.AGGREGATED:
            equal[streams + k, i] = 1.0 if role is Role.PREFILL else -1.0
    for k in problem.stream_indices:
        equal[k, len(pairs) + k] = 1.0
        equal_to[k] = problem.demand_rps[k, t]
    return equal, equal_to


def _capacities(
    problem: Problem, pairs: Sequence[tuple[int, int]], usable: Integers, t: int
) -> tuple[Floats, Floats]:
    limited = problem.transfer_bytes_per_s_limit
    options = len(problem.options)
    rows = options + (limited is not None)
    within = np.zeros((rows, len(pairs) + len(problem.streams) + 1))
    for i, (k, o) in enumerate(pairs):
        within[o, i] = problem.work[k, o]
        if limited is not None and problem.options[o].shape.role is Role.PREFILL:
            within[options, i] = 0.0 if problem.kv_bytes is None else problem.kv_bytes[k] / limited
    capacity = [problem.capacity[o, t].at(int(usable[o, t])) for o in problem.option_indices]
    return within, np.array(capacity + [1.0] * (limited is not None))


def _solved(
    cost: Floats, most: tuple[Floats, Floats], exactly: tuple[Floats, Floats], upper: Floats
) -> Floats:
    """Columns within [0, upper] with most[0] @ x <= most[1] and exactly[0] @ x == exactly[1]."""
    found = linprog(
        cost,
        A_ub=most[0],
        b_ub=most[1],
        A_eq=exactly[0],
        b_eq=exactly[1],
        bounds=np.column_stack([np.zeros(len(upper)), upper]),
        method="highs",
    )
    if found.x is None:
        raise ArithmeticError(f"traffic cannot be spread: {found.message}")
    return np.asarray(found.x, dtype=np.float64)
