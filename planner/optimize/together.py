"""Several models on one inventory: who may have how much is decided together, then each is proven.

One solve over all models shares accelerators, budget and power; where not all can be served, models
of higher priority go first. What it gives to the others is then kept from each model in turn, the
highest priority first, which is planned and proven with all the rest.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np

from planner.domain.errors import SpecError
from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.forecast import Forecast
from planner.domain.hardware import Accelerator, PurchaseOption
from planner.domain.plan import Holding, Plan, PlanWindow
from planner.domain.spec import Spec
from planner.optimize.coefficients import Taken, build_problem
from planner.optimize.demand_level import with_demand_level
from planner.optimize.inputs import AcceleratorLimit
from planner.optimize.nodes import divide
from planner.optimize.problem import Problem
from planner.optimize.prove import plan
from planner.optimize.solution import Solution
from planner.optimize.solve import optimize


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Held:
    """What a model takes at the most in any window.

    Parameters
    ----------
    sizes : Mapping of accelerator type
        Of its replicas, in accelerators.
    accelerators, reserved : Mapping of accelerator type
        How many, and how many of them are prepaid.
    """

    sizes: Mapping[str, Sequence[int]]
    accelerators: Mapping[str, int]
    reserved: Mapping[str, int]
    usd_per_hour: float
    power_w: float


def plan_together(
    spec: Spec,
    forecasts: Sequence[Forecast],
    fleet: Fleet | None,
    *,
    made_at: datetime,
    explain: bool = False,
) -> tuple[Plan, ...]:
    """A proven plan for every forecast's model, in the order of the forecasts.

    Parameters
    ----------
    forecasts : sequence of Forecast
        One a model, for the same windows.

    Raises
    ------
    SpecError
        When two forecasts are for one model or for other windows, and as `plan`.
    """
    _check(forecasts)
    joint = merged([_alone(spec, f, fleet, made_at=made_at) for f in forecasts], spec)
    shared = optimize(joint)
    if not shared.feasible:
        joint = replace(joint, best_effort=True)
        shared = optimize(joint)
    held = {f.model: _held_by(spec, joint, shared, f.model) for f in forecasts}
    plans: dict[str, Plan] = {}
    decided = dict(held)
    in_order = sorted(forecasts, key=lambda f: -spec.priority_of(f.model))
    for forecast in in_order:
        left = _left_for(spec, forecast.model, held)
        left = _charged(spec, left, forecast.model, decided, idle=forecast is in_order[0])
        own = None if fleet is None else _of_model(fleet, forecast.model)
        taken = _taken_by_others(spec, forecast.model, held)
        made = plan(left, forecast, own, made_at=made_at, explain=explain, taken=taken)
        plans[forecast.model] = replace(made, inputs=replace(made.inputs, spec_id=spec.spec_id))
        held[forecast.model] = _held_in(spec, made)
    return tuple(plans[f.model] for f in forecasts)


def merged(problems: Sequence[Problem], spec: Spec) -> Problem:
    """One problem of several models, which share the spec's inventory, budget and power."""
    first = problems[0]
    offsets = np.cumsum([0, *(len(p.options) for p in problems)]).tolist()
    options = offsets[-1]
    work = np.full((sum(len(p.streams) for p in problems), options), np.inf)
    row = 0
    for problem, offset in zip(problems, offsets, strict=False):
        work[row : row + len(problem.streams), offset : offset + len(problem.options)] = (
            problem.work
        )
        row += len(problem.streams)
    reserved_usd = sum(
        (offer.reserved_count or 0) * offer.usd_per_gpu_hour
        for a in spec.accelerators
        for offer in a.offers
    )
    moved = [p.kv_bytes if p.kv_bytes is not None else np.zeros(len(p.streams)) for p in problems]
    return replace(
        first,
        streams=tuple(s for p in problems for s in p.streams),
        options=tuple(o for p in problems for o in p.options),
        demand_rps=np.concatenate([p.demand_rps for p in problems]),
        capacity={
            (o + offset, t): pool
            for problem, offset in zip(problems, offsets, strict=False)
            for (o, t), pool in problem.capacity.items()
        },
        work=work,
        accelerators=tuple(
            AcceleratorLimit(
                name=a.name,
                inventory=a.inventory,
                per_node=a.per_node,
                reserved=_reserved_of(a) or 0,
            )
            for a in spec.accelerators
        ),
        bounds=tuple(b for p in problems for b in p.bounds),
        flips=tuple(
            replace(f, source=f.source + offset, target=f.target + offset)
            for problem, offset in zip(problems, offsets, strict=False)
            for f in problem.flips
        ),
        ratios=tuple(r for p in problems for r in p.ratios),
        kv_bytes=np.concatenate(moved),
        usd_per_hour_limit=spec.budget.usd_per_hour,
        reserved_usd_per_hour=reserved_usd,
        power_w_limit=spec.budget.power_w,
        excluded=tuple(e for p in problems for e in p.excluded),
    )


