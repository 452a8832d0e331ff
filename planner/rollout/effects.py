"""What rollout steps do to a fleet, as pure values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from planner.domain.errors import StalePlanError
from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role, version_of
from planner.domain.hardware import PurchaseOption
from planner.domain.rollout import Step, StepKind


@dataclass(frozen=True, slots=True, order=True)
class PoolKey:
    """What tells one pool of a fleet from another."""

    shape: ReplicaShape
    purchase_option: PurchaseOption


Pools = dict[PoolKey, Pool]


def key_of(pool: Pool) -> PoolKey:
    """The key of a pool."""
    return PoolKey(pool.shape, pool.purchase_option)


def pools_by_key(fleet: Fleet) -> Pools:
    """The fleet's pools under their keys."""
    return {key_of(pool): pool for pool in fleet.pools}


def pool_at(pools: Pools, key: PoolKey) -> Pool:
    """The pool under a key, an empty one when there is none."""
    return pools.get(key) or Pool(shape=key.shape, purchase_option=key.purchase_option)


def ready_in(pools: Pools, role: Role, *, model: str) -> int:
    """Ready replicas of one role of one model."""
    return sum(p.ready for k, p in pools.items() if (k.shape.role, k.shape.model) == (role, model))


def serves(pools: Pools, *, model: str) -> bool:
    """Whether a request can be answered: an aggregated replica, or prefill and decode."""
    if ready_in(pools, Role.AGGREGATED, model=model) > 0:
        return True
    return all(ready_in(pools, r, model=model) > 0 for r in (Role.PREFILL, Role.DECODE))


def applied(pools: Pools, step: Step) -> Pools:
    """The pools after one step.

    START ends when the replica answers its health check: it is `starting` until ROUTE registers
    it with the router. FLIP ends with the replica taking traffic in its new role. DRAIN takes a
    starting replica before a ready one: it serves nobody yet. STOP ends a draining one.

    Raises
    ------
    StalePlanError
        When the pool has no replica in the state that the step needs.
    """
    key = PoolKey(step.shape, step.purchase_option)
    pool = pool_at(pools, key)
    if step.kind is StepKind.START:
        return pools | {key: replace(pool, starting=pool.starting + 1)}
    _require_replica(pool, step)
    if step.kind is StepKind.ROUTE:
        moved = replace(pool, starting=pool.starting - 1, ready=pool.ready + 1)
        return pools | {key: moved}
    if step.kind is StepKind.STOP:
        return pools | {key: replace(pool, draining=pool.draining - 1)}
    given = _without_one(pool)
    if step.to_shape is None:
        return pools | {key: replace(given, draining=given.draining + 1)}
    to_key = PoolKey(step.to_shape, step.purchase_option)
    receiver = pool_at(pools, to_key)
    return pools | {key: given, to_key: replace(receiver, ready=receiver.ready + 1)}


def after(fleet: Fleet, steps: Sequence[Step], *, at: datetime) -> Fleet:
    """The fleet that the steps would leave, if all of them succeed.

    Parameters
    ----------
    at : datetime
        Becomes `read_at` of the result.

    Returns
    -------
    Fleet
        Its version is derived from the pools, so equal outcomes have equal versions; without
        steps it is the fleet's own.

    Raises
    ------
    StalePlanError
        When a step needs a replica that the fleet does not have.
    """
    pools = pools_by_key(fleet)
    for step in steps:
        pools = applied(pools, step)
    result = tuple(pools[key] for key in sorted(pools))
    if not steps:
        return replace(fleet, read_at=at)
    return Fleet(pools=result, read_at=at, version=version_of(result))


def _without_one(pool: Pool) -> Pool:
    if pool.starting > 0:
        return replace(pool, starting=pool.starting - 1)
    return replace(pool, ready=pool.ready - 1)


def _require_replica(pool: Pool, step: Step) -> None:
    available = {
        StepKind.ROUTE: pool.starting,
        StepKind.STOP: pool.draining,
        StepKind.DRAIN: pool.replicas,
        StepKind.FLIP: pool.replicas,
    }[step.kind]
    if available < 1:
        raise StalePlanError(
            f"step {step.index + 1} ({step.kind}) finds no replica to act on in {pool.shape.label} "
            f"({pool.ready} ready, {pool.starting} starting, {pool.draining} draining): "
            "plan again"
        )
