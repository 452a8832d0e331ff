"""Ordered steps from a fleet to a plan's first window.

The order keeps capacity on the way: new replicas start and take traffic before old ones leave, at
most the disruption budget of them at once, and prefill and decode grow and shrink in turns, so
that the planned ratio of both is kept. Where another role of the same accelerator and parallelism
has a replica to spare and a flip is faster than a start and a drain, it flips. Old replicas leave
early only where the inventory, or a hard limit of the spec, has no room for the new ones, those
first whose leaving costs least.
Where the spec names cells, each part of a pool in a cell is a pool of its own: a replica that has
to stand elsewhere starts there and drains here, and flips stay inside a cell.
`Diff.groups` says which steps do not depend on each other.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from planner.domain.fleet import Fleet, Role
from planner.domain.plan import Plan
from planner.domain.rollout import Diff, Step, StepKind
from planner.domain.spec import Spec
from planner.domain.wording import counted
from planner.rollout.capacity import Floor, capacity, rates, worse_of
from planner.rollout.cells import Site, counts_of, is_steered, place, site_in, standing
from planner.rollout.durations import expected_s, lifecycle_of, start_s, usd_per_hour
from planner.rollout.effects import (
    PoolKey,
    Pools,
    after,
    applied,
    pool_at,
    pools_by_key,
    pools_in_cells,
    ready_in,
    replicas_in,
    serves,
)
from planner.rollout.placing import Room

_RECEIVERS_FIRST = (Role.DECODE, Role.AGGREGATED, Role.PREFILL)
"""Decode is there before the prefill that hands requests to it, and leaves after it."""
_ENOUGH = 1.0 - 1e-9
"""Share of a floor that counts as all of it: sums of rates are rounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Replicas by pool that a rollout leads to.

    Parameters
    ----------
    model : str
        Only pools of this model are touched.
    replicas : mapping of PoolKey to int
        Every pool of the model that the fleet or the plan has.
    stay : bool
        Replicas are not moved from cell to cell, though more requests might be served then.
    leave : frozenset of PoolKey
        Pools whose stuck replicas are not taken back; nobody waits for them either.
    """

    plan_id: str
    model: str
    replicas: Mapping[PoolKey, int]
    stay: bool = False
    leave: frozenset[PoolKey] = frozenset()


@dataclass(frozen=True, slots=True)
class _Goal:
    """Where the steps lead, and what they must not break on the way."""

    model: str
    replicas: dict[PoolKey, int]
    floor: Floor
    each_rps: dict[PoolKey, float]
    inventory: dict[str, int]
    rooms: tuple[Room, ...]
    most_disrupted: int
    can_flip: bool
    leave: frozenset[PoolKey]
    spec: Spec
    fleet: Fleet


def wanted_of(fleet: Fleet, plan: Plan) -> Wanted:
    """What a plan's first window wants, pools that it no longer has included."""
    replicas = {PoolKey(p.shape, p.purchase_option): 0 for p in fleet.pools}
    replicas = {k: n for k, n in replicas.items() if k.shape.model == plan.model}
    for planned in plan.windows[0].pools:
        replicas[PoolKey(planned.shape, planned.purchase_option)] = planned.replicas
    return Wanted(plan_id=plan.plan_id, model=plan.model, replicas=replicas)


def led_to(diff: Diff, *, model: str) -> Wanted:
    """What a diff would have led to, for completing it from another fleet."""
    end = after(diff.from_fleet, diff.steps, at=diff.from_fleet.read_at)
    replicas = {k: p.replicas for k, p in pools_by_key(end).items() if k.shape.model == model}
    return Wanted(plan_id=diff.plan_id, model=model, replicas=replicas)


def led_from(diff: Diff, *, model: str) -> Wanted:
    """What there was before a diff, for going back to it from another fleet.

    Pools that only the diff made are wanted empty.
    """
    before = pools_by_key(diff.from_fleet)
    replicas = dict.fromkeys(led_to(diff, model=model).replicas, 0)
    replicas |= {k: p.replicas for k, p in before.items() if k.shape.model == model}
    return Wanted(plan_id=diff.plan_id, model=model, replicas=replicas)