def _check(forecasts: Sequence[Forecast]) -> None:
    models = [f.model for f in forecasts]
    if len(set(models)) < len(models):
        raise SpecError(f"two forecasts are for one model, of {', '.join(models)}: give one each")
    windows = [[(w.start_at, w.window_s) for w in f.windows] for f in forecasts]
    for forecast, other in zip(forecasts[1:], windows[1:], strict=True):
        if other != windows[0]:
            raise SpecError(
                f"the forecasts of {forecasts[0].model} and {forecast.model} are for different "
                "windows: models that share an inventory are planned for the same ones (cut their "
                "traces at one instant with --at)"
            )


def _alone(spec: Spec, forecast: Forecast, fleet: Fleet | None, *, made_at: datetime) -> Problem:
    own = None if fleet is None else _of_model(fleet, forecast.model)
    return build_problem(with_demand_level(spec, forecast), forecast, own, made_at=made_at)


def _of_model(fleet: Fleet, model: str) -> Fleet:
    return replace(fleet, pools=tuple(p for p in fleet.pools if p.shape.model == model))


def _held_by(spec: Spec, joint: Problem, shared: Solution, model: str) -> _Held:
    own = [o for o in joint.option_indices if joint.options[o].shape.model == model]
    usd = np.array([joint.options[o].usd_per_hour for o in own])
    watts = np.array([joint.options[o].power_w for o in own])
    replicas = shared.replicas[own]
    each = np.array([joint.options[o].shape.accelerators for o in own], dtype=np.int64)
    prepaid = np.array([joint.options[o].prepaid for o in own], dtype=bool)
    accelerators, reserved = {}, {}
    for limit in joint.accelerators:
        on = np.array([joint.options[o].shape.accelerator == limit.name for o in own], dtype=bool)
        accelerators[limit.name] = int((each[on] @ replicas[on]).max()) if on.any() else 0
        on &= prepaid
        reserved[limit.name] = int((each[on] @ replicas[on]).max()) if on.any() else 0
    prepaid_usd = sum(
        reserved[a.name] * offer.usd_per_gpu_hour
        for a in spec.accelerators
        for offer in a.offers
        if offer.is_prepaid
    )
    windows = [
        Counter({joint.options[o].shape: int(shared.replicas[o, t]) for o in own})
        for t in joint.window_indices
    ]
    return _Held(
        sizes=_sizes(spec, windows),
        accelerators=accelerators,
        reserved=reserved,
        usd_per_hour=float((usd @ replicas).max()) + prepaid_usd if own else 0.0,
        power_w=float((watts @ replicas).max()) if own else 0.0,
    )


def _held_in(spec: Spec, made: Plan) -> _Held:
    """What a plan takes at the most in any window."""
    power = {a.name: a.power_w or 0.0 for a in spec.accelerators}
    windows = []
    for window in made.windows:
        shapes: Counter[ReplicaShape] = Counter()
        for pool in window.pools:
            shapes[pool.shape] += pool.replicas
        windows.append(shapes)
    accelerators = {
        name: max(window.accelerators(name) for window in made.windows) for name in power
    }
    reserved = {
        a.name: max(_reserved_in(window, a.name) for window in made.windows)
        for a in spec.accelerators
    }
    return _Held(
        sizes=_sizes(spec, windows),
        accelerators=accelerators,
        reserved=reserved,
        usd_per_hour=max(window.usd_per_hour for window in made.windows),
        power_w=sum(power[name] * count for name, count in accelerators.items()),
    )


