"""Capacity of every pool at every size, from the capacity model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from planner.capacity.deployment import role_target
from planner.capacity.end_to_end import WHOLE, Split
from planner.capacity.pool import Judged, sustained_rps
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.domain.spec import Balancing, Spec
from planner.domain.wanted import go_on
from planner.optimize.inputs import Option, PoolCapacity
from planner.optimize.loads import Load, StreamLoad, alike

TABLE_COUNTS = 12
"""Pool sizes with an exact capacity; beyond, pooling has little left to give."""

_HEADROOM = 2.0
"""Capacities are tabled up to so many times the demand, so that a plan may be tightened."""


def capacity_tables(
    spec: Spec, options: Sequence[Option], mixes: Mapping[ReplicaShape, StreamLoad]
) -> Mapping[tuple[int, int], PoolCapacity]:
    """A table per option and window; windows of equal shape and arrivals share them.

    Parameters
    ----------
    mixes : Mapping from ReplicaShape
        The requests that a pool of the shape can serve.
    """
    tables: dict[tuple[ReplicaShape, int], PoolCapacity] = {}
    capacity: dict[tuple[int, int], PoolCapacity] = {}
    for o, option in enumerate(options):
        profile, mix = spec.profile_of(option.shape), mixes[option.shape]
        present = [load for load in mix.loads if load is not None]
        wanted_rps = _HEADROOM * max((load.request_rate_rps for load in present), default=0.0)
        kinds = mix.kinds
        for t, load in enumerate(mix.loads):
            if load is None or profile is None:
                capacity[o, t] = PoolCapacity(counts_rps=np.zeros(1))
                continue
            kind = next(i for i, known in enumerate(kinds) if alike(known, load))
            key = (option.shape, kind)
            if key not in tables:
                rate_of = rate_by_size(
                    profile, option.shape.role, load, mix, spec.routing.balancing
                )
                tables[key] = _table(rate_of, wanted_rps)
            capacity[o, t] = tables[key]
    return capacity


def rate_by_size(
    profile: Profile, role: Role, load: Load, of: StreamLoad, balancing: Balancing
) -> Callable[[int], float]:
    """Requests/s that so many replicas sustain of a stream, in a window with this load.

    In turn, each of n replicas is a queue of its own that gets every n-th arrival: gaps that are
    sums of n, whose squared variation is an n-th.
    """
    if balancing is Balancing.LEAST_LOADED:
        return lambda replicas: pool_rps(
            profile, role, load, of.slos, replicas=replicas, split=of.split
        )

    def in_turn(replicas: int) -> float:
        each = replace(load, arrival_cv2=load.arrival_cv2 / replicas)
        return replicas * pool_rps(profile, role, each, of.slos, replicas=1, split=of.split)

    return in_turn


def _table(rate_of: Callable[[int], float], wanted_rps: float) -> PoolCapacity:
    """Exact up to `TABLE_COUNTS` replicas or `wanted_rps`; beyond, a slope that is not too high.

    Parameters
    ----------
    rate_of : function of int
        Requests/s that so many replicas sustain.
    """
    counts = [0.0]
    while len(counts) <= TABLE_COUNTS and counts[-1] < wanted_rps:
        go_on()
        rate = rate_of(len(counts))
        counts.append(max(rate, counts[-1]))
        if rate <= 0.0 and len(counts) > 2:
            break
    last = len(counts) - 1
    farther = (last + 1, 2 * last + 1)
    slopes = [(rate_of(n) - counts[-1]) / (n - last) for n in farther]
    return PoolCapacity(counts_rps=np.array(counts), tail_rps=max(min(slopes), 0.0))


def pool_rps(
    profile: Profile,
    role: Role,
    load: Load,
    slos: Sequence[Slo],
    *,
    replicas: int,
    split: Split = WHOLE,
) -> float:
    """Requests/s that a pool sustains while every class keeps its role's part of its promise.

    Parameters
    ----------
    split : Split
        How prefill and decode share an end-to-end objective (`planner.capacity.end_to_end`).
    """
    together: dict[tuple[float, float, float | None], list[Slo]] = {}
    for slo in slos:
        together.setdefault((slo.ttft_s, slo.tpot_s, slo.e2e_s), []).append(slo)
    least = np.inf
    for alike_slos in together.values():
        judged = [
            Judged(of=load.of_class(s.request_class), target_ratio=_target(s, role))
            for s in alike_slos
        ]
        judged = [j for j in judged if float(load.shape.weight @ j.of) > 0]
        if not judged or least <= 0:
            continue
        found = sustained_rps(
            profile,
            role,
            load.shape,
            alike_slos[0],
            replicas=replicas,
            target_ratio=judged[0].target_ratio,
            arrival_cv2=load.arrival_cv2,
            judged=judged,
            split=split,
        )
        least = min(least, found.sustained_rps)
    return least if np.isfinite(least) else 0.0


def _target(slo: Slo, role: Role) -> float:
    return role_target(slo.attainment_ratio, disaggregated=role is not Role.AGGREGATED)
