"""Every fleet of a tiny problem in order of cost, by rules written down again and independently."""

from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from planner.domain.fleet import Role
from planner.domain.hardware import PurchaseOption
from planner.optimize.problem import Problem

MOST = 2
Integers = NDArray[np.int64]


def cheapest(case: Problem) -> float | None:
    """Least USD of a fleet that serves everything within all limits; None where none does."""
    found = (usd for usd, replicas, flips in _by_cost(case) if _holds(case, replicas, flips))
    return next(found, None)


def _by_cost(case: Problem) -> Iterator[tuple[float, Integers, Integers]]:
    options, windows = len(case.options), len(case.windows)
    arcs = [(f, t) for f in range(len(case.flips)) for t in range(windows)]
    candidates = []
    for counts in product(range(MOST + 1), repeat=options * windows):
        replicas = np.array(counts, dtype=np.int64).reshape(options, windows)
        there = [_before(case, replicas, case.flips[f].source, t) for f, t in arcs]
        for flipped in product(*(range(min(MOST, n) + 1) for n in there)):
            flips = np.zeros((len(case.flips), windows), dtype=np.int64)
            for (f, t), n in zip(arcs, flipped, strict=True):
                flips[f, t] = n
            candidates.append((_usd(case, replicas, flips), replicas, flips))
    candidates.sort(key=lambda c: c[0])
    yield from candidates


def _before(case: Problem, replicas: Integers, o: int, t: int) -> int:
    if t:
        return int(replicas[o, t - 1])
    return case.options[o].initial_replicas if case.has_fleet else int(replicas[o, 0])


def _change(case: Problem, replicas: Integers, flips: Integers, o: int, t: int) -> int:
    """Starts less stops of an option when a window begins."""
    change = int(replicas[o, t]) - _before(case, replicas, o, t)
    for f, flip in enumerate(case.flips):
        change += int(flips[f, t]) * ((flip.source == o) - (flip.target == o))
    return change


def _usd(case: Problem, replicas: Integers, flips: Integers) -> float:
    usd = case.reserved_usd_per_hour * sum(w.window_s for w in case.windows) / 3600
    horizon_s = sum(w.window_s for w in case.windows)
    for t, window in enumerate(case.windows):
        for o, option in enumerate(case.options):
            change = _change(case, replicas, flips, o, t)
            lost = option.interruptions_per_hour * option.start_s / 3600
            paid_s = int(replicas[o, t]) * window.window_s * (1 + lost)
            paid_s += max(change, 0) * option.start_s + max(-change, 0) * option.drain_s
            if t or case.has_fleet:  # what is not paid when the horizon ends is due by then
                left_s = horizon_s - t * window.window_s
                paid_s += max(change, 0) * max(option.billing_increment_s - left_s, 0.0)
            usd += option.usd_per_hour * (paid_s + 30 * abs(change)) / 3600
        for f, flip in enumerate(case.flips):
            source = case.options[flip.source]
            usd += int(flips[f, t]) * source.usd_per_hour * (flip.flip_s + 30) / 3600
    return usd


def _holds(case: Problem, replicas: Integers, flips: Integers) -> bool:
    windows = range(len(case.windows))
    if not all(_limits_hold(case, replicas, t) for t in windows):
        return False
    if not all(
        _moves_hold(case, replicas, flips, o, t) for o in range(len(case.options)) for t in windows
    ):
        return False
    return all(
        _serves(case, [_serving(case, replicas, flips, o, t) for o in range(len(case.options))], t)
        for t in windows
    )


def _limits_hold(case: Problem, replicas: Integers, t: int) -> bool:
    have = replicas[:, t]
    for limit in case.accelerators:
        used = sum(
            int(n) * o.shape.accelerators
            for n, o in zip(have, case.options, strict=True)
            if o.shape.accelerator == limit.name
        )
        prepaid = sum(
            int(n) * o.shape.accelerators
            for n, o in zip(have, case.options, strict=True)
            if o.shape.accelerator == limit.name and o.prepaid
        )
        if used > limit.inventory or prepaid > limit.reserved:
            return False
    usd = sum(int(n) * o.usd_per_hour for n, o in zip(have, case.options, strict=True))
    usd += case.reserved_usd_per_hour
    if case.usd_per_hour_limit is not None and usd > case.usd_per_hour_limit + 1e-9:
        return False
    in_role = {
        role: [int(n) for n, o in zip(have, case.options, strict=True) if o.shape.role is role]
        for role in Role
    }
    prefill, decode, alone = (sum(in_role[r]) for r in (Role.PREFILL, Role.DECODE, Role.AGGREGATED))
    if (prefill > 0) != (decode > 0) or prefill + alone == 0:
        return False
    for bounds in case.ratios:
        if bounds.min_ratio is not None and prefill < bounds.min_ratio * decode - 1e-9:
            return False
        if bounds.max_ratio is not None and prefill > bounds.max_ratio * decode + 1e-9:
            return False
    if case.spot_share_limit is not None:
        for role in Role:
            spot = sum(
                int(n)
                for n, o in zip(have, case.options, strict=True)
                if o.shape.role is role and o.purchase_option is PurchaseOption.SPOT
            )
            if spot > case.spot_share_limit * sum(in_role[role]) + 1e-9:
                return False
    return True


