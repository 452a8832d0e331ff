"""Several models on one inventory: who may have how much is decided together, then each is proven.

One solve over all models shares accelerators, budget and power; where not all can be served, models
of higher priority go first. What it gives to the others in each window is then kept from each model
in turn, the highest priority first, which is planned and proven with all the rest. Reserved
accelerators are charged to who uses them in the joint solve, idle ones to the first.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from planner.domain.errors import SpecError
from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.forecast import Forecast
from planner.domain.hardware import Accelerator, PurchaseOption
from planner.domain.plan import Holding, Plan, PlanStatus
from planner.domain.spec import Spec
from planner.optimize.coefficients import build_problem
from planner.optimize.demand_level import with_demand_level
from planner.optimize.inputs import AcceleratorLimit, Held, Objective
from planner.optimize.nodes import divide
from planner.optimize.problem import Problem
from planner.optimize.prove import plan
from planner.optimize.solution import Solution
from planner.optimize.solve import attempt, optimize

_Windows = tuple[Held, ...]
"""What a model holds in each window."""

_Shares = dict[str, _Windows]
"""Of each model."""

_ALL_IT_CAN_USE = 10.0
"""Times the demand of a model: more than its promise needs, whatever the twin adds to it."""


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
    shared = attempt(joint, patient=True)
    if shared is None or not shared.feasible:
        joint = replace(joint, best_effort=True)
        shared = optimize(joint)
    in_order = sorted(forecasts, key=lambda f: -spec.priority_of(f.model))
    held = {
        f.model: _held_by(spec, joint, shared, f.model, idle=f is in_order[0]) for f in forecasts
    }

    def planned(forecast: Forecast, held: Mapping[str, _Windows]) -> Plan:
        others = {name: of for name, of in held.items() if name != forecast.model}
        left = replace(spec, held_by_others=_holdings(spec, forecast.model, others))
        own = None if fleet is None else _of_model(fleet, forecast.model)
        taken = _together(others.values())
        return plan(left, forecast, own, made_at=made_at, explain=explain, taken=taken)

    def shared_by(models: Sequence[Forecast], first: Forecast | None = None) -> _Shares | None:
        rest = {name: of for name, of in held.items() if name not in {f.model for f in models}}
        alone = [
            _alone(spec, f, fleet, made_at=made_at, taken=_together(rest.values())) for f in models
        ]
        return _shares(spec, alone, held, first=None if first is None else first.model)

    plans: dict[str, Plan] = {}
    for i, forecast in enumerate(in_order):
        made, waiting = planned(forecast, held), in_order[i + 1 :]
        own = spec.priority_of(forecast.model)
        lower = [f for f in waiting if spec.priority_of(f.model) < own]
        if lower and _left_unserved(made) > (False, 0.0):
            # Those of lower priority are not served in its place.
            least = shared_by([forecast, *lower], first=forecast)
            again = made if least is None else planned(forecast, {**held, **least})
            if least is not None and _left_unserved(again) < _left_unserved(made):
                made = again
                held[forecast.model] = _held_in(spec, made, held[forecast.model])
                held.update(least)
                held.update(shared_by(waiting) or {})
        plans[forecast.model] = replace(made, inputs=replace(made.inputs, spec_id=spec.spec_id))
        held[forecast.model] = _held_in(spec, made, held[forecast.model])
    return tuple(plans[f.model] for f in forecasts)


def _left_unserved(made: Plan) -> tuple[bool, float]:
    """What is wrong with a plan: its promise is not kept; requests that stay unserved."""
    unserved = sum(w.shortfall_rps * w.window_s for w in made.windows)
    return made.status is PlanStatus.INFEASIBLE, unserved


def _shares(
    spec: Spec, problems: Sequence[Problem], before: Mapping[str, _Windows], *, first: str | None
) -> _Shares | None:
    """What a joint solve gives to some models; None where there is no fleet at all.

    What each pays for reserved accelerators stays as it was.

    Parameters
    ----------
    first : str or None
        A model that may have all it can use, however little it asks for: then the others get what
        they cannot give up.
    """
    joint = merged(problems, spec)
    if first is not None:
        joint = replace(
            joint,
            best_effort=True,
            shortfall_usd_per_request=None,
            objective=Objective.COST,
            demand_rps=joint.demand_rps
            * np.array([[_ALL_IT_CAN_USE if s.model == first else 1.0] for s in joint.streams]),
        )
    found = attempt(joint, patient=True)
    if first is None and (found is None or not found.feasible):
        joint = replace(joint, best_effort=True)
        found = attempt(joint, patient=True)
    if found is None or not found.feasible:
        return None
    models = [p.model for p in problems if p.model != first]
    return {
        model: tuple(
            replace(
                held,
                usd_per_hour=held.usd_per_hour
                - held.reserved_usd_per_hour
                + was.reserved_usd_per_hour,
                reserved_usd_per_hour=was.reserved_usd_per_hour,
            )
            for held, was in zip(
                _held_by(spec, joint, found, model, idle=False), before[model], strict=True
            )
        )
        for model in models
    }


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
                reserved_usd_per_hour=a.reserved_usd_per_hour,
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


def _alone(
    spec: Spec,
    forecast: Forecast,
    fleet: Fleet | None,
    *,
    made_at: datetime,
    taken: _Windows | None = None,
) -> Problem:
    own = None if fleet is None else _of_model(fleet, forecast.model)
    given = with_demand_level(spec, forecast)
    return build_problem(given, forecast, own, made_at=made_at, taken=taken)


def _of_model(fleet: Fleet, model: str) -> Fleet:
    return replace(fleet, pools=tuple(p for p in fleet.pools if p.shape.model == model))


def _held_by(spec: Spec, joint: Problem, shared: Solution, model: str, *, idle: bool) -> _Windows:
    """What the joint solve gives a model, and charges it for.

    Parameters
    ----------
    idle : bool
        It is also charged for reserved accelerators that no model uses.
    """
    own = [o for o in joint.option_indices if joint.options[o].shape.model == model]
    found = []
    for t in joint.window_indices:
        shapes: Counter[ReplicaShape] = Counter()
        reserved: Counter[str] = Counter()
        used: Counter[str] = Counter()
        for o in joint.option_indices:
            option, replicas = joint.options[o], int(shared.replicas[o, t])
            if option.prepaid:
                used[option.shape.accelerator] += replicas * option.shape.accelerators
        for o in own:
            option, replicas = joint.options[o], int(shared.replicas[o, t])
            shapes[option.shape] += replicas
            if option.prepaid:
                reserved[option.shape.accelerator] += replicas * option.shape.accelerators
        charged_usd = sum(
            offer.usd_per_gpu_hour
            * (
                reserved[a.name]
                + (max((offer.reserved_count or 0) - used[a.name], 0) if idle else 0)
            )
            for a in spec.accelerators
            for offer in a.offers
            if offer.is_prepaid
        )
        usd = sum(joint.options[o].usd_per_hour * int(shared.replicas[o, t]) for o in own)
        found.append(_held(spec, shapes, reserved, usd + charged_usd, charged_usd))
    return tuple(found)


def _held_in(spec: Spec, made: Plan, decided: _Windows) -> _Windows:
    """What a plan takes; what it is charged for reserved accelerators stays as decided."""
    found = []
    for window, before in zip(made.windows, decided, strict=True):
        shapes: Counter[ReplicaShape] = Counter()
        reserved: Counter[str] = Counter()
        for pool in window.pools:
            shapes[pool.shape] += pool.replicas
            if pool.purchase_option is PurchaseOption.RESERVED:
                reserved[pool.shape.accelerator] += pool.replicas * pool.shape.accelerators
        charged_usd = before.reserved_usd_per_hour
        found.append(_held(spec, shapes, reserved, window.usd_per_hour, charged_usd))
    return tuple(found)


def _held(
    spec: Spec,
    shapes: Counter[ReplicaShape],
    reserved: Counter[str],
    usd_per_hour: float,
    charged_usd_per_hour: float,
) -> Held:
    """What replicas of these shapes hold in a window.

    Parameters
    ----------
    shapes : Counter
        Replicas of each.
    reserved : Counter
        Accelerators of a type that they occupy under a `reserved` price.
    """
    accelerators: Counter[str] = Counter()
    for shape, replicas in shapes.items():
        accelerators[shape.accelerator] += replicas * shape.accelerators
    prepaid = [a.name for a in spec.accelerators if _reserved_of(a) is not None]
    return Held(
        accelerators={a.name: accelerators[a.name] for a in spec.accelerators},
        reserved={name: reserved[name] for name in prepaid},
        sizes={a.name: _sizes(spec, a, shapes) for a in spec.accelerators},
        usd_per_hour=usd_per_hour,
        reserved_usd_per_hour=charged_usd_per_hour,
        power_w=sum((a.power_w or 0.0) * accelerators[a.name] for a in spec.accelerators),
    )


def _sizes(spec: Spec, of: Accelerator, shapes: Counter[ReplicaShape]) -> tuple[int, ...]:
    """Sizes of the replicas on a type; none where all sizes divide each other and the node.

    Then only how many accelerators there are counts.
    """
    known = {b.shape.accelerators for b in spec.pools if b.shape.accelerator == of.name}
    if divide({*known, of.per_node}):
        return ()
    sizes: Counter[int] = Counter()
    for shape, replicas in shapes.items():
        if shape.accelerator == of.name:
            sizes[shape.accelerators] += replicas
    return tuple(sorted(sizes.elements()))


def _together(models: Iterable[_Windows]) -> _Windows:
    """What several models hold together in each window."""
    return tuple(_summed(of) for of in zip(*models, strict=True))


def _summed(models: Sequence[Held]) -> Held:
    """What several models hold together in a window."""

    def total(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
        found: Counter[str] = Counter()
        for count in counts:
            found.update(count)
        return found

    names = {name for held in models for name in held.sizes}
    return Held(
        accelerators=total(held.accelerators for held in models),
        reserved=total(held.reserved for held in models),
        sizes={n: tuple(sorted(s for held in models for s in held.sizes[n])) for n in names},
        usd_per_hour=sum(held.usd_per_hour for held in models),
        reserved_usd_per_hour=sum(held.reserved_usd_per_hour for held in models),
        power_w=sum(held.power_w for held in models),
    )


def _reserved_of(accelerator: Accelerator) -> int | None:
    """How many are reserved and paid whether used or not; None: reserved is an offer, or none."""
    offer = accelerator.offer(PurchaseOption.RESERVED)
    return None if offer is None else offer.reserved_count


def _holdings(spec: Spec, model: str, others: Mapping[str, _Windows]) -> tuple[Holding, ...]:
    """What each other model holds of everything that is limited."""
    own, budget = spec.priority_of(model), spec.budget
    found = []
    for name, windows in others.items():
        shared = [
            (a.name, [float(of.accelerators[a.name]) for of in windows], a.inventory)
            for a in spec.accelerators
        ]
        limits = (
            ("usd_per_hour", [of.usd_per_hour for of in windows], budget.usd_per_hour),
            ("power_w", [of.power_w for of in windows], budget.power_w),
        )
        priority = spec.priority_of(name)
        found += [
            Holding(
                resource=resource,
                amount=max(amounts),
                total=total,
                model=name,
                priority=priority,
                above=priority > own,
                varies=min(amounts) < max(amounts),
            )
            for resource, amounts, total in (*shared, *limits)
            if total is not None and max(amounts) > 0
        ]
    return tuple(found)
