"""The constraints that join windows: lead times, starts and stops, flips, up-time, ramp.

As in `planner.optimize.constraints`: one function each, its equation first, its rows named after
it.
"""

import numpy as np

from planner.optimize.linear import LinearModel, Term
from planner.optimize.problem import Problem
from planner.optimize.variables import Variables


def order_in_time(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every o, t, s in order_window[o,t]..t: usable[o,t] <= replicas[o,s] + flipped[o,s,t].

    Replicas. Capacity counts when it is ready, not when it is ordered. `flipped[o,s,t]` are those
    that changed their role to `o` after window s began, in time to serve in t, less those that
    changed it away from `o`.
    """
    for o, option in enumerate(problem.options):
        for t in problem.window_indices:
            for s in range(problem.order_window(option.start_s, t), t + 1):
                terms = (1.0, v.usable[o, t]), (-1.0, v.replicas[o, s])
                flipped = _flipped(problem, v, o, t, after=s)
                model.row("order_in_time", (option.label, t, s), *terms, flipped, high=0.0)


def use_what_is_there(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every o, t over before a new replica is ready: usable[o,t] <= initial[o] + flipped[o,t].

    Replicas. What is ordered now does not serve a window that ends before it is there.
    """
    for o, option in enumerate(problem.options):
        for t in problem.window_indices:
            if problem.comes_too_late(o, t):
                flipped = _flipped(problem, v, o, t, after=-1)
                there = float(option.initial_replicas)
                index = option.label, t
                model.row("use_what_is_there", index, (1.0, v.usable[o, t]), flipped, high=there)


def count_changes(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every o, t: starts - stops + flips_in - flips_out == replicas[o,t] - replicas[o,t-1].

    Replicas; before window 0 there is the current fleet. Without one, window 0 is free.
    """
    for o, option in enumerate(problem.options):
        come, go = list(problem.flips_of(target=o)), list(problem.flips_of(source=o))
        for t in problem.window_indices:
            changes = (1.0, v.starts[o, t]), (-1.0, v.stops[o, t]), (-1.0, v.replicas[o, t])
            flips = (1.0, v.flips[come, t]), (-1.0, v.flips[go, t])
            before = float(option.initial_replicas)
            if t == 0 and not problem.has_fleet:
                none = (1.0, v.starts[o, t]), (1.0, v.stops[o, t])
                model.row("count_changes", (option.label, t), *none, *flips[:1], high=0.0)
            else:
                past = ((1.0, v.replicas[o, t - 1]),) if t else ()
                left = 0.0 if t else -before
                terms = (*changes, *flips, *past)
                model.row("count_changes", (option.label, t), *terms, low=left, high=left)


def flip_what_is_ready(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every o, t, s in ready_since[o,t]: stops[o,t] + sum_{f from o} flips <= replicas[o,s].

    Replicas. Only what is ready when the window begins can change its role; before anything new
    can be, these are the replicas of the current fleet.
    """
    for o, option in enumerate(problem.options):
        go = list(problem.flips_of(source=o))
        for t in problem.window_indices if go else ():
            leaves = (1.0, v.stops[o, t]), (1.0, v.flips[go, t])
            since = problem.ready_since(o, t)
            for s in since or ():
                index = option.label, t, s
                model.row("flip_what_is_ready", index, *leaves, (-1.0, v.replicas[o, s]), high=0.0)
            if since is None and t == 0:
                there = float(option.initial_replicas if problem.has_fleet else 0)
                model.row("flip_what_is_ready", (option.label, t), *leaves, high=there)
            elif since is None:
                flips, there = (1.0, v.flips[go, t]), float(option.initial_replicas)
                model.row("flip_what_is_ready", (option.label, t), flips, high=there)


def keep_up_time(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every o, t: sum_{s in up_windows[o,t]} starts[o,s] <= replicas[o,t].

    Replicas. What was started less than `min_up_s` ago is still there (minimum up-time, or what is
    billed anyway).

    References
    ----------
    The turn-on inequality of unit commitment: Rajan and Takriti, IBM RC23628 (2005), eq. 4.
    """
    for o, option in enumerate(problem.options):
        for t in problem.window_indices if option.min_up_s > 0 else ():
            recent = list(problem.up_windows(o, t))
            terms = (1.0, v.starts[o, recent]), (-1.0, v.replicas[o, t])
            model.row("keep_up_time", (option.label, t), *terms, high=0.0)


def limit_starts(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every o, t: starts[o,t] + sum_{f to o} flips[f,t] <= max_starts[o].

    Replicas: the ramp limit.
    """
    for o, option in enumerate(problem.options):
        come = list(problem.flips_of(target=o))
        for t in problem.window_indices if option.max_starts is not None else ():
            terms = (1.0, v.starts[o, t]), (1.0, v.flips[come, t])
            model.row("limit_starts", (option.label, t), *terms, high=float(option.max_starts or 0))


def limit_stops(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every o, t: stops[o,t] + sum_{f from o} flips[f,t] <= max_stops[o].

    Replicas: the disruption limit.
    """
    for o, option in enumerate(problem.options):
        go = list(problem.flips_of(source=o))
        for t in problem.window_indices if option.max_stops is not None else ():
            terms = (1.0, v.stops[o, t]), (1.0, v.flips[go, t])
            model.row("limit_stops", (option.label, t), *terms, high=float(option.max_stops or 0))


def _flipped(problem: Problem, v: Variables, o: int, t: int, *, after: int) -> Term:
    """Less the replicas that flips after window `after` began add to those that serve in `t`."""
    found = problem.flipped(o, t, after=after)
    signs = np.array([-float(sign) for _, _, sign in found])
    return signs, [int(v.flips[f, u]) for f, u, _ in found]
