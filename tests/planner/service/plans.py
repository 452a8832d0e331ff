"""A hand-made plan, for tests that need one but no solver."""

from dataclasses import replace
from datetime import timedelta

from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role, version_of
from planner.domain.hardware import PurchaseOption
from planner.domain.plan import (
    BindingRow,
    Bottleneck,
    CostTerm,
    Plan,
    PlanInputs,
    PlannedPool,
    PlanStatus,
    PlanWindow,
    Prediction,
    RejectedAlternative,
    SolverReport,
)
from planner.domain.rollout import Diff, GuardFinding, Verdict
from planner.rollout import draft, submit
from planner.service.documents import diff_document, finding_documents
from planner.service.store import PlanRecord
from tests.planner.service.examples import NOON

PREFILL = ReplicaShape(role=Role.PREFILL, model="tiny", accelerator="cpu")
DECODE = replace(PREFILL, role=Role.DECODE)


def example_fleet(prefill: int = 1, decode: int = 1) -> Fleet:
    pools = (Pool(shape=PREFILL, ready=prefill), Pool(shape=DECODE, ready=decode))
    return Fleet(pools=pools, read_at=NOON, version=version_of(pools))


def planned(shape: ReplicaShape, replicas: int) -> PlannedPool:
    return PlannedPool(
        shape=shape,
        purchase_option=PurchaseOption.ON_DEMAND,
        replicas=replicas,
        utilization_ratio=0.5,
    )


def example_plan(plan_id: str = "plan-1", *, prefill: int = 2, decode: int = 1, **changes) -> Plan:
    window = PlanWindow(
        start_at=NOON,
        window_s=60.0,
        request_rate_rps=2.0,
        pools=(planned(PREFILL, prefill), planned(DECODE, decode)),
        predicted=Prediction(attainment_ratio=0.97, ttft_p95_s=0.3, tpot_p95_s=0.01, source="twin"),
        bottleneck=Bottleneck.PREFILL,
        usd_per_hour=float(prefill + decode),
    )
    later = replace(window, start_at=NOON + timedelta(minutes=1))
    plan = Plan(
        plan_id=plan_id,
        model="tiny",
        made_at=NOON,
        status=PlanStatus.OPTIMAL,
        usd_per_hour=float(prefill + decode),
        windows=(window, later),
        objective=(CostTerm(name="accelerators", usd=0.1),),
        binding=(BindingRow(row="meet_demand[0]", equation="a >= b", sentence="Demand binds."),),
        rejected=(RejectedAlternative(name="1P1D", reason="too slow", usd_per_hour=2.0),),
        relaxations=(),
        solver=SolverReport(
            name="highs", gap_ratio=0.0, wall_s=0.1, seed=0, time_limit_s=5.0, replayable=True
        ),
        inputs=PlanInputs(
            spec_id="spec-1", forecast_id="f-1", profile_ids=("p-1",), fleet_version=None
        ),
        estimated=False,
    )
    return replace(plan, **changes)


def example_record(plan_id: str = "plan-1", *, deployment: str = "shop", at=NOON) -> PlanRecord:
    plan, fleet = example_plan(plan_id), example_fleet()
    finding = GuardFinding(guard="frozen", verdict=Verdict.ALLOW, reason="nothing\nagainst it")
    approval = draft(plan_id=plan_id, fleet_version=fleet.version, by="test", at=at)
    return PlanRecord(
        deployment=deployment,
        created_at=at,
        plan=plan,
        diff=diff_document(Diff(plan_id=plan_id, from_fleet=fleet, steps=())),
        findings=tuple(finding_documents([finding])),
        approval=submit(approval, by="test", at=at),
    )
