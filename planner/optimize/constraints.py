"""The constraints: one function each, its equation first, its rows named after it.

`o` runs over options, `t` over windows, `k` over streams, `f` over flips, `m` over models; sums
run over the options of the role, shape or accelerator type named. `usable` are the serving
replicas, `sent` the requests/s that a pool takes (see `Variables`).
"""

from collections.abc import Callable

import numpy as np

from planner.domain.fleet import Role
from planner.optimize.changes import (
    count_changes,
    flip_what_is_ready,
    keep_up_time,
    limit_starts,
    limit_stops,
    order_in_time,
    use_what_is_there,
)
from planner.optimize.inputs import Stream
from planner.optimize.linear import LinearModel, Term
from planner.optimize.links import decode_what_is_moved, keep_links, move_what_is_prefilled
from planner.optimize.packing import fill_nodes, fit_nodes
from planner.optimize.problem import PATH, Problem, spot_options
from planner.optimize.variables import Variables, useful_counts

Constraint = Callable[[LinearModel, Problem, Variables], None]

CUT_RATIO = 1.0001
"""Capacities are cut a little above what can be sent, so that rounding cannot turn them against
it."""


def meet_demand(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every k, t: sum_{o in prefill, aggregated} sent[k,o,t] + shortfall[k,t] == demand[k,t].

    Requests/s. Every request is answered by an aggregated replica or by a prefill and a decode
    replica. Not for plain streams (`Problem.is_plain`).
    """
    for k, stream in _with_flows(problem):
        able = list(problem.serving(k, Role.PREFILL, Role.AGGREGATED))
        for t in problem.window_indices:
            demand = float(problem.demand_rps[k, t])
            terms = (1.0, v.sent[k, able, t]), (1.0, v.shortfall[k, t])
            model.row("meet_demand", (stream.label, t), *terms, low=demand, high=demand)


def decode_what_is_prefilled(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every k, t: sum_{o in prefill} sent[k,o,t] == sum_{o in decode} sent[k,o,t].

    Requests/s. Not for plain streams.
    """
    for k, stream in _with_flows(problem):
        prefill = list(problem.serving(k, Role.PREFILL))
        decode = list(problem.serving(k, Role.DECODE))
        for t in problem.window_indices if prefill or decode else ():
            terms = (1.0, v.sent[k, prefill, t]), (-1.0, v.sent[k, decode, t])
            index = stream.label, t
            model.row("decode_what_is_prefilled", index, *terms, low=0.0, high=0.0)


def keep_within_capacity(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every o, t: sum_k work[k,o] * sent[k,o,t] <= capacity[o,t](usable[o,t]).

    Mean requests/s. What the pool sustains while its share of requests keeps its objectives
    (`planner.capacity.sustained_rps`: queueing, batching, KV-token capacity), exact for every pool
    size in the table: the pooling effect of larger pools is in the coefficients of `count`. Rates
    are cut at what the pool could be sent at all, which loses nothing and bounds the search.

    References
    ----------
    A load matrix over slices of a length histogram, one replica's time each: Griggs et al.,
    Melange (2024), section 5.
    """
    able_to = [np.flatnonzero(np.isfinite(problem.work[:, o])) for o in problem.option_indices]
    labels = [o.label for o in problem.options]
    for o, t in problem.capacity:
        able = able_to[o]
        if all(problem.is_plain(int(k)) for k in able):
            continue
        taken = problem.work[able, o], v.sent[able, o, t]
        sustained = [(-rates, column) for rates, column in _capacity_terms(problem, v, o, t)]
        model.row("keep_within_capacity", (labels[o], t), taken, *sustained, high=0.0)


def carry_plain_demand(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every plain k, t, r: sum_{o in r, aggregated} capacity[o,t] + shortfall >= demand[k,t].

    r is prefill or decode, capacity[o,t] that of `usable[o,t]`, shortfall that of k in t.
    Requests/s: what the flows of such a stream come down to (`Problem.is_plain`).
    """
    for k, stream in enumerate(problem.streams):
        for role in (Role.PREFILL, Role.DECODE) if problem.is_plain(k) else ():
            own = [*problem.serving(k, role), *problem.serving(k, Role.AGGREGATED)]
            for t in problem.window_indices:
                terms: list[Term] = [(1.0, v.shortfall[k, t])]
                for o in own:
                    terms += _capacity_terms(problem, v, o, t)
                demand = float(problem.demand_rps[k, t])
                model.row("carry_plain_demand", (stream.label, role, t), *terms, low=demand)


def _capacity_terms(problem: Problem, v: Variables, o: int, t: int) -> list[Term]:
    """capacity[o,t](usable[o,t]) as terms."""
    pool = problem.capacity[o, t]
    if (o, t) not in v.count:
        return [(pool.tail_rps, v.usable[o, t])]
    entries = len(v.count[o, t])
    rates = np.minimum(pool.counts_rps[:entries], CUT_RATIO * problem.most_work_rps(o, t))
    return [(rates, v.count[o, t]), (pool.tail_rps, v.beyond[o, t])]


def _with_flows(problem: Problem) -> list[tuple[int, Stream]]:
    return [(k, s) for k, s in enumerate(problem.streams) if not problem.is_plain(k)]


def have_one_count(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every o, t with a table: sum_n count[o,t][n] == 1.

    Exactly one entry of the capacity table holds.
    """
    for (o, t), count in v.count.items():
        index = problem.options[o].label, t
        model.row("have_one_count", index, (1.0, count), low=1.0, high=1.0)


def read_the_table(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every o, t with a table: sum_n n * count[o,t][n] + beyond[o,t] == usable[o,t].

    Replicas.
    """
    for (o, t), count in v.count.items():
        numbers = np.arange(len(count), dtype=np.float64)
        terms = (numbers, count), (1.0, v.beyond[o, t]), (-1.0, v.usable[o, t])
        model.row("read_the_table", (problem.options[o].label, t), *terms, low=0.0, high=0.0)


def exhaust_the_table_first(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every o, t with a table: beyond[o,t] <= room[o,t] * count[o,t][last].

    Replicas beyond the table count only when the table is used up.
    """
    for (o, t), count in v.count.items():
        _, room = useful_counts(problem, o, t)
        if room:
            terms = (1.0, v.beyond[o, t]), (-float(room), count[-1])
            model.row("exhaust_the_table_first", (problem.options[o].label, t), *terms, high=0.0)


def keep_min_replicas(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every bounded shape b, t: sum_{o of b} replicas[o,t] >= min_replicas[b].

    Replicas of all purchase options together; from the spec's `pools`.
    """
    for bounds in problem.bounds:
        of = list(problem.of_shape(bounds.shape))
        for t in problem.window_indices if bounds.min_replicas else ():
            index = bounds.shape.label, t
            low = float(bounds.min_replicas)
            model.row("keep_min_replicas", index, (1.0, v.replicas[of, t]), low=low)


def keep_max_replicas(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every bounded shape b, t: sum_{o of b} replicas[o,t] <= max_replicas[b].

    Replicas of all purchase options together; from the spec's `pools`.
    """
    for bounds in problem.bounds:
        of = list(problem.of_shape(bounds.shape))
        for t in problem.window_indices if bounds.max_replicas is not None else ():
            index = bounds.shape.label, t
            high = float(bounds.max_replicas or 0)
            model.row("keep_max_replicas", index, (1.0, v.replicas[of, t]), high=high)


def keep_inventory(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every type a, t: sum_{o on a} accelerators[o] * replicas[o,t] <= inventory[a,t].

    Accelerators, of all models together; less what models that are planned apart hold in t.
    """
    for a, name in enumerate(limit.name for limit in problem.accelerators):
        on = list(problem.on(name))
        each = np.array([float(problem.options[o].shape.accelerators) for o in on])
        for t in problem.window_indices if on else ():
            high = float(problem.limits_in(t)[a].inventory)
            model.row("keep_inventory", (name, t), (each, v.replicas[on, t]), high=high)


def keep_reserved(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every type a, t: sum_{o on a, prepaid} accelerators[o] * replicas[o,t] <= reserved[a,t].

    Accelerators. So many are paid whether used or not; a replica on them costs nothing more. Less
    those that other models use in t.
    """
    for a, name in enumerate(limit.name for limit in problem.accelerators):
        on = [o for o in problem.on(name) if problem.options[o].prepaid]
        each = np.array([float(problem.options[o].shape.accelerators) for o in on])
        for t in problem.window_indices if on else ():
            high = float(problem.limits_in(t)[a].reserved)
            model.row("keep_reserved", (name, t), (each, v.replicas[on, t]), high=high)


def keep_budget(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every t: sum_o usd_per_hour[o] * replicas[o,t] + reserved[t] <= usd_per_hour_limit[t].

    USD/h; the part of the spec's budget that other models leave in t. `reserved` is what reserved
    accelerators cost whether used or not, less what other models pay of it.
    """
    usd = np.array([o.usd_per_hour for o in problem.options])
    for t in problem.window_indices:
        limit = problem.usd_per_hour_limit_in(t)
        if limit is not None:
            left = limit - problem.reserved_usd_per_hour_in(t)
            model.row("keep_budget", (t,), (usd, v.replicas[:, t]), high=left)


def keep_power(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every t: sum_o power_w[o] * replicas[o,t] <= power_w_limit[t].

    Watts; the part of the spec's power budget that other models leave in t.
    """
    watts = np.array([o.power_w for o in problem.options])
    for t in problem.window_indices:
        limit = problem.power_w_limit_in(t)
        if limit is not None:
            model.row("keep_power", (t,), (watts, v.replicas[:, t]), high=limit)


def keep_ratio(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every m, t: min_ratio[m] * decode[m,t] <= prefill[m,t] <= max_ratio[m] * decode[m,t].

    Replicas of each role of the model.
    """
    for bounds in problem.ratios:
        prefill = list(problem.in_role(Role.PREFILL, model=bounds.model))
        decode = list(problem.in_role(Role.DECODE, model=bounds.model))
        for t in problem.window_indices:
            have = (1.0, v.replicas[prefill, t])
            if bounds.min_ratio is not None:
                least = (-bounds.min_ratio, v.replicas[decode, t])
                model.row("keep_ratio", (bounds.model, "min", t), have, least, low=0.0)
            if bounds.max_ratio is not None:
                most = (-bounds.max_ratio, v.replicas[decode, t])
                model.row("keep_ratio", (bounds.model, "max", t), have, most, high=0.0)


def limit_spot(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every m, role r, t: sum_{spot} replicas[o,t] <= share * sum_{o in r} replicas[o,t].

    Replicas. How much of a role may be reclaimed at once.
    """
    share = problem.spot_share_limit
    for name in problem.models if share is not None else ():
        for role in PATH:
            of = problem.in_role(role, model=name)
            spot = spot_options(problem, of)
            each = np.array([float(o in spot) - (share or 0.0) for o in of])
            for t in problem.window_indices if spot else ():
                terms = (each, v.replicas[list(of), t])
                model.row("limit_spot", (name, role, t), terms, high=0.0)


def keep_transfers(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every t: sum_{k, o in prefill} kv_bytes[k] * sent[k,o,t] <= transfer_bytes_per_s_limit.

    Bytes/s of KV cache between prefill and decode replicas.
    """
    limit, kv_bytes = problem.transfer_bytes_per_s_limit, problem.kv_bytes
    if limit is None or kv_bytes is None:
        return
    for t in problem.window_indices:
        terms = [
            (float(kv_bytes[k]) / limit, v.sent[k, list(problem.serving(k, Role.PREFILL)), t])
            for k in problem.stream_indices
        ]
        model.row("keep_transfers", (t,), *terms, high=1.0)


def keep_one_shape(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every m, role r, o in r, t: replicas[o,t] <= most[o] * chosen[o]; sum_r chosen[o] <= 1.

    Replicas. Where a role of a model shall be all alike.
    """
    for name in problem.models if problem.one_shape_per_role else ():
        for role in PATH:
            of = list(problem.in_role(role, model=name))
            if of:
                model.row("keep_one_shape", (name, role), (1.0, v.chosen[of]), high=1.0)
            for o in of:
                most = float(problem.max_replicas[o])
                for t in problem.window_indices:
                    terms = (1.0, v.replicas[o, t]), (-most, v.chosen[o])
                    index = problem.options[o].label, t
                    model.row("keep_one_shape", index, *terms, high=0.0)


def keep_one_format(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every m, format d, o in prefill, decode of d, t: replicas[o,t] <= most[o] * stored[d].

    Replicas; the sum of `stored` over the formats of a model is at most 1. Decode reads the KV
    cache as prefill wrote it: vLLM's NIXL connector refuses a peer of another model file or KV
    format.

    References
    ----------
    vLLM, `compute_nixl_compatibility_hash`: model and cache_dtype.
    """
    for name in problem.models:
        by_format = problem.by_format(model=name)
        if len(by_format) < 2:
            continue
        stored = [int(v.stored[options[0]]) for options in by_format.values()]
        model.row("keep_one_format", (name,), (1.0, np.array(stored)), high=1.0)
        for options in by_format.values():
            for o in options:
                most = float(max(problem.max_replicas[o], problem.options[o].initial_replicas))
                for t in problem.window_indices:
                    terms = (1.0, v.replicas[o, t]), (-most, v.stored[o])
                    index = problem.options[o].label, t
                    model.row("keep_one_format", index, *terms, high=0.0)


def scale_both_pools(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every m, t, role r in prefill, decode: d[m,t] <= sum_r replicas[o,t] <= most[r] * d[m,t].

    d is `has_pair`. No prefill replica without a decode replica, nor the other way round.
    """
    for m, name in enumerate(problem.models):
        for role in (Role.PREFILL, Role.DECODE):
            of = list(problem.in_role(role, model=name))
            most = float(sum(problem.max_replicas[o] for o in of))
            for t in problem.window_indices:
                have, pair = (1.0, v.replicas[of, t]), v.has_pair[m, t]
                index = name, role, t
                model.row("scale_both_pools", (*index, "there"), have, (-1.0, pair), low=0.0)
                model.row("scale_both_pools", (*index, "gone"), have, (-most, pair), high=0.0)


def keep_a_path(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every m, t: has_pair[m,t] + sum_{o in aggregated} replicas[o,t] >= 1.

    A request that comes unexpectedly is answered: nothing scales to zero by itself.
    """
    for m, name in enumerate(problem.models):
        of = list(problem.in_role(Role.AGGREGATED, model=name))
        for t in problem.window_indices:
            terms = (1.0, v.has_pair[m, t]), (1.0, v.replicas[of, t])
            model.row("keep_a_path", (name, t), *terms, low=1.0)


CONSTRAINTS: tuple[Constraint, ...] = (
    meet_demand,
    decode_what_is_prefilled,
    keep_within_capacity,
    carry_plain_demand,
    have_one_count,
    read_the_table,
    exhaust_the_table_first,
    order_in_time,
    use_what_is_there,
    count_changes,
    flip_what_is_ready,
    keep_up_time,
    limit_starts,
    limit_stops,
    keep_min_replicas,
    keep_max_replicas,
    keep_inventory,
    keep_reserved,
    fit_nodes,
    fill_nodes,
    keep_budget,
    keep_power,
    keep_ratio,
    limit_spot,
    keep_transfers,
    move_what_is_prefilled,
    decode_what_is_moved,
    keep_links,
    keep_one_shape,
    keep_one_format,
    scale_both_pools,
    keep_a_path,
)
