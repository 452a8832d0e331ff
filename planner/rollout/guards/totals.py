"""What the fleet that results must keep; one that broke it before may come nearer."""

from planner.domain.fleet import Fleet, Role
from planner.domain.rollout import Verdict
from planner.domain.spec import PoolBounds, Spec
from planner.domain.wording import counted
from planner.rollout.durations import usd_per_hour
from planner.rollout.effects import key_of, ready_in, replicas_in
from planner.rollout.guards.case import Case, Judgement
from planner.rollout.guards.moves import accelerators_of
from planner.rollout.guards.orders import pins_of


def pinned(case: Case) -> Judgement:
    """A pinned pool moves towards its pin only, and not past it."""
    present, outcome = case.wish.present, case.replicas
    for pin in pins_of(case.wish):
        now, then = (
            sum(n for k, n in replicas.items() if k.shape.label == pin.pool)
            for replicas in (present, outcome)
        )
        low, high = min(now, pin.replicas), max(now, pin.replicas)
        if not low <= then <= high:
            return (
                Verdict.REFUSE,
                f"{pin.pool} is pinned to {pin.replicas}, not to {counted(then, 'replica')}",
            )
    return None


def zero(case: Case) -> Judgement:
    """No half of a pair is left, and nothing goes to zero unless the spec lets it."""
    before, outcome, wish = case.wish.present, case.replicas, case.wish
    had = {r for r in Role if wish.of_role(before, r)}
    has = {r for r in Role if wish.of_role(outcome, r)}
    pair = {Role.PREFILL, Role.DECODE}
    served = Role.AGGREGATED in had or pair <= had
    if not served or Role.AGGREGATED in has or pair <= has:
        return None
    if not has and case.spec.guards.scale_to_zero:
        return None
    left = "nothing" if not has else " and ".join(sorted(has))
    return Verdict.REFUSE, f"{left} would be left, which answers no request"


def pool_bounds(case: Case) -> Judgement:
    """No pool leaves its bounds; of a plan that its bounds hold back that is told."""
    for bounds in case.spec.pools:
        count = _replicas_of(case.outcome, bounds)
        limit = bounds.max_replicas
        if limit is not None and count > max(limit, _replicas_of(case.before, bounds)):
            return (
                Verdict.REFUSE,
                f"{bounds.shape.label}: {counted(count, 'replica')}, at most {limit}",
            )
        if count < min(bounds.min_replicas, _replicas_of(case.before, bounds)):
            least = bounds.min_replicas
            return (
                Verdict.REFUSE,
                f"{bounds.shape.label}: {counted(count, 'replica')}, at least {least}",
            )
    rows = () if case.plan is None else case.plan.binding
    held = [r.sentence for r in rows if r.row.startswith(_BOUND_ROWS)]
    return (Verdict.NOTE, "; ".join(held)) if held else None


def role_bounds(case: Case) -> Judgement:
    """No role leaves its hard limits: not at the end, and not on the way there."""
    way = list(case.fleets_on_the_way())
    for role in Role:
        limits = case.spec.guards.of_role(role)
        now, then = (case.wish.of_role(r, role) for r in (case.wish.present, case.replicas))
        if then < min(limits.min_replicas, now):
            return (
                Verdict.REFUSE,
                f"{role}: {counted(then, 'replica')}, at least {limits.min_replicas}",
            )
        most = max(replicas_in(pools, role, model=case.model) for pools in way)
        if limits.max_replicas is not None and most > max(limits.max_replicas, now):
            where = _where(most, then)
            return (
                Verdict.REFUSE,
                f"{role}: {counted(most, 'replica')}{where}, at most {limits.max_replicas}",
            )
        before = ready_in(case.pools_before, role, model=case.model)
        least = min(ready_in(p, role, model=case.model) for p in case.lowest_on_the_way())
        if least < min(limits.min_replicas, before):
            return Verdict.REFUSE, (
                f"{role}: {least} ready replicas on the way, at least {limits.min_replicas}: there "
                "is no room to start new ones first"
            )
    return None


def max_accelerators(case: Case) -> Judgement:
    """All roles together stay within the limit, also on the way; but what is above may come down.

    On the way draining replicas count, as they do for the inventory.
    """
    limit = case.spec.guards.max_accelerators
    if limit is None:
        return None
    then = accelerators_of({key_of(p): p.replicas for p in case.outcome.pools})
    now, *way = (
        sum(p.accelerators for p in pools.values())
        for pools in (case.pools_before, *case.fleets_on_the_way())
    )
    most = max(way)
    if most <= max(limit, now):
        return None
    return (
        Verdict.REFUSE,
        f"{counted(most, 'accelerator')} over all roles{_where(most, then)}, at most {limit}",
    )


def _where(most: int, then: int) -> str:
    return " on the way" if most > then else ""


def budget(case: Case) -> Judgement:
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


_BOUND_ROWS = ("keep_max_replicas", "keep_min_replicas")
"""Rows of the optimizer that hold a pool at its bounds."""


def _replicas_of(fleet: Fleet, bounds: PoolBounds) -> int:
    return sum(p.replicas for p in fleet.pools if p.shape == bounds.shape)


def _usd_per_hour(fleet: Fleet, spec: Spec) -> float:
    return sum(p.replicas * usd_per_hour(key_of(p), spec) for p in fleet.pools if p.replicas)


def _power_w(fleet: Fleet, spec: Spec) -> float | None:
    known = {a.name: a.power_w for a in spec.accelerators}
    watts = [(known.get(p.shape.accelerator), p.accelerators) for p in fleet.pools]
    if any(power is None and count for power, count in watts):
        return None
    return sum((power or 0.0) * count for power, count in watts)