def last_good(diff: Diff, fleet: Fleet, *, model: str) -> Wanted:
    """What a rollout that broke off goes back to by itself: the fleet before it.

    Of a diff that only adds, replicas that serve already stay: to take them away as well would
    leave growing load with less than there is. What was starting before it and did not come is not
    begun anew: that is for a new plan, and nobody waits for it on the way back.
    """
    before, began = led_from(diff, model=model), pools_by_key(diff.from_fleet)
    there, wanted = pools_by_key(fleet), led_to(diff, model=model).replicas
    taken = {s.shape for s in diff.steps if s.kind in (StepKind.DRAIN, StepKind.FLIP)} - {
        key.shape for key, pool in began.items() if pool.stuck
    }
    replicas = {}
    for key, count in before.replicas.items():
        now = pool_at(there, key)
        served = min(count, max(pool_at(began, key).ready, now.replicas))
        replicas[key] = served if taken else max(served, min(now.ready, wanted[key]))
    return replace(before, replicas=replicas)


def diff(fleet: Fleet, plan: Plan, spec: Spec, *, can_flip: bool = True) -> Diff:
    """Ordered steps that turn `fleet` into the first window of `plan`; see `diff_to`."""
    return diff_to(fleet, wanted_of(fleet, plan), spec, can_flip=can_flip)


def diff_to(fleet: Fleet, wanted: Wanted, spec: Spec, *, can_flip: bool = True) -> Diff:
    """Ordered steps that turn `fleet` into what is wanted.

    Replicas that are starting already are routed, those that are draining already are stopped, so
    a half-applied plan is completed. Stuck ones are taken back before anything else: a target that
    counts replicas would wait for them with every one that starts.

    Parameters
    ----------
    spec : Spec
        For inventory, prices, the profiles' lifecycle times and the disruption budget.
    can_flip : bool
        Whether the target can change the role of a running replica. False: starts and drains
        only.

    Returns
    -------
    Diff
        `after(fleet, result.steps)` has the wanted replicas, all of them ready, but for those that
        no cell has room for. No step leaves a role, or the service, with less ready capacity than
        the worse of both end fleets, unless the inventory or a cell has no room for any other
        order: `dip` says by how much, and the guards `dip` and `serving_floor` judge it.

    Raises
    ------
    SpecError
        When the fleet holds a pool whose accelerator the spec does not price.
    """
    goal = _goal(fleet, wanted, spec, can_flip=can_flip)
    pools = _pools(fleet, spec)
    steps: list[Step] = []
    while (step := _next_step(pools, goal, steps)) is not None:
        step = replace(step, index=len(steps))
        pools = applied(pools, step)
        steps.append(step)
    return Diff(plan_id=wanted.plan_id, from_fleet=fleet, steps=tuple(steps))


def floors(fleet: Fleet, planned: dict[Role, int], *, model: str) -> dict[Role, int]:
    """For every role: min(1, planned replicas, replicas ready before), which no step undercuts."""
    pools = pools_by_key(fleet)
    return {r: min(1, planned.get(r, 0), ready_in(pools, r, model=model)) for r in Role}


def _goal(fleet: Fleet, wanted: Wanted, spec: Spec, *, can_flip: bool) -> _Goal:
    before = _pools(fleet, spec)
    own = {k: n for k, n in wanted.replicas.items() if k.shape.model == wanted.model}
    site = site_in(spec, fleet, model=wanted.model) if is_steered(spec, fleet) else Site(names=())
    if site.names:
        own = _in_cells(own, site, fleet, spec, wanted)
    each_rps = rates({**dict.fromkeys(before), **dict.fromkeys(own)}, spec)
    final = {key: replace(pool_at({}, key), ready=count) for key, count in own.items()}
    ends = [capacity(pools, each_rps, model=wanted.model) for pools in (before, final)]
    return _Goal(
        model=wanted.model,
        replicas=dict(sorted(own.items(), key=_receivers_first)),
        floor=worse_of(*ends),
        each_rps=each_rps,
        inventory={a.name: a.inventory for a in spec.accelerators},
        rooms=site.rooms,
        most_disrupted=max(1, spec.guards.max_disrupted_replicas),
        can_flip=can_flip,
        leave=wanted.leave,
        spec=spec,
        fleet=fleet,
    )


