"""From spec, forecast and fleet to the optimizer's problem: every coefficient is computed here."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from planner.domain.errors import SpecError
from planner.domain.fleet import Fleet, ReplicaShape, Role
from planner.domain.forecast import Forecast
from planner.domain.hardware import Accelerator, PurchaseOption
from planner.domain.plan import Holding
from planner.domain.profile import Profile
from planner.domain.spec import Objective, PoolBounds, Spec
from planner.optimize.capacity_tables import capacity_tables
from planner.optimize.dominance import AsGood, same_formats, without_dominated
from planner.optimize.inputs import (
    AcceleratorLimit,
    Exclusion,
    Held,
    LinkLimit,
    Option,
    PlanningWindow,
    RatioBounds,
    ReplicaBounds,
    SolverSettings,
    flips_between,
)
from planner.optimize.loads import StreamLoad
from planner.optimize.nodes import divide
from planner.optimize.problem import Problem
from planner.optimize.splits import with_split
from planner.optimize.streams import Ability, ability_of, streams_of, together, work_of
from planner.optimize.too_long import without_too_long
from planner.optimize.unkept import unkept_classes

MOST_OPTION_WINDOWS = 3_000
"""Options x windows of one model that are planned for at once."""

Taken = Sequence[Held]
"""What models that it is not asked about hold in each window."""


def build_problem(
    spec: Spec,
    forecast: Forecast,
    fleet: Fleet | None,
    *,
    made_at: datetime | None = None,
    taken: Taken | None = None,
    cut_long: bool = False,
    left_out: Collection[str] = (),
) -> Problem:
    """The optimizer's problem for one model.

    Parameters
    ----------
    fleet : Fleet or None
        What runs now, other models included: they keep their accelerators and their cost. None:
        nothing runs, and there is no start-up lead time.
    made_at : datetime or None
        When new replicas are ordered; None: when the forecast was made.
    taken : Taken or None
        What other models are to have in each window, beside those in the fleet.
    cut_long : bool
        Leave what is too long unserved where that is allowed, although it may miss.
    left_out : collection of str
        Classes that are left unserved, where that is allowed.

    Raises
    ------
    SpecError
        When the spec offers this model nothing that can serve, or its bounds contradict its
        inventory or budget.
    OutsideProfileError
        When requests are longer than anything that was measured.
    """
    spec = spec.cautious
    model = forecast.model
    bounds, excluded = _plannable(spec, model)
    shapes = [b.shape for b in bounds]
    profiles = [(b.shape.role, profile_for(spec, b)) for b in bounds]
    long = without_too_long(spec, forecast, profiles, every=cut_long)
    apart = unkept_classes(spec, shapes, long.fits)
    found = streams_of(spec, long.fits, apart=apart, left_out=left_out)
    streams = with_split(spec, shapes, found)
    able, outside = _measured_for(spec, bounds, streams)
    bounds = [b for b in bounds if able[b.shape]]
    if not _has_path(bounds):
        raise SpecError(_no_path_text(model, excluded + outside))
    options = tuple(o for b in bounds for o in _options(spec, b, fleet))
    _refuse_too_many(len(options), len(forecast.windows))
    mixes = {b.shape: together([streams[k] for k in able[b.shape]]) for b in bounds}
    every = (*streams, *long.streams)
    problem = Problem(
        streams=tuple(s.stream for s in every),
        options=options,
        windows=_windows(forecast),
        demand_rps=_demand_rps(every),
        work=_work(spec, options, streams, able, mixes, beyond=len(long.streams)),
        flips=tuple(flips_between(options, lambda o: _flip_s(spec, o))),
        ratios=_ratios(spec, model),
        spot_share_limit=spec.planning.spot_share_limit,
        kv_bytes=_kv_bytes(spec, options, every),
        transfer_bytes_per_s_limit=spec.planning.transfer_bytes_per_s,
        links=_links(spec),
        shortfall_usd_per_request=spec.planning.shortfall_usd_per_request,
        one_shape_per_role=spec.planning.one_shape_per_role,
        objective=spec.planning.objective,
        capacity=capacity_tables(spec, options, mixes),
        accelerators=tuple(_limit(spec, a, model, fleet) for a in spec.accelerators),
        bounds=tuple(_replicas(b) for b in bounds),
        ordered_at=made_at or forecast.made_at,
        has_fleet=fleet is not None,
        usd_per_hour_limit=_left(spec.budget.usd_per_hour, _usd_of_others(spec, model, fleet)),
        reserved_usd_per_hour=_reserved_usd(spec, model, fleet),
        power_w_limit=_left(spec.budget.power_w, _power_of_others(spec, model, fleet)),
        others=tuple(taken or ()),
        excluded=excluded + outside,
        held_by_others=(*spec.held_by_others, *_holdings(spec, model, fleet)),
        solver=SolverSettings(seed=spec.loop.seed, time_limit_s=spec.loop.solver_time_limit_s),
    )
    _refuse_contradictions(problem)
    return without_dominated(problem, _as_good(spec))


def _windows(forecast: Forecast) -> tuple[PlanningWindow, ...]:
    return tuple(PlanningWindow(start_at=w.start_at, window_s=w.window_s) for w in forecast.windows)


def _links(spec: Spec) -> tuple[LinkLimit, ...]:
    return tuple(
        LinkLimit(prefill=link.prefill, decode=link.decode, bytes_per_s=link.bytes_per_s)
        for link in spec.planning.transfer_links
    )


def _as_good(spec: Spec) -> AsGood:
    """Compares by the labels of the search that judged both; else only equal formats are."""

    def as_good(a: ReplicaShape, b: ReplicaShape) -> bool:
        for search in (s for s in spec.shapes if s.model == a.model):
            if search.judges(a) and search.judges(b):
                return search.quality_of(a).steps_down <= search.quality_of(b).steps_down
        return same_formats(a, b)

    return as_good


def _ratios(spec: Spec, model: str) -> tuple[RatioBounds, ...]:
    low = spec.planning.min_prefill_per_decode
    high = spec.planning.max_prefill_per_decode
    if low is None and high is None:
        return ()
    return (RatioBounds(model=model, min_ratio=low, max_ratio=high),)


def _work(
    spec: Spec,
    options: Sequence[Option],
    streams: Sequence[StreamLoad],
    able: Mapping[ReplicaShape, Sequence[int]],
    mixes: Mapping[ReplicaShape, StreamLoad],
    *,
    beyond: int,
) -> NDArray[np.float64]:
    """(streams, options) see `Problem.work`; of `beyond` more streams that nothing serves."""
    worth: dict[ReplicaShape, NDArray[np.float64]] = {}
    for shape, profile in ((o.shape, spec.profile_of(o.shape)) for o in options):
        if shape not in worth and profile is not None:
            worth[shape] = work_of(profile, shape.role, streams, able[shape], mixes[shape])
    served = np.array([worth[o.shape] for o in options]).T
    return np.vstack([served, np.full((beyond, len(options)), np.inf)])


def _demand_rps(streams: Sequence[StreamLoad]) -> NDArray[np.float64]:
    """(streams, windows) mean requests/s."""
    return np.array([[0.0 if x is None else x.request_rate_rps for x in s.loads] for s in streams])


def _kv_bytes(
    spec: Spec, options: Sequence[Option], streams: Sequence[StreamLoad]
) -> NDArray[np.float64] | None:
    """(streams,) mean KV cache that moves for a request, by the largest window and profile."""
    each = [
        profile.limits.kv_bytes_per_token
        for option in options
        if option.shape.role is Role.DECODE
        and (profile := spec.profile_of(option.shape)) is not None
    ]
    if not each or not any(stream.kinds for stream in streams):
        return None
    tokens = [
        max((float(load.shape.weight @ load.shape.input_tokens) for load in s.kinds), default=0.0)
        for s in streams
    ]
    return max(each) * np.array(tokens)


def profile_for(spec: Spec, bounds: PoolBounds) -> Profile:
    """The profile of a pool.

    Raises
    ------
    SpecError
        When the spec has none that describes it.
    """
    profile = spec.profile_of(bounds.shape)
    if profile is None:
        raise SpecError(
            f"pool {bounds.shape.label} of model {bounds.shape.model} has no profile: measure one "
            "(`poolwise profile run`) and list it under `profiles`"
        )
    return profile


def _plannable(spec: Spec, model: str) -> tuple[list[PoolBounds], tuple[Exclusion, ...]]:
    """Pools of the model that may hold replicas; and those that cannot, with the reason."""
    bounds, excluded = [], []
    for pool in spec.pools:
        if pool.shape.model != model:
            continue
        accelerator, needed = _accelerator(spec, pool), pool.shape.accelerators
        if pool.max_replicas == 0:
            excluded.append(_left_out(pool, "max_replicas is 0"))
        elif needed > accelerator.per_node:
            reason = f"{needed} accelerators do not fit into a node of {accelerator.per_node}"
            excluded.append(_left_out(pool, reason))
        else:
            bounds.append(pool)
    return bounds, tuple(excluded)


def _replicas(pool: PoolBounds) -> ReplicaBounds:
    return ReplicaBounds(
        shape=pool.shape, min_replicas=pool.min_replicas, max_replicas=pool.max_replicas
    )


def _left_out(pool: PoolBounds, reason: str) -> Exclusion:
    return Exclusion(shape=pool.shape, label=pool.shape.label, reason=reason)


def _accelerator(spec: Spec, bounds: PoolBounds) -> Accelerator:
    name = bounds.shape.accelerator
    accelerator = next((a for a in spec.accelerators if a.name == name), None)
    if accelerator is None:
        raise SpecError(f"pool {bounds.shape.label} runs on {name}: list it under `accelerators`")
    return accelerator


def _measured_for(
    spec: Spec, bounds: Sequence[PoolBounds], streams: Sequence[StreamLoad]
) -> tuple[Mapping[ReplicaShape, Sequence[int]], tuple[Exclusion, ...]]:
    """Which streams each pool's profile reaches; the pools of which it reaches none, with why.

    Raises
    ------
    OutsideProfileError
        When what is left cannot serve a request of some stream any more.
    """
    found = {
        pool.shape: ability_of(profile_for(spec, pool), pool.shape.role, streams) for pool in bounds
    }
    for k in range(len(streams)):
        errors = [a.beyond for a in found.values() if a.beyond is not None]
        if errors and not _has_path(b for b in bounds if k in found[b.shape].reached):
            raise errors[-1]
    # Where no pool sustains enough to answer anything, all are kept: what is wrong is then told
    # as a plan that cannot be, with what to relax, not as pools that are left out.
    helpless = not _has_path(b for b in bounds if found[b.shape].able)
    there = {k for k, of in enumerate(streams) if not of.stream.left_out}
    able = {
        shape: tuple(k for k in (a.reached if helpless else a.able) if k in there)
        for shape, a in found.items()
    }
    excluded = (
        Exclusion(label=pool.shape.label, shape=pool.shape, reason=_why_not(found[pool.shape]))
        for pool in bounds
        if not able[pool.shape]
    )
    return able, tuple(excluded)


def _why_not(of: Ability) -> str:
    """Why a pool serves no stream."""
    if of.beyond is not None and not of.reached:
        return str(of.beyond)
    return "it keeps the promise of none of the streams, not even without any load"


def _refuse_too_many(options: int, windows: int) -> None:
    """More decisions than are made in minutes are refused at once."""
    if options * windows > MOST_OPTION_WINDOWS:
        raise SpecError(
            f"{windows:,} windows of {options:,} kinds of replicas are more than is planned at "
            f"once ({MOST_OPTION_WINDOWS:,} together): plan at most "
            f"{max(MOST_OPTION_WINDOWS // options, 1):,} windows (forecast.horizon_windows; longer "
            "ones see as far), or offer fewer pools or purchase options"
        )


def _has_path(bounds: Iterable[PoolBounds]) -> bool:
    roles = {b.shape.role for b in bounds}
    return Role.AGGREGATED in roles or {Role.PREFILL, Role.DECODE} <= roles


def _no_path_text(model: str, excluded: Iterable[Exclusion]) -> str:
    reasons = "".join(f"; {e.label} is left out: {e.reason}" for e in excluded)
    return (
        f"the spec offers model {model} nothing that answers a request: list an aggregated pool, "
        f"or a prefill and a decode pool, under `pools`{reasons}"
    )


def _options(spec: Spec, bounds: PoolBounds, fleet: Fleet | None) -> list[Option]:
    accelerator, lifecycle = _accelerator(spec, bounds), profile_for(spec, bounds).lifecycle
    count = bounds.shape.accelerators
    # Without a fleet nobody knows what is there; what is planned then has no lead times.
    warm = fleet is None or fleet.runs(bounds.shape.model, accelerator.name)
    if accelerator.power_w is None and _needs_power(spec):
        raise SpecError(
            f"{_needs_power(spec)} is set, but power_w of accelerator {accelerator.name} is not "
            "known: give it"
        )
    return [
        Option(
            shape=bounds.shape,
            purchase_option=offer.purchase_option,
            usd_per_hour=0.0 if offer.is_prepaid else offer.usd_per_gpu_hour * count,
            initial_replicas=(
                0 if fleet is None else fleet.pool(bounds.shape, offer.purchase_option).replicas
            ),
            start_s=lifecycle.start_warm_s if warm else lifecycle.start_cold_s,
            starts_warm=warm,
            drain_s=lifecycle.drain_s,
            footprint=count,
            interruptions_per_hour=offer.interruptions_per_hour,
            power_w=(accelerator.power_w or 0.0) * count,
            min_up_s=max(bounds.min_up_s, 0.0 if offer.is_prepaid else offer.billing_increment_s),
            billing_increment_s=offer.billing_increment_s,
            prepaid=offer.is_prepaid,
            max_starts=bounds.max_starts,
            max_stops=bounds.max_stops,
        )
        for offer in accelerator.offers
    ]


def _needs_power(spec: Spec) -> str:
    """The setting that needs power_w of every accelerator; empty: none."""
    if spec.budget.power_w is not None:
        return "budget.power_w"
    return "objective power" if spec.planning.objective is Objective.POWER else ""


def _flip_s(spec: Spec, option: Option) -> float:
    profile = spec.profile_of(option.shape)
    return 0.0 if profile is None else profile.lifecycle.flip_s


def _limit(
    spec: Spec, accelerator: Accelerator, model: str, fleet: Fleet | None
) -> AcceleratorLimit:
    """What is left of a type; where sizes do not divide, which replicas stand in the way."""
    sizes = Counter[int]()
    for pool in () if fleet is None else fleet.pools:
        if pool.shape.accelerator == accelerator.name and pool.shape.model != model:
            sizes[pool.shape.accelerators] += pool.replicas
    others = sum(size * count for size, count in sizes.items())
    own = {b.shape.accelerators for b in spec.pools if b.shape.accelerator == accelerator.name}
    odd = not divide({*own, *sizes, accelerator.per_node}) and others <= accelerator.inventory
    return AcceleratorLimit(
        name=accelerator.name,
        inventory=max(accelerator.inventory - others, 0),
        per_node=accelerator.per_node,
        taken=tuple(sorted(sizes.elements())) if odd else (),
        reserved=_reserved_left(accelerator, model, fleet),
        reserved_usd_per_hour=accelerator.reserved_usd_per_hour,
    )


def _reserved_left(accelerator: Accelerator, model: str, fleet: Fleet | None) -> int:
    """Reserved accelerators that no other model of the fleet occupies."""
    offer = accelerator.offer(PurchaseOption.RESERVED)
    if offer is None or offer.reserved_count is None:
        return 0
    taken = sum(
        p.accelerators
        for p in (() if fleet is None else fleet.pools)
        if p.shape.accelerator == accelerator.name
        and p.shape.model != model
        and p.purchase_option is PurchaseOption.RESERVED
    )
    return max(offer.reserved_count - taken, 0)


def _reserved_usd(spec: Spec, model: str, fleet: Fleet | None) -> float:
    """What reserved accelerators cost this plan, used or not, USD/h; others pay for theirs."""
    total = 0.0
    for accelerator in spec.accelerators:
        offer = accelerator.offer(PurchaseOption.RESERVED)
        if offer is not None and offer.is_prepaid:
            total += offer.usd_per_gpu_hour * _reserved_left(accelerator, model, fleet)
    return total


def _holdings(spec: Spec, model: str, fleet: Fleet | None) -> Iterator[Holding]:
    """Accelerators that the fleet's pools of other models occupy."""
    pools = [p for p in (() if fleet is None else fleet.pools) if p.shape.model != model]
    for accelerator in spec.accelerators:
        for name in dict.fromkeys(p.shape.model for p in pools):
            amount = sum(
                p.accelerators
                for p in pools
                if (p.shape.model, p.shape.accelerator) == (name, accelerator.name)
            )
            if amount:
                yield Holding(
                    resource=accelerator.name,
                    amount=amount,
                    total=accelerator.inventory,
                    model=name,
                    priority=spec.priority_of(name),
                    above=spec.priority_of(name) > spec.priority_of(model),
                )


