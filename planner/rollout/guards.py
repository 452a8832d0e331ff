"""Guards: small functions that allow, clamp, delay or refuse a diff, each with its reason.

Pure ones only; those that need the target (permissions, second controllers, progress) belong to
the actuators' preflight.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from planner.domain.fleet import Fleet, Role
from planner.domain.plan import Plan, PlanStatus
from planner.domain.rollout import Diff, GuardFinding, StepKind, Verdict
from planner.domain.spec import LoopMode, PoolBounds, Spec
from planner.rollout.diff import floors
from planner.rollout.durations import usd_per_hour
from planner.rollout.effects import (
    PoolKey,
    Pools,
    after,
    applied,
    key_of,
    pools_by_key,
    ready_in,
    serves,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardConditions:
    """What guards need to know beside the diff and the spec.

    Parameters
    ----------
    observed_at : datetime or None
        When the load was last observed; None: never, which forbids taking capacity away.
    paused_in, paused_out : bool
        A person forbade scaling in (fewer replicas) or out (more).
    frozen : bool
        Inside a freeze window: nothing moves.
    unneeded_since : datetime or None
        Since when the capacity that would go was not needed, without a break; None: it is needed
        or nobody knows.
    """

    now: datetime
    observed_at: datetime | None = None
    paused_in: bool = False
    paused_out: bool = False
    frozen: bool = False
    unneeded_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Case:
    """A diff with all that is known about it."""

    diff: Diff
    spec: Spec
    conditions: GuardConditions
    plan: Plan | None
    automatic: bool

    @property
    def before(self) -> Fleet:
        return self.diff.from_fleet

    @property
    def outcome(self) -> Fleet:
        return after(self.before, self.diff.steps, at=self.conditions.now)

    @property
    def kinds(self) -> frozenset[StepKind]:
        return frozenset(step.kind for step in self.diff.steps)

    @property
    def accelerators_gained(self) -> int:
        return _serving_accelerators(self.outcome) - _serving_accelerators(self.before)

    def fleets_on_the_way(self) -> Iterator[Pools]:
        pools = pools_by_key(self.before)
        for step in self.diff.steps:
            pools = applied(pools, step)
            yield pools


def guard(
    diff: Diff,
    spec: Spec,
    conditions: GuardConditions,
    *,
    plan: Plan | None = None,
    automatic: bool | None = None,
) -> tuple[GuardFinding, ...]:
    """Every guard's verdict on a diff.

    Parameters
    ----------
    plan : Plan or None
        The plan behind the diff. Without it an automatic application is refused.
    automatic : bool or None
        Whether no person approved this diff; None: exactly when the spec's loop mode is `auto`.

    Returns
    -------
    tuple of GuardFinding
        One per guard, allowing ones included, so that a decision can show what was looked at.
        An empty diff passes every guard.
    """
    if automatic is None:
        automatic = spec.loop.mode is LoopMode.AUTO
    case = _Case(diff, spec, conditions, plan, automatic)
    return tuple(_finding(name, check, case) for name, check in GUARDS.items())


def refused(findings: Iterable[GuardFinding]) -> bool:
    """Whether the diff must not be applied now: some guard refuses or delays it."""
    return any(f.verdict in (Verdict.REFUSE, Verdict.DELAY) for f in findings)


_Judgement = tuple[Verdict, str] | None


def _finding(name: str, check: Callable[[_Case], _Judgement], case: _Case) -> GuardFinding:
    judgement = check(case) if case.diff.steps else None
    verdict, reason = judgement or (Verdict.ALLOW, "nothing against it")
    return GuardFinding(guard=name, verdict=verdict, reason=reason)


def plan_quality(case: _Case) -> _Judgement:
    """Infeasible or estimated plans are never applied without a person."""
    if not case.automatic:
        return None
    if case.plan is None:
        return Verdict.REFUSE, "the plan behind the diff is not known: a person has to approve"
    if case.plan.status is PlanStatus.INFEASIBLE:
        return Verdict.REFUSE, "the plan is infeasible, it does not keep the objectives"
    if case.plan.estimated:
        return Verdict.REFUSE, "a profile behind the plan is an estimate: measure it first"
    return None


def frozen(case: _Case) -> _Judgement:
    """Nothing moves inside a freeze window; deny beats allow."""
    return (Verdict.DELAY, "a freeze window is in force") if case.conditions.frozen else None


def paused(case: _Case) -> _Judgement:
    """A pause of one direction holds every diff that goes in that direction."""
    if case.conditions.paused_in and StepKind.DRAIN in case.kinds:
        return Verdict.DELAY, "scaling in is paused, and this diff drains replicas"
    if case.conditions.paused_out and StepKind.START in case.kinds:
        return Verdict.DELAY, "scaling out is paused, and this diff starts replicas"
    return None


def stale_observation(case: _Case) -> _Judgement:
    """Without a fresh observation no capacity is taken away: no data is never zero."""
    if not case.kinds & {StepKind.DRAIN, StepKind.FLIP}:
        return None
    observed_at, limit_s = case.conditions.observed_at, case.spec.guards.stale_observation_s
    if observed_at is None:
        return Verdict.REFUSE, "the load was never observed, so nothing may be taken away"
    age_s = (case.conditions.now - observed_at).total_seconds()
    if age_s > limit_s:
        return Verdict.REFUSE, (
            f"the last observation is {age_s:.0f} s old (limit {limit_s:.0f} s), so nothing may "
            "be taken away"
        )
    return None


def scale_down_stabilization(case: _Case) -> _Judgement:
    """Capacity goes only when it was unneeded for long enough; growth never waits."""
    if case.accelerators_gained >= 0:
        return None
    wait_s, since = case.spec.guards.scale_down_stabilization_s, case.conditions.unneeded_since
    unneeded_s = 0.0 if since is None else (case.conditions.now - since).total_seconds()
    if unneeded_s >= wait_s:
        return None
    return Verdict.DELAY, (
        f"{-case.accelerators_gained} accelerators would go, but they are unneeded for only "
        f"{unneeded_s:.0f} s (required {wait_s:.0f} s)"
    )


def disruption_budget(case: _Case) -> _Judgement:
    """At no time are more replicas out of service than allowed."""
    limit = case.spec.guards.max_disrupted_replicas
    flipping = [step.kind is StepKind.FLIP for step in case.diff.steps]
    draining = [_draining(pools) for pools in case.fleets_on_the_way()]
    worst = max(d + f for d, f in zip(draining, flipping, strict=True))
    if worst <= max(limit, 0) or not case.kinds & {StepKind.DRAIN, StepKind.FLIP}:
        return None
    return Verdict.DELAY, f"{worst} replicas would be out of service at once (limit {limit})"


def serving_floor(case: _Case) -> _Judgement:
    """No role, and not the service, is without a ready replica on the way unless accepted."""
    model = _model_of(case)
    before, final = pools_by_key(case.before), pools_by_key(case.outcome)
    planned = {role: ready_in(final, role, model=model) for role in Role}
    states = [before, *_lowest_on_the_way(case)]
    lowest = {role: min(ready_in(p, role, model=model) for p in states) for role in Role}
    floor = floors(case.before, planned, model=model)
    broken = [str(role) for role in Role if lowest[role] < floor[role]]
    if serves(before, model=model) and not all(serves(p, model=model) for p in states):
        broken.append("the service as a whole")
    if not broken:
        return None
    reason = f"{' and '.join(broken)} would have no ready replica for a while: no room to start"
    if case.automatic:
        return Verdict.REFUSE, reason + " new ones first, a person has to accept that"
    return Verdict.ALLOW, reason + " new ones first; accepted with the approval"


def pool_bounds(case: _Case) -> _Judgement:
    """No pool leaves its bounds; a plan that its bounds hold back says so."""
    for bounds in case.spec.pools:
        count = _replicas_of(case.outcome, bounds)
        limit = bounds.max_replicas
        if limit is not None and count > max(limit, _replicas_of(case.before, bounds)):
            return Verdict.REFUSE, f"{bounds.shape.label}: {count} replicas, at most {limit}"
        if count < min(bounds.min_replicas, _replicas_of(case.before, bounds)):
            least = bounds.min_replicas
            return Verdict.REFUSE, f"{bounds.shape.label}: {count} replicas, at least {least}"
    rows = () if case.plan is None else case.plan.binding
    held = [
        r.sentence for r in rows if r.row.startswith(("keep_max_replicas", "keep_min_replicas"))
    ]
    return (Verdict.CLAMP, "; ".join(held)) if held else None


def inventory(case: _Case) -> _Judgement:
    """Replicas in every state, draining ones included, never exceed what may be had."""
    for accelerator in case.spec.accelerators:
        name, limit = accelerator.name, accelerator.inventory
        allowed = max(limit, _occupied(pools_by_key(case.before), name))
        worst = max(_occupied(pools, name) for pools in case.fleets_on_the_way())
        if worst > allowed:
            return Verdict.REFUSE, f"{worst} {name} would be occupied, only {limit} may be had"
    return None


def budget(case: _Case) -> _Judgement:
    """The fleet that results stays inside the budget, unless it is a step towards it."""
    limits = case.spec.budget
    if limits.usd_per_hour is not None:
        usd = _usd_per_hour(case.outcome, case.spec)
        if usd > limits.usd_per_hour and usd > _usd_per_hour(case.before, case.spec):
            return Verdict.REFUSE, f"{usd:.2f} USD/h, the budget is {limits.usd_per_hour:.2f} USD/h"
    if limits.power_w is not None:
        watts, before = _power_w(case.outcome, case.spec), _power_w(case.before, case.spec)
        if watts is None or before is None:
            return Verdict.REFUSE, "a power budget is set, but an accelerator's power_w is unknown"
        if watts > limits.power_w and watts > before:
            return Verdict.REFUSE, f"{watts:.0f} W, the budget is {limits.power_w:.0f} W"
    return None


GUARDS: dict[str, Callable[[_Case], _Judgement]] = {
    "plan_quality": plan_quality,
    "frozen": frozen,
    "paused": paused,
    "stale_observation": stale_observation,
    "scale_down_stabilization": scale_down_stabilization,
    "disruption_budget": disruption_budget,
    "serving_floor": serving_floor,
    "pool_bounds": pool_bounds,
    "inventory": inventory,
    "budget": budget,
}
"""Guards in the order in which they are asked; the name is what a finding carries."""


_BOUND_ROWS = ("keep_max_replicas", "keep_min_replicas")
"""Rows of the optimizer that hold a pool at its bounds."""


def _model_of(case: _Case) -> str:
    return case.diff.steps[0].shape.model


def _lowest_on_the_way(case: _Case) -> Iterator[Pools]:
    """The pools while each step runs; a flipping replica counts in neither role."""
    for step, pools in zip(case.diff.steps, case.fleets_on_the_way(), strict=True):
        if step.to_shape is None:
            yield pools
            continue
        key = PoolKey(step.to_shape, step.purchase_option)
        yield pools | {key: replace(pools[key], ready=pools[key].ready - 1)}


def _replicas_of(fleet: Fleet, bounds: PoolBounds) -> int:
    return sum(p.replicas for p in fleet.pools if p.shape == bounds.shape)


def _serving_accelerators(fleet: Fleet) -> int:
    return sum(p.replicas * p.shape.accelerators for p in fleet.pools)


def _draining(pools: Pools) -> int:
    return sum(p.draining for p in pools.values())


def _occupied(pools: Pools, accelerator: str) -> int:
    return sum(p.accelerators for k, p in pools.items() if k.shape.accelerator == accelerator)


def _usd_per_hour(fleet: Fleet, spec: Spec) -> float:
    return sum(p.replicas * usd_per_hour(key_of(p), spec) for p in fleet.pools if p.replicas)


def _power_w(fleet: Fleet, spec: Spec) -> float | None:
    known = {a.name: a.power_w for a in spec.accelerators}
    watts = [(known.get(p.shape.accelerator), p.accelerators) for p in fleet.pools]
    if any(power is None and count for power, count in watts):
        return None
    return sum((power or 0.0) * count for power, count in watts)
