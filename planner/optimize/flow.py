"""How traffic is spread over given replicas, and what they leave unserved."""

from dataclasses import replace

import numpy as np
from scipy.sparse import csr_array, hstack, vstack

from planner.domain.fleet import Role
from planner.optimize import scip
from planner.optimize.carrying import FlowSystem
from planner.optimize.inputs import Floats, Integers
from planner.optimize.linear import Linear
from planner.optimize.problem import PATH, Problem

_NOTHING = 1e-9
"""Requests/s, or a share of them: less unserved is rounding."""


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
    there = np.flatnonzero(usable[:, t] > 0)
    system, streams = FlowSystem(problem, there), len(problem.streams)
    model = _with_shortfall_and_load(system, problem, usable, t)
    if problem.link_pairs:
        model = _with_links(model, system, problem, there)
    entries = system.matrix.shape[1]
    load = entries + streams
    lower, upper = np.array(model.lower), np.array(model.upper)
    lower[load] = 1.0
    for priority in sorted({s.priority for s in problem.streams}, reverse=True):
        level = [entries + k for k, s in enumerate(problem.streams) if s.priority == priority]
        cost = np.zeros(model.column_count)
        cost[level] = 1.0
        least = _solved(replace(model, lower=lower, upper=upper), cost)[level]
        upper[level] = np.maximum(least, 0.0) * (1 + _NOTHING) + _NOTHING
    upper[load] = 1.0 + _NOTHING
    cost = np.zeros(model.column_count)
    cost[load] = 1.0
    found = _solved(replace(model, upper=upper), cost)
    sent = np.zeros((streams, len(problem.options)))
    sent[system.stream, there[system.option]] = np.maximum(found[:entries], 0.0)
    shortfall = np.maximum(found[entries : entries + streams], 0.0)
    shortfall[shortfall <= 2 * _NOTHING] = 0.0
    return sent, shortfall


def moves(problem: Problem, sent: Floats) -> Floats:
    """(streams, pairs) what moves between two accelerators, as evenly as links are loaded.

    Parameters
    ----------
    sent : (streams, options) float, requests/s
    """
    streams, pairs = len(problem.streams), len(problem.link_pairs)
    if not pairs or not sent.any():
        return np.zeros((streams, pairs))
    rows, totals = _link_rows(problem)
    moved = streams * pairs
    given = _at_ends(problem, sent).ravel()
    load = np.zeros((rows.shape[0], 1))
    load[len(given) :] = -1.0
    found = _solved(
        Linear(
            matrix=csr_array(hstack([rows, csr_array(load)])),
            low=np.concatenate([given - _NOTHING, np.full(totals, -np.inf)]),
            high=np.concatenate([given + _NOTHING, np.zeros(totals)]),
            lower=np.zeros(moved + 1),
            upper=np.full(moved + 1, np.inf),
            is_rate=np.ones(moved + 1, dtype=bool),
        ),
        np.append(np.zeros(moved), 1.0),
    )
    return np.asarray(np.maximum(found[:moved], 0.0).reshape(streams, pairs), dtype=np.float64)


def _ends_of(problem: Problem) -> list[tuple[int, str]]:
    """(side, accelerator) of all ends of pairs; 0: prefill, 1: decode."""
    return [
        (side, name)
        for side in (0, 1)
        for name in dict.fromkeys(pair[side] for pair in problem.link_pairs)
    ]


def _at_ends(problem: Problem, sent: Floats) -> Floats:
    """(streams, ends) what the pools at each end send or take."""
    roles = (Role.PREFILL, Role.DECODE)
    found = []
    for side, name in _ends_of(problem):
        on = [o for o in problem.in_role(roles[side]) if o in problem.on(name)]
        found.append(sent[:, on].sum(axis=1))
    return np.array(found).T


def _link_rows(problem: Problem) -> tuple[csr_array, int]:
    """Rows over what moves, and how many of them, the last ones, are links.

    First the sums at every stream's ends, then the share of each link's limit.
    """
    streams, pairs = len(problem.streams), problem.link_pairs
    ends = _ends_of(problem)
    kv = problem.kv_bytes if problem.kv_bytes is not None else np.zeros(streams)
    matrix = np.zeros((streams * len(ends) + len(problem.links), streams * len(pairs)))
    for k in range(streams):
        for p, pair in enumerate(pairs):
            column = k * len(pairs) + p
            for e, (side, name) in enumerate(ends):
                matrix[k * len(ends) + e, column] = float(pair[side] == name)
            for i, link in enumerate(problem.links):
                crosses = link.carries(*pair)
                matrix[streams * len(ends) + i, column] = crosses * kv[k] / link.bytes_per_s
    return csr_array(matrix), len(problem.links)


def _with_links(model: Linear, system: FlowSystem, problem: Problem, there: Integers) -> Linear:
    """The flow rows with what moves between accelerators, after all other columns."""
    rows, links = _link_rows(problem)
    ends, streams = _ends_of(problem), len(problem.streams)
    roles = (Role.PREFILL, Role.DECODE)
    out = np.zeros((rows.shape[0], model.column_count))
    for entry, (k, o) in enumerate(zip(system.stream, there[system.option], strict=True)):
        shape = problem.options[o].shape
        for e, (side, name) in enumerate(ends):
            if shape.role is roles[side] and shape.accelerator == name:
                out[k * len(ends) + e, entry] = -1.0
    none = csr_array((model.row_count, rows.shape[1]))
    matrix = vstack([hstack([model.matrix, none]), hstack([csr_array(out), rows])])
    sums, moved = streams * len(ends), rows.shape[1]
    return Linear(
        matrix=csr_array(matrix),
        low=np.concatenate([model.low, np.zeros(sums), np.full(links, -np.inf)]),
        high=np.concatenate([model.high, np.zeros(sums), np.ones(links)]),
        lower=np.concatenate([model.lower, np.zeros(moved)]),
        upper=np.concatenate([model.upper, np.full(moved, np.inf)]),
        is_rate=np.ones(model.column_count + moved, dtype=bool),
    )


def _with_shortfall_and_load(
    system: FlowSystem, problem: Problem, usable: Integers, t: int
) -> Linear:
    """The flow rows, beside `sent` with a shortfall for every stream and the highest load."""
    streams, rows = len(problem.streams), system.matrix.shape[0]
    capacity = [problem.capacity[o, t].at(int(usable[o, t])) for o in system.options]
    none = np.zeros(streams)
    low, high = system.limits(t, np.zeros(len(capacity)), none)
    full = np.array(capacity + [1.0] * system.transfers)
    high[2 * streams :] = 0.0
    loaded = np.arange(2 * streams, rows)
    beside = csr_array(
        (
            np.concatenate([np.ones(streams), -full]),
            (
                np.concatenate([np.arange(streams), loaded]),
                np.concatenate([np.arange(streams), np.full(len(full), streams)]),
            ),
        ),
        shape=(rows, streams + 1),
    )
    columns = system.matrix.shape[1] + streams + 1
    upper = np.full(columns, np.inf)
    upper[-1] = 1.0
    return Linear(
        matrix=csr_array(hstack([system.matrix, beside])),
        low=low,
        high=high,
        lower=np.zeros(columns),
        upper=upper,
        is_rate=np.ones(columns, dtype=bool),
    )


def _solved(model: Linear, cost: Floats) -> Floats:
    found = scip.relax(model, cost)
    if found is None:
        raise ArithmeticError("traffic cannot be spread over the pools")
    return found.values
