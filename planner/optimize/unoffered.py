"""Should this be disaggregated at all? The other way, planned although the spec does not offer it.

A spec that offers prefill and decode pools only is also planned with aggregated replicas on the
same accelerators, and the other way round, wherever a profile was measured in those roles.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from planner.domain.errors import OutsideProfileError, SolverError, SpecError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.plan import CostTerm, Plan, PlanStatus, RejectedAlternative
from planner.domain.spec import PoolBounds, Spec
from planner.domain.wording import percent
from planner.optimize.explain import unserved_text
from planner.optimize.problem import Problem
from planner.optimize.solution import Solution, mean_usd_per_hour

_DISAGGREGATED = (Role.PREFILL, Role.DECODE)


def other_way(spec: Spec, *, model: str) -> tuple[str, Spec] | None:
    """The spec with the other kind of pools, and what to call that; None where both are offered.

    Pools of the other kind may be as many as the inventory has; minima do not carry over.
    """
    offered = [b.shape for b in spec.pools if b.shape.model == model]
    roles = {shape.role for shape in offered}
    if Role.AGGREGATED in roles and roles & set(_DISAGGREGATED):
        return None
    wanted = _DISAGGREGATED if Role.AGGREGATED in roles else (Role.AGGREGATED,)
    shapes: dict[ReplicaShape, None] = {}
    for shape in offered:
        others = [replace(shape, role=role) for role in wanted]
        if all(spec.profile_of(other) is not None for other in others):
            shapes.update(dict.fromkeys(others))
    if not shapes:
        return None
    name = "aggregated" if wanted == (Role.AGGREGATED,) else "disaggregated"
    return name, replace(spec, pools=tuple(PoolBounds(shape=s) for s in shapes))


def other_way_alternative(
    spec: Spec, *, model: str, chosen: tuple[Problem, Solution], plan_for: Callable[[Spec], Plan]
) -> tuple[RejectedAlternative, ...]:
    """What the other way would cost and keep, as an alternative that was not chosen.

    Parameters
    ----------
    chosen : problem and solution
        Of the plan that it is compared with. Where one of both leaves requests unserved, what
        that costs is in the comparison.
    plan_for : callable
        Plans a spec from nothing, for the same demand.
    """
    other = other_way(spec, model=model)
    if other is None:
        return ()
    name, changed = other
    label = f"{name} instead, which the spec does not offer"
    try:
        plan = plan_for(changed)
    except (OutsideProfileError, SolverError, SpecError) as error:
        return (RejectedAlternative(name=label, reason=str(error), usd_per_hour=None),)
    window = plan.windows[0]
    fleet = " + ".join(f"{p.replicas} x {p.shape.label}" for p in window.pools)
    kept = [w.predicted.attainment_ratio for w in plan.windows]
    attained = min((ratio for ratio in kept if ratio is not None), default=1.0)
    if plan.status is PlanStatus.INFEASIBLE:
        if fleet:
            at_best = f"at best {fleet} with attainment {percent(attained)}"
        else:
            at_best = "the limits leave room for no fleet"
            at_best += f" ({plan.relaxations[0]} would help)" if plan.relaxations else ""
        reason = f"cannot keep the objectives: {at_best}"
        return (RejectedAlternative(name=label, reason=reason, usd_per_hour=None),)
    if all(ratio is None for ratio in kept) and _unserved(plan):
        reason = f"serves no request in time: {fleet or 'nothing'}, {plan.usd_per_hour:.3f} USD/h"
        return (RejectedAlternative(name=label, reason=reason, usd_per_hour=plan.usd_per_hour),)
    problem, solution = chosen
    more = plan.usd_per_hour - mean_usd_per_hour(problem, solution.replicas)
    left, plans = _unserved(plan), unserved_text(problem, solution)
    if left or plans:
        more += (_unserved_usd(plan.objective) - _unserved_usd(solution.terms)) / problem.horizon_h
    price = "the same"
    if abs(more) >= 5e-4:
        price = f"{abs(more):.3f} USD/h {'more' if more > 0 else 'less'}"
    reason = (
        f"{fleet or 'nothing'} in the first window, attainment {percent(attained)}{left}, "
        f"{plan.usd_per_hour:.3f} USD/h, {price}{' in all' if left or plans else ''}"
        f"{f' (the plan {plans})' if plans else ''}"
        f"{'; not proven in the twin' if plan.unproven else ''}"
    )
    return (RejectedAlternative(name=label, reason=reason, usd_per_hour=plan.usd_per_hour),)


def _unserved_usd(terms: Sequence[CostTerm]) -> float:
    """The price of what is left unserved, USD over the horizon."""
    return sum(term.usd for term in terms if term.name == "slo_shortfall")


def _unserved(plan: Plan) -> str:
    """What is left unserved on purpose in the worst window; empty: nothing."""
    worst = max(plan.windows, key=lambda w: w.shortfall_rps)
    if worst.shortfall_rps <= 0:
        return ""
    return (
        f" of those served ({worst.shortfall_rps:.3g} of {worst.request_rate_rps:.3g} requests/s "
        "are not, on purpose)"
    )
