"""Whether a solution keeps every constraint, in plain Python and without the solver."""

from collections.abc import Callable, Iterator

from planner.domain.fleet import Role
from planner.optimize.problem import AcceleratorLimit, Problem
from planner.optimize.solution import Solution

_TOLERANCE = 1e-6
"""Relative, and absolute in the row's unit; the solver's own is 1e-6."""


def check(problem: Problem, solution: Solution) -> tuple[str, ...]:
    """Every broken constraint as a sentence; empty when the solution is sound.

    Infeasible solutions hold no fleet and have nothing to check.
    """
    if not solution.feasible:
        return ()
    return tuple(fault for find in _CHECKS for fault in find(problem, solution))


def _shape_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    expected = (len(problem.options), len(problem.windows))
    if solution.replicas.shape != expected:
        yield f"the solution has shape {solution.replicas.shape}, not {expected}"
    if solution.replicas.size and solution.replicas.min() < 0:
        yield "a number of replicas is negative"


def _demand_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for t, window in enumerate(problem.windows):
        served = _served(problem, solution, t, Role.PREFILL, Role.AGGREGATED)
        missing = window.demand_rps - served
        if not problem.may_fall_short(t) and _above(missing, 0.0, scale=window.demand_rps):
            yield f"meet_demand[{t}]: {missing:g} of {window.demand_rps:g} requests/s unserved"
        prefilled = _served(problem, solution, t, Role.PREFILL)
        decoded = _served(problem, solution, t, Role.DECODE)
        if abs(prefilled - decoded) > _TOLERANCE * max(1.0, prefilled):
            yield f"decode_what_is_prefilled[{t}]: {prefilled:g} prefilled, {decoded:g} decoded"


def _capacity_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for (o, t), pool in problem.capacity.items():
        sustained = pool.at(int(solution.usable[o, t]))
        if _above(float(solution.served_rps[o, t]), sustained):
            label = problem.options[o].label
            yield f"keep_within_capacity[{label},{t}]: above {sustained:g} requests/s"


def _lead_time_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for (o, t), option in (((o, t), problem.options[o]) for o, t in problem.capacity):
        usable = int(solution.usable[o, t])
        for s in range(problem.order_window(o, t), t + 1):
            if usable > solution.replicas[o, s]:
                yield f"order_in_time[{option.label},{t},from {s}]: {usable} were not ordered"
        if problem.comes_too_late(o, t) and usable > option.initial_replicas:
            yield f"use_what_is_there[{option.label},{t}]: {usable} are not ready yet"


def _bound_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for bounds in problem.bounds:
        for t in problem.window_indices:
            have = sum(int(solution.replicas[o, t]) for o in problem.of_shape(bounds.shape))
            if have < bounds.min_replicas:
                yield f"keep_min_replicas[{bounds.shape.label},{t}]: {have}"
            if bounds.max_replicas is not None and have > bounds.max_replicas:
                yield f"keep_max_replicas[{bounds.shape.label},{t}]: {have}"


def _limit_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for t in problem.window_indices:
        counts = [int(n) for n in solution.replicas[:, t]]
        usd = sum(n * o.usd_per_hour for n, o in zip(counts, problem.options, strict=True))
        watts = sum(n * o.power_w for n, o in zip(counts, problem.options, strict=True))
        if problem.usd_per_hour_limit is not None and _above(usd, problem.usd_per_hour_limit):
            yield f"keep_budget[{t}]: {usd:g} USD/h"
        if problem.power_w_limit is not None and _above(watts, problem.power_w_limit):
            yield f"keep_power[{t}]: {watts:g} W"


def _packing_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for limit in problem.accelerators:
        for t in problem.window_indices:
            sizes = [
                problem.options[o].shape.accelerators
                for o in problem.on(limit.name)
                for _ in range(int(solution.replicas[o, t]))
            ]
            if sum(sizes) > limit.inventory:
                yield f"keep_inventory[{limit.name},{t}]: {sum(sizes)} of {limit.inventory}"
            elif not _packs(sizes, limit):
                yield f"fit_nodes[{limit.name},{t}]: replicas of {sizes} do not fit the nodes"


def _packs(sizes: list[int], limit: AcceleratorLimit) -> bool:
    """First fit, largest first: whether the replicas fit into nodes without spanning them."""
    nodes, rest = divmod(limit.inventory, limit.per_node)
    free = [limit.per_node] * nodes + [rest]
    for size in sorted(sizes, reverse=True):
        node = next((i for i, room in enumerate(free) if room >= size), None)
        if node is None:
            return False
        free[node] -= size
    return True


def _path_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for t in problem.window_indices:
        prefill, decode, aggregated = (
            sum(int(solution.replicas[o, t]) for o in problem.in_role(role))
            for role in (Role.PREFILL, Role.DECODE, Role.AGGREGATED)
        )
        if (prefill > 0) != (decode > 0):
            yield f"scale_both_pools[{t}]: {prefill} prefill and {decode} decode replicas"
        if prefill + aggregated == 0:
            yield f"keep_a_path[{t}]: nothing answers requests"


_CHECKS: tuple[Callable[[Problem, Solution], Iterator[str]], ...] = (
    _shape_faults,
    _demand_faults,
    _capacity_faults,
    _lead_time_faults,
    _bound_faults,
    _limit_faults,
    _packing_faults,
    _path_faults,
)


def _served(problem: Problem, solution: Solution, t: int, *roles: Role) -> float:
    options = (o for role in roles for o in problem.in_role(role))
    return sum(float(solution.served_rps[o, t]) for o in options)


def _above(value: float, limit: float, *, scale: float | None = None) -> bool:
    return value > limit + _TOLERANCE * max(1.0, abs(limit if scale is None else scale))
