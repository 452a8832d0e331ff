"""The constraints: one function each, its equation first, its rows named after it.

`o` runs over options, `t` over windows; sums over the options of the role, shape or accelerator
type named. `usable` are the serving replicas (see `Variables`); rates are in requests/s.
"""

from collections.abc import Callable

import numpy as np
from ortools.sat.python import cp_model

from planner.domain.fleet import Role
from planner.optimize.problem import Problem, blocks_of
from planner.optimize.variables import Variables

Row = cp_model.BoundedLinearExpression | bool | np.bool
Constraint = Callable[[cp_model.CpModel, Problem, Variables], None]


def meet_demand(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every t: disaggregated[t] + sum_{aggregated} capacity[o,t] + shortfall[t] >= demand[t].

    Every request is answered by an aggregated replica or by a prefill and a decode replica.
    """
    for t, window in enumerate(problem.windows):
        served = v.disaggregated[t] + v.role_capacity(Role.AGGREGATED, t, problem)
        demand = v.rate.up(window.demand_rps)
        _row(model, served + v.shortfall[t] >= demand, f"meet_demand[{t}]")


def prefill_in_time(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every t: sum_{prefill} capacity[o,t](usable[o,t]) >= disaggregated[t].

    What the pools sustain while their share of requests gets its first token in time
    (`planner.capacity.sustained_rps`), exact for every pool size in the table: the pooling
    effect of larger pools is in the coefficients of `count`.
    """
    for t in problem.window_indices:
        capacity = v.role_capacity(Role.PREFILL, t, problem)
        _row(model, capacity >= v.disaggregated[t], f"prefill_in_time[{t}]")


def decode_in_time(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every t: sum_{decode} capacity[o,t](usable[o,t]) >= disaggregated[t].

    As `prefill_in_time`, for the time between tokens, batch and KV limits included.
    """
    for t in problem.window_indices:
        capacity = v.role_capacity(Role.DECODE, t, problem)
        _row(model, capacity >= v.disaggregated[t], f"decode_in_time[{t}]")


def have_one_count(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every o, t: sum_n count[o,t][n] == 1.

    Exactly one entry of the capacity table holds.
    """
    for (o, t), counts in v.count.items():
        row = model.add_exactly_one(counts)
        row.with_name(f"have_one_count[{problem.options[o].label},{t}]")


def exhaust_the_table_first(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every o, t: beyond[o,t] <= room[o,t] * count[o,t][last].

    Replicas beyond the table count only when the table is used up.
    """
    for (o, t), beyond in v.beyond.items():
        _, room = problem.useful_counts(o, t)
        name = f"exhaust_the_table_first[{problem.options[o].label},{t}]"
        _row(model, beyond <= room * v.count[o, t][-1], name)


def order_in_time(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every o, t, s in order_window[o,t]..t: usable[o,t] <= replicas[o,s].

    Replicas. Capacity counts when it is ready, not when it is ordered.
    """
    for o, t in v.replicas:
        for s in range(problem.order_window(o, t), t + 1):
            name = f"order_in_time[{problem.options[o].label},{t} from {s}]"
            _row(model, v.usable((o, t)) <= v.replicas[o, s], name)


def use_what_is_there(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every o, t over before a new replica is ready: usable[o,t] <= initial[o].

    Replicas. What is ordered now does not serve a window that ends before it is there.
    """
    for o, t in v.replicas:
        if problem.comes_too_late(o, t):
            option = problem.options[o]
            name = f"use_what_is_there[{option.label},{t}]"
            _row(model, v.usable((o, t)) <= option.initial_replicas, name)


def count_changes(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every o, t: starts[o,t] - stops[o,t] == replicas[o,t] - replicas[o,t-1].

    Replicas; before window 0 there is the current fleet. Without one, window 0 is free.
    """
    for o, t in v.replicas:
        option = problem.options[o]
        before = v.replicas[o, t - 1] if t else option.initial_replicas
        if t or problem.has_fleet:
            change = v.replicas[o, t] - before
            name = f"count_changes[{option.label},{t}]"
            _row(model, v.starts[o, t] - v.stops[o, t] == change, name)


def keep_min_replicas(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every bounded shape b, t: sum_{o of b} replicas[o,t] >= min_replicas[b].

    Replicas of all purchase options together; from the spec's `pools`.
    """
    for bounds in problem.bounds:
        for t in problem.window_indices if bounds.min_replicas else ():
            have = sum(v.replicas[o, t] for o in problem.of_shape(bounds.shape))
            name = f"keep_min_replicas[{bounds.shape.label},{t}]"
            _row(model, have >= bounds.min_replicas, name)


def keep_max_replicas(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every bounded shape b, t: sum_{o of b} replicas[o,t] <= max_replicas[b].

    Replicas of all purchase options together; from the spec's `pools`.
    """
    for bounds in problem.bounds:
        for t in problem.window_indices if bounds.max_replicas is not None else ():
            have = sum(v.replicas[o, t] for o in problem.of_shape(bounds.shape))
            name = f"keep_max_replicas[{bounds.shape.label},{t}]"
            _row(model, have <= (bounds.max_replicas or 0), name)


def keep_inventory(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every type a, t: sum_{o on a} accelerators[o] * replicas[o,t] <= inventory[a].

    Accelerators that are not occupied by other models.
    """
    for limit in problem.accelerators:
        for t in problem.window_indices:
            used = sum(
                problem.options[o].shape.accelerators * v.replicas[o, t]
                for o in problem.on(limit.name)
            )
            _row(model, used <= limit.inventory, f"keep_inventory[{limit.name},{t}]")


def fit_nodes(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every a, size k, t: sum_{o on a} floor(footprint[o]/k) * replicas[o,t] <= blocks[a,k].

    Blocks of k accelerators within one node; no replica spans nodes. Exact where sizes divide
    each other (footprints are rounded up so that they do).

    References
    ----------
    Bin packing with divisible item sizes: Coffman, Garey, Johnson (1987); floor(x / k) is a
    dual feasible function.
    """
    for limit in problem.accelerators:
        on = problem.on(limit.name)
        for size in sorted({problem.options[o].footprint for o in on} - {1}):
            for t in problem.window_indices:
                used = sum((problem.options[o].footprint // size) * v.replicas[o, t] for o in on)
                name = f"fit_nodes[{limit.name} by {size},{t}]"
                _row(model, used <= blocks_of(limit, size), name)


def keep_budget(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every t: sum_o usd_per_hour[o] * replicas[o,t] <= usd_per_hour_limit.

    USD/h (rows in 1e-6 USD/h); the part of the spec's budget that other models leave.
    """
    limit = problem.usd_per_hour_limit
    for t in problem.window_indices if limit is not None else ():
        usd = sum(
            round(1e6 * o.usd_per_hour) * v.replicas[i, t] for i, o in enumerate(problem.options)
        )
        _row(model, usd <= round(1e6 * (limit or 0.0)), f"keep_budget[{t}]")


def keep_power(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every t: sum_o power_w[o] * replicas[o,t] <= power_w_limit.

    Watts (rows in mW); the part of the spec's power budget that other models leave.
    """
    limit = problem.power_w_limit
    for t in problem.window_indices if limit is not None else ():
        watts = sum(
            round(1e3 * o.power_w) * v.replicas[i, t] for i, o in enumerate(problem.options)
        )
        _row(model, watts <= round(1e3 * (limit or 0.0)), f"keep_power[{t}]")


def scale_both_pools(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every t, role r in prefill, decode: d[t] <= sum_r replicas[o,t] <= most[r] * d[t].

    d is `has_pair`. No prefill replica without a decode replica, nor the other way round.
    """
    for role in (Role.PREFILL, Role.DECODE):
        options = problem.in_role(role)
        most = sum(problem.max_replicas[o] for o in options)
        for t, pair in enumerate(v.has_pair):
            have = sum(v.replicas[o, t] for o in options)
            _row(model, have >= pair, f"scale_both_pools[{role} there,{t}]")
            _row(model, have <= most * pair, f"scale_both_pools[{role} gone,{t}]")


def keep_a_path(model: cp_model.CpModel, problem: Problem, v: Variables) -> None:
    """For every t: has_pair[t] + sum_{aggregated} replicas[o,t] >= 1.

    A request that comes unexpectedly is answered: nothing scales to zero by itself.
    """
    for t, pair in enumerate(v.has_pair):
        have = sum(v.replicas[o, t] for o in problem.in_role(Role.AGGREGATED))
        _row(model, pair + have >= 1, f"keep_a_path[{t}]")


CONSTRAINTS: tuple[Constraint, ...] = (
    meet_demand,
    prefill_in_time,
    decode_in_time,
    have_one_count,
    exhaust_the_table_first,
    order_in_time,
    use_what_is_there,
    count_changes,
    keep_min_replicas,
    keep_max_replicas,
    keep_inventory,
    fit_nodes,
    keep_budget,
    keep_power,
    scale_both_pools,
    keep_a_path,
)


def equation_of(row: str) -> str:
    """The equation of a row such as `meet_demand[0]`, from its function's docstring."""
    name = row.partition("[")[0]
    function = next(c for c in CONSTRAINTS if c.__name__ == name)
    return (function.__doc__ or "").partition("\n")[0].strip()


def _row(model: cp_model.CpModel, row: Row, name: str) -> None:
    """Add a row; one without variables is a plain bool, which CP-SAT takes as well."""
    model.add(row).with_name(name)
