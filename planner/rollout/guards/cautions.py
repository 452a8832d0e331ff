"""Limits by caution: what may come or go at this moment. They never go beyond what is there now.

Each takes the wanted replicas and gives those that may be, with a reason where they differ.
"""

from datetime import timedelta

from planner.domain.fleet import Role
from planner.domain.guards import Pause, RateLimit
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import Plan
from planner.domain.wording import counted
from planner.rollout.capacity import replica_rps
from planner.rollout.effects import PoolKey, pools_by_key
from planner.rollout.guards.case import Recommended, Replicas, Wish
from planner.rollout.guards.moves import Limited, accelerators_of, not_larger, not_smaller


def stale_observation(wanted: Replicas, wish: Wish) -> Limited:
    """Without a fresh observation no capacity is taken away: no data is never zero."""
    conditions, limit_s = wish.conditions, wish.spec.guards.stale_observation_s
    if conditions.falling_back:
        return dict(wanted), ""
    if conditions.observed_at is None:
        return not_smaller(wanted, wish, "the load was never observed")
    age_s = (conditions.now - conditions.observed_at).total_seconds()
    if age_s <= limit_s:
        return dict(wanted), ""
    return not_smaller(
        wanted, wish, f"the last observation is {age_s:.0f} s old (limit {limit_s:.0f} s)"
    )


def scale_down_stabilization(wanted: Replicas, wish: Wish) -> Limited:
    """No role gets less than any decision within the window wanted; growth never waits.

    As in an HPA the largest recommendation counts, and what is there where nobody knows. Judged on
    capacity, so that other pools may take the place of some, and only where accelerators would go;
    an idle service needs nothing.
    """
    conditions, wait_s = wish.conditions, wish.spec.guards.scale_down_stabilization_s
    fewer = accelerators_of(wanted) < accelerators_of(wish.present)
    if not fewer or conditions.falling_back or conditions.idle_s >= wait_s:
        return dict(wanted), ""
    since = conditions.recommended_since
    known_s = 0.0 if since is None else (conditions.now - since).total_seconds()
    why = f"more were wanted within the last {wait_s:.0f} s"
    if known_s < wait_s:
        why = f"what is needed is known for only {known_s:.0f} s (required {wait_s:.0f} s)"
    result, reasons = dict(wanted), []
    for role in Role:
        floor = _role_rps(wish.present, role, wish)
        if known_s >= wait_s:
            asked = [_role_rps(_asked(r, wish), role, wish) for r in conditions.recommended]
            floor = min(floor, max(asked, default=0.0))
        result, stay = _kept_to(result, floor, role, wish)
        if stay:
            reasons.append(f"{stay} of {role} stay that would go: {why}")
    return result, "; ".join(reasons)


def _kept_to(
    wanted: dict[PoolKey, int], floor_rps: float, role: Role, wish: Wish
) -> tuple[dict[PoolKey, int], int]:
    """With so many of the role's replicas that would go as the floor takes; how many that are."""
    present, result, stay = wish.present, dict(wanted), 0
    going = [k for k in sorted(present) if k.shape.role is role]
    while _role_rps(result, role, wish) < floor_rps * (1 - 1e-9):
        key = next((k for k in going if result.get(k, 0) < present[k]), None)
        if key is None:
            break
        result[key] = result.get(key, 0) + 1
        stay += 1
    return result, stay


def _role_rps(replicas: Replicas, role: Role, wish: Wish) -> float:
    own = [(k.shape, n) for k, n in replicas.items() if k.shape.role is role and n]
    return sum(n * replica_rps(shape, wish.spec) for shape, n in own)


def _asked(recommended: Recommended, wish: Wish) -> Replicas:
    """What a decision wanted of the pools that there are."""
    shapes = [p.shape for p in wish.spec.pools if p.shape.model == wish.model]
    keys = {s.label: PoolKey(s, PurchaseOption.ON_DEMAND) for s in shapes}
    keys |= {key.shape.label: key for key in wish.present}
    return {keys[p.pool]: p.replicas for p in recommended.pools if p.pool in keys}


