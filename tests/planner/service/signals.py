"""Signals of a deployment as the closed form would have them, for tests that need some."""

from datetime import datetime, timedelta

from planner.capacity.calibration import Observed, means_with
from planner.capacity.split import PoolLoad
from planner.domain.calibration import Leg
from planner.domain.fleet import Role
from planner.domain.plan import Bottleneck
from serving.telemetry.signals import (
    Activity,
    DeploymentSignals,
    Latency,
    RoleSignals,
    Signal,
    SloSignals,
    Source,
    TargetKind,
    TargetSignals,
    TargetState,
    TransferSignals,
)
from tests.fakes.profiles import linear_profile
from tests.fakes.workloads import point_shape
from tests.planner.service.examples import NOON

ISL, OSL = 800.0, 60.0


def value(number: float) -> Signal:
    return Signal(value=number)


def latency(mean_s: float, count: float) -> Latency:
    return Latency(
        p50_s=value(mean_s),
        p95_s=value(2 * mean_s),
        p99_s=value(3 * mean_s),
        mean_s=value(mean_s),
        count=value(count),
    )


def example_signals(
    *,
    at: datetime = NOON,
    rate_rps: float = 4.0,
    attainment: float = 0.9,
    interval_s: float = 60.0,
    prefill: float = 1.0,
    decode: float = 1.0,
    replicas: int = 1,
) -> DeploymentSignals:
    """One reading of `replicas` of each role that last so many times as long as profiled."""
    profile = linear_profile()
    pools = [
        PoolLoad(profile=profile, role=r, replicas=replicas) for r in (Role.PREFILL, Role.DECODE)
    ]
    load = Observed(
        seconds=interval_s, request_rate_rps=rate_rps, shape=point_shape(isl=ISL, osl=OSL)
    )
    means = means_with(pools, load, {Leg.PREFILL: prefill, Leg.DECODE: decode})
    count = rate_rps * interval_s
    activity = Activity(
        isl=value(ISL), osl=value(OSL), prefix_hit_ratio=value(0.0), waiting=value(2.0)
    )
    roles = tuple(
        RoleSignals(role=role, workers=replicas, answering=replicas, activity=activity)
        for role in (Role.PREFILL, Role.DECODE)
    )
    target = TargetSignals(
        name="w",
        url="http://w",
        kind=TargetKind.ENGINE,
        source=Source.VLLM,
        state=TargetState.UP,
        interval_s=interval_s,
        activity=activity,
    )
    return DeploymentSignals(
        looked_at=at,
        ttft=latency(means.ttft_s, count),
        itl=latency(means.itl_s, count * (OSL - 1)),
        e2e=latency(means.ttft_s + OSL * means.itl_s, count),
        seen_by="tests",
        requests_per_s=value(rate_rps),
        input_tokens_per_s=value(rate_rps * ISL),
        output_tokens_per_s=value(rate_rps * OSL),
        prefix_hit_ratio=value(0.0),
        transfer=TransferSignals(latency=latency(0.01, count)),
        usd_per_hour=value(2.0),
        usd_per_million_tokens=value(2.3),
        roles=roles,
        targets=(target,),
        slos=(
            SloSignals(
                request_class="default",
                target_ratio=0.9,
                attainment_ratio=value(attainment),
                goodput_rps=value(rate_rps * attainment),
                error_budget_used_ratio=value((1 - attainment) / 0.1),
                from_bounds=False,
            ),
        ),
        bottleneck=Bottleneck.PREFILL,
        bottleneck_why="prompts wait",
    )


def readings(ticks: int, **more) -> list[DeploymentSignals]:
    """One reading a minute, from NOON on."""
    return [example_signals(at=NOON + timedelta(minutes=i), **more) for i in range(ticks)]
