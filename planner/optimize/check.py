"""Whether a solution keeps every constraint, in plain Python and without the solver."""

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from planner.domain.fleet import Role
from planner.optimize.linear import TOLERANCE_RATIO
from planner.optimize.links import carried_bytes_per_s
from planner.optimize.nodes import packs
from planner.optimize.objective import changes
from planner.optimize.problem import PATH, Problem, spot_options
from planner.optimize.solution import Solution


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
    """Nothing is left unserved but a millionth of the window's load.

    Of the window's and not of the stream's: what a solver lets pass in the capacity of a pool that
    streams share may be missing to the smallest of them.
    """
    roles = [list(problem.in_role(role)) for role in PATH]
    for k, stream in enumerate(problem.streams):
        for t in problem.window_indices:
            demand, missing = problem.demand_rps[k, t], float(solution.unserved_rps[k, t])
            if not problem.may_fall_short(k, t) and _above(missing, 0.0, scale=problem.load_rps(t)):
                yield f"meet_demand[{stream.label},{t}]: {missing:g} of {demand:g} requests/s"
            prefilled, decoded, alone = (float(solution.sent_rps[k, of, t].sum()) for of in roles)
            if abs(prefilled + alone + missing - demand) > TOLERANCE_RATIO * max(1.0, demand):
                yield f"meet_demand[{stream.label},{t}]: {demand:g} requests/s are not all sent"
            if abs(prefilled - decoded) > TOLERANCE_RATIO * max(1.0, prefilled):
                name = f"decode_what_is_prefilled[{stream.label},{t}]"
                yield f"{name}: {prefilled:g} prefilled, {decoded:g} decoded"


def _capacity_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for (o, t), pool in problem.capacity.items():
        sustained = pool.at(int(solution.usable[o, t]))
        sent = solution.sent_rps[:, o, t]
        work = np.where(sent > 0, problem.work[:, o], 0.0)
        if _above(float(work @ sent), sustained):
            label = problem.options[o].label
            yield f"keep_within_capacity[{label},{t}]: above {sustained:g} requests/s"


def _lead_time_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    if not np.array_equal(solution.usable, problem.usable(solution.replicas, solution.flips)):
        yield "order_in_time: replicas serve that were not ordered, or are not ready yet"


def _change_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    starts, stops = changes(problem, solution.replicas, solution.flips)
    for o, option in enumerate(problem.options):
        come, go = list(problem.flips_of(target=o)), list(problem.flips_of(source=o))
        for t in problem.window_indices:
            since = problem.ready_since(o, t)
            there = option.initial_replicas if problem.has_fleet else 0
            ready = int(solution.replicas[o, list(since)].min()) if since else there
            coming = int(starts[o, t] + solution.flips[come, t].sum())
            going = int(solution.flips[go, t].sum())
            where = f"[{option.label},{t}]"
            if going > ready:
                yield f"flip_what_is_ready{where}: {going} of {ready}"
            if option.max_starts is not None and coming > option.max_starts:
                yield f"limit_starts{where}: {coming}"
            if option.max_stops is not None and going + int(stops[o, t]) > option.max_stops:
                yield f"limit_stops{where}: {going + int(stops[o, t])}"
            recent = int(starts[o, list(problem.up_windows(o, t))].sum())
            if option.min_up_s > 0 and recent > int(solution.replicas[o, t]):
                yield f"keep_up_time{where}: {recent} were started lately"


def _share_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for t in problem.window_indices:
        for model in problem.models:
            have = {r: problem.in_role(r, model=model) for r in PATH}
            count = {r: int(solution.replicas[list(of), t].sum()) for r, of in have.items()}
            for bounds in (b for b in problem.ratios if b.model == model):
                prefill, decode = count[Role.PREFILL], count[Role.DECODE]
                if bounds.min_ratio is not None and _above(bounds.min_ratio * decode, prefill):
                    yield f"keep_ratio[{model},min,{t}]: {prefill} to {decode}"
                if bounds.max_ratio is not None and _above(prefill, bounds.max_ratio * decode):
                    yield f"keep_ratio[{model},max,{t}]: {prefill} to {decode}"
            for role, of in have.items() if problem.spot_share_limit is not None else ():
                spot = int(solution.replicas[list(spot_options(problem, of)), t].sum())
                if _above(spot, (problem.spot_share_limit or 0.0) * count[role]):
                    yield f"limit_spot[{model},{role},{t}]: {spot} of {count[role]}"
        yield from _transfer_faults(problem, solution, t)
    for model in problem.models if problem.one_shape_per_role else ():
        for role in PATH:
            used = [o for o in problem.in_role(role, model=model) if solution.replicas[o].any()]
            if len(used) > 1:
                labels = ", ".join(problem.options[o].label for o in used)
                yield f"keep_one_shape[{model},{role}]: {labels}"