def _pools(fleet: Fleet, spec: Spec) -> Pools:
    return pools_in_cells(fleet) if is_steered(spec, fleet) else pools_by_key(fleet)


def _in_cells(
    wanted: Mapping[PoolKey, int], site: Site, fleet: Fleet, spec: Spec, asked: Wanted
) -> dict[PoolKey, int]:
    """The wanted replicas by cell, parts of pools that shall be empty included."""
    now = standing(fleet, model=asked.model)
    placement = place(wanted, rates(wanted, spec), site, now, stay=asked.stay)
    empty = dict.fromkeys((k for k in pools_in_cells(fleet) if k.shape.model == asked.model), 0)
    return empty | counts_of(placement)


def _receivers_first(item: tuple[PoolKey, int]) -> tuple[int, PoolKey]:
    return _RECEIVERS_FIRST.index(item[0].shape.role), item[0]


def _next_step(pools: Pools, goal: _Goal, taken: list[Step]) -> Step | None:
    if taken and taken[-1].kind is StepKind.STOP and _out_of_service(pools, goal):
        return _stop(pools, goal)  # what drained together stops together
    return next((s for choose in _CHOICES if (s := choose(pools, goal)) is not None), None)


def _take_back(pools: Pools, goal: _Goal) -> Step | None:
    """Replicas that do not come serve nobody: nothing is lost with them."""
    stuck = [k for k in goal.replicas if pool_at(pools, k).stuck and k.anywhere not in goal.leave]
    if not stuck:
        return None
    if _out_of_service(pools, goal) >= goal.most_disrupted:
        return _stop(pools, goal)
    key = stuck[0]
    reason = f"a replica of {key.shape.label} did not come in time and serves nobody{_where(key)}"
    return _step(StepKind.DRAIN, key, goal, reason=reason)


def _start_with_room(pools: Pools, goal: _Goal) -> Step | None:
    for key in sorted(_to_start(pools, goal), key=lambda k: _grown(pools, k, goal, ready=False)):
        if _room(pools, key, goal) >= key.shape.accelerators:
            return _start(pools, key, goal)
    return None


def _route(pools: Pools, goal: _Goal) -> Step | None:
    """Decode first: a prefill replica that takes prompts without any holds them up."""
    coming = {k.cell for k, n in goal.replicas.items() if n and k.shape.role is Role.DECODE}
    held = {
        cell for cell in coming if not ready_in(pools, Role.DECODE, model=goal.model, cell=cell)
    }
    return _routed(pools, goal, held=held)


def _route_anyway(pools: Pools, goal: _Goal) -> Step | None:
    return _routed(pools, goal, held=set())


def _routed(pools: Pools, goal: _Goal, *, held: set[str]) -> Step | None:
    able = [
        key
        for key, planned in goal.replicas.items()
        if pool_at(pools, key).starting > 0
        and pool_at(pools, key).ready < planned
        and not (key.shape.role is Role.PREFILL and key.cell in held)
    ]
    if not able:
        return None
    key = min(able, key=lambda k: _grown(pools, k, goal, ready=True))
    reason = f"{key.shape.label} answers its health check and may take traffic"
    return _step(StepKind.ROUTE, key, goal, reason=reason)


def _grown(pools: Pools, key: PoolKey, goal: _Goal, *, ready: bool) -> float:
    """Replicas of the pool's role over those it shall have: who lags is served first."""
    keys = [k for k in goal.replicas if k.shape.role is key.shape.role]
    have = sum(pool_at(pools, k).ready if ready else pool_at(pools, k).replicas for k in keys)
    planned = sum(goal.replicas[k] for k in keys)
    return have / planned if planned else float("inf")


def _flip_safely(pools: Pools, goal: _Goal) -> Step | None:
    for giver, receiver in _flips(pools, goal):
        if _out_of_service(pools, goal) < goal.most_disrupted and _may_lose_one(pools, giver, goal):
            return _flip(giver, receiver, goal)
    return None


