"""Replicas that did not come in time: taken back, unless an order says that nothing may go."""

from planner.domain.guards import Pause, RoleMode
from planner.domain.rollout import Verdict
from planner.rollout.effects import PoolKey, pool_at, pools_by_key
from planner.rollout.guards.case import Case, Judgement, Replicas, Wish
from planner.rollout.guards.moves import Limited


def left(wish: Wish) -> dict[PoolKey, str]:
    """Pools whose stuck replicas may not be taken back now, and why."""
    settings, reason = wish.spec.guards, ""
    if not settings.scale_down.enabled:
        reason = "guards.scale_down is disabled"
    if {wish.conditions.paused, settings.pause} & {Pause.IN, Pause.ALL}:
        reason = "scaling in is paused"
    held = {RoleMode.OFF, RoleMode.ADVISE} if wish.automatic else {RoleMode.OFF}
    found = {}
    for key, pool in pools_by_key(wish.fleet).items():
        mode = settings.of_role(key.shape.role).mode
        why = f"the mode of {key.shape.role} is {mode}" if mode in held else reason
        if pool.stuck and key.shape.model == wish.model and why:
            found[key] = why
    return found


def stuck(wanted: Replicas, wish: Wish) -> Limited:
    """A pool whose stuck replicas may not be taken back gets no further ones: they would wait."""
    present, pools = wish.present, pools_by_key(wish.fleet)
    result, reasons = dict(wanted), []
    for key, why in left(wish).items():
        kept = min(result.get(key, 0), present.get(key, 0))
        if kept < result.get(key, 0):
            reasons.append(
                f"{pool_at(pools, key).stuck} of {key.shape.label} do not come and may not be "
                f"taken back ({why}): {result[key] - kept} more do not come either"
            )
            result[key] = kept
    return result, "; ".join(reasons)


def taken_back(case: Case) -> Judgement:
    """Nothing is taken back that has to be left."""
    after, before = pools_by_key(case.outcome), pools_by_key(case.before)
    for key, why in left(case.wish).items():
        if pool_at(after, key).stuck < pool_at(before, key).stuck:
            return Verdict.REFUSE, f"a stuck replica of {key.shape.label} would go: {why}"
    return None