def _format_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for model in problem.models:
        used = [
            options
            for options in problem.by_format(model=model).values()
            if solution.replicas[list(options)].any()
        ]
        if len(used) > 1:
            labels = ", ".join(problem.options[options[0]].label for options in used)
            yield f"keep_one_format[{model}]: {labels}"


def _transfer_faults(problem: Problem, solution: Solution, t: int) -> Iterator[str]:
    limit = problem.transfer_bytes_per_s_limit
    if limit is None or problem.kv_bytes is None:
        return
    prefilled = solution.sent_rps[:, list(problem.in_role(Role.PREFILL)), t].sum(axis=1)
    moved = float(problem.kv_bytes @ prefilled)
    if _above(moved, limit):
        yield f"keep_transfers[{t}]: {moved:g} of {limit:g} bytes/s"


def _link_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    """What moves between two accelerators adds up to what is sent, and fits its links."""
    sides = (Role.PREFILL, Role.DECODE)
    for t in problem.window_indices if problem.link_pairs else ():
        for side, role in enumerate(sides):
            for name in {pair[side] for pair in problem.link_pairs}:
                across = [i for i, pair in enumerate(problem.link_pairs) if pair[side] == name]
                on = [o for o in problem.in_role(role) if o in problem.on(name)]
                for k, stream in enumerate(problem.streams):
                    sent = float(solution.sent_rps[k, on, t].sum())
                    moved = float(solution.moved_rps[k, across, t].sum())
                    if abs(sent - moved) > TOLERANCE_RATIO * max(1.0, sent):
                        row = "move_what_is_prefilled" if side == 0 else "decode_what_is_moved"
                        yield f"{row}[{stream.label},{name},{t}]: {moved:g} of {sent:g} requests/s"
        carried = carried_bytes_per_s(problem, solution.moved_rps, t)
        for link, bytes_per_s in zip(problem.links, carried, strict=True):
            if _above(bytes_per_s, link.bytes_per_s):
                carries = f"{bytes_per_s:g} of {link.bytes_per_s:g} bytes/s"
                yield f"keep_links[{link.label},{t}]: {carries}"


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
        usd += problem.reserved_usd_per_hour_in(t)
        most_usd, most_watts = problem.usd_per_hour_limit_in(t), problem.power_w_limit_in(t)
        watts = sum(n * o.power_w for n, o in zip(counts, problem.options, strict=True))
        if most_usd is not None and _above(usd, most_usd):
            yield f"keep_budget[{t}]: {usd:g} USD/h"
        if most_watts is not None and _above(watts, most_watts):
            yield f"keep_power[{t}]: {watts:g} W"


def _packing_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for t in problem.window_indices:
        for limit in problem.limits_in(t):
            counts = Counter(limit.taken)
            reserved = 0
            for o in problem.on(limit.name):
                size, replicas = problem.options[o].shape.accelerators, int(solution.replicas[o, t])
                counts[size] += replicas
                reserved += size * replicas if problem.options[o].prepaid else 0
            used = sum(size * count for size, count in counts.items()) - sum(limit.taken)
            if reserved > limit.reserved:
                yield f"keep_reserved[{limit.name},{t}]: {reserved} of {limit.reserved}"
            if used > limit.inventory:
                yield f"keep_inventory[{limit.name},{t}]: {used} of {limit.inventory}"
            elif not packs(counts, limit):
                sizes = ", ".join(f"{n} x {size}" for size, n in sorted(counts.items()) if n)
                yield f"fit_nodes[{limit.name},{t}]: replicas of {sizes} do not fit the nodes"


def _path_faults(problem: Problem, solution: Solution) -> Iterator[str]:
    for model in problem.models:
        for t in problem.window_indices:
            prefill, decode, aggregated = (
                int(solution.replicas[list(problem.in_role(role, model=model)), t].sum())
                for role in PATH
            )
            if (prefill > 0) != (decode > 0):
                found = f"{prefill} prefill and {decode} decode replicas"
                yield f"scale_both_pools[{model},{t}]: {found}"
            if prefill + aggregated == 0:
                yield f"keep_a_path[{model},{t}]: nothing answers requests"


_CHECKS: tuple[Callable[[Problem, Solution], Iterator[str]], ...] = (
    _shape_faults,
    _demand_faults,
    _capacity_faults,
    _lead_time_faults,
    _change_faults,
    _share_faults,
    _format_faults,
    _link_faults,
    _bound_faults,
    _limit_faults,
    _packing_faults,
    _path_faults,
)


def _above(value: float, limit: float, *, scale: float | None = None) -> bool:
    return value > limit + TOLERANCE_RATIO * max(1.0, abs(limit if scale is None else scale))
