"""The slow decision: from forecast and fleet to a proven plan, its steps and its reasons."""

from dataclasses import dataclass, replace
from datetime import datetime

from planner.autoscale.in_cells import in_cells
from planner.domain.fleet import Fleet, ReplicaShape, Role
from planner.domain.forecast import Forecast
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import Plan, PlanStatus, stretched_text
from planner.domain.rollout import Diff, GuardFinding
from planner.domain.spec import Spec
from planner.optimize import Problem, build_problem, plan, with_demand_level
from planner.rollout import (
    GuardConditions,
    clamp,
    diff,
    diff_to,
    guard,
    with_clamps,
)

Key = tuple[ReplicaShape, PurchaseOption]

LOWER_LEVELS = (0.75, 0.5)
"""Quantiles of the forecast to plan for where none of the higher ones has a plan that holds; below
the median it is the promise that has to be relaxed, and a person who says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRecommendation:
    """How many replicas a pool should have next, and why.

    Parameters
    ----------
    replicas_now : int
        Ready and starting ones.
    reason : str
        One sentence for people.
    """

    shape: ReplicaShape
    purchase_option: PurchaseOption
    replicas_now: int
    replicas: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Everything that one slow tick decided.

    Parameters
    ----------
    diff : Diff
        Steps that may be taken: what guards clamp is not in it.
    findings : tuple of GuardFinding
        Empty when no conditions were given to judge by.
    recommendations : tuple of PoolRecommendation
        One per pool of the spec, the fleet or the plan; those without replicas too.
    recommended : Diff
        Steps to the plan itself, whatever guards say.
    lowered : str
        Why the plan is for less of what may come than the spec asks for; empty: it is not.
    """

    plan: Plan
    diff: Diff
    findings: tuple[GuardFinding, ...]
    recommendations: tuple[PoolRecommendation, ...]
    recommended: Diff
    lowered: str = ""


def decide(
    spec: Spec,
    forecast: Forecast,
    fleet: Fleet,
    *,
    now: datetime,
    conditions: GuardConditions | None = None,
    explain: bool = False,
    compare_unchanged: bool = True,
) -> Decision:
    """Plan, diff, guard, and say why; nothing is applied.

    Parameters
    ----------
    conditions : GuardConditions or None
        What the guards need to know of the moment; None leaves the diff unjudged.
    explain : bool
        Also price small changes of the input.
    compare_unchanged : bool
        As in `planner.optimize.plan`.

    Raises
    ------
    SpecError, OutsideProfileError, SolverError
        As `planner.optimize.plan`.
    """
    spec = with_demand_level(spec, forecast)
    made = plan(
        spec, forecast, fleet, made_at=now, explain=explain, compare_unchanged=compare_unchanged
    )
    lowered = ""
    if made.status is PlanStatus.INFEASIBLE:
        spec, made, lowered = _feasible(spec, forecast, fleet, made, explain=explain)
    made = in_cells(made, spec, forecast, fleet)
    recommended = diff(fleet, made, spec, can_flip=conditions is None or conditions.can_flip)
    steps: Diff = recommended
    findings: tuple[GuardFinding, ...] = ()
    if conditions is not None:
        steps, findings = guarded(fleet, made, spec, conditions)
    problem = build_problem(spec, forecast, fleet, made_at=now)
    return Decision(
        plan=made,
        diff=steps,
        findings=findings,
        recommendations=_recommendations(spec, problem, made, fleet),
        recommended=recommended,
        lowered=lowered,
    )


def _feasible(
    spec: Spec, forecast: Forecast, fleet: Fleet, beyond: Plan, *, explain: bool
) -> tuple[Spec, Plan, str]:
    """A plan for less of what may come, where no fleet serves all that was to be planned for.

    An infeasible plan moves nothing: a fleet far too small would stay as it is because one far too
    large is not to be had. Plans for the quantiles of `LOWER_LEVELS` are tried instead, with the
    spec that each is for, and say what they are not for; `beyond` is kept where they are infeasible
    as well.
    """
    asked = spec.forecast.demand_level
    for level in LOWER_LEVELS:
        if level < asked:
            lower = replace(spec, forecast=replace(spec.forecast, demand_level=level))
            made = plan(
                lower, forecast, fleet, made_at=beyond.made_at, explain=explain, advise=False
            )
            if made.status is not PlanStatus.INFEASIBLE:
                lowered = (
                    f"demand at {_quantile(asked)} of the forecast, which no fleet within the "
                    f"limits serves{_to_relax(beyond)}: this is planned for {_quantile(level)}"
                )
                return lower, replace(made, unproven=(lowered, *made.unproven)), lowered
    return spec, beyond, ""


def _quantile(level: float) -> str:
    return f"q{100 * level:.0f}"


def _to_relax(made: Plan) -> str:
    return f" (to relax: {' or '.join(made.relaxations)})" if made.relaxations else ""


def guarded(
    fleet: Fleet, made: Plan, spec: Spec, conditions: GuardConditions
) -> tuple[Diff, tuple[GuardFinding, ...]]:
    """The steps towards a plan that may be taken now, and every guard's word on them."""
    wanted, clamps = clamp(fleet, made, spec, conditions)
    steps = diff_to(fleet, wanted, spec, can_flip=conditions.can_flip)
    return steps, with_clamps(guard(steps, spec, conditions, plan=made), clamps)


