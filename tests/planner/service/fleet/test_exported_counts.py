"""Exported counts are confirmed by decisions on fresh load, or for when it cannot be seen."""

from dataclasses import replace
from datetime import timedelta

import pytest

from actuators.metrics import NAME, DesiredReplicas, MetricsActuator
from planner.domain.errors import ApplyError
from planner.domain.fleet import Role
from planner.domain.spec import LoopMode
from planner.service.fleet import lifecycle
from planner.service.fleet.exported import ExportedFleetActuator
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.telemetry.metrics import Metrics
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, make_deployment, observe
from tests.planner.service.plans import example_fleet


@pytest.mark.parametrize(("age_s", "shown"), [(10, True), (3600, False)])
def test_counts_by_load_that_nobody_sees_any_more_are_not_confirmed(tmp_path, age_s, shown):
    deployment = make_deployment(tmp_path, loop={"mode": "advise"})
    try:
        observe(deployment, history(**BUSY))
        now = NOON + timedelta(seconds=age_s)
        desired = DesiredReplicas(deployment="shop", valid_for_s=180.0)
        metrics = Metrics()
        metrics.export(desired)
        metrics.record_tick("shop", tick(deployment, now=now), took_s=0.1, at=now)
        assert bool(desired.current()) is shown
    finally:
        deployment.store.close()


FALLBACK = {
    "fallback": "static",
    "fallback_after": 1,
    "fallback_pools": [
        {"pool": "prefill:cpu:tp1", "replicas": 5},
        {"pool": "decode:cpu:tp1", "replicas": 2},
    ],
}


@pytest.fixture
def exported(tmp_path):
    """Makes a deployment that an autoscaler of the cluster moves, its metrics and their clock."""
    opened = []

    def make(**changes):
        made = make_deployment(tmp_path, target={"kind": "metrics"}, **changes)
        opened.append(made.store)
        record = ExportedFleetActuator(store=made.store, spec=made.spec)
        made.store.put_fleet("shop", example_fleet(1, 1), received_at=NOON, actor="ann")
        clock = [0.0]
        desired = DesiredReplicas(deployment="shop", valid_for_s=180.0, clock=lambda: clock[0])
        actuator = MetricsActuator(record=record, desired=desired)
        metrics = Metrics()
        metrics.export(desired)
        return replace(made, actuator=actuator), metrics, clock

    yield make
    for store in opened:
        store.close()


def counts(metrics) -> dict[str, int]:
    """What Prometheus reads, by role."""
    found = [s for m in metrics.registry.collect() if m.name == NAME for s in m.samples]
    return {sample.labels["role"]: int(sample.value) for sample in found}


def ticked(deployment, metrics, clock, *, after_s: float) -> Outcome:
    clock[0] = after_s
    now = NOON + timedelta(seconds=after_s)
    report = tick(deployment, now=now)
    metrics.record_tick("shop", report, at=now, took_s=0.1)
    return report.outcome


def test_the_counts_of_a_fallback_hold_for_as_long_as_it_counts(exported):
    deployment, metrics, clock = exported(loop={"mode": "auto"}, guards=FALLBACK)
    observe(deployment, history(**BUSY))
    for after_s in (0, 300, 360, 420, 480, 540, 600):
        outcome = ticked(deployment, metrics, clock, after_s=after_s)
    assert outcome is Outcome.FELL_BACK
    assert counts(metrics) == {"prefill": 5, "decode": 2}


def test_without_a_fallback_counts_expire_when_the_load_cannot_be_seen(exported):
    still = {"scale_up": {"enabled": False}}  # else growth would go on, and be exported
    deployment, metrics, clock = exported(loop={"mode": "auto"}, guards=still)
    observe(deployment, history(**BUSY))
    ticked(deployment, metrics, clock, after_s=0)
    assert counts(metrics) == {"prefill": 1, "decode": 1}
    for after_s in (120, 240, 360):
        ticked(deployment, metrics, clock, after_s=after_s)
    assert counts(metrics) == {}


def test_with_the_loop_off_nothing_is_exported_and_applying_says_why(exported):
    deployment, metrics, clock = exported(loop={"mode": "advise"})
    observe(deployment, history(**BUSY))
    decision = tick(deployment, now=NOON).decision
    spec = replace(deployment.spec, loop=replace(deployment.spec.loop, mode=LoopMode.OFF))
    record = replace(deployment.actuator.record, spec=spec)
    off = replace(deployment, spec=spec, actuator=replace(deployment.actuator, record=record))
    plan = replace(decision.plan, plan_id="by-ann")
    lifecycle.propose(off, replace(decision, plan=plan), by="ann", at=NOON)
    lifecycle.approve(off, "by-ann", by="ann", at=NOON)
    with pytest.raises(ApplyError, match=r"nothing was touched: loop\.mode is off"):
        lifecycle.apply(off, "by-ann", by="ann", at=NOON)
    ticked(off, metrics, clock, after_s=10)
    assert counts(metrics) == {}
    assert off.actuator.read_fleet().replicas(Role.PREFILL) == 1
