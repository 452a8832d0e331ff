"""Rows of links between pools that bind: full, or without room for what would be cheaper."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from planner.domain.fleet import Role
from planner.optimize.inputs import LinkLimit
from planner.optimize.links import carried_bytes_per_s
from planner.optimize.problem import Problem
from planner.optimize.solution import Solution

Found = Iterator[tuple[str, str]]
"""(row, sentence)"""

_FULL = 0.99
"""A link that is used so far is told as full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Swap:
    """One replica less of an option, and another one that would take its requests for less.

    Parameters
    ----------
    dear, cheap : int
        Options `o`.
    bytes_per_s : float
        What would move over the link beside what does, at the most one replica's requests.
    """

    dear: int
    cheap: int
    bytes_per_s: float


def link_rows(problem: Problem, solution: Solution, t: int) -> Found:
    """Full links, those without room for what would be cheaper, and the pools at their ends."""
    carried = carried_bytes_per_s(problem, solution.moved_rps, t) if problem.link_pairs else []
    full = [
        link
        for link, moved in zip(problem.links, carried, strict=False)
        if moved > _FULL * link.bytes_per_s
    ]
    for link, moved in zip(problem.links, carried, strict=False):
        if link not in full and (swap := _cheaper_over(problem, solution, link, moved, t)):
            yield f"keep_links[{link.label},{t}]", _no_room(problem, link, moved, swap, t)
    for link in full:
        yield (
            f"keep_links[{link.label},{t}]",
            f"window {t}: KV transfers {link.label} take all of {link.bytes_per_s / 1e9:.3g} "
            "GB/s (planning.transfer_links)",
        )
    if not full:
        return
    for k, stream in enumerate(problem.streams):
        for side, role, row in (
            (0, Role.PREFILL, "move_what_is_prefilled"),
            (1, Role.DECODE, "decode_what_is_moved"),
        ):
            for name in dict.fromkeys(pair[side] for pair in problem.link_pairs):
                on = [o for o in problem.serving(k, role) if o in problem.on(name)]
                sent = float(solution.sent_rps[k, on, t].sum())
                if sent > 0 and any(
                    name in (link.prefill, link.decode)[side : side + 1] for link in full
                ):
                    yield (
                        f"{row}[{stream.label},{name},{t}]",
                        f"window {t}: {role} replicas on {name} take {sent:.3g} requests/s of "
                        f"{stream.label}, as a link of theirs is full (planning.transfer_links)",
                    )


def _no_room(problem: Problem, link: LinkLimit, moved: float, swap: _Swap, t: int) -> str:
    cheap, dear = problem.options[swap.cheap].label, problem.options[swap.dear].label
    return (
        f"window {t}: KV transfers {link.label} take {moved / 1e9:.3g} of "
        f"{link.bytes_per_s / 1e9:.3g} GB/s (planning.transfer_links); one more {cheap} in place "
        f"of a dearer {dear} would move {swap.bytes_per_s / 1e9:.3g} GB/s more"
    )


def _cheaper_over(
    problem: Problem, solution: Solution, link: LinkLimit, moved: float, t: int
) -> _Swap | None:
    """A cheaper replica beyond the link that there is not enough room for; None: there is."""
    for role, other in ((Role.DECODE, Role.PREFILL), (Role.PREFILL, Role.DECODE)):
        ends = {
            problem.options[o].shape.accelerator
            for o in problem.in_role(other)
            if solution.sent_rps[:, o, t].any()
        }

        def crosses(o: int, role: Role = role, ends: set[str] = ends) -> bool:
            own = problem.options[o].shape.accelerator
            pairs = ((own, e) if role is Role.PREFILL else (e, own) for e in ends)
            return all(link.carries(a, b) for a, b in pairs)

        of = problem.in_role(role)
        for dear in of if ends else ():
            if crosses(dear) or not solution.sent_rps[:, dear, t].any():
                continue
            for cheap in of:
                more = _moved_by(problem, solution, dear, cheap, t)
                if crosses(cheap) and more > 0 and moved + more > link.bytes_per_s:
                    return _Swap(dear=dear, cheap=cheap, bytes_per_s=more)
    return None


def _moved_by(problem: Problem, solution: Solution, dear: int, cheap: int, t: int) -> float:
    """KV cache of what one more cheap replica would take from one dear one, bytes/s.

    0 where it would not be cheaper for the same requests, or is not to be had.
    """
    if problem.kv_bytes is None or not _to_be_had(problem, solution, cheap, t):
        return 0.0
    have = int(solution.usable[cheap, t])
    pool = problem.capacity[cheap, t]
    able = np.isfinite(problem.work[:, cheap])
    each = solution.sent_rps[able, dear, t] / max(int(solution.usable[dear, t]), 1)
    load = float(problem.work[able, cheap] @ each)
    takes = min(pool.at(have + 1) - pool.at(have), load)
    if load <= 0 or takes <= 0:
        return 0.0
    usd, saved = (problem.options[o].usd_per_hour for o in (cheap, dear))
    return (
        float(problem.kv_bytes[able] @ each) * takes / load if usd * load < saved * takes else 0.0
    )


def _to_be_had(problem: Problem, solution: Solution, o: int, t: int) -> bool:
    """Whether inventory and bounds leave one more of an option."""
    shape = problem.options[o].shape
    used = sum(
        problem.options[i].shape.accelerators * int(solution.replicas[i, t])
        for i in problem.on(shape.accelerator)
    )
    (limit,) = (a for a in problem.limits_in(t) if a.name == shape.accelerator)
    room = used + shape.accelerators <= limit.inventory
    return room and int(solution.replicas[o, t]) < problem.max_replicas_in(t)[o]
