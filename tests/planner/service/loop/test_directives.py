"""Pause, pin and mode are kept in the store, and whatever moves the fleet obeys them."""

import re
from dataclasses import replace
from datetime import timedelta

import pytest

from planner.domain.errors import GuardRefusedError, InputError, PlanStateError
from planner.domain.fleet import Role
from planner.domain.guards import Pause
from planner.domain.spec import LoopMode
from planner.service.fleet import lifecycle
from planner.service.loop import directives
from planner.service.loop.directives import Word, standing
from planner.service.loop.scheduler import tick_once
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.store import open_store
from planner.service.telemetry.metrics import Metrics
from tests.planner.service.examples import NOON
from tests.planner.service.imagined import busy_deployments

ANN = Word(by="ann", at=NOON, reason="network work")
LATER = NOON + timedelta(hours=1)
DECODE, PREFILL = "decode:cpu:tp1", "prefill:cpu:tp1"


@pytest.fixture
def make(tmp_path):
    with busy_deployments(tmp_path, loop={"mode": "auto"}) as made:
        yield made


def audited(deployment):
    return [(e.actor, e.action, e.detail) for e in deployment.store.audit(limit=50)]


@pytest.mark.parametrize("what", [Pause.OUT, Pause.ALL])
def test_a_pause_holds_the_loop_until_it_is_resumed(make, what):
    deployment = make()
    directives.pause(deployment, what, ANN)
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.HELD
    assert "scaling out is paused" in report.reason
    assert report.decision.recommended.steps
    assert deployment.actuator.done == []
    directives.resume(deployment, what, ANN)
    assert tick(deployment, now=NOON).outcome is Outcome.APPLIED


def test_a_pause_of_the_other_direction_holds_nothing(make):
    deployment = make()
    directives.pause(deployment, Pause.IN, ANN)
    assert tick(deployment, now=NOON).outcome is Outcome.APPLIED


def test_a_pause_is_over_at_its_time_and_the_audit_log_says_so(make):
    deployment = make(forecast={"window_s": 60.0, "horizon_windows": 2})
    directives.pause(deployment, Pause.ALL, replace(ANN, until_at=NOON + timedelta(seconds=60)))
    assert tick(deployment, now=NOON + timedelta(seconds=59)).outcome is Outcome.HELD
    assert tick(deployment, now=NOON + timedelta(seconds=60)).outcome is Outcome.APPLIED
    told = [action for _, action, _ in audited(deployment)]
    assert told.count("pause.set") == told.count("pause.over") == 2  # in and out
    assert standing(deployment, now=NOON).directives == ()


def test_pauses_of_both_directions_add_up_and_are_resumed_one_by_one(make):
    deployment = make()
    directives.pause(deployment, Pause.IN, ANN)
    directives.pause(deployment, Pause.OUT, ANN)
    assert standing(deployment, now=NOON).paused is Pause.ALL
    directives.resume(deployment, Pause.OUT, ANN)
    assert standing(deployment, now=NOON).paused is Pause.IN
    directives.resume(deployment, Pause.ALL, ANN)
    assert standing(deployment, now=NOON).paused is Pause.NONE


def test_what_was_approved_before_a_pause_is_not_applied_in_it(make):
    deployment = make(loop={"mode": "approve"})
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    directives.pause(deployment, Pause.ALL, ANN)
    with pytest.raises(GuardRefusedError, match="scaling out is paused"):
        lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    assert deployment.actuator.done == []


def test_a_rollback_obeys_a_pause_too(make):
    deployment = make()
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    grown = deployment.actuator.fleet
    directives.pause(deployment, Pause.IN, ANN)
    with pytest.raises(GuardRefusedError, match="scaling in is paused"):
        lifecycle.roll_back(deployment, plan_id, by="ann", at=NOON)
    assert deployment.actuator.fleet == grown


def test_the_spec_s_own_pause_is_not_resumed(make):
    deployment = make(guards={"pause": "out"})
    with pytest.raises(PlanStateError, match=r"change guards\.pause"):
        directives.resume(deployment, Pause.ALL, ANN)


def test_a_pinned_pool_goes_to_its_pin_and_no_further(make):
    deployment = make()
    directives.pin(deployment, PREFILL, 2, ANN)
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.APPLIED
    assert deployment.actuator.fleet.replicas(Role.PREFILL) == 2
    assert any(f.guard == "pinned" and "2 replicas" in f.reason for f in report.decision.findings)
    directives.unpin(deployment, PREFILL, ANN)
    tick(deployment, now=NOON + timedelta(seconds=1))
    assert deployment.actuator.fleet.replicas(Role.PREFILL) > 2


