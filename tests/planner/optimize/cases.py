"""Problems built directly from rates, for tests whose truth is known."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from planner.domain.fleet import ReplicaShape, Role
from planner.domain.hardware import PurchaseOption
from planner.optimize.inputs import (
    AcceleratorLimit,
    Option,
    PlanningWindow,
    PoolCapacity,
    ReplicaBounds,
    Stream,
)
from planner.optimize.problem import Problem

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def option(
    role: Role,
    accelerator: str,
    usd_per_hour: float,
    *,
    tp: int = 1,
    initial_replicas: int = 0,
    start_s: float = 0.0,
    **more: Any,
) -> Option:
    return Option(
        shape=ReplicaShape(role=role, model="m", accelerator=accelerator, tp=tp),
        purchase_option=more.pop("purchase_option", PurchaseOption.ON_DEMAND),
        usd_per_hour=usd_per_hour,
        initial_replicas=initial_replicas,
        start_s=start_s,
        footprint=tp,
        **more,
    )


def problem(
    options: Sequence[Option],
    rates: Sequence[Sequence[float] | float],
    demands_rps: Sequence[float],
    *,
    inventory: int = 8,
    per_node: int = 8,
    window_s: float = 3600.0,
    has_fleet: bool = False,
    bounds: Sequence[ReplicaBounds] = (),
    usd_per_hour_limit: float | None = None,
    best_effort: bool = False,
    reserved: int = 0,
    **more: Any,
) -> Problem:
    """One stream; one rate per option: per replica, or the pool's at 1, 2, ... replicas."""
    pools = [_pool(rate) for rate in rates]
    names = sorted({o.shape.accelerator for o in options})
    given = {
        "streams": (Stream(model="m"),),
        "demand_rps": np.array([demands_rps], dtype=np.float64),
        "work": np.ones((1, len(options))),
        **more,
    }
    return Problem(
        options=tuple(options),
        windows=tuple(
            PlanningWindow(start_at=START + timedelta(seconds=t * window_s), window_s=window_s)
            for t in range(len(demands_rps))
        ),
        capacity={(o, t): pool for o, pool in enumerate(pools) for t in range(len(demands_rps))},
        accelerators=tuple(
            AcceleratorLimit(name=n, inventory=inventory, per_node=per_node, reserved=reserved)
            for n in names
        ),
        bounds=tuple(bounds),
        ordered_at=START,
        has_fleet=has_fleet,
        usd_per_hour_limit=usd_per_hour_limit,
        best_effort=best_effort,
        **given,
    )


def _pool(rate: Sequence[float] | float) -> PoolCapacity:
    if isinstance(rate, float):
        return PoolCapacity.linear(rate)
    return PoolCapacity(counts_rps=np.array([0.0, *rate]))
