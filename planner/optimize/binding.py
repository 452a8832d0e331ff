"""Rows of the model without slack in a plan, each as a sentence that names its field in the spec.

`FINDERS` has one for every constraint in `CONSTRAINTS`, but for those that only say what a column
means (`DEFINITIONS`).
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from planner.domain.fleet import Role
from planner.domain.plan import BindingRow
from planner.optimize.conflict import conflicting_rows
from planner.optimize.equations import equation_of
from planner.optimize.explain import telling_windows
from planner.optimize.flow import served_rps
from planner.optimize.link_rows import link_rows
from planner.optimize.nodes import packs
from planner.optimize.objective import changes
from planner.optimize.problem import PATH, Problem, spot_options
from planner.optimize.solution import Solution, taken_rps, usd_per_hour
from planner.optimize.stretch import keeps_some, stretched_note
from planner.optimize.usage import moved_bytes_per_s, watts

Found = Iterator[tuple[str, str]]
"""(row, sentence)"""
Finder = Callable[[Problem, Solution, int], Found]

_NEAR = 1e-6
_FULL = 0.99
"""A pool or link that is used so far is told as full."""

DEFINITIONS: Mapping[str, str] = {
    "have_one_count": "one entry of a capacity table holds",
    "read_the_table": "the entry of a capacity table is that of the serving replicas",
    "exhaust_the_table_first": "replicas beyond a capacity table come after those in it",
    "count_changes": "starts, stops and flips are the difference between two windows",
}
"""Constraints that say what a column means: they hold with equality in every plan and have no
limit in them that could be another."""


def binding_rows(problem: Problem, solution: Solution) -> tuple[BindingRow, ...]:
    """Rows without slack, found without the solver.

    Of each row those in the windows that tell the most; of limits that are reached in other
    windows only, the first of them. Where nothing at all keeps every row, some that no fleet
    keeps together. Where promises were stretched, each says for which it was computed.
    """
    if not solution.feasible:
        return conflicting_rows(problem)
    telling = telling_windows(problem, solution, problem.window_indices)
    found: list[tuple[int, str, str]] = []
    told: set[str] = set()
    for t in (*telling, *(t for t in problem.window_indices if t not in telling)):
        for finders, only_telling in ((_OF_CAPACITY, True), (_OF_LIMITS, False)):
            if only_telling and t not in telling:
                continue
            for find in dict.fromkeys(finders.values()):
                for row, sentence in find(problem, solution, t):
                    timeless = _timeless(row)
                    if timeless not in told or (t in telling and timeless != row.rstrip("]")):
                        found.append((t, row, sentence))
                    told.add(timeless)
    found.sort(key=lambda f: f[0])
    note = stretched_note(problem)
    return tuple(
        BindingRow(row=row, equation=equation_of(row), sentence=sentence + note)
        for _, row, sentence in found
    )


def _timeless(row: str) -> str:
    """The row without its window, the first number among its indices."""
    name, _, index = row.rstrip("]").partition("[")
    parts = [part for part in index.split(",") if part and not part.isdigit()]
    return f"{name}[{','.join(parts)}"


def _demand_rows(problem: Problem, solution: Solution, t: int) -> Found:
    """What stays unserved, and which side of the pair is short."""
    for k, stream in enumerate(problem.streams):
        demand, unserved = float(problem.demand_rps[k, t]), float(solution.unserved_rps[k, t])
        if unserved <= _NEAR * max(demand, 1.0):
            continue
        of = {role: list(problem.in_role(role, model=stream.model)) for role in PATH}
        carried = {
            role: sum(problem.capacity[o, t].at(int(solution.usable[o, t])) for o in of[role])
            for role in PATH
        }
        short = min((Role.PREFILL, Role.DECODE), key=lambda role: carried[role])
        sentence = (
            f"{_window(t)}: {demand - unserved:.3g} of {demand:.3g} requests/s of {stream.label} "
            f"are served, {unserved:.3g} are not"
        )
        if stream.beyond:
            most = max(reach.tokens for reach in stream.beyond)
            sentence += f": they are longer than the largest context there is, {most:,} tokens"
            yield f"meet_demand[{stream.label},{t}]", sentence
            continue
        if stream.left_out:
            sentence += (
                ": the twin confirms no fleet that keeps their promise, so they are left out"
            )
            yield f"meet_demand[{stream.label},{t}]", sentence
            continue
        if problem.is_plain(k):
            sentence += (
                f": no more {short} or aggregated capacity is there"
                if keeps_some(problem, t)
                else ": no pool keeps their promise, not even without load"
            )
            yield f"carry_plain_demand[{stream.label},{short},{t}]", sentence
            continue
        yield f"meet_demand[{stream.label},{t}]", sentence
        taken = taken_rps(problem, solution)[:, t]
        spare = carried[Role.PREFILL] - float(taken[of[Role.PREFILL]].sum())
        full = float(taken[of[Role.DECODE]].sum()) >= _FULL * carried[Role.DECODE]
        if of[Role.PREFILL] and spare > _NEAR * max(demand, 1.0) and full:
            yield (
                f"decode_what_is_prefilled[{stream.label},{t}]",
                f"{_window(t)}: prefill replicas have room for {spare:.3g} more requests/s, but "
                "decode replicas take no more",
            )


def _capacity_rows(problem: Problem, solution: Solution, t: int) -> Found:
    demand = problem.load_rps(t)
    now: float | None = None
    for role in PATH:
        for o in problem.in_role(role):
            if solution.usable[o, t] < 1 or demand <= 0:
                continue
            fewer = solution.usable.copy()
            fewer[o, t] -= 1
            serves = served_rps(problem, fewer, t)
            if serves >= demand * (1 - _NEAR):
                continue
            if now is None:
                now = min(served_rps(problem, solution.usable, t), demand)
            if serves >= now * (1 - _NEAR):
                continue
            label, have = problem.options[o].label, int(solution.usable[o, t])
            if now < demand * (1 - _NEAR):
                what = (
                    f"of {demand:.3g} requests/s that come, {have} x {label} serve "
                    f"{now:.3g} requests/s in time; with one less it is {serves:.3g} requests/s"
                )
            else:
                needed, left = told_apart(demand, serves)
                what = f"{have} x {label} is needed for {needed} requests/s; "
                what += f"with one less {left} requests/s are served in time"
            yield f"keep_within_capacity[{label},{t}]", f"{_window(t)}: {what}"


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Two values in as few digits, three at the least, as they still differ in."""
    for digits in range(3, 9):
        texts = f"{one:.{digits}g}", f"{other:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def _late_rows(problem: Problem, solution: Solution, t: int) -> Found:
    for o, option in enumerate(problem.options):
        have, serve = int(solution.replicas[o, t]), int(solution.usable[o, t])
        if have <= serve:
            continue
        if problem.comes_too_late(o, t):
            yield (
                f"use_what_is_there[{option.label},{t}]",
                f"{_window(t)}: a new {option.label} takes {option.start_s:.0f} s to start "
                f"({option.start_field} of its profile) and is not ready before the window is over",
            )
        else:
            first = problem.order_window(option.start_s, t)
            _, s = min((int(solution.replicas[o, s]), s) for s in range(first, t + 1))
            yield (
                f"order_in_time[{option.label},{t},{s}]",
                f"{_window(t)}: {serve} of {have} x {option.label} serve; the others start or "
                f"change their role ({option.start_s:.0f} s, {option.start_field} of the profile)",
            )