def _recommendations(
    spec: Spec, problem: Problem, made: Plan, fleet: Fleet
) -> tuple[PoolRecommendation, ...]:
    planned = {(p.shape, p.purchase_option): p.replicas for p in made.windows[0].pools}
    running = {
        (p.shape, p.purchase_option): p.replicas for p in fleet.pools if p.shape.model == made.model
    }
    keys: dict[Key, None] = dict.fromkeys([*planned, *running])
    for bounds in spec.pools:
        known = any(shape == bounds.shape for shape, _ in keys)
        if bounds.shape.model == made.model and not known:
            offer = spec.accelerator(bounds.shape.accelerator).offers[0]
            keys[bounds.shape, offer.purchase_option] = None
    return tuple(
        PoolRecommendation(
            shape=key[0],
            purchase_option=key[1],
            replicas_now=running.get(key, 0),
            replicas=planned.get(key, 0),
            reason=_reason(
                spec, problem, made, key, now=running.get(key, 0), then=planned.get(key, 0)
            ),
        )
        for key in sorted(keys)
    )


def _reason(spec: Spec, problem: Problem, made: Plan, key: Key, *, now: int, then: int) -> str:
    change = f"stays at {then}" if now == then else f"{now} -> {then}"
    parts = [f"{key[0].label}: {change}", _need(spec, problem, made, key, then)]
    option = next(
        (o for o in problem.options if (o.shape, o.purchase_option) == key and then > 0), None
    )
    if option is not None:
        parts[-1] += f"; one more would cost {option.usd_per_hour:.2f} USD/h"
    if made.status is PlanStatus.INFEASIBLE:
        parts.append("no fleet within the limits keeps the objectives, this one serves most")
    return ": ".join(parts)


def _need(spec: Spec, problem: Problem, made: Plan, key: Key, then: int) -> str:
    level = _quantile(spec.forecast.demand_level)
    forecast_text = f"forecast {made.windows[0].request_rate_rps:.3g} requests/s at {level}"
    found = [o for o in problem.option_indices if _key_of(problem, o) == key and problem.windows]
    if not found:
        return "not among the spec's pools that can be planned"
    if made.stretched:
        return f"{forecast_text}, sized for {stretched_text(made.stretched)}, which no pool keeps"
    if then == 0:
        kept = made.status is not PlanStatus.INFEASIBLE
        what = " is served cheaper without it" if kept else ", for which it has no use or no room"
        return forecast_text + what
    return _need_of_these(problem, made, key, then, forecast_text)


def _need_of_these(problem: Problem, made: Plan, key: Key, then: int, forecast_text: str) -> str:
    """Why there are so many replicas and not one less."""
    hardest = _hardest_window(problem, made, key[0].role)
    demand = problem.load_rps(hardest)
    if hardest > 0:
        forecast_text += f", {demand:.3g} in window {hardest}"
    fewer = _role_rps_without_one(problem, made, key, hardest)
    if demand <= 0:
        return "no traffic is forecast, one way to answer a request is kept"
    if fewer < _sent_rps(problem, made, key[0].role, hardest):
        return f"{forecast_text} needs it, with one less {key[0].role} sustains {fewer:.3g}"
    if then <= _min_replicas(problem, key[0]):
        return f"{forecast_text} would need less, min_replicas holds it"
    return f"{forecast_text} needs it for the objectives, or a change would not pay"


def _key_of(problem: Problem, o: int) -> Key:
    return problem.options[o].shape, problem.options[o].purchase_option


def _role_counts(problem: Problem, made: Plan, t: int) -> dict[int, int]:
    planned = {(p.shape, p.purchase_option): p.replicas for p in made.windows[t].pools}
    return {o: planned.get(_key_of(problem, o), 0) for o in problem.option_indices}


def _role_rps(problem: Problem, counts: dict[int, int], role: Role, t: int) -> float:
    return sum(problem.capacity[o, t].at(counts[o]) for o in problem.in_role(role))


def _role_rps_without_one(problem: Problem, made: Plan, key: Key, t: int) -> float:
    counts = _role_counts(problem, made, t)
    for o in problem.option_indices:
        if _key_of(problem, o) == key:
            counts[o] = max(counts[o] - 1, 0)
    return _role_rps(problem, counts, key[0].role, t)


def _sent_rps(problem: Problem, made: Plan, role: Role, t: int) -> float:
    """Requests/s that the role has to take when the other path takes all it can."""
    counts = _role_counts(problem, made, t)
    through = min(_role_rps(problem, counts, r, t) for r in (Role.PREFILL, Role.DECODE))
    aggregated = _role_rps(problem, counts, Role.AGGREGATED, t)
    other = through if role is Role.AGGREGATED else aggregated
    return max(problem.load_rps(t) - other, 0.0)


def _hardest_window(problem: Problem, made: Plan, role: Role) -> int:
    """The window, among those with the first window's pools, that asks most of the role."""
    first = made.windows[0].pools
    counts = {(p.shape, p.purchase_option): p.replicas for p in first}
    same = [
        t
        for t, w in enumerate(made.windows)
        if {(p.shape, p.purchase_option): p.replicas for p in w.pools} == counts
    ]
    return max(same, key=lambda t: (_sent_rps(problem, made, role, t), -t))


def _min_replicas(problem: Problem, shape: ReplicaShape) -> int:
    return next((b.min_replicas for b in problem.bounds if b.shape == shape), 0)