def _start_instead_of_flip(pools: Pools, goal: _Goal) -> Step | None:
    for _, receiver in _flips(pools, goal):
        if _room(pools, receiver, goal) >= receiver.shape.accelerators:
            return _start(pools, receiver, goal)
    return None


def _stop(pools: Pools, goal: _Goal) -> Step | None:
    for key in reversed(goal.replicas):
        if pool_at(pools, key).draining > 0:
            return _step(StepKind.STOP, key, goal, reason=f"{key.shape.label} has drained")
    return None


def _drain_safely(pools: Pools, goal: _Goal) -> Step | None:
    if _out_of_service(pools, goal) >= goal.most_disrupted:
        return None
    waiting = {key.shape.accelerator for key in _to_start(pools, goal)}
    surplus = sorted(
        _to_drain(pools, goal),
        key=lambda k: (k.shape.accelerator not in waiting, -_grown(pools, k, goal, ready=False)),
    )
    for key in surplus:
        if _may_lose_one(pools, key, goal):
            return _drain(pools, key, goal, blocking=key.shape.accelerator in waiting)
    return None


def _lose_anyway(pools: Pools, goal: _Goal) -> Step | None:
    """Flip or drain where it costs least; what is waited for goes first."""
    waiting = {key.shape.accelerator for key in _to_start(pools, goal)}
    flips = [(giver, receiver) for giver, receiver in _flips(pools, goal)]
    losing: list[tuple[PoolKey, PoolKey | None]] = [*flips]
    losing += [(key, None) for key in _to_drain(pools, goal)]
    if not losing:
        return None

    def least(choice: tuple[PoolKey, PoolKey | None]) -> tuple[float, bool]:
        key, receiver = choice
        useful = receiver is not None or key.shape.accelerator in waiting
        return -_left(pools, key, goal), not useful

    key, receiver = min(losing, key=least)
    if receiver is not None:
        return _flip(key, receiver, goal)
    return _drain(pools, key, goal, blocking=True)


def _start_anyway(pools: Pools, goal: _Goal) -> Step | None:
    return next((_start(pools, key, goal) for key in _to_start(pools, goal)), None)


_CHOICES: tuple[Callable[[Pools, _Goal], Step | None], ...] = (
    _take_back,
    _start_with_room,
    _route,
    _flip_safely,
    _start_instead_of_flip,
    _drain_safely,
    _stop,
    # What follows breaks a promise of `diff`; the guards find it and say so.
    _lose_anyway,
    _start_anyway,
    _route_anyway,
)


def _missing(pools: Pools, goal: _Goal) -> dict[PoolKey, int]:
    return {k: n - pool_at(pools, k).replicas for k, n in goal.replicas.items()}


def _flips(pools: Pools, goal: _Goal) -> Iterator[tuple[PoolKey, PoolKey]]:
    """Pairs (giver, receiver) of one replica each, where a flip beats start and drain."""
    missing = _missing(pools, goal)
    for receiver in goal.replicas:
        for giver in goal.replicas:
            while missing[receiver] > 0 > missing[giver] and _may_flip(giver, receiver, goal):
                missing[receiver] -= 1
                missing[giver] += 1
                yield giver, receiver


def _may_flip(giver: PoolKey, receiver: PoolKey, goal: _Goal) -> bool:
    same_role = giver.shape.role == receiver.shape.role
    if not goal.can_flip or same_role or _engine_of(giver) != _engine_of(receiver):
        return False
    times = lifecycle_of(giver.shape, goal.spec)
    return times.flip_s < start_s(receiver.shape, goal.spec, goal.fleet) + times.drain_s


def _engine_of(key: PoolKey) -> tuple[object, ...]:
    return *key.shape.engine, key.purchase_option, key.cell


def _to_start(pools: Pools, goal: _Goal) -> list[PoolKey]:
    """Pools that lack replicas which no flip will bring."""
    missing = _missing(pools, goal)
    for _, receiver in _flips(pools, goal):
        missing[receiver] -= 1
    return [key for key, count in missing.items() if count > 0]


def _to_drain(pools: Pools, goal: _Goal) -> list[PoolKey]:
    """Pools with replicas too many that no flip will take; prefill first."""
    missing = _missing(pools, goal)
    for giver, _ in _flips(pools, goal):
        missing[giver] += 1
    return [key for key, count in reversed(missing.items()) if count < 0]