def _flip_rows(problem: Problem, solution: Solution, t: int) -> Found:
    _, stops = changes(problem, solution.replicas, solution.flips)
    for o, option in enumerate(problem.options):
        go = list(problem.flips_of(source=o))
        flips = int(solution.flips[go, t].sum()) if go else 0
        if not flips:
            continue
        since = problem.ready_since(o, t)
        there = option.initial_replicas if problem.has_fleet else 0
        ready = int(solution.replicas[o, list(since)].min()) if since else there
        if flips + (int(stops[o, t]) if since or t == 0 else 0) >= ready:
            index = f"{option.label},{t},{since[0]}" if since else f"{option.label},{t}"
            yield (
                f"flip_what_is_ready[{index}]",
                f"{_window(t)}: all {ready} x {option.label} that are ready change their role or "
                "stop; no further one can",
            )


def _up_time_rows(problem: Problem, solution: Solution, t: int) -> Found:
    starts, _ = changes(problem, solution.replicas, solution.flips)
    for o, option in enumerate(problem.options):
        earlier = [s for s in problem.up_windows(o, t) if s < t] if option.min_up_s > 0 else []
        recent = int(starts[o, earlier].sum()) if earlier else 0
        if recent and recent + int(starts[o, t]) >= int(solution.replicas[o, t]):
            yield (
                f"keep_up_time[{option.label},{t}]",
                f"{_window(t)}: {recent} x {option.label} were started less than "
                f"{option.min_up_s:,.0f} s ago (min_up_s of the pool, or billing_increment_s) and "
                "stay",
            )


