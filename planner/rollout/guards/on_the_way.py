"""What must hold in every state between two fleets."""

from planner.domain.fleet import Role
from planner.domain.rollout import StepKind, Verdict
from planner.domain.wording import counted
from planner.rollout.diff import floors
from planner.rollout.dip import dip
from planner.rollout.effects import Pools, pools_by_key, ready_in, serves
from planner.rollout.guards.case import Case, Judgement


def disruption_budget(case: Case) -> Judgement:
    """At no time are more replicas out of service than allowed."""
    limit = case.spec.guards.max_disrupted_replicas
    flipping = [step.kind is StepKind.FLIP for step in case.diff.steps]
    draining = [_draining(pools) for pools in case.fleets_on_the_way()]
    worst = max(d + f for d, f in zip(draining, flipping, strict=True))
    if worst <= max(limit, 0) or not case.kinds & {StepKind.DRAIN, StepKind.FLIP}:
        return None
    return (
        Verdict.DELAY,
        f"{counted(worst, 'replica')} would be out of service at once (limit {limit})",
    )


def serving_floor(case: Case) -> Judgement:
    """No role, and not the service, is without a ready replica on the way unless accepted."""
    model = case.model
    before, *_, final = case.pools_before, *case.fleets_on_the_way()
    planned = {role: ready_in(final, role, model=model) for role in Role}
    states = [before, *case.lowest_on_the_way()]
    lowest = {role: min(ready_in(p, role, model=model) for p in states) for role in Role}
    floor = floors(case.before, planned, model=model)
    broken = [str(role) for role in Role if lowest[role] < floor[role]]
    ends_serving = serves(before, model=model) and serves(final, model=model)
    if ends_serving and not all(serves(p, model=model) for p in states):
        broken.append("the service as a whole")
    if not broken:
        return None
    reason = f"{' and '.join(broken)} would have no ready replica for a while: no room to start"
    if case.automatic:
        return Verdict.REFUSE, reason + " new ones first, a person has to accept that"
    return Verdict.ALLOW, reason + " new ones first; accepted with the approval"


def dip_bound(case: Case) -> Judgement:
    """Losing more capacity on the way than the bound needs a person, who is told how much."""
    predicted, bound = dip(case.diff, case.spec), case.spec.guards.max_dip_ratio
    if predicted.depth_ratio <= bound:
        return None
    reason = (
        f"{predicted.depth_ratio:.0%} of the capacity would be missing for about "
        f"{predicted.short_s:.0f} s on the way (bound {bound:.0%})"
    )
    if case.automatic:
        return Verdict.REFUSE, reason + ": a person has to accept that"
    return Verdict.ALLOW, reason + ": accepted with the approval"


def inventory(case: Case) -> Judgement:
    """Replicas in every state, draining ones included, never exceed what may be had."""
    for accelerator in case.spec.accelerators:
        name, limit = accelerator.name, accelerator.inventory
        allowed = max(limit, _occupied(pools_by_key(case.before), name))
        worst = max(_occupied(pools, name) for pools in case.fleets_on_the_way())
        if worst > allowed:
            return Verdict.REFUSE, f"{worst} {name} would be occupied, only {limit} may be had"
    return None


def _draining(pools: Pools) -> int:
    return sum(p.draining for p in pools.values())


def _occupied(pools: Pools, accelerator: str) -> int:
    return sum(p.accelerators for k, p in pools.items() if k.shape.accelerator == accelerator)