def _room(pools: Pools, key: PoolKey, goal: _Goal) -> int:
    """Accelerators of the pool's type, and of its cell, that no replica in any state occupies.

    None where one more replica would break a hard limit of the spec.
    """
    name, guards = key.shape.accelerator, goal.spec.guards
    used = sum(p.accelerators for k, p in pools.items() if k.shape.accelerator == name)
    free = [goal.inventory.get(name, 0) - used]
    if guards.max_accelerators is not None:
        free.append(guards.max_accelerators - sum(p.accelerators for p in pools.values()))
    most = guards.of_role(key.shape.role).max_replicas
    if most is not None and replicas_in(pools, key.shape.role, model=goal.model) >= most:
        free.append(0)
    for room in (r for r in goal.rooms if key.cell in r.cells):
        here = sum(
            p.accelerators
            for k, p in pools.items()
            if k.cell in room.cells and k.shape.model == goal.model
        )
        free.append(room.accelerators - here)
    return min(free)


def _out_of_service(pools: Pools, goal: _Goal) -> int:
    return sum(p.draining for k, p in pools.items() if k.shape.model == goal.model)


def _left(pools: Pools, key: PoolKey, goal: _Goal) -> float:
    """Share of the floor that is there when the pool has lost one; a starting one goes first."""
    pool = pool_at(pools, key)
    if pool.starting == 0:
        pools = pools | {key: replace(pool, ready=pool.ready - 1)}
    return capacity(pools, goal.each_rps, model=goal.model).lowest_ratio(goal.floor)


def _may_lose_one(pools: Pools, key: PoolKey, goal: _Goal) -> bool:
    """Whether every floor is kept, and requests are still answered if they were."""
    pool = pool_at(pools, key)
    if pool.starting > 0:
        return True
    if _left(pools, key, goal) < _ENOUGH:
        return False
    least = goal.spec.guards.of_role(key.shape.role).min_replicas
    if ready_in(pools, key.shape.role, model=goal.model) <= least:
        return False
    without = pools | {key: replace(pool, ready=pool.ready - 1)}
    prefills, decodes = (
        ready_in(without, role, model=goal.model, cell=key.cell)
        for role in (Role.PREFILL, Role.DECODE)
    )
    if key.shape.role is Role.DECODE and prefills and not decodes:
        return False  # prompts would go to prefill replicas that have nobody to hand them to
    return serves(without, model=goal.model) or not serves(pools, model=goal.model)


def _start(pools: Pools, key: PoolKey, goal: _Goal) -> Step:
    have = pool_at(pools, key).replicas
    reason = f"{key.shape.label} grows from {have} to {counted(have + 1, 'replica')}{_where(key)}"
    return _step(StepKind.START, key, goal, reason=reason)


def _where(key: PoolKey) -> str:
    return f" in cell {key.cell}" if key.cell else ""


def _flip(giver: PoolKey, receiver: PoolKey, goal: _Goal) -> Step:
    reason = f"{giver.shape.label} has a replica to spare that {receiver.shape.label} needs"
    return _step(StepKind.FLIP, giver, goal, reason=reason, to=receiver)


def _drain(pools: Pools, key: PoolKey, goal: _Goal, *, blocking: bool) -> Step:
    have = pool_at(pools, key).replicas
    reason = f"{key.shape.label} shrinks from {have} to {counted(have - 1, 'replica')}{_where(key)}"
    if blocking:
        reason += ": there is no room for what starts next otherwise"
    return _step(StepKind.DRAIN, key, goal, reason=reason)


def _step(
    kind: StepKind, key: PoolKey, goal: _Goal, *, reason: str, to: PoolKey | None = None
) -> Step:
    seconds = expected_s(kind, key.shape, goal.spec, goal.fleet)
    return Step(
        index=0,
        kind=kind,
        shape=key.shape,
        to_shape=None if to is None else to.shape,
        purchase_option=key.purchase_option,
        expected_s=seconds,
        expected_usd=seconds / 3600 * usd_per_hour(key, goal.spec),
        reason=reason,
        cell=key.cell,
    )
