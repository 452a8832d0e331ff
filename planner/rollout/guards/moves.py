"""Making a wanted change smaller: without its shrinking, without its growth, cut in turns."""

from collections.abc import Callable
from dataclasses import replace

from planner.domain.fleet import Role
from planner.domain.wording import agreed, counted
from planner.rollout.capacity import capacity, rates, worse_of
from planner.rollout.effects import PoolKey, Pools, pool_at
from planner.rollout.guards.case import Replicas, Wish

Limited = tuple[dict[PoolKey, int], str]
"""Replicas that may be, and why they are not those wanted; empty: they are."""


def not_smaller(wanted: Replicas, wish: Wish, why: str) -> Limited:
    """No pool loses replicas."""
    present = wish.present
    kept = {k: max(n, present.get(k, 0)) for k, n in wanted.items()}
    gone = sum(kept[k] - n for k, n in wanted.items())
    return (
        kept,
        f"{counted(gone, 'replica')} {agreed(gone, 'stays', 'stay')} that would go: {why}"
        if gone
        else "",
    )


def not_larger(wanted: Replicas, wish: Wish, why: str, *, role: Role | None = None) -> Limited:
    """No pool (of a role) gains replicas."""
    present = wish.present
    kept = {
        k: min(n, present.get(k, 0)) if role in (None, k.shape.role) else n
        for k, n in wanted.items()
    }
    spared = sum(n - kept[k] for k, n in wanted.items())
    return (
        kept,
        f"{counted(spared, 'replica')} {agreed(spared, 'does', 'do')} not come that would: {why}"
        if spared
        else "",
    )


def growth_cut(
    wanted: Replicas,
    wish: Wish,
    fits: Callable[[Replicas], bool],
    *,
    accelerator: str | None = None,
) -> dict[PoolKey, int]:
    """Growth taken back one by one until it fits, from the pool that keeps most of its own.

    Prefill and decode so shrink in turns. What is there already is never cut.
    """
    present, result = wish.present, dict(wanted)
    asked = {
        k: n - present.get(k, 0)
        for k, n in wanted.items()
        if n > present.get(k, 0) and accelerator in (None, k.shape.accelerator)
    }
    left = dict(asked)
    while not fits(result) and any(left.values()):
        key = max((k for k in left if left[k]), key=lambda k: (left[k] / asked[k], k))
        left[key] -= 1
        result[key] -= 1
    return result


def not_worse(wanted: Replicas, ordered: Replicas, wish: Wish) -> Limited:
    """What would take the place of replicas may not come, so these stay.

    Parameters
    ----------
    ordered : mapping
        What was wanted before cautions cut it. No role, nor the service, ends with less capacity
        than the worse of that and of what is there now.
    """
    present = wish.present
    result = {**dict.fromkeys(present, 0), **wanted}
    each_rps = rates({**present, **ordered, **result}, wish.spec)
    ends = [
        capacity(_ready(replicas), each_rps, model=wish.model) for replicas in (present, ordered)
    ]
    floor = worse_of(*ends)
    reasons = []
    shrunk = sorted(k for k, n in result.items() if n < present.get(k, 0))
    while shrunk:
        have = capacity(_ready(result), each_rps, model=wish.model)
        if have.lowest_ratio(floor) >= 1 - 1e-9:
            break
        lacking = [r for r in Role if have.of_role(r) < floor.of_role(r) * (1 - 1e-9)]
        key = next((k for k in shrunk if k.shape.role in lacking), shrunk[0])
        result[key] += 1
        reasons.append(key.shape.label)
        shrunk = sorted(k for k, n in result.items() if n < present.get(k, 0))
    kept = ", ".join(f"{reasons.count(label)} {label}" for label in dict.fromkeys(reasons))
    return result, f"{kept} stay: what would take their place may not come" if kept else ""


def accelerators_of(replicas: Replicas, name: str | None = None) -> int:
    """Accelerators (of a type) that the replicas occupy."""
    return sum(
        n * k.shape.accelerators for k, n in replicas.items() if name in (None, k.shape.accelerator)
    )


def _ready(replicas: Replicas) -> Pools:
    return {key: replace(pool_at({}, key), ready=count) for key, count in replicas.items()}
