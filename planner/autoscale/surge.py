"""How many replicas each role lacks where more arrives than was expected: closed form, no solver.

Both roles at once: what reaches decode an answer later is known when prompts arrive, and with one
role after the other the second would start when the first is there.
"""

import math
from dataclasses import dataclass

from planner.autoscale.backlog import Backlog
from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role
from planner.domain.forecast import ForecastWindow
from planner.domain.hardware import PurchaseOption
from planner.domain.profile import Profile
from planner.domain.spec import Spec
from planner.optimize.capacity_tables import rate_by_size
from planner.optimize.inputs import Stream
from planner.optimize.loads import Load, StreamLoad, load_of, promises

_MEDIAN = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStart:
    """Replicas more, of a pool that runs already."""

    shape: ReplicaShape
    purchase_option: PurchaseOption
    replicas: int


def starts(
    spec: Spec, fleet: Fleet, backlog: Backlog, window: ForecastWindow
) -> tuple[ReplicaStart, ...]:
    """As many of each role's largest pool as keep the promises at the rate that arrives.

    Lengths are the forecast's. Prefill also works off, within one start-up time after they came,
    what waits now and what will have gathered by then: in less time, replicas would be started
    that are too many as soon as they are there. Every replica of a role counts as one of its
    largest pool.

    Parameters
    ----------
    window : ForecastWindow
        What was expected of now.

    Raises
    ------
    SpecError, OutsideProfileError
        As `planner.optimize.plan`.
    """
    load = load_of(window, _MEDIAN)
    if load is None:
        return ()
    found = []
    for role in (Role.PREFILL, Role.DECODE):
        pool = _growing(spec, fleet, backlog.model, role)
        profile = None if pool is None else spec.profile_of(pool.shape)
        if pool is None or profile is None:
            continue
        have = fleet.replicas(role, model=backlog.model)
        lacking = _needed(spec, backlog, load, profile, role, have=have) - have
        count = min(lacking, _room(spec, pool))
        if count > 0:
            found.append(
                ReplicaStart(shape=pool.shape, purchase_option=pool.purchase_option, replicas=count)
            )
    return tuple(found)


def relief(spec: Spec, fleet: Fleet, model: str, *, pressure: float) -> tuple[ReplicaStart, ...]:
    """As many of decode's largest pool as take the sequences that are there into their batches.

    Parameters
    ----------
    pressure : float
        Sequences over what the ready replicas' batches take within the objective.
    """
    pool = _growing(spec, fleet, model, Role.DECODE)
    if pool is None or not math.isfinite(pressure):
        return ()
    ready = sum(p.ready for p in fleet.pools if _is_decode(p, model))
    count = math.ceil(ready * pressure) - fleet.replicas(Role.DECODE, model=model)
    count = min(count, _room(spec, pool))
    if count <= 0:
        return ()
    return (ReplicaStart(shape=pool.shape, purchase_option=pool.purchase_option, replicas=count),)


def _is_decode(pool: Pool, model: str) -> bool:
    return (pool.shape.model, pool.shape.role) == (model, Role.DECODE)


def _needed(
    spec: Spec, backlog: Backlog, load: Load, profile: Profile, role: Role, *, have: int
) -> int:
    """Replicas that sustain what arrives; one more than there are where idle ones do not either."""
    isl = load.shape.isl_mean
    rate_rps = max(backlog.request_rate_rps or 0.0, (backlog.input_tokens_per_s or 0.0) / isl)
    names = load.class_names.tolist()
    of = StreamLoad(
        stream=Stream(model=backlog.model),
        loads=(load,),
        slos=promises(spec, backlog.model, names),
    )
    rate_of = rate_by_size(profile, role, load, of, spec.routing.balancing)
    able_rps = rate_of(max(have, 1))
    if able_rps <= 0:
        return have + 1
    if role is Role.PREFILL:
        start_s = max(profile.lifecycle.start_warm_s, 1.0)
        gathered = backlog.waiting_prompt_tokens / isl + max(rate_rps - able_rps, 0.0) * start_s
        rate_rps += gathered / start_s
    # A pool sustains no less than its smaller self's share for each: from above, then exactly.
    most = math.ceil(rate_rps * max(have, 1) / able_rps)
    if most <= have:
        return most
    count = math.ceil(rate_rps * most / max(rate_of(most), able_rps))
    while count < most and rate_of(count) < rate_rps:
        count += 1
    return count


def _growing(spec: Spec, fleet: Fleet, model: str, role: Role) -> Pool | None:
    """The role's largest pool that runs and may grow."""
    room = [
        pool
        for pool in fleet.pools
        if pool.ready > 0
        and (pool.shape.model, pool.shape.role) == (model, role)
        and _room(spec, pool) > 0
    ]
    return max(room, key=lambda pool: pool.replicas, default=None)


def _room(spec: Spec, pool: Pool) -> int:
    """Replicas that its bounds let it grow by; guards know of inventory and budget."""
    bounds = next((b for b in spec.pools if b.shape == pool.shape), None)
    if bounds is None:
        return 0
    most = bounds.max_replicas
    accelerator = spec.accelerator(pool.shape.accelerator)
    limit = accelerator.inventory // pool.shape.accelerators if most is None else most
    return limit - pool.replicas
