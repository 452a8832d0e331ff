"""Which split of an end-to-end objective between prefill and decode costs least."""

import math
from collections.abc import Sequence
from dataclasses import replace

from planner.capacity.end_to_end import SPLITS
from planner.domain.errors import OutsideProfileError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.spec import Spec
from planner.optimize.capacity_tables import TABLE_COUNTS, rate_by_size
from planner.optimize.loads import StreamLoad
from planner.optimize.streams import WORK_REPLICAS

_LEAST_USD = 1e-3
"""Accelerators that are paid for anyway still count, USD/h."""

_COUNTED = 8
"""So many of the best splits by rates are compared by whole replicas."""


def with_split(
    spec: Spec, shapes: Sequence[ReplicaShape], streams: Sequence[StreamLoad]
) -> tuple[StreamLoad, ...]:
    """The streams with the split at which most of them can be served, and at the least cost.

    By the cheapest prefill and the cheapest decode pool of each stream. Without an end-to-end
    objective, or without pools of both roles, nothing is split.
    """
    if not any(slo.e2e_s is not None for s in streams for slo in s.slos):
        return tuple(streams)
    if not {Role.PREFILL, Role.DECODE} <= {shape.role for shape in shapes}:
        return tuple(streams)
    tried = [tuple(replace(s, split=split) for s in streams) for split in SPLITS]
    best = sorted(tried, key=lambda each: _cost(spec, shapes, each, whole=False))[:_COUNTED]
    return min(best, key=lambda each: _cost(spec, shapes, each, whole=True))


def _cost(
    spec: Spec, shapes: Sequence[ReplicaShape], streams: Sequence[StreamLoad], *, whole: bool
) -> tuple[int, float]:
    """Streams that are not served, and what the others cost, USD/h summed over windows."""
    unserved, usd = 0, 0.0
    for stream in (s for s in streams if s.kinds):
        each = [
            min(
                (_usd(spec, shape, stream, whole=whole) for shape in shapes if shape.role is role),
                default=math.inf,
            )
            for role in (Role.PREFILL, Role.DECODE)
        ]
        if math.isinf(sum(each)):
            unserved += 1
        else:
            usd += sum(each)
    return unserved, usd


def _usd(spec: Spec, shape: ReplicaShape, stream: StreamLoad, *, whole: bool) -> float:
    """What one pool alone costs for a stream; infinite where it cannot serve it."""
    profile = spec.profile_of(shape)
    accelerator = next((a for a in spec.accelerators if a.name == shape.accelerator), None)
    if profile is None or accelerator is None:
        return math.inf
    price = min((offer.usd_per_gpu_hour for offer in accelerator.offers), default=0.0)
    usd = max(price, _LEAST_USD) * shape.accelerators
    rate_of = rate_by_size(profile, shape.role, stream.busiest, stream, spec.routing.balancing)
    demands = [load.request_rate_rps for load in stream.loads if load is not None]
    try:
        each_rps = rate_of(WORK_REPLICAS) / WORK_REPLICAS
        if each_rps <= 0:
            return math.inf
        if not whole or max(demands) > TABLE_COUNTS * each_rps:
            return usd * sum(demands) / each_rps
        rates = [rate_of(1)]
        while rates[-1] < max(demands) and len(rates) < 2 * TABLE_COUNTS:
            rates.append(rate_of(len(rates) + 1))
    except OutsideProfileError:
        return math.inf
    return usd * sum(1 + sum(rate < demand for rate in rates) for demand in demands)