def _sizes(spec: Spec, windows: Sequence[Counter[ReplicaShape]]) -> Mapping[str, Sequence[int]]:
    """Sizes that are held of every accelerator type.

    Where all sizes divide each other and the node, only how many accelerators there are counts.
    Where they do not, of each size the most in any window.
    """
    found: dict[str, Sequence[int]] = {}
    for a in spec.accelerators:
        known = {b.shape.accelerators for b in spec.pools if b.shape.accelerator == a.name}
        counts = []
        for window in windows:
            counts.append(Counter[int]())
            for shape, replicas in window.items():
                if shape.accelerator == a.name:
                    counts[-1][shape.accelerators] += replicas
        if divide({*known, a.per_node}):
            found[a.name] = [1] * max(sum(s * n for s, n in c.items()) for c in counts)
        else:
            most: Counter[int] = Counter()
            for count in counts:
                most |= count
            found[a.name] = list(most.elements())
    return found


def _taken_by_others(spec: Spec, model: str, held: Mapping[str, _Held]) -> Taken:
    others = [h for name, h in held.items() if name != model]
    return {a.name: [s for h in others for s in h.sizes[a.name]] for a in spec.accelerators}


def _left_for(spec: Spec, model: str, held: Mapping[str, _Held]) -> Spec:
    """The spec with the budget and power that the other models do not hold."""
    others = [h for name, h in held.items() if name != model]
    accelerators = tuple(
        _with_reserved(a, (_reserved_of(a) or 0) - sum(h.reserved[a.name] for h in others))
        for a in spec.accelerators
    )
    usd, watts = spec.budget.usd_per_hour, spec.budget.power_w
    budget = replace(
        spec.budget,
        usd_per_hour=None if usd is None else max(usd - sum(h.usd_per_hour for h in others), 0.0),
        power_w=None if watts is None else max(watts - sum(h.power_w for h in others), 0.0),
    )
    return replace(
        spec,
        accelerators=accelerators,
        budget=budget,
        held_by_others=_holdings(spec, model, held),
    )


def _charged(
    spec: Spec, left: Spec, model: str, decided: Mapping[str, _Held], *, idle: bool
) -> Spec:
    """The spec with the reserved accelerators that this model's plan is charged for.

    Those that the joint solve gave it; what that left idle goes to one model, the first.
    """

    def charged(accelerator: Accelerator) -> Accelerator:
        count = _reserved_of(spec.accelerator(accelerator.name))
        if count is None:
            return accelerator
        name = accelerator.name
        own, all_held = (
            decided[model].reserved[name],
            sum(h.reserved[name] for h in decided.values()),
        )
        return _with_reserved(
            accelerator, None, paid=own + (max(count - all_held, 0) if idle else 0)
        )

    return replace(left, accelerators=tuple(charged(a) for a in left.accelerators))


def _reserved_of(accelerator: Accelerator) -> int | None:
    """How many are reserved and paid whether used or not; None: reserved is an offer, or none."""
    offer = accelerator.offer(PurchaseOption.RESERVED)
    return None if offer is None else offer.reserved_count


def _with_reserved(
    accelerator: Accelerator, count: int | None, *, paid: int | None = None
) -> Accelerator:
    """With so many reserved (None: as they are), of which so many are charged for."""
    return replace(
        accelerator,
        offers=tuple(
            replace(
                offer,
                reserved_count=offer.reserved_count if count is None else max(count, 0),
                paid_count=paid,
            )
            if offer.is_prepaid
            else offer
            for offer in accelerator.offers
        ),
    )


def _reserved_in(window: PlanWindow, name: str) -> int:
    """Reserved accelerators of a type that a window's replicas occupy."""
    return sum(
        p.replicas * p.shape.accelerators
        for p in window.pools
        if p.shape.accelerator == name and p.purchase_option is PurchaseOption.RESERVED
    )


def _holdings(spec: Spec, model: str, held: Mapping[str, _Held]) -> tuple[Holding, ...]:
    """What each other model holds of everything that is limited."""
    own, budget = spec.priority_of(model), spec.budget
    found = []
    for name, of in held.items():
        shared = [(a.name, of.accelerators[a.name], a.inventory) for a in spec.accelerators]
        limits = (
            ("usd_per_hour", of.usd_per_hour, budget.usd_per_hour),
            ("power_w", of.power_w, budget.power_w),
        )
        priority = spec.priority_of(name)
        found += [
            Holding(
                resource=resource,
                amount=amount,
                total=total,
                model=name,
                priority=priority,
                above=priority > own,
            )
            for resource, amount, total in (*shared, *limits)
            if name != model and total is not None and amount > 0
        ]
    return tuple(found)