def hand_edits(wanted: Replicas, wish: Wish) -> Limited:
    """What somebody else changed lately is not changed back: two would only fight over it."""
    hold_s, result, reasons = wish.spec.guards.hand_edit_hold_s, dict(wanted), []
    for edit in wish.conditions.edits:
        until = edit.at + timedelta(seconds=hold_s)
        if wish.conditions.now >= until:
            continue
        keep = max if edit.found > edit.was else min
        kept = {
            k: keep(n, wish.present.get(k, 0)) if k.shape.label == edit.pool else n
            for k, n in result.items()
        }
        if kept != result:
            reasons.append(
                f"{edit.pool} was changed from {edit.was} to {counted(edit.found, 'replica')} by "
                "somebody "
                f"else: that is not changed back before {until:%H:%M} UTC"
            )
        result = kept
    return result, "; ".join(reasons)


def broken_template(wanted: Replicas, wish: Wish) -> Limited:
    """What did not start is not tried again for a while, which is longer each time.

    Another template ends that (the caller no longer tells of it), and so does a person who pins
    the pool at run time.
    """
    result, reasons = dict(wanted), []
    ordered = {pin.pool for pin in wish.conditions.pins}
    for one in wish.conditions.broken:
        if wish.conditions.now >= one.until or one.pool in ordered:
            continue
        kept = {
            k: min(n, wish.present.get(k, 0)) if k.shape.label == one.pool else n
            for k, n in result.items()
        }
        if kept != result:
            times = "once" if one.times == 1 else f"{one.times} times in a row"
            reasons.append(
                f"replicas of {one.pool} did not start, {times} ({one.why}): none is tried again "
                f"before {one.until:%Y-%m-%d %H:%M} UTC, unless its pod template changes or "
                "somebody pins the pool"
            )
        result = kept
    return result, "; ".join(reasons)


def paused(wanted: Replicas, wish: Wish) -> Limited:
    """A pause of one direction holds what goes in that direction, and nothing else."""
    pauses = {wish.conditions.paused, wish.spec.guards.pause}
    result, reason = dict(wanted), ""
    if pauses & {Pause.IN, Pause.ALL}:
        result, reason = not_smaller(result, wish, "scaling in is paused")
    if pauses & {Pause.OUT, Pause.ALL}:
        result, more = not_larger(result, wish, "scaling out is paused")
        reason = "; ".join(filter(None, (reason, more)))
    return result, reason


def directions(wanted: Replicas, wish: Wish) -> Limited:
    """A direction that the spec disables is never taken."""
    result, reason = dict(wanted), ""
    if not wish.spec.guards.scale_down.enabled:
        result, reason = not_smaller(result, wish, "guards.scale_down is disabled")
    if not wish.spec.guards.scale_up.enabled:
        result, more = not_larger(result, wish, "guards.scale_up is disabled")
        reason = "; ".join(filter(None, (reason, more)))
    return result, reason


def one_scale_up_at_a_time(wanted: Replicas, wish: Wish) -> Limited:
    """While replicas of a role start, they are counted and no further ones are started."""
    if not wish.spec.guards.one_scale_up_at_a_time or wish.conditions.completing:
        return dict(wanted), ""
    pools = pools_by_key(wish.fleet).items()
    result, reasons = dict(wanted), []
    for role in Role:
        own = [p for k, p in pools if (k.shape.role, k.shape.model) == (role, wish.model)]
        starting = sum(p.starting for p in own)
        if starting == 0:
            continue
        result, reason = not_larger(result, wish, f"{starting} of {role} are starting", role=role)
        reasons.append(reason)
    return result, "; ".join(filter(None, reasons))