def _change_rows(problem: Problem, solution: Solution, t: int) -> Found:
    """The ramp and the disruption limit, where there was something to start or stop from."""
    if t == 0 and not problem.has_fleet:
        return
    starts, stops = changes(problem, solution.replicas, solution.flips)
    for o, option in enumerate(problem.options):
        come, go = list(problem.flips_of(target=o)), list(problem.flips_of(source=o))
        coming = int(starts[o, t] + solution.flips[come, t].sum())
        going = int(stops[o, t] + solution.flips[go, t].sum())
        before = int(solution.replicas[o, t - 1]) if t else option.initial_replicas
        most, label = option.max_starts, option.label
        if most is not None and coming >= most:
            yield (
                f"limit_starts[{label},{t}]",
                f"{_window(t)}: {coming} of max_starts {most} x {label} come; no more may",
            )
        most = option.max_stops
        if most is not None and going >= most and before:
            yield (
                f"limit_stops[{label},{t}]",
                f"{_window(t)}: {going} of max_stops {most} x {label} go; no more of the {before} "
                "may",
            )


def _bound_rows(problem: Problem, solution: Solution, t: int) -> Found:
    for bounds in problem.bounds:
        have = sum(int(solution.replicas[o, t]) for o in problem.of_shape(bounds.shape))
        label = bounds.shape.label
        if bounds.min_replicas and have == bounds.min_replicas:
            yield (
                f"keep_min_replicas[{label},{t}]",
                f"{_window(t)}: {label} is held at its min_replicas, {have}",
            )
        if bounds.max_replicas is not None and have == bounds.max_replicas:
            yield (
                f"keep_max_replicas[{label},{t}]",
                f"{_window(t)}: {label} is held at its max_replicas, {have}",
            )


def _inventory_rows(problem: Problem, solution: Solution, t: int) -> Found:
    for limit in problem.limits_in(t):
        on = problem.on(limit.name)
        each = {o: problem.options[o].shape.accelerators for o in on}
        used = sum(size * int(solution.replicas[o, t]) for o, size in each.items())
        held = problem.held(limit.name)
        if each and used + min(each.values()) > limit.inventory:
            yield (
                f"keep_inventory[{limit.name},{t}]",
                f"{_window(t)}: {used} of {limit.inventory} {limit.name} {_left(held)}are used, no "
                f"further replica fits (inventory){held}",
            )


def _reserved_rows(problem: Problem, solution: Solution, t: int) -> Found:
    for limit in problem.limits_in(t):
        on = [o for o in problem.on(limit.name) if problem.options[o].prepaid]
        each = {o: problem.options[o].shape.accelerators for o in on}
        used = sum(size * int(solution.replicas[o, t]) for o, size in each.items())
        if not each or used + min(each.values()) <= limit.reserved:
            continue
        offers = {problem.options[o].purchase_option for o in problem.on(limit.name)}
        others = sorted(offers - {problem.options[o].purchase_option for o in on})
        more = f"paid by another offer ({', '.join(others)})" if others else "not to be had"
        left = _left(problem.held(limit.name))
        yield (
            f"keep_reserved[{limit.name},{t}]",
            f"{_window(t)}: {used} of {limit.reserved} reserved {limit.name} {left}are used "
            f"(reserved_count), what is more is {more}",
        )


