"""Judging a diff: every guard allows, clamps, delays or refuses it, each with its reason."""

from collections.abc import Callable, Iterable

from planner.domain.plan import Plan
from planner.domain.rollout import Diff, GuardFinding, Verdict
from planner.domain.spec import LoopMode, Spec
from planner.rollout.guards import between_cells, cautions, on_the_way, permission, stuck, totals
from planner.rollout.guards.case import Case, GuardConditions, Judgement
from planner.rollout.guards.clamp import Limit
from planner.rollout.guards.orders import role_mode


def guard(
    diff: Diff,
    spec: Spec,
    conditions: GuardConditions,
    *,
    plan: Plan | None = None,
    automatic: bool | None = None,
) -> tuple[GuardFinding, ...]:
    """Every guard's verdict on a diff.

    A diff of what `clamp` left passes the limits that cut it, unless the moment has changed.

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
    case = Case(diff, spec, conditions, plan, automatic)
    return tuple(_finding(name, check, case) for name, check in GUARDS.items())


def refused(findings: Iterable[GuardFinding]) -> bool:
    """Whether the diff must not be applied now: some guard refuses or delays it."""
    return any(f.verdict in (Verdict.REFUSE, Verdict.DELAY) for f in findings)


def with_clamps(
    judged: Iterable[GuardFinding], clamps: Iterable[GuardFinding]
) -> tuple[GuardFinding, ...]:
    """Findings on a diff together with those on what was cut from it before it was made."""
    weak = (Verdict.ALLOW, Verdict.NOTE)
    cut = {f.guard: f for f in clamps}
    merged = [cut.pop(f.guard) if f.guard in cut and f.verdict in weak else f for f in judged]
    return (*merged, *cut.values())


def _finding(name: str, check: Callable[[Case], Judgement], case: Case) -> GuardFinding:
    judgement = check(case) if case.diff.steps else None
    verdict, reason = judgement or (Verdict.ALLOW, "nothing against it")
    return GuardFinding(guard=name, verdict=verdict, reason=reason)


def _limit(limit: Limit, verdict: Verdict) -> Callable[[Case], Judgement]:
    """The guard that holds a diff of which the limit would cut something now."""

    def judge(case: Case) -> Judgement:
        wanted = case.replicas
        kept, reason = limit(wanted, case.wish)
        return (verdict, reason) if kept != wanted else None

    return judge


GUARDS: dict[str, Callable[[Case], Judgement]] = {
    "leader": permission.leader,
    "plan_quality": permission.plan_quality,
    "freeze_windows": permission.freeze_windows,
    "role_mode": _limit(role_mode, Verdict.REFUSE),
    "paused": _limit(cautions.paused, Verdict.REFUSE),
    "directions": _limit(cautions.directions, Verdict.REFUSE),
    "pinned": totals.pinned,
    "stale_observation": _limit(cautions.stale_observation, Verdict.REFUSE),
    "scale_down_stabilization": _limit(cautions.scale_down_stabilization, Verdict.DELAY),
    "hand_edits": _limit(cautions.hand_edits, Verdict.DELAY),
    "broken_template": _limit(cautions.broken_template, Verdict.DELAY),
    "stuck": stuck.taken_back,
    "one_scale_up_at_a_time": _limit(cautions.one_scale_up_at_a_time, Verdict.DELAY),
    "dead_band": _limit(cautions.dead_band, Verdict.DELAY),
    "rate_limits": _limit(cautions.rate_limits, Verdict.DELAY),
    "between_cells": between_cells.between_cells,
    "disruption_budget": on_the_way.disruption_budget,
    "serving_floor": on_the_way.serving_floor,
    "dip": on_the_way.dip_bound,
    "zero": totals.zero,
    "pool_bounds": totals.pool_bounds,
    "role_bounds": totals.role_bounds,
    "max_accelerators": totals.max_accelerators,
    "inventory": on_the_way.inventory,
    "budget": totals.budget,
}
"""Guards in the order in which they are asked; the name is what a finding carries."""
