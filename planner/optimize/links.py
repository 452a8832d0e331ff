"""Limits on KV transfers between some pools: what crosses a link, pair by pair of accelerators.

A limit names the accelerators that its prefill and decode replicas are on, and so a place in the
topology: machines of one type stand together. `moved` splits what prefill pools send over the
decode pools' accelerators; the router has to send a prompt's cache as the plan says.
"""

from collections.abc import Iterator

from planner.domain.fleet import Role
from planner.optimize.inputs import Floats
from planner.optimize.linear import LinearModel
from planner.optimize.problem import Problem
from planner.optimize.variables import Variables


def move_what_is_prefilled(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every k, a, t: sum_b moved[k,a,b,t] == sum_{o in prefill on a} sent[k,o,t].

    Requests/s; a and b run over the accelerators of prefill and of decode pools. Only where
    `planning.transfer_links` limits some of them.
    """
    for k, name, on, across in _ends(problem, Role.PREFILL):
        _join(model, problem, v, "move_what_is_prefilled", (k, name, on, across))


def decode_what_is_moved(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every k, b, t: sum_a moved[k,a,b,t] == sum_{o in decode on b} sent[k,o,t].

    Requests/s. Only where `planning.transfer_links` limits some transfers.
    """
    for k, name, on, across in _ends(problem, Role.DECODE):
        _join(model, problem, v, "decode_what_is_moved", (k, name, on, across))


def keep_links(model: LinearModel, problem: Problem, v: Variables) -> None:
    """For every link l, t: sum_{k, (a,b) over l} kv_bytes[k] * moved[k,a,b,t] <= bytes_per_s[l].

    Bytes/s of KV cache from prefill to decode replicas that lie at the two ends of the link.
    """
    if problem.kv_bytes is None:
        return
    for link in problem.links:
        over = [i for i, (a, b) in enumerate(problem.link_pairs) if link.carries(a, b)]
        for t in problem.window_indices if over else ():
            terms = [
                (float(problem.kv_bytes[k]) / link.bytes_per_s, v.moved[k, over, t])
                for k in problem.stream_indices
            ]
            model.row("keep_links", (link.label, t), *terms, high=1.0)


_End = tuple[int, str, list[int], list[int]]
"""Stream, accelerator, the pools on it, the pairs that it is part of."""


def _ends(problem: Problem, role: Role) -> Iterator[_End]:
    side = 0 if role is Role.PREFILL else 1
    for k in problem.stream_indices if problem.link_pairs else ():
        able = problem.serving(k, role)
        for name in dict.fromkeys(pair[side] for pair in problem.link_pairs):
            on = [o for o in able if problem.options[o].shape.accelerator == name]
            across = [i for i, pair in enumerate(problem.link_pairs) if pair[side] == name]
            yield k, name, on, across


def _join(model: LinearModel, problem: Problem, v: Variables, row: str, end: _End) -> None:
    k, name, on, across = end
    for t in problem.window_indices:
        terms = (1.0, v.moved[k, across, t]), (-1.0, v.sent[k, on, t])
        model.row(row, (problem.streams[k].label, name, t), *terms, low=0.0, high=0.0)


def carried_bytes_per_s(problem: Problem, moved_rps: Floats, t: int) -> list[float]:
    """What crosses each link in window `t`.

    Parameters
    ----------
    moved_rps : (streams, pairs, windows) float, requests/s
    """
    if problem.kv_bytes is None:
        return [0.0] * len(problem.links)
    each = problem.kv_bytes @ moved_rps[:, :, t]
    return [
        sum(float(each[i]) for i, (a, b) in enumerate(problem.link_pairs) if link.carries(a, b))
        for link in problem.links
    ]
