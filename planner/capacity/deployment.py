"""What requests experience in a whole deployment: prefill and decode pools, aggregated ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.capacity.aggregated import AggregatedLeg
from planner.capacity.batch import servable
from planner.capacity.decode import DecodeLeg
from planner.capacity.paths import (
    Path,
    PoolTraffic,
    aggregated_path,
    decode_state,
    disaggregated_path,
    mean_over_paths,
    prefill_wait,
    quantile_of,
)
from planner.capacity.pool import sustained_rps, tpot_limit_s
from planner.capacity.prefill import PrefillLeg
from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck, Prediction
from planner.domain.profile import Profile
from planner.domain.slo import Slo
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPrediction:
    """What the closed form says of a deployment.

    Parameters
    ----------
    bottleneck : Bottleneck
        What would miss first if the load grew; `none` without traffic.
    utilization_ratio : tuple of float
        Per pool, in the order given: load as a share of its saturation rate (above 1 under
        overload).
    """

    prediction: Prediction
    bottleneck: Bottleneck
    utilization_ratio: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _LoadedPool:
    """A pool with its leg and the share of each bucket that it gets."""

    load: PoolLoad
    leg: Leg
    share: Floats
    traffic: PoolTraffic


def role_target(attainment_ratio: float, *, disaggregated: bool) -> float:
    """Share of requests that each role must serve in time, so that jointly enough are.

    sqrt(attainment) for a chain of two independent legs, the attainment itself for one.
    """
    return attainment_ratio**0.5 if disaggregated else attainment_ratio


def predict(
    pools: Sequence[PoolLoad],
    shape: Shape,
    slo: Slo,
    *,
    request_rate_rps: float,
    arrival_cv2: float = 1.0,
    window_s: float = 300.0,
) -> DeploymentPrediction:
    """Latencies, attainment and bottleneck of a deployment at a rate.

    Traffic is split over the pools of a role, and over the prefill/decode path and the aggregated
    pools, in proportion to what each can do at saturation. Attainment is the joint probability
    per bucket: TTFT (both waits in a row) times TPOT, the two taken as independent given the
    lengths. Requests that no pool can hold miss. Under overload waits grow for `window_s`, so
    attainment falls to 0 and latencies stay finite.

    Parameters
    ----------
    request_rate_rps : float
        Arrivals to the whole deployment; with 0 there is nothing to predict (all None).
    window_s : float
        How long the rate lasts; matters under overload only.

    Raises
    ------
    OutsideProfileError
        When the shape lies beyond what a profile measured.
    """
    idle = tuple(0.0 for _ in pools)
    if request_rate_rps <= 0:
        nothing = Prediction(attainment_ratio=None, source="closed_form")
        return DeploymentPrediction(
            prediction=nothing, bottleneck=Bottleneck.NONE, utilization_ratio=idle
        )
    base = PoolTraffic(rate_rps=request_rate_rps, arrival_cv2=arrival_cv2, window_s=window_s)
    loaded = _split(pools, shape, base)
    paths = _paths(loaded)
    used = dict(zip(_usable(pools, shape), loaded, strict=True))
    utilization = tuple(
        used[i].traffic.rate_rps / used[i].leg.saturation_rps if i in used else 0.0
        for i in range(len(pools))
    )
    if not paths or mean_over_paths(paths, shape.weight, lambda p: np.ones_like(p.share)) <= 0:
        return DeploymentPrediction(
            prediction=Prediction(attainment_ratio=0.0, source="closed_form"),
            bottleneck=_missing(pools),
            utilization_ratio=idle,
        )
    return DeploymentPrediction(
        prediction=_prediction(paths, shape, slo),
        bottleneck=_first_to_miss(loaded, shape, slo),
        utilization_ratio=utilization,
    )


def _usable(pools: Sequence[PoolLoad], shape: Shape) -> list[int]:
    """Indices of the pools with replicas that can hold at least one bucket."""
    return [
        i
        for i, p in enumerate(pools)
        if p.replicas > 0 and bool(servable(p.profile, p.role, shape).any())
    ]


def _split(pools: Sequence[PoolLoad], shape: Shape, base: PoolTraffic) -> list[_LoadedPool]:
    """Legs of the usable pools with their share of every bucket and their traffic."""
    chosen = [pools[i] for i in _usable(pools, shape)]
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
            arrival_cv2=1 + part * (base.arrival_cv2 - 1),
            window_s=base.window_s,
        )
        loaded.append(_LoadedPool(load=pool, leg=leg, share=share, traffic=traffic))
    return loaded


def _paths(loaded: Sequence[_LoadedPool]) -> list[Path]:
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


def _prediction(paths: Sequence[Path], shape: Shape, slo: Slo) -> Prediction:
    """Attainment over all arrivals; percentiles over those that can be served."""
    weight = shape.weight
    limit_s = tpot_limit_s(slo, shape)
    streaming = weight * (shape.output_tokens > 1)

    def ttft_within(seconds: float) -> float:
        return mean_over_paths(paths, weight, lambda p: p.ttft_met(seconds)) / served

    def tpot_within(seconds: float) -> float:
        limit = np.full(len(weight), seconds)
        return mean_over_paths(paths, streaming, lambda p: p.tpot_met(limit)) / streamed

    def itl_within(seconds: float) -> float:
        return sum(p.gaps.tokens_per_s * p.gaps.within(seconds) for p in paths) / tokens_per_s

    served = mean_over_paths(paths, weight, lambda p: np.ones_like(p.share))
    streamed = mean_over_paths(paths, streaming, lambda p: np.ones_like(p.share))
    tokens_per_s = sum(p.gaps.tokens_per_s for p in paths)
    attained = mean_over_paths(
        paths, weight, lambda p: p.ttft_met(slo.ttft_s) * p.tpot_met(limit_s)
    )
    return Prediction(
        attainment_ratio=min(max(attained, 0.0), 1.0),
        ttft_p50_s=quantile_of(ttft_within, 0.5, slo.ttft_s),
        ttft_p95_s=quantile_of(ttft_within, 0.95, slo.ttft_s),
        tpot_p95_s=quantile_of(tpot_within, 0.95, slo.tpot_s) if streamed > 0 else None,
        itl_p95_s=(
            quantile_of(itl_within, 0.95, slo.tpot_s) if streamed > 0 and tokens_per_s > 0 else None
        ),
        source="closed_form",
    )


def _first_to_miss(loaded: Sequence[_LoadedPool], shape: Shape, slo: Slo) -> Bottleneck:
    """Bottleneck of the pool whose load is closest to (or furthest beyond) what it sustains."""
    worst, cause = -1.0, Bottleneck.NONE
    for pool in loaded:
        if pool.traffic.rate_rps <= 0:
            continue
        capacity = sustained_rps(
            pool.load.profile,
            pool.load.role,
            shape,
            slo,
            replicas=pool.load.replicas,
            target_ratio=role_target(
                slo.attainment_ratio, disaggregated=pool.load.role is not Role.AGGREGATED
            ),
            arrival_cv2=pool.traffic.arrival_cv2,
        )
        if capacity.sustained_rps > 0:
            ratio = pool.traffic.rate_rps / capacity.sustained_rps
        else:
            ratio = float("inf")
        if ratio > worst:
            worst, cause = ratio, capacity.bottleneck
    return cause


def _missing(pools: Sequence[PoolLoad]) -> Bottleneck:
    """Why nothing can be served: the first stage without replicas, or requests that do not fit."""
    for role, cause in ((Role.PREFILL, Bottleneck.PREFILL), (Role.DECODE, Bottleneck.DECODE)):
        if not any(p.role is role and p.replicas > 0 for p in pools):
            return cause
    return Bottleneck.MEMORY