def _node_rows(problem: Problem, solution: Solution, t: int) -> Found:
    """Nodes that are full although accelerators are left for one more replica."""
    for limit in problem.limits_in(t):
        on = problem.on(limit.name)
        if not on:
            continue
        exact = problem.filled[limit.name] is not None
        counts: Counter[int] = Counter(limit.taken)
        for o in on:
            counts[problem.options[o].shape.accelerators] += int(solution.replicas[o, t])
        used = sum(size * n for size, n in counts.items()) - sum(limit.taken)
        for size in sorted({problem.options[o].footprint for o in on}):
            if used + size > limit.inventory or packs(counts + Counter([size]), limit):
                continue
            row = f"{'fill' if exact else 'fit'}_nodes[{limit.name} by {size},{t}]"
            yield (
                row,
                f"{_window(t)}: no node has {size} {limit.name} left for one more replica "
                f"(per_node {limit.per_node}); of {limit.inventory} {limit.name} {used} are used, "
                "what is left lies in different nodes",
            )


def _budget_rows(problem: Problem, solution: Solution, t: int) -> Found:
    limit = problem.usd_per_hour_limit_in(t)
    usd = usd_per_hour(problem, solution.replicas, t)
    prices = [o.usd_per_hour for o in problem.options if o.usd_per_hour > 0]
    if limit is not None and prices and usd + min(prices) > limit * (1 + _NEAR):
        yield (
            f"keep_budget[{t}]",
            f"{_window(t)}: {usd:.2f} of {limit:.2f} USD/h (budget.usd_per_hour) are spent, no "
            f"further replica is affordable{problem.held('usd_per_hour')}",
        )


def _power_rows(problem: Problem, solution: Solution, t: int) -> Found:
    limit, used = problem.power_w_limit_in(t), watts(problem, solution, t)
    each = [o.power_w for o in problem.options if o.power_w > 0]
    if limit is not None and each and used + min(each) > limit * (1 + _NEAR):
        yield (
            f"keep_power[{t}]",
            f"{_window(t)}: {used:,.0f} of {limit:,.0f} W (budget.power_w) are drawn, no further "
            f"replica may be{problem.held('power_w')}",
        )


def _ratio_rows(problem: Problem, solution: Solution, t: int) -> Found:
    for bounds in problem.ratios:
        prefill, decode = (
            int(solution.replicas[list(problem.in_role(role, model=bounds.model)), t].sum())
            for role in (Role.PREFILL, Role.DECODE)
        )
        low, high = bounds.min_ratio, bounds.max_ratio
        reached = []
        if low is not None and prefill - 1 < low * decode and prefill < low * (decode + 1):
            reached.append(("min", low))
        if high is not None and prefill + 1 > high * decode and prefill > high * (decode - 1):
            reached.append(("max", high))
        for kind, ratio in reached:
            if prefill:
                yield (
                    f"keep_ratio[{bounds.model},{kind},{t}]",
                    f"{_window(t)}: {prefill} prefill to {decode} decode replicas is as far as "
                    f"{kind}_prefill_per_decode {ratio:g} allows",
                )


def _spot_rows(problem: Problem, solution: Solution, t: int) -> Found:
    share = problem.spot_share_limit
    for model in problem.models if share is not None else ():
        for role in PATH:
            of = problem.in_role(role, model=model)
            have = int(solution.replicas[list(of), t].sum())
            spot = int(solution.replicas[list(spot_options(problem, of)), t].sum())
            if spot_options(problem, of) and have and spot + 1 > (share or 0.0) * have:
                yield (
                    f"limit_spot[{model},{role},{t}]",
                    f"{_window(t)}: {spot} of {have} {role} replicas are spot, no further one may "
                    f"be (spot_share_limit {share:.0%})",
                )


def _transfer_rows(problem: Problem, solution: Solution, t: int) -> Found:
    limit, moved = problem.transfer_bytes_per_s_limit, moved_bytes_per_s(problem, solution, t)
    if limit is not None and problem.kv_bytes is not None and moved > _FULL * limit:
        yield (
            f"keep_transfers[{t}]",
            f"{_window(t)}: KV transfers take {moved / 1e9:.3g} of {limit / 1e9:.3g} GB/s "
            "(planning.transfer_bytes_per_s)",
        )


