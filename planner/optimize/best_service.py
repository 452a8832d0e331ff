"""How far options reach that cannot serve the demand, and which limits keep them from more."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from planner.optimize.problem import Problem
from planner.optimize.solve import attempt

_MORE_RATIO = 1e-3
"""Of the demand: a limit without which so much more is served is in the way."""

_PLENTY = 1_000
"""So many times the inventory is as good as none that limits."""

Lifted = Callable[[Problem], Problem]


def best_service(problem: Problem) -> str:
    """At most so many requests/s, in the window that is worst off, and what limits them.

    A limit is named where without it, and it alone, more would be served; several where only
    without all of them more would.
    """
    if not problem.options or not any(problem.load_rps(t) > 0 for t in problem.window_indices):
        return "cannot answer a request"
    served = _served_rps(problem)
    if served is None:
        return "cannot serve: no fleet of it keeps the limits"
    missing = [problem.load_rps(t) - served[t] for t in problem.window_indices]
    t = int(np.argmax(missing))
    demand = problem.load_rps(t)
    text = f"cannot serve: at most {served[t]:.3g} of {demand:.3g} requests/s in time"
    there = list(_limits(problem))
    binding = [name for name, lift in there if _serves_more(lift(problem), served[t], t)]
    if binding:
        return f"{text}, limited by {' and by '.join(binding)}"
    everything = problem
    for _, lift in there:
        everything = lift(everything)
    if len(there) > 1 and _serves_more(everything, served[t], t):
        return f"{text}, limited by {', '.join(name for name, _ in there)} together"
    return f"{text}, however many replicas there are"


def _served_rps(problem: Problem) -> list[float] | None:
    """Requests/s in every window if as little as possible stays unserved; None: not found."""
    found = attempt(replace(problem, best_effort=True))
    if found is None or not found.feasible:
        return None
    short = found.shortfall_rps
    return [problem.load_rps(t) - float(short[t]) for t in problem.window_indices]


def _serves_more(problem: Problem, served_rps: float, t: int) -> bool:
    """Whether more is served in window `t`, taken by itself."""
    lifted = _served_rps(problem)
    return lifted is not None and lifted[t] > served_rps + _MORE_RATIO * problem.load_rps(t)


def _limits(problem: Problem) -> Iterator[tuple[str, Lifted]]:
    """Every limit that is set, by the field of the spec, and the problem without it."""
    if problem.transfer_bytes_per_s_limit is not None:
        rate = problem.transfer_bytes_per_s_limit / 1e9
        yield (
            f"KV transfers ({rate:.3g} GB/s, planning.transfer_bytes_per_s)",
            lambda p: replace(p, transfer_bytes_per_s_limit=None),
        )
    if problem.links:
        yield "KV transfers (planning.transfer_links)", lambda p: replace(p, links=())
    if problem.usd_per_hour_limit is not None:
        yield "the budget (budget.usd_per_hour)", lambda p: replace(p, usd_per_hour_limit=None)
    if problem.power_w_limit is not None:
        yield "the power (budget.power_w)", lambda p: replace(p, power_w_limit=None)
    if problem.ratios:
        yield "the ratio of prefill to decode replicas", lambda p: replace(p, ratios=())
    if problem.spot_share_limit is not None:
        yield "planning.spot_share_limit", lambda p: replace(p, spot_share_limit=None)
    if problem.one_shape_per_role:
        yield "planning.one_shape_per_role", lambda p: replace(p, one_shape_per_role=False)
    if any(bounds.max_replicas is not None for bounds in problem.bounds):
        yield "max_replicas", _without_most
    if any(o.max_starts is not None or o.max_stops is not None for o in problem.options):
        yield "max_starts and max_stops", _without_ramps
    yield "the inventory", _with_plenty


def _without_most(problem: Problem) -> Problem:
    bounds = tuple(replace(b, max_replicas=None) for b in problem.bounds)
    return replace(problem, bounds=bounds)


def _without_ramps(problem: Problem) -> Problem:
    options = tuple(replace(o, max_starts=None, max_stops=None) for o in problem.options)
    return replace(problem, options=options)


def _with_plenty(problem: Problem) -> Problem:
    """With more accelerators of every type than are needed for the demand."""
    limits = tuple(
        replace(a, inventory=a.inventory + _PLENTY * a.per_node) for a in problem.accelerators
    )
    return replace(problem, accelerators=limits)