def test_a_later_pin_takes_the_place_of_the_earlier_one(make):
    deployment = make()
    directives.pin(deployment, DECODE, 2, ANN)
    directives.pin(deployment, DECODE, 3, ANN)
    assert [(p.pool, p.replicas) for p in standing(deployment, now=NOON).pins] == [(DECODE, 3)]


def test_a_pin_at_run_time_wins_over_the_spec_s(make):
    deployment = make(guards={"pins": [{"pool": PREFILL, "replicas": 1}]})
    directives.pin(deployment, PREFILL, 2, ANN)
    tick(deployment, now=NOON)
    assert deployment.actuator.fleet.replicas(Role.PREFILL) == 2
    directives.unpin(deployment, PREFILL, ANN)
    with pytest.raises(PlanStateError, match="the spec itself pins"):
        directives.unpin(deployment, PREFILL, ANN)


def test_an_unknown_pool_or_a_count_outside_its_bounds_is_not_pinned(make):
    pools = [
        {"model": "tiny", "role": role, "accelerator": "cpu", "min_replicas": 1, "max_replicas": 4}
        for role in ("prefill", "decode")
    ]
    deployment = make(pools=pools)
    with pytest.raises(InputError, match="no pool decode:h100:tp1"):
        directives.pin(deployment, "decode:h100:tp1", 1, ANN)
    for count in (0, 5):
        with pytest.raises(InputError, match=r"1 \.\. 4"):
            directives.pin(deployment, DECODE, count, ANN)
    assert standing(deployment, now=NOON).pins == ()


@pytest.mark.parametrize(
    ("guards", "tp", "most", "why"),
    [
        ({}, 1, 16, "they take 17 cpu, and the spec's inventory has 16: pin it to 16 or fewer"),
        ({}, 2, 8, "they take 18 cpu, and the spec's inventory has 16: pin it to 8 or fewer"),
        ({"max_accelerators": 6}, 1, 6, "they take 7 cpu, and guards.max_accelerators allows 6"),
    ],
)
def test_more_replicas_than_the_accelerators_hold_are_not_pinned(make, guards, tp, most, why):
    deployment = make(guards=guards)
    spec = deployment.spec
    pools = tuple(replace(b, shape=replace(b.shape, tp=tp)) for b in spec.pools)
    deployment = replace(deployment, spec=replace(spec, pools=pools))
    pool = f"decode:cpu:tp{tp}"
    with pytest.raises(InputError, match=re.escape(why)):
        directives.pin(deployment, pool, most + 1, ANN)
    assert standing(deployment, now=NOON).pins == ()
    directives.pin(deployment, pool, most, ANN)
    assert standing(deployment, now=NOON).pins[0].replicas == most


def test_an_order_whose_time_is_over_is_refused():
    with pytest.raises(InputError, match="is over already"):
        replace(ANN, until_at=NOON)


def test_the_mode_can_be_changed_at_run_time_and_given_back(make):
    deployment = make(loop={"mode": "off"})
    assert tick(deployment, now=NOON).outcome is Outcome.OFF
    directives.set_mode(deployment, LoopMode.ADVISE, ANN)
    assert tick(deployment, now=NOON).outcome is Outcome.ADVISED
    directives.set_mode(deployment, LoopMode.AUTO, ANN)
    assert tick(deployment, now=NOON + timedelta(seconds=1)).outcome is Outcome.APPLIED
    directives.set_mode(deployment, None, ANN)
    assert tick(deployment, now=NOON).outcome is Outcome.OFF


def test_orders_outlive_the_process_and_other_deployments_have_their_own(make, tmp_path):
    deployment = make()
    directives.pause(deployment, Pause.IN, ANN)
    deployment.store.close()
    store = open_store(f"sqlite:///{tmp_path / 'poolwise.db'}")
    again = replace(deployment, store=store)
    assert standing(again, now=NOON).paused is Pause.IN
    assert store.directives("other").in_force(at=NOON) == ()
    assert audited(again)[0] == (
        "ann",
        "pause.set",
        "scaling in is paused by ann: network work",
    )
    store.close()


def test_orders_show_in_the_metrics(make):
    deployment, metrics = make(loop={"mode": "approve"}), Metrics()
    directives.pause(deployment, Pause.IN, ANN)
    directives.pin(deployment, DECODE, 2, ANN)
    directives.set_mode(deployment, LoopMode.ADVISE, ANN)
    tick_once(deployment, metrics)
    text = metrics.text().decode()
    for line in (
        'poolwise_paused{deployment="shop",direction="in"} 1.0',
        'poolwise_paused{deployment="shop",direction="out"} 0.0',
        'poolwise_pinned_pools{deployment="shop"} 1.0',
        'poolwise_loop_mode{deployment="shop",mode="advise"} 1.0',
        'poolwise_loop_mode{deployment="shop",mode="approve"} 0.0',
    ):
        assert line in text