def _one_shape_rows(problem: Problem, solution: Solution, t: int) -> Found:
    """A role that has several kinds to choose from and is held to one."""
    for model in problem.models if problem.one_shape_per_role else ():
        for role in PATH:
            of = problem.in_role(role, model=model)
            used = [o for o in of if solution.replicas[o, t]]
            if len(of) > 1 and used:
                yield (
                    f"keep_one_shape[{model},{role}]",
                    f"all {role} replicas are {problem.options[used[0]].label}, none of "
                    f"{len(of) - 1} other kinds may join (planning.one_shape_per_role)",
                )


def _format_rows(problem: Problem, solution: Solution, t: int) -> Found:
    for model in problem.models:
        by_format = problem.by_format(model=model)
        used = [of for of in by_format.values() if solution.replicas[list(of), t].any()]
        if len(by_format) > 1 and used:
            label = problem.options[used[0][0]].label
            yield (
                f"keep_one_format[{model}]",
                f"prefill and decode replicas share the formats of {label} (of "
                f"weight_dtype and kv_dtype under pools and shapes, {len(by_format)} are offered)",
            )


def _path_rows(problem: Problem, solution: Solution, t: int) -> Found:
    """Last replicas that no request of the window needs, and that stay all the same."""
    for model in problem.models:
        of = {role: list(problem.in_role(role, model=model)) for role in PATH}
        count = {role: int(solution.replicas[of[role], t].sum()) for role in PATH}
        for role, other in ((Role.PREFILL, Role.DECODE), (Role.DECODE, Role.PREFILL)):
            without = solution.usable.copy()
            without[of[role], t] = 0
            spare = served_rps(problem, without, t) >= problem.load_rps(t) * (1 - _NEAR)
            if count[role] == 1 and spare:
                yield (
                    f"scale_both_pools[{model},{role},{t},there]",
                    f"{_window(t)}: the only {role} replica of {model} serves nobody that others "
                    f"could not, but stays while {count[other]} {other} replicas do",
                )
        pairs, alone = min(count[Role.PREFILL], count[Role.DECODE]), count[Role.AGGREGATED]
        if pairs + alone == 1 and problem.load_rps(t) <= 0:
            yield (
                f"keep_a_path[{model},{t}]",
                f"{_window(t)}: nothing is expected, but {'a pair' if pairs else 'one replica'} of "
                f"{model} stays to answer what comes",
            )


_OF_CAPACITY: Mapping[str, Finder] = {
    "meet_demand": _demand_rows,
    "carry_plain_demand": _demand_rows,
    "decode_what_is_prefilled": _demand_rows,
    "keep_within_capacity": _capacity_rows,
}
_OF_LIMITS: Mapping[str, Finder] = {
    "order_in_time": _late_rows,
    "use_what_is_there": _late_rows,
    "flip_what_is_ready": _flip_rows,
    "keep_up_time": _up_time_rows,
    "limit_starts": _change_rows,
    "limit_stops": _change_rows,
    "keep_min_replicas": _bound_rows,
    "keep_max_replicas": _bound_rows,
    "keep_inventory": _inventory_rows,
    "keep_reserved": _reserved_rows,
    "fit_nodes": _node_rows,
    "fill_nodes": _node_rows,
    "keep_budget": _budget_rows,
    "keep_power": _power_rows,
    "keep_ratio": _ratio_rows,
    "limit_spot": _spot_rows,
    "keep_transfers": _transfer_rows,
    "move_what_is_prefilled": link_rows,
    "decode_what_is_moved": link_rows,
    "keep_links": link_rows,
    "keep_one_shape": _one_shape_rows,
    "keep_one_format": _format_rows,
    "scale_both_pools": _path_rows,
    "keep_a_path": _path_rows,
}
FINDERS: Mapping[str, Finder] = {**_OF_CAPACITY, **_OF_LIMITS}
"""Who finds the rows of each constraint."""


def _left(held: str) -> str:
    return "that other models leave " if held else ""


def _window(t: int) -> str:
    return f"window {t}"
