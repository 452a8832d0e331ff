"""A small spec, fleets and plans in it, for the tests of rollouts."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role
from planner.domain.guards import GuardSettings
from planner.domain.hardware import Accelerator, Offer, PurchaseOption
from planner.domain.model import Model
from planner.domain.plan import (
    Bottleneck,
    Plan,
    PlanInputs,
    PlannedPool,
    PlanStatus,
    PlanWindow,
    Prediction,
    SolverReport,
)
from planner.domain.rollout import Step
from planner.domain.slo import Slo
from planner.domain.spec import Budget, LoopMode, LoopSettings, PoolBounds, Spec
from planner.rollout.effects import PoolKey
from tests.fakes.profiles import linear_profile

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
MODEL = "tiny"


def shape(role: Role, accelerator: str = "h100", *, tp: int = 1) -> ReplicaShape:
    return ReplicaShape(role=role, model=MODEL, accelerator=accelerator, tp=tp)


P, D, A = (shape(r) for r in (Role.PREFILL, Role.DECODE, Role.AGGREGATED))
P_A100, D_A100 = (shape(r, "a100") for r in (Role.PREFILL, Role.DECODE))
P_TP2, D_TP2 = (shape(r, tp=2) for r in (Role.PREFILL, Role.DECODE))
SHAPES = (P, D, A, P_A100, D_A100, P_TP2, D_TP2)


def spec(
    *,
    h100: int = 8,
    a100: int = 8,
    flip_s: float = 5.0,
    max_replicas: int | None = None,
    mode: LoopMode = LoopMode.APPROVE,
    budget: Budget | None = None,
    max_disrupted_replicas: int = 1,
) -> Spec:
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
        slos=(Slo(model=MODEL, ttft_s=1.0, tpot_s=0.05),),
        accelerators=(
            _accelerator("h100", h100, usd_per_gpu_hour=4.0),
            _accelerator("a100", a100, usd_per_gpu_hour=2.0),
        ),
        profiles=tuple(
            linear_profile(profile_id=f"{name}-{tp}", accelerator=name, tp=tp, flip_s=flip_s)
            for name in ("h100", "a100")
            for tp in (1, 2)
        ),
        pools=tuple(PoolBounds(shape=s, max_replicas=max_replicas) for s in SHAPES),
        budget=budget or Budget(),
        loop=LoopSettings(mode=mode),
        guards=GuardSettings(max_disrupted_replicas=max_disrupted_replicas),
    )


def _accelerator(name: str, inventory: int, *, usd_per_gpu_hour: float) -> Accelerator:
    offer = Offer(purchase_option=PurchaseOption.ON_DEMAND, usd_per_gpu_hour=usd_per_gpu_hour)
    return Accelerator(name=name, per_node=8, inventory=inventory, offers=(offer,), power_w=700.0)


def fleet(ready: Mapping[ReplicaShape, int], **states: Mapping[ReplicaShape, int]) -> Fleet:
    """A fleet from replicas by shape; `starting` and `draining` likewise."""
    starting, draining = states.get("starting", {}), states.get("draining", {})
    shapes = sorted({*ready, *starting, *draining})
    pools = (
        Pool(
            shape=s,
            ready=ready.get(s, 0),
            starting=starting.get(s, 0),
            draining=draining.get(s, 0),
        )
        for s in shapes
    )
    return Fleet(pools=tuple(pools), read_at=NOW, version="v1")


def plan(
    replicas: Mapping[ReplicaShape, int],
    *,
    status: PlanStatus = PlanStatus.OPTIMAL,
    estimated: bool = False,
) -> Plan:
    pools = tuple(
        PlannedPool(
            shape=s, purchase_option=PurchaseOption.ON_DEMAND, replicas=n, utilization_ratio=0.5
        )
        for s, n in replicas.items()
    )
    window = PlanWindow(
        start_at=NOW,
        window_s=300.0,
        request_rate_rps=1.0,
        pools=pools,
        predicted=Prediction(attainment_ratio=0.99, source="closed_form"),
        bottleneck=Bottleneck.NONE,
        usd_per_hour=1.0,
    )
    return Plan(
        plan_id="plan",
        model=MODEL,
        made_at=NOW - timedelta(seconds=1),
        status=status,
        usd_per_hour=1.0,
        windows=(window,),
        objective=(),
        binding=(),
        rejected=(),
        relaxations=(),
        solver=SolverReport(
            name="none", gap_ratio=0.0, wall_s=0.0, seed=0, time_limit_s=1.0, replayable=True
        ),
        inputs=PlanInputs(
            spec_id="spec", forecast_id="forecast", profile_ids=(), fleet_version="v1"
        ),
        estimated=estimated,
    )


def counts(fleet: Fleet) -> dict[ReplicaShape, int]:
    """Ready replicas by shape, empty pools left out."""
    return {p.shape: p.ready for p in fleet.pools if p.ready}


def words(steps: tuple[Step, ...]) -> list[str]:
    """Steps as short words, as in `start decode:h100:tp1`."""
    return [
        f"{s.kind} {s.shape.label}" + (f" -> {s.to_shape.label}" if s.to_shape else "")
        for s in steps
    ]


def on_demand(shape: ReplicaShape) -> PoolKey:
    return PoolKey(shape, PurchaseOption.ON_DEMAND)
