"""How the pools of a deployment share the traffic, and the paths that requests take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.capacity.aggregated import AggregatedLeg
from planner.capacity.batch import servable
from planner.capacity.decode import DecodeLeg
from planner.capacity.network import Network
from planner.capacity.paths import (
    Path,
    PoolTraffic,
    aggregated_path,
    decode_state,
    disaggregated_path,
    prefill_wait,
)
from planner.capacity.prefill import PrefillLeg, kv_bytes
from planner.domain.fleet import Role
from planner.domain.profile import Profile
from planner.domain.workload import Shape

Floats = NDArray[np.float64]
Leg = PrefillLeg | DecodeLeg | AggregatedLeg

_LEGS: dict[Role, type[PrefillLeg] | type[DecodeLeg] | type[AggregatedLeg]] = {
    Role.PREFILL: PrefillLeg,
    Role.DECODE: DecodeLeg,
    Role.AGGREGATED: AggregatedLeg,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLoad:
    """A pool of a deployment: `replicas` identical replicas in a role."""

    profile: Profile
    role: Role
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedPool:
    """A pool with its leg and the share of each bucket that it gets."""

    load: PoolLoad
    leg: Leg
    share: Floats
    traffic: PoolTraffic


def usable_pools(pools: Sequence[PoolLoad], shape: Shape) -> list[int]:
    """Indices of the pools with replicas that can hold at least one bucket."""
    return [
        i
        for i, p in enumerate(pools)
        if p.replicas > 0 and bool(servable(p.profile, p.role, shape).any())
    ]


def split_traffic(pools: Sequence[PoolLoad], shape: Shape, base: PoolTraffic) -> list[LoadedPool]:
    """Legs of the usable pools with their share of every bucket and their traffic."""
    chosen = [pools[i] for i in usable_pools(pools, shape)]
    served = [servable(p.profile, p.role, shape) for p in chosen]
    legs = [
        _LEGS[p.role].of(p.profile, shape, s, replicas=p.replicas)
        for p, s in zip(chosen, served, strict=True)
    ]
    able = {role: np.zeros(len(shape.weight)) for role in Role}
    for pool, leg, fits in zip(chosen, legs, served, strict=True):
        able[pool.role] = able[pool.role] + leg.saturation_rps * fits
    disaggregated = np.minimum(able[Role.PREFILL], able[Role.DECODE])
    total = np.maximum(disaggregated + able[Role.AGGREGATED], 1e-300)
    way = {
        Role.PREFILL: disaggregated / total,
        Role.DECODE: disaggregated / total,
        Role.AGGREGATED: able[Role.AGGREGATED] / total,
    }
    loaded = []
    for pool, leg, fits in zip(chosen, legs, served, strict=True):
        within_role = leg.saturation_rps * fits / np.maximum(able[pool.role], 1e-300)
        share = way[pool.role] * within_role
        part = float(shape.weight @ share)
        traffic = PoolTraffic(
            rate_rps=base.rate_rps * part,
            # Splitting a stream at random brings it closer to Poisson.
            arrival_cv2=max(1 + part * (base.arrival_cv2 - 1), 0.0),
            window_s=base.window_s,
        )
        loaded.append(LoadedPool(load=pool, leg=leg, share=share, traffic=traffic))
    return loaded


def over_network(
    loaded: Sequence[LoadedPool], shape: Shape, network: Network
) -> tuple[list[LoadedPool], float]:
    """The pools with their transfers on shared links, and the share of the links that is used."""
    decodes = [p for p in loaded if isinstance(p.leg, DecodeLeg)]
    rate_rps = sum(p.traffic.rate_rps for p in decodes)
    found, used = list(loaded), 0.0
    for i, pool in enumerate(found):
        if not isinstance(pool.leg, DecodeLeg):
            continue
        profile = pool.load.profile
        moved = kv_bytes(profile, shape)
        mean_bytes = float(pool.leg.weight @ moved)
        used = max(used, rate_rps / network.saturation_rps(mean_bytes))
        leg = DecodeLeg.of(
            profile,
            shape,
            servable(profile, Role.DECODE, shape),
            replicas=pool.load.replicas,
            moving_s=network.moving(moved, mean_bytes, rate_rps),
        )
        backlog_s = network.backlog_s(mean_bytes, rate_rps, pool.traffic.window_s)
        found[i] = replace(pool, leg=replace(leg, transfer_backlog_s=backlog_s))
    return found, used


def paths_through(loaded: Sequence[LoadedPool]) -> list[Path]:
    """Every way through the pools: each aggregated pool, each pair of prefill and decode."""
    prefills = [
        (p, p.leg, prefill_wait(p.leg, p.traffic)) for p in loaded if isinstance(p.leg, PrefillLeg)
    ]
    through_rps = sum(min(leg.saturation_rps, p.traffic.rate_rps) for p, leg, _ in prefills)
    offered_rps = max(sum(p.traffic.rate_rps for p, _, _ in prefills), 1e-300)
    paths = []
    for pool in loaded:
        leg, first_s = pool.leg, pool.load.profile.first_token_s
        if isinstance(leg, AggregatedLeg):
            paths.append(
                aggregated_path(
                    share=pool.share, first_token_s=first_s, leg=leg, traffic=pool.traffic
                )
            )
        if isinstance(leg, DecodeLeg):
            # A saturated prefill stage shields decode: no more arrives than it lets through.
            traffic = PoolTraffic(
                rate_rps=pool.traffic.rate_rps * through_rps / offered_rps,
                arrival_cv2=pool.traffic.arrival_cv2,
                window_s=pool.traffic.window_s,
            )
            state = decode_state(leg, traffic)
            whole = np.maximum(sum(p.share for p, _, _ in prefills) + 0.0 * pool.share, 1e-300)
            paths += [
                disaggregated_path(
                    share=pool.share * p.share / whole,
                    first_token_s=p.load.profile.first_token_s,
                    prefill=(prefill, wait),
                    decode=(leg, state, traffic),
                )
                for p, prefill, wait in prefills
            ]
    return paths