def _moves_hold(case: Problem, replicas: Integers, flips: Integers, o: int, t: int) -> bool:
    option = case.options[o]
    come = sum(int(flips[f, t]) for f, flip in enumerate(case.flips) if flip.target == o)
    go = sum(int(flips[f, t]) for f, flip in enumerate(case.flips) if flip.source == o)
    change = _change(case, replicas, flips, o, t)
    if t == 0 and not case.has_fleet:
        if come or go:
            return False
    elif any(flip.source == o for flip in case.flips):  # and nothing flips only to stop at once
        # Start-up is shorter than a window here: ready at its end when there at its beginning.
        ready = _before(case, replicas, o, t)
        if t and case.has_fleet and option.start_s > 0:
            ready = min(ready, int(replicas[o, t - 1]))
        if max(-change, 0) + go > ready:
            return False
    if option.max_starts is not None and max(change, 0) + come > option.max_starts:
        return False
    if option.max_stops is not None and max(-change, 0) + go > option.max_stops:
        return False
    if option.min_up_s > 0:
        since = [
            s
            for s in range(t + 1)
            if (t - s) * case.windows[0].window_s < option.min_up_s and (s > 0 or case.has_fleet)
        ]
        started = sum(max(_change(case, replicas, flips, o, s), 0) for s in since)
        if started > replicas[o, t]:
            return False
    return True


def _serving(case: Problem, replicas: Integers, flips: Integers, o: int, t: int) -> int:
    """Replicas that serve in a window.

    Windows are longer than a start-up: what is ordered for window 0 comes as early as it can and
    counts; from then on it counts when it is ready as the window begins.
    """
    have = int(replicas[o, t])
    if t == 0 or not case.has_fleet or case.options[o].start_s == 0:
        return have
    old = int(replicas[o, t - 1])
    for f, flip in enumerate(case.flips):
        old -= int(flips[f, t]) * (flip.source == o)
        old += int(flips[f, t]) * (flip.target == o and flip.flip_s == 0)
    return min(have, old)


def _serves(case: Problem, serving: list[int], t: int) -> bool:
    """Whether traffic can be spread: a linear program over (stream, option)."""
    pairs = [
        (k, o)
        for k in range(len(case.streams))
        for o in range(len(case.options))
        if np.isfinite(case.work[k, o])
    ]
    if case.links and case.kv_bytes is not None:
        return _serves_over_links(case, serving, t)
    equal = np.zeros((2 * len(case.streams), len(pairs)))
    most = np.zeros((len(case.options) + 1, len(pairs)))
    for i, (k, o) in enumerate(pairs):
        role = case.options[o].shape.role
        equal[k, i] = float(role is not Role.DECODE)
        equal[len(case.streams) + k, i] = (role is Role.PREFILL) - float(role is Role.DECODE)
        most[o, i] = case.work[k, o]
        if role is Role.PREFILL and case.kv_bytes is not None:
            most[-1, i] = case.kv_bytes[k]
    capacity = [case.capacity[o, t].at(serving[o]) for o in range(len(case.options))]
    limit = case.transfer_bytes_per_s_limit
    demand = np.concatenate([case.demand_rps[:, t], np.zeros(len(case.streams))])
    if not pairs:
        return not demand.any()
    found = linprog(
        np.zeros(len(pairs)),
        A_ub=most,
        b_ub=np.array([*capacity, 1e9 if limit is None else limit]) + 1e-9,
        A_eq=equal,
        b_eq=demand,
        method="highs",
    )
    return bool(found.success)


def _serves_over_links(case: Problem, serving: list[int], t: int) -> bool:
    """The same with a flow for every way: an aggregated pool, or a prefill and a decode pool."""
    of = {r: [o for o, x in enumerate(case.options) if x.shape.role is r] for r in Role}
    ends = [(o,) for o in of[Role.AGGREGATED]]
    ends += list(product(of[Role.PREFILL], of[Role.DECODE]))
    able, work = np.isfinite(case.work), np.where(np.isfinite(case.work), case.work, 0.0)
    ways = [
        (k, *end) for k in range(len(case.streams)) for end in ends if all(able[k, o] for o in end)
    ]
    demand = case.demand_rps[:, t]
    if not ways:
        return not demand.any()
    equal = np.array([[float(way[0] == k) for way in ways] for k in range(len(case.streams))])
    rows = [[work[w[0], o] * (o in w[1:]) for w in ways] for o in range(len(case.options))]
    high = [case.capacity[o, t].at(serving[o]) for o in range(len(case.options))]
    kv = np.array([case.kv_bytes[w[0]] * (len(w) == 3) for w in ways])  # type: ignore[index]
    on = [tuple(case.options[o].shape.accelerator for o in w[1:]) for w in ways]
    for link in case.links:
        over = [
            len(at) == 2 and link.prefill in (None, at[0]) and link.decode in (None, at[1])
            for at in on
        ]
        rows.append(list(kv * over))
        high.append(link.bytes_per_s)
    if case.transfer_bytes_per_s_limit is not None:
        rows.append(list(kv))
        high.append(case.transfer_bytes_per_s_limit)
    found = linprog(
        np.zeros(len(ways)),
        A_ub=np.array(rows),
        b_ub=np.array(high) + 1e-9,
        A_eq=equal,
        b_eq=demand,
        method="highs",
    )
    return bool(found.success)
