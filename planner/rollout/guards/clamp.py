"""Clamping: the wanted replicas are cut to those that may be, before any step is made."""

from collections.abc import Callable
from dataclasses import replace

from planner.domain.fleet import Fleet
from planner.domain.plan import Plan
from planner.domain.rollout import GuardFinding, Verdict
from planner.domain.spec import LoopMode, Spec
from planner.rollout.diff import Wanted, wanted_of
from planner.rollout.effects import PoolKey
from planner.rollout.guards.between_cells import unmoved
from planner.rollout.guards.case import GuardConditions, Replicas, Wish
from planner.rollout.guards.cautions import (
    broken_template,
    dead_band,
    directions,
    hand_edits,
    one_scale_up_at_a_time,
    paused,
    rate_limits,
    scale_down_stabilization,
    stale_observation,
)
from planner.rollout.guards.moves import Limited, not_worse
from planner.rollout.guards.orders import pinned, pool_bounds, role_bounds, role_mode, zero
from planner.rollout.guards.resources import budget, inventory, max_accelerators
from planner.rollout.guards.stuck import left, stuck

Limit = Callable[[Replicas, Wish], Limited]

ORDERS: dict[str, Limit] = {
    "pool_bounds": pool_bounds,
    "role_bounds": role_bounds,
    "zero": zero,
    "pinned": pinned,
    "role_mode": role_mode,
}
"""What a person set; the later one wins."""

CAUTIONS: dict[str, Limit] = {
    "stale_observation": stale_observation,
    "scale_down_stabilization": scale_down_stabilization,
    "paused": paused,
    "directions": directions,
    "hand_edits": hand_edits,
    "broken_template": broken_template,
    "stuck": stuck,
    "one_scale_up_at_a_time": one_scale_up_at_a_time,
    "dead_band": dead_band,
    "rate_limits": rate_limits,
    "max_accelerators": max_accelerators,
    "budget": budget,
    "inventory": inventory,
}
"""What may happen now. Each only takes a part of the change back, so they can be repeated."""


def clamp(
    fleet: Fleet,
    plan: Plan,
    spec: Spec,
    conditions: GuardConditions,
    *,
    automatic: bool | None = None,
) -> tuple[Wanted, tuple[GuardFinding, ...]]:
    """The part of a plan that may be applied now, and why not the rest.

    Parameters
    ----------
    automatic : bool or None
        Whether no person will have approved it; None: exactly when the loop's mode is `auto`.

    Returns
    -------
    Wanted
        For `diff_to`; what the plan itself wants where nothing is in the way.
    tuple of GuardFinding
        One per limit that cut something, with verdict `clamp`.
    """
    if automatic is None:
        automatic = spec.loop.mode is LoopMode.AUTO
    wanted = wanted_of(fleet, plan)
    wish = Wish(fleet, plan.model, spec, conditions, plan, automatic)
    said: dict[str, list[str]] = {}
    replicas = _limited(dict(wanted.replicas), ORDERS, wish, said)
    ordered = dict(replicas)
    while True:
        before = dict(replicas)
        replicas = _limited(replicas, CAUTIONS, wish, said)
        replicas, reason = not_worse(replicas, ordered, wish)
        _say(said, "not_worse", reason)
        if replicas == before:
            break
    findings = tuple(
        GuardFinding(guard=name, verdict=Verdict.CLAMP, reason="; ".join(reasons))
        for name, reasons in said.items()
    )
    stay, leave = bool(unmoved(wish)), frozenset(left(wish))
    return replace(wanted, replicas=replicas, stay=stay, leave=leave), findings


def _limited(
    replicas: dict[PoolKey, int], limits: dict[str, Limit], wish: Wish, said: dict[str, list[str]]
) -> dict[PoolKey, int]:
    for name, limit in limits.items():
        replicas, reason = limit(replicas, wish)
        _say(said, name, reason)
    return replicas


def _say(said: dict[str, list[str]], name: str, reason: str) -> None:
    if reason and reason not in said.get(name, []):
        said.setdefault(name, []).append(reason)
