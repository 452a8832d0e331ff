"""The decisions, as columns of the model."""

import math
from dataclasses import dataclass

import numpy as np

from planner.optimize.linear import NO_COLUMN, Integers, LinearModel
from planner.optimize.problem import PATH, Problem


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Variables:
    """Columns of all decisions.

    Parameters
    ----------
    replicas : (options, windows)
        Replicas to have: ready, or ordered and starting.
    usable : (options, windows)
        Those that serve in the window; the column of `replicas` where both are the same.
    starts, stops : (options, windows)
        Replicas that come and go when the window begins.
    flips : (flips, windows)
        Replicas that change their role when the window begins.
    count : {(o, t): (entries,)}
        0 or 1: `count[o, t][n]` is 1 when n replicas serve (for the last n: n or more). Only for
        pools whose replicas do not all add the same rate.
    beyond : (options, windows)
        Serving replicas beyond the table; none where there is no table.
    sent : (streams, options, windows), requests/s
        Traffic of the stream that the pool takes; none where it cannot, and for plain streams.
    shortfall : (streams, windows), requests/s
        Traffic that stays unserved.
    moved : (streams, pairs, windows), requests/s
        Prompts' caches that go between two accelerator types (`Problem.link_pairs`).
    has_pair : (models, windows)
        0 or 1: prefill and decode pools are there.
    nodes : {(accelerator type, kind of node, t): (patterns,)}
        Nodes that are filled each way; only where sizes do not divide (`Problem.filled`).
    chosen : (options,)
        0 or 1: the option is the only one of its model and role; none where several may be.
    stored : (options,)
        0 or 1: prefill and decode replicas of the model are in the option's formats; one column
        for all options of a format, none where a model has a single one.
    """

    replicas: Integers
    usable: Integers
    starts: Integers
    stops: Integers
    flips: Integers
    count: dict[tuple[int, int], Integers]
    beyond: Integers
    sent: Integers
    shortfall: Integers
    moved: Integers
    has_pair: Integers
    nodes: dict[tuple[str, int, int], Integers]
    chosen: Integers
    stored: Integers


def add_variables(model: LinearModel, problem: Problem, *, flows: bool = True) -> Variables:
    """All decisions of a problem, within their simple bounds.

    Parameters
    ----------
    flows : bool
        False: without `sent` (see `planner.optimize.carrying`).
    """
    options, windows = len(problem.options), len(problem.windows)
    initial = np.array([o.initial_replicas for o in problem.options], dtype=np.int64)
    most = np.maximum(np.array(problem.max_replicas, dtype=np.int64), initial)
    grid = np.repeat(most[:, None], windows, axis=1)
    sources = np.array([most[f.source] for f in problem.flips], dtype=np.int64)
    tables, beyond = _tables(model, problem)
    replicas = model.integers(grid)
    return Variables(
        replicas=replicas,
        usable=_usable(model, problem, replicas, grid),
        starts=model.integers(grid),
        stops=model.integers(grid),
        flips=model.integers(np.repeat(sources[:, None], windows, axis=1)),
        count=tables,
        beyond=beyond,
        sent=_sent(model, problem) if flows else _no_sent(problem),
        shortfall=_shortfall(model, problem),
        moved=_moved(model, problem, flows=flows),
        has_pair=model.integers(np.ones((len(problem.models), windows), dtype=np.int64)),
        nodes=_nodes(model, problem),
        chosen=model.integers(np.ones(options, dtype=np.int64))
        if problem.one_shape_per_role
        else np.full(options, NO_COLUMN, dtype=np.int64),
        stored=_stored(model, problem),
    )


def _nodes(model: LinearModel, problem: Problem) -> dict[tuple[str, int, int], Integers]:
    return {
        (name, i, t): model.integers(np.full(len(kind.fits), kind.count, dtype=np.int64))
        for name, kinds in problem.filled.items()
        for i, kind in enumerate(kinds or ())
        for t in problem.window_indices
    }


def _stored(model: LinearModel, problem: Problem) -> Integers:
    columns = np.full(len(problem.options), NO_COLUMN, dtype=np.int64)
    for name in problem.models:
        by_format = problem.by_format(model=name)
        for options in by_format.values() if len(by_format) > 1 else ():
            columns[list(options)] = model.integers(np.ones(1, dtype=np.int64))[0]
    return columns


def _usable(model: LinearModel, problem: Problem, replicas: Integers, grid: Integers) -> Integers:
    """Columns of their own where not all that is there serves, or a table tells how many do."""
    usable = np.array(replicas)
    for o, t in problem.capacity:
        if not (problem.serves_at_once(o, t) and problem.capacity[o, t].is_linear):
            useful = sum(useful_counts(problem, o, t))  # more would serve nobody
            usable[o, t] = model.integers(np.minimum(grid[o, t : t + 1], useful))[0]
    return usable


def _tables(
    model: LinearModel, problem: Problem
) -> tuple[dict[tuple[int, int], Integers], Integers]:
    count: dict[tuple[int, int], Integers] = {}
    beyond = np.full((len(problem.options), len(problem.windows)), NO_COLUMN, dtype=np.int64)
    for (o, t), pool in problem.capacity.items():
        if not pool.is_linear:
            last, room = useful_counts(problem, o, t)
            count[o, t] = model.integers(np.ones(last + 1, dtype=np.int64))
            if room:
                beyond[o, t] = model.integers(np.array([room]))[0]
    return count, beyond


def useful_counts(problem: Problem, o: int, t: int) -> tuple[int, int]:
    """Serving replicas worth telling apart: entries of the table, and replicas beyond it.

    More than what meets the window's whole demand alone serve nobody.
    """
    pool, demand = problem.capacity[o, t], problem.most_work_rps(o, t)
    most = min(problem.max_replicas[o], pool.last_count)
    enough = int(np.searchsorted(pool.counts_rps, demand))
    if enough <= most or problem.max_replicas[o] <= pool.last_count or pool.tail_rps <= 0:
        return min(enough, most), 0
    missing = math.ceil((demand - pool.counts_rps[-1]) / pool.tail_rps)
    return most, min(missing, problem.max_replicas[o] - most)


def _no_sent(problem: Problem) -> Integers:
    shape = len(problem.streams), len(problem.options), len(problem.windows)
    return np.full(shape, NO_COLUMN, dtype=np.int64)


def _sent(model: LinearModel, problem: Problem) -> Integers:
    columns = _no_sent(problem)
    for k in (k for k in problem.stream_indices if not problem.is_plain(k)):
        able = list(problem.serving(k, *PATH))
        upper = np.repeat(problem.demand_rps[k][None, :], len(able), axis=0)
        columns[k, able] = model.rates(upper)
    return columns


def _moved(model: LinearModel, problem: Problem, *, flows: bool) -> Integers:
    shape = len(problem.streams), len(problem.link_pairs), len(problem.windows)
    if not flows or not problem.link_pairs:
        return np.full(shape, NO_COLUMN, dtype=np.int64)
    return model.rates(np.array(np.broadcast_to(problem.demand_rps[:, None, :], shape)))


def _shortfall(model: LinearModel, problem: Problem) -> Integers:
    columns = np.full(problem.demand_rps.shape, NO_COLUMN, dtype=np.int64)
    for k in problem.stream_indices:
        for t in problem.window_indices:
            if problem.may_fall_short(k, t):
                columns[k, t] = model.rates(problem.demand_rps[k, t : t + 1])[0]
    return columns
