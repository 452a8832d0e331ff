"""Specs and forecasts around profiles whose times are formulas."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role
from planner.domain.forecast import Demand, Forecast, ForecastWindow, Quantiles
from planner.domain.hardware import Accelerator, Offer, PurchaseOption
from planner.domain.model import Model
from planner.domain.profile import Profile
from planner.domain.slo import Slo
from planner.domain.spec import Budget, ForecastSettings, LoopSettings, PoolBounds, Spec
from planner.domain.workload import Shape
from tests.fakes.profiles import linear_profile

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
MODEL = "tiny"
ALL_ROLES = (Role.PREFILL, Role.DECODE, Role.AGGREGATED)
PAIR = (Role.PREFILL, Role.DECODE)


def replica_shape(role: Role, accelerator: str = "cpu", *, tp: int = 1) -> ReplicaShape:
    return ReplicaShape(role=role, model=MODEL, accelerator=accelerator, tp=tp)


P, D, A = (replica_shape(r) for r in ALL_ROLES)


def spec(
    *,
    roles: Sequence[Role] = PAIR,
    inventory: int = 8,
    accelerators: Sequence[tuple[str, float, float]] = (("cpu", 1.0, 1.0),),
    min_replicas: int = 0,
    max_replicas: int | None = None,
    ttft_s: float = 1.0,
    tpot_s: float = 0.05,
    attainment_ratio: float = 0.95,
    usd_per_hour: float | None = None,
    profiles: Sequence[Profile] = (),
) -> Spec:
    """One model; `accelerators` are (name, USD per hour, speed)."""
    return Spec(
        spec_id="spec",
        name="test",
        models=(
            Model(
                name=MODEL,
                layers=2,
                kv_heads=2,
                head_size=16,
                parameters=1_000_000,
                active_parameters=1_000_000,
                max_context_tokens=16_384,
            ),
        ),
        slos=(Slo(model=MODEL, ttft_s=ttft_s, tpot_s=tpot_s, attainment_ratio=attainment_ratio),),
        accelerators=tuple(
            Accelerator(
                name=name,
                per_node=8,
                inventory=inventory,
                offers=(Offer(purchase_option=PurchaseOption.ON_DEMAND, usd_per_gpu_hour=usd),),
            )
            for name, usd, _ in accelerators
        ),
        profiles=tuple(profiles)
        or tuple(
            linear_profile(profile_id=name, accelerator=name, speed=speed)
            for name, _, speed in accelerators
        ),
        pools=tuple(
            PoolBounds(
                shape=replica_shape(role, name),
                min_replicas=min_replicas,
                max_replicas=max_replicas,
            )
            for name, _, _ in accelerators
            for role in roles
        ),
        budget=Budget(usd_per_hour=usd_per_hour),
        forecast=ForecastSettings(window_s=300.0, demand_level=0.9),
        loop=LoopSettings(seed=3),
    )


def forecast(
    rates_rps: Sequence[float],
    *,
    isl: float = 500.0,
    osl: float = 50.0,
    spread: float = 0.0,
    window_s: float = 300.0,
) -> Forecast:
    """One class, requests of about equal length, `spread` the relative gap from q50 to q90."""
    shape = Shape(
        input_tokens=np.array([0.5 * isl, 1.5 * isl]),
        output_tokens=np.array([0.5 * osl, 1.5 * osl]).clip(1.0),
        cached_tokens=np.zeros(2),
        weight=np.array([0.5, 0.5]),
    )

    def quantiles(value: float) -> Quantiles:
        return Quantiles(levels=(0.5, 0.9), values=(value, value * (1 + spread)))

    windows = tuple(
        ForecastWindow(
            start_at=NOW + timedelta(seconds=t * window_s),
            window_s=window_s,
            demands=(
                Demand(
                    request_rate_rps=quantiles(rate),
                    input_tokens_per_s=quantiles(rate * isl),
                    output_tokens_per_s=quantiles(rate * osl),
                    shape=shape,
                ),
            ),
        )
        for t, rate in enumerate(rates_rps)
    )
    return Forecast(
        forecast_id="forecast", model=MODEL, made_at=NOW, windows=windows, method="test"
    )


def fleet(**ready: int) -> Fleet:
    """A fleet from replicas by role name, all on the accelerator `cpu`."""
    pools = (Pool(shape=replica_shape(Role(name)), ready=n) for name, n in ready.items())
    return Fleet(pools=tuple(pools), read_at=NOW, version="v1")
