"""What rollout steps do to a fleet, as pure values."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from planner.domain.errors import StalePlanError
from planner.domain.fleet import CellPool, Fleet, Pool, ReplicaShape, Role, merged, version_of
from planner.domain.hardware import PurchaseOption
from planner.domain.rollout import Step, StepKind


@dataclass(frozen=True, slots=True, order=True)
class PoolKey:
    """What tells one pool of a fleet from another.

    Parameters
    ----------
    cell : str
        Where pools are looked at cell by cell; empty: all of them together.
    """

    shape: ReplicaShape
    purchase_option: PurchaseOption
    cell: str = ""

    @property
    def anywhere(self) -> "PoolKey":
        """The whole pool's key."""
        return PoolKey(self.shape, self.purchase_option)


Pools = dict[PoolKey, Pool]


def key_of(pool: Pool) -> PoolKey:
    """The key of a pool."""
    return PoolKey(pool.shape, pool.purchase_option)


def pools_by_key(fleet: Fleet) -> Pools:
    """The fleet's pools under their keys."""
    return {key_of(pool): pool for pool in fleet.pools}


def pools_in_cells(fleet: Fleet) -> Pools:
    """The parts of the fleet's pools under their keys, cell by cell."""
    return {replace(key_of(part.pool), cell=part.cell): part.pool for part in fleet.by_cell}


def pools_before(fleet: Fleet, steps: Sequence[Step]) -> Pools:
    """What the steps act on: pools cell by cell where they name cells."""
    if any(step.cell for step in steps):
        return pools_in_cells(fleet)
    return pools_by_key(fleet)


def cells_of(pools: Pools) -> tuple[str, ...]:
    """The cells that pools are in; a single empty name where they are looked at together."""
    return tuple(sorted({key.cell for key in pools}))


def pool_at(pools: Pools, key: PoolKey) -> Pool:
    """The pool under a key, an empty one when there is none."""
    return pools.get(key) or Pool(shape=key.shape, purchase_option=key.purchase_option)


def ready_in(pools: Pools, role: Role, *, model: str, cell: str | None = None) -> int:
    """Ready replicas of one role of one model, in one cell or in all."""
    return sum(
        p.ready
        for k, p in pools.items()
        if (k.shape.role, k.shape.model) == (role, model) and cell in (None, k.cell)
    )


def replicas_in(pools: Pools, role: Role, *, model: str) -> int:
    """Replicas of one role of one model that serve or soon will."""
    return sum(
        p.replicas for k, p in pools.items() if (k.shape.role, k.shape.model) == (role, model)
    )


def serves(pools: Pools, *, model: str) -> bool:
    """Whether a request can be answered: an aggregated replica, or prefill and decode in a cell."""
    if ready_in(pools, Role.AGGREGATED, model=model) > 0:
        return True
    return any(
        all(ready_in(pools, r, model=model, cell=cell) > 0 for r in (Role.PREFILL, Role.DECODE))
        for cell in cells_of(pools)
    )


def applied(pools: Pools, step: Step) -> Pools:
    """The pools after one step.

    START ends when the replica answers its health check: it is `starting` until ROUTE registers
    it with the router. FLIP ends with the replica taking traffic in its new role. DRAIN takes a
    stuck replica before a starting one, and that before a ready one: they serve nobody. STOP ends
    a draining one.

    Raises
    ------
    StalePlanError
        When the pool has no replica in the state that the step needs.
    """
    key = PoolKey(step.shape, step.purchase_option, step.cell)
    pool = pool_at(pools, key)
    if step.kind is StepKind.START:
        return pools | {key: replace(pool, starting=pool.starting + 1)}
    _require_replica(pool, step)
    if step.kind is StepKind.ROUTE:
        moved = replace(pool, starting=pool.starting - 1, ready=pool.ready + 1)
        return pools | {key: moved}
    if step.kind is StepKind.STOP:
        return pools | {key: replace(pool, draining=pool.draining - 1)}
    if step.to_shape is None and pool.stuck > 0:
        return pools | {key: replace(pool, stuck=pool.stuck - 1, draining=pool.draining + 1)}
    given = _without_one(pool)
    if step.to_shape is None:
        return pools | {key: replace(given, draining=given.draining + 1)}
    to_key = PoolKey(step.to_shape, step.purchase_option, step.cell)
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
    if not steps:
        return replace(fleet, read_at=at)
    pools = pools_before(fleet, steps)
    for step in steps:
        pools = applied(pools, step)
    parts = tuple(CellPool(cell=key.cell, pool=pools[key]) for key in sorted(pools))
    result = merged(parts)
    by_cell = parts if cells_of(pools) != ("",) else ()
    return Fleet(pools=result, read_at=at, version=version_of(result), by_cell=by_cell)


def _without_one(pool: Pool) -> Pool:
    if pool.starting > 0:
        return replace(pool, starting=pool.starting - 1)
    return replace(pool, ready=pool.ready - 1)


def _require_replica(pool: Pool, step: Step) -> None:
    available = {
        StepKind.ROUTE: pool.starting,
        StepKind.STOP: pool.draining,
        StepKind.DRAIN: pool.asked,
        StepKind.FLIP: pool.replicas,
    }[step.kind]
    if available < 1:
        raise StalePlanError(
            f"step {step.index + 1} ({step.kind}) finds no replica to act on in {pool.shape.label} "
            f"({pool.ready} ready, {pool.starting} starting, {pool.draining} draining): "
            "plan again"
        )
