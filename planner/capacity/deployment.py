"""What requests experience in a whole deployment: prefill and decode pools, aggregated ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from planner.capacity.end_to_end import SPLITS, WHOLE, Split, met_jointly
from planner.capacity.network import Network
from planner.capacity.paths import Path, PoolTraffic, mean_over_paths, quantile_of
from planner.capacity.pool import sustained_rps
from planner.capacity.split import (
    LoadedPool,
    PoolLoad,
    over_network,
    paths_through,
    split_traffic,
    usable_pools,
)
from planner.capacity.validity import Doubt, doubts_of
from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck, ClassAttainment, Prediction
from planner.domain.slo import Slo
from planner.domain.workload import Shape


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
    network_ratio : float or None
        Load of the busiest links as a share of what they carry; None: no network was given.
    doubts : tuple of Doubt
        Why the figures may be off by more than a tenth; empty: they are trusted.
    """

    prediction: Prediction
    bottleneck: Bottleneck
    utilization_ratio: tuple[float, ...]
    network_ratio: float | None = None
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassPromise:
    """One class among the requests, and what it was promised.

    Parameters
    ----------
    slo : Slo
        Its `request_class` names the class.
    of : (buckets,) bool
        Which buckets of the shape are its requests.
    """

    slo: Slo
    of: NDArray[np.bool_]


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
    network: Network | None = None,
    classes: Sequence[ClassPromise] = (),
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
    network : Network or None
        Links that all transfers share; None: each transfer is alone on the path that the profile
        measured.
    classes : sequence of ClassPromise
        Classes that are judged by their own promises instead of `slo`.

    Raises
    ------
    OutsideProfileError
        When the shape lies beyond what a profile measured.
    ValueError
        When rate, burstiness or window are not finite or below 0.
    """
    _check_load(request_rate_rps, arrival_cv2, window_s)
    idle = tuple(0.0 for _ in pools)
    if request_rate_rps <= 0:
        nothing = Prediction(attainment_ratio=None, source="closed_form")
        return DeploymentPrediction(
            prediction=nothing, bottleneck=Bottleneck.NONE, utilization_ratio=idle
        )
    base = PoolTraffic(rate_rps=request_rate_rps, arrival_cv2=arrival_cv2, window_s=window_s)
    loaded = split_traffic(pools, shape, base)
    network_ratio = None
    if network is not None:
        loaded, network_ratio = over_network(loaded, shape, network)
    paths = paths_through(loaded)
    used = dict(zip(usable_pools(pools, shape), loaded, strict=True))
    utilization = tuple(
        used[i].traffic.rate_rps / used[i].leg.saturation_rps if i in used else 0.0
        for i in range(len(pools))
    )
    if not paths or mean_over_paths(paths, shape.weight, lambda p: np.ones_like(p.share)) <= 0:
        return DeploymentPrediction(
            prediction=Prediction(
                attainment_ratio=0.0,
                source="closed_form",
                classes=_classes([], shape, classes),
            ),
            bottleneck=_missing(pools),
            utilization_ratio=idle,
        )
    prediction = _by_class(_prediction(paths, shape, slo), paths, shape, classes)
    return DeploymentPrediction(
        prediction=prediction,
        bottleneck=_first_to_miss(loaded, shape, slo, network_ratio or 0.0),
        utilization_ratio=utilization,
        network_ratio=network_ratio,
        doubts=doubts_of(
            loaded,
            slo,
            attained_ratio=prediction.attainment_ratio or 0.0,
            idle_ratio=_attained(paths_through(_idle(loaded)), shape, slo),
        ),
    )


def _check_load(request_rate_rps: float, arrival_cv2: float, window_s: float) -> None:
    for name, value in (
        ("request_rate_rps", request_rate_rps),
        ("arrival_cv2", arrival_cv2),
        ("window_s", window_s),
    ):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be finite and at least 0, got {value:g}")


def _by_class(
    everybody: Prediction, paths: Sequence[Path], shape: Shape, classes: Sequence[ClassPromise]
) -> Prediction:
    """The prediction with the attainment of each class, and of all of them together."""
    own = _classes(paths, shape, classes)
    if not own:
        return everybody
    shares = [x for c in classes if (x := float(shape.weight @ c.of)) > 0]
    attained = sum(x * c.attainment_ratio for x, c in zip(shares, own, strict=True))
    return replace(everybody, attainment_ratio=min(attained, 1.0), classes=own)


def _classes(
    paths: Sequence[Path], shape: Shape, classes: Sequence[ClassPromise]
) -> tuple[ClassAttainment, ...]:
    """The attainment of every class that arrives, each under its own promise."""
    return tuple(
        ClassAttainment(
            request_class=c.slo.request_class,
            target_ratio=c.slo.attainment_ratio,
            attainment_ratio=_attained(paths, shape, c.slo, weight=own / own.sum()),
        )
        for c in classes
        if (own := shape.weight * c.of).sum() > 0
    )


def _attained(
    paths: Sequence[Path], shape: Shape, slo: Slo, *, weight: NDArray[np.float64] | None = None
) -> float:
    """Share of all arrivals, or of those with a weight, that meet every objective."""
    counted = shape.weight if weight is None else weight
    attained = mean_over_paths(
        paths,
        counted,
        lambda p: met_jointly(slo, shape, ttft_met=p.ttft_met, tpot_met=p.tpot_met),
    )
    return min(max(attained, 0.0), 1.0)


def _idle(loaded: Sequence[LoadedPool]) -> list[LoadedPool]:
    """The same pools with next to no traffic."""
    return [
        replace(p, traffic=replace(p.traffic, rate_rps=1e-9 * p.leg.saturation_rps)) for p in loaded
    ]


def _prediction(paths: Sequence[Path], shape: Shape, slo: Slo) -> Prediction:
    """Attainment over all arrivals; percentiles over those that can be served."""
    weight = shape.weight
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
    return Prediction(
        attainment_ratio=_attained(paths, shape, slo),
        ttft_p50_s=quantile_of(ttft_within, 0.5, slo.ttft_s),
        ttft_p95_s=quantile_of(ttft_within, 0.95, slo.ttft_s),
        tpot_p95_s=quantile_of(tpot_within, 0.95, slo.tpot_s) if streamed > 0 else None,
        itl_p95_s=(
            quantile_of(itl_within, 0.95, slo.tpot_s) if streamed > 0 and tokens_per_s > 0 else None
        ),
        source="closed_form",
    )


def _first_to_miss(
    loaded: Sequence[LoadedPool], shape: Shape, slo: Slo, network_ratio: float
) -> Bottleneck:
    """Bottleneck of what is loaded closest to (or furthest beyond) what it sustains.

    An end-to-end objective is split as suits the pools best.
    """
    splits = SPLITS if slo.e2e_s is not None else (WHOLE,)
    found = [_worst(loaded, shape, slo, split=split) for split in splits]
    worst, cause = min(found, key=lambda ratio_and_cause: ratio_and_cause[0])
    if network_ratio > 0 and network_ratio >= worst:
        return Bottleneck.NETWORK
    return cause


def _worst(
    loaded: Sequence[LoadedPool], shape: Shape, slo: Slo, *, split: Split
) -> tuple[float, Bottleneck]:
    """The highest load as a share of what a pool sustains, and what misses there."""
    worst, cause = 0.0, Bottleneck.NONE
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
            split=split,
        )
        if capacity.sustained_rps > 0:
            ratio = pool.traffic.rate_rps / capacity.sustained_rps
        else:
            ratio = float("inf")
        if ratio > worst:
            worst, cause = ratio, capacity.bottleneck
    return worst, cause


def _missing(pools: Sequence[PoolLoad]) -> Bottleneck:
    """Why nothing can be served: the first stage without replicas, or requests that do not fit."""
    for role, cause in ((Role.PREFILL, Bottleneck.PREFILL), (Role.DECODE, Bottleneck.DECODE)):
        if not any(p.role is role and p.replicas > 0 for p in pools):
            return cause
    return Bottleneck.MEMORY
