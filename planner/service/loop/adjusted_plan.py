"""Plans that nobody solved for: an earlier one with other replicas from now on."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from hashlib import sha256

from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import Plan, PlannedPool, PlanStatus

PoolOf = tuple[ReplicaShape, PurchaseOption]


def pools_of(fleet: Fleet, model: str) -> dict[PoolOf, int]:
    """Replicas of a model's pools, starting ones too."""
    return {(p.shape, p.purchase_option): p.replicas for p in fleet.pools if p.shape.model == model}


def with_replicas(
    earlier: Plan, fleet: Fleet, pools: Mapping[PoolOf, int], *, prefix: str, now: datetime
) -> Plan:
    """The earlier plan's first window with these replicas.

    Parameters
    ----------
    prefix : str
        What its id begins with: whose plan it is.
    """
    planned = tuple(
        PlannedPool(shape=key[0], purchase_option=key[1], replicas=n, utilization_ratio=0.0)
        for key, n in pools.items()
    )
    window = replace(earlier.windows[0], start_at=now, pools=planned, traffic=())
    counts = {f"{shape.label} {option}": n for (shape, option), n in pools.items()}
    digest = sha256(f"{now.isoformat()} {fleet.version} {counts}".encode()).hexdigest()
    return replace(
        earlier,
        plan_id=prefix + digest[:16],
        made_at=now,
        status=PlanStatus.FEASIBLE,
        windows=(window,),
        inputs=replace(earlier.inputs, fleet_version=fleet.version),
    )