def _usd_of_others(spec: Spec, model: str, fleet: Fleet | None) -> float:
    total = 0.0
    for pool in () if fleet is None else fleet.pools:
        accelerator = next((a for a in spec.accelerators if a.name == pool.shape.accelerator), None)
        offer = None if accelerator is None else accelerator.offer(pool.purchase_option)
        if pool.shape.model != model and offer is not None:
            total += offer.usd_per_gpu_hour * pool.accelerators
    return total


def _power_of_others(spec: Spec, model: str, fleet: Fleet | None) -> float:
    power = {a.name: a.power_w or 0.0 for a in spec.accelerators}
    return sum(
        power.get(p.shape.accelerator, 0.0) * p.accelerators
        for p in (() if fleet is None else fleet.pools)
        if p.shape.model != model
    )


def _left(limit: float | None, used: float) -> float | None:
    return None if limit is None else max(limit - used, 0.0)


def _refuse_contradictions(problem: Problem) -> None:
    """Bounds that no load could ever satisfy are a fault of the spec, not of the plan."""
    least = {b.shape: b.min_replicas for b in problem.bounds if b.min_replicas}
    for limit in (a for t in problem.window_indices for a in problem.limits_in(t)):
        needed = sum(s.accelerators * n for s, n in least.items() if s.accelerator == limit.name)
        if needed > limit.inventory:
            raise SpecError(
                f"min_replicas of the pools on {limit.name} need {needed} accelerators, but only "
                f"{limit.inventory} may be had: lower min_replicas or raise the inventory"
            )
    cheapest = sum(
        n * min(problem.options[o].usd_per_hour for o in problem.of_shape(shape))
        for shape, n in least.items()
    )
    what = "min_replicas and reserved_count" if problem.reserved_usd_per_hour else "min_replicas"
    for t in problem.window_indices:
        usd = cheapest + problem.reserved_usd_per_hour_in(t)
        limit_usd = problem.usd_per_hour_limit_in(t)
        if limit_usd is not None and usd > limit_usd * (1 + 1e-9):
            raise SpecError(
                f"{what} cost at least {usd:.2f} USD/h, but the budget leaves "
                f"{limit_usd:.2f} USD/h: lower {what} or raise budget.usd_per_hour"
            )