def rate_limits(wanted: Replicas, wish: Wish) -> Limited:
    """At most so many replicas of a role come, or go, within a period."""
    if wish.conditions.completing:
        return dict(wanted), ""
    result, reasons = dict(wanted), []
    for role in Role:
        for up in (True, False):
            result, reason = _rate_limited(result, wish, role, up=up)
            reasons.append(reason)
    return result, "; ".join(filter(None, reasons))


def _rate_limited(wanted: dict[PoolKey, int], wish: Wish, role: Role, *, up: bool) -> Limited:
    limit = wish.spec.guards.scale_up if up else wish.spec.guards.scale_down
    present = wish.present
    allowed = limit.allowed(wish.of_role(present, role))
    if allowed is None:
        return wanted, ""
    left = max(0, allowed - _recently(wish, role, limit, up=up))
    sign = 1 if up else -1
    keys = [k for k in sorted(wanted) if k.shape.role is role]
    moves = {k: sign * (wanted[k] - present.get(k, 0)) for k in keys}
    asked = sum(n for n in moves.values() if n > 0)
    if asked <= left:
        return wanted, ""
    result = dict(wanted)
    for _ in range(asked - left):
        key = max(keys, key=lambda k: sign * (result[k] - present.get(k, 0)))
        result[key] -= sign
    way = "come" if up else "go"
    return result, (
        f"{counted(asked, 'replica')} of {role} would {way}, {left} of {allowed} per "
        f"{limit.period_s:g} s "
        "are left"
    )


def _recently(wish: Wish, role: Role, limit: RateLimit, *, up: bool) -> int:
    now = wish.conditions.now
    recent = [
        c
        for c in wish.conditions.recent
        if c.role is role and (now - c.at).total_seconds() < limit.period_s
    ]
    return sum(c.added if up else c.removed for c in recent)


def dead_band(wanted: Replicas, wish: Wish) -> Limited:
    """While the load is about what the fleet was planned for, counts stay as they are.

    Judged on the load (in replicas' worth of work), not on the counts: 10 -> 11 replicas may be a
    large change of load, and 1 -> 2 a small one.
    """
    if wish.plan is None or wish.conditions.last_plan is None or wish.conditions.completing:
        return dict(wanted), ""
    changes = _load_changes(wish.conditions.last_plan, wish.plan, wish)
    if not changes:
        return dict(wanted), ""
    up = wish.spec.guards.scale_up_tolerance_ratio
    down = wish.spec.guards.scale_down_tolerance_ratio
    result, reasons = dict(wanted), []
    said = ", ".join(f"{role} {ratio:+.1%}" for role, ratio in changes.items())
    if all(abs(ratio) <= down for ratio in changes.values()):
        result, reason = not_smaller(
            result, wish, f"the load differs by {said} from the planned one (dead band {down:g})"
        )
        reasons.append(reason)
    if all(abs(ratio) <= up for ratio in changes.values()) and up > 0:
        result, reason = not_larger(
            result, wish, f"the load differs by {said} from the planned one (dead band {up:g})"
        )
        reasons.append(reason)
    return result, "; ".join(filter(None, reasons))


def _load_changes(before: Plan, now: Plan, wish: Wish) -> dict[Role, float]:
    """Load of every role over the one that the fleet was made for, minus 1.

    Empty where the fleet is not the one that `before` led to: then it has to be corrected.
    """
    had = {PoolKey(p.shape, p.purchase_option): p.replicas for p in before.windows[0].pools}
    present = {k: n for k, n in wish.present.items() if n}
    if before.model != now.model or {k: n for k, n in had.items() if n} != present:
        return {}
    old, new = _loads(before, wish), _loads(now, wish)
    return {role: new.get(role, 0.0) / load - 1.0 for role, load in old.items() if load > 0}


def _loads(plan: Plan, wish: Wish) -> dict[Role, float]:
    loads = dict.fromkeys(Role, 0.0)
    for pool in plan.windows[0].pools:
        work = pool.replicas * pool.utilization_ratio * replica_rps(pool.shape, wish.spec)
        loads[pool.shape.role] += work
    return loads
