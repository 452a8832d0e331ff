"""Limits that a person set: roles left alone, pins, hard bounds, zero. They change what is wanted.

Each takes the wanted replicas and gives those that may be, with a reason where they differ.
"""

from planner.domain.fleet import Role
from planner.domain.guards import Pin, RoleMode
from planner.domain.wording import counted
from planner.rollout.effects import PoolKey
from planner.rollout.guards.case import Replicas, Wish
from planner.rollout.guards.moves import Limited


def role_mode(wanted: Replicas, wish: Wish) -> Limited:
    """A role that is off is left alone; one that is advised only moves by a person."""
    held = {RoleMode.OFF, RoleMode.ADVISE} if wish.automatic else {RoleMode.OFF}
    result, reasons = dict(wanted), []
    for role in Role:
        mode = wish.spec.guards.of_role(role).mode
        if mode not in held:
            continue
        kept = _as_present(result, wish, role)
        if kept != result:
            reasons.append(
                f"{role} stays at {counted(wish.of_role(kept, role), 'replica')}, "
                f"{wish.of_role(result, role)} are recommended: its mode is {mode}"
            )
        result = kept
    return result, "; ".join(reasons)


def pinned(wanted: Replicas, wish: Wish) -> Limited:
    """A pinned pool has the replicas that it is pinned to, whatever is wanted."""
    result, reasons = dict(wanted), []
    for pin in pins_of(wish):
        keys = [key for key in sorted(result) if key.shape.label == pin.pool]
        have = sum(result[key] for key in keys)
        if not keys or have == pin.replicas:
            continue
        result = result | dict.fromkeys(keys, 0)
        result[keys[0]] = pin.replicas
        reasons.append(
            f"{pin.pool} is pinned to {counted(pin.replicas, 'replica')}, {have} are recommended"
        )
    return result, "; ".join(reasons)


def pins_of(wish: Wish) -> tuple[Pin, ...]:
    """Pins of the spec, and those of run time, which win where both are about one pool."""
    pins = {pin.pool: pin for pin in (*wish.spec.guards.pins, *wish.conditions.pins)}
    return tuple(pins.values())


def pool_bounds(wanted: Replicas, wish: Wish) -> Limited:
    """No pool outside `min_replicas` and `max_replicas`; one that is outside may come nearer."""
    result, reasons = dict(wanted), []
    for bounds in wish.spec.pools:
        keys = [key for key in sorted(result) if key.shape == bounds.shape]
        have = sum(result[key] for key in keys)
        now = sum(wish.present.get(key, 0) for key in keys)
        most = bounds.max_replicas
        allowed = max(have, min(bounds.min_replicas, max(now, have + 1)))
        if most is not None and have > most:
            allowed = max(most, min(have, now))
        if keys and allowed != have:
            result = _changed(result, keys, allowed - have)
            limits = f"at least {bounds.min_replicas}" if allowed > have else f"at most {most}"
            reasons.append(
                f"{bounds.shape.label}: {counted(have, 'replica')} wanted, {limits}: {allowed}"
            )
    return result, "; ".join(reasons)


def role_bounds(wanted: Replicas, wish: Wish) -> Limited:
    """No role outside its hard limits, over all its pools."""
    result, reasons = dict(wanted), []
    for role in Role:
        limits = wish.spec.guards.of_role(role)
        keys = [key for key in sorted(result) if key.shape.role is role]
        have, now = wish.of_role(result, role), wish.of_role(wish.present, role)
        allowed = max(have, limits.min_replicas)
        if limits.max_replicas is not None and have > limits.max_replicas:
            allowed = max(limits.max_replicas, min(have, now))
        if keys and allowed != have:
            result = _changed(result, keys, allowed - have)
            said = f"at most {limits.max_replicas}"
            if allowed > have:
                said = f"at least {limits.min_replicas}"
            reasons.append(f"{role}: {counted(have, 'replica')} wanted, {said}: {allowed}")
    return result, "; ".join(reasons)


def zero(wanted: Replicas, wish: Wish) -> Limited:
    """Prefill and decode go to zero together, when nothing came for long, and come back together.

    Half a pair serves nobody; without `scale_to_zero` one way to answer is kept.
    """
    settings, conditions = wish.spec.guards, wish.conditions
    rate_rps = None if wish.plan is None else wish.plan.windows[0].request_rate_rps
    idle = conditions.idle_s >= settings.zero_after_idle_s > 0 or (
        settings.zero_after_idle_s == 0 and conditions.idle_since is not None
    )
    active = rate_rps is None or rate_rps > settings.activation_rps
    if settings.scale_to_zero and idle and not active:
        if not any(wanted.values()):
            return dict(wanted), ""
        return dict.fromkeys(wanted, 0), (
            f"nothing arrived for {conditions.idle_s:.0f} s and {rate_rps or 0:.3g} requests/s are "
            f"forecast (activation above {settings.activation_rps:g}): all roles have 0 replicas"
        )
    return _whole_pairs(dict(wanted), wish)


def _whole_pairs(wanted: dict[PoolKey, int], wish: Wish) -> Limited:
    counts = {role: wish.of_role(wanted, role) for role in Role}
    pair = counts[Role.PREFILL] > 0, counts[Role.DECODE] > 0
    if counts[Role.AGGREGATED] or all(pair):
        return wanted, ""
    reasons = []
    if any(pair):
        lacking = [r for r in (Role.PREFILL, Role.DECODE) if counts[r] == 0]
        why = "the other role of the pair has some, and half a pair serves nobody"
    elif any(wish.present.values()):
        lacking = [r for r in Role if wish.of_role(wish.present, r)]
        why = "without scale_to_zero, or before it is idle for long enough, the service stays up"
    else:
        return wanted, ""
    for role in lacking:
        keys = [k for k in sorted(wanted) if k.shape.role is role]
        if keys:
            keys.sort(key=lambda k: -wish.present.get(k, 0))
            wanted[keys[0]] = 1
            reasons.append(f"{role} keeps 1 replica: {why}")
    return wanted, "; ".join(reasons)


def _as_present(wanted: dict[PoolKey, int], wish: Wish, role: Role) -> dict[PoolKey, int]:
    present = wish.present
    own = {k: present.get(k, 0) for k in {**wanted, **present} if k.shape.role is role}
    return wanted | own


def _changed(wanted: dict[PoolKey, int], keys: list[PoolKey], by: int) -> dict[PoolKey, int]:
    """So many replicas more or fewer over the pools, taken from the largest ones first."""
    result = dict(wanted)
    while by:
        key = max(keys, key=lambda k: result[k])
        result[key] += 1 if by > 0 else -1
        by += -1 if by > 0 else 1
    return result
