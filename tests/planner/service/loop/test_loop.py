"""The loop: nothing moves without data, guards and approval; what moves, moves once."""

from dataclasses import replace
from datetime import timedelta

import pytest

from planner.autoscale import Backlog
from planner.domain.errors import OperationError
from planner.domain.fleet import Role
from planner.domain.rollout import ApprovalState
from planner.service.election.elector import NoElection
from planner.service.election.leadership import Leadership
from planner.service.fleet import lifecycle
from planner.service.fleet.rollouts import settle_interrupted
from planner.service.loop.scheduler import tick_once
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.telemetry.metrics import Metrics
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, IDLE, make_deployment, observe, ticking


@pytest.fixture
def make(tmp_path):
    made = []

    def deployment(**changes):
        made.append(make_deployment(tmp_path, **changes))
        return made[-1]

    yield deployment
    for one in made:
        one.store.close()


def test_without_observations_nothing_moves_and_the_tick_says_so(make):
    deployment = make(loop={"mode": "auto"})
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.NO_DATA
    assert deployment.actuator.done == []
    assert deployment.store.decisions("shop", limit=1)[0].outcome == "no_data"


def test_mode_off_does_nothing_at_all(make):
    deployment = make(loop={"mode": "off"})
    observe(deployment, history(**BUSY))
    assert tick(deployment, now=NOON).outcome is Outcome.OFF
    assert deployment.store.decisions("shop", limit=1) == ()


def test_mode_advise_keeps_a_draft_and_moves_nothing(make):
    deployment = make(loop={"mode": "advise"})
    observe(deployment, history(**BUSY))
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.ADVISED
    record = deployment.store.plan(report.decision.plan.plan_id)
    assert record.approval.state is ApprovalState.DRAFT
    assert deployment.actuator.done == []


def test_mode_approve_asks_and_applies_after_the_approval(make):
    deployment = make(loop={"mode": "approve"})
    observe(deployment, history(**BUSY))
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.PENDING
    assert deployment.actuator.done == []
    plan_id = report.decision.plan.plan_id
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    record = lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    assert record.approval.state is ApprovalState.APPLIED
    planned = record.plan.windows[0]
    assert deployment.actuator.fleet.replicas(Role.PREFILL) == planned.replicas(Role.PREFILL) > 1
    assert deployment.actuator.fleet.replicas(Role.DECODE) == planned.replicas(Role.DECODE)


def test_asking_for_the_same_again_keeps_the_first_question(make):
    deployment = make(loop={"mode": "approve"})
    observe(deployment, history(**BUSY))
    first = tick(deployment, now=NOON).decision.plan.plan_id
    tick(deployment, now=NOON + timedelta(seconds=20))
    pending = deployment.store.plans("shop", limit=9, states=[ApprovalState.PENDING])
    assert [record.plan.plan_id for record in pending] == [first]


def test_what_was_asked_for_again_and_proposed_anew_is_kept_under_the_plan_that_is_stored(make):
    deployment = make(loop={"mode": "approve"})
    observe(deployment, history(**BUSY))
    asked = tick(deployment, now=NOON).plan_id
    again = tick(deployment, now=NOON + timedelta(seconds=20))
    assert again.plan_id == asked != again.decision.plan.plan_id
    lifecycle.reject(deployment, asked, by="ann", at=NOON + timedelta(seconds=30))
    anew = tick(deployment, now=NOON)  # the same inputs give the same id, which is dead
    assert anew.plan_id == f"{asked}-2"
    kept = [record.plan_id for record in deployment.store.decisions("shop", limit=9)]
    assert kept == [anew.plan_id, asked, asked]


def test_what_a_person_approved_is_applied_by_the_next_tick(make):
    deployment = make(loop={"mode": "approve"})
    observe(deployment, history(**BUSY))
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    assert tick(deployment, now=NOON + timedelta(seconds=1)).outcome is Outcome.APPLIED
    assert deployment.store.plan(plan_id).approval.state is ApprovalState.APPLIED


def test_mode_auto_applies_growth_at_once(make):
    deployment = make(loop={"mode": "auto"})
    observe(deployment, history(**BUSY))
    assert tick(deployment, now=NOON).outcome is Outcome.APPLIED
    assert deployment.actuator.fleet.replicas(Role.PREFILL) > 1
    again = tick(deployment, now=NOON + timedelta(seconds=1))
    assert again.outcome is Outcome.UNCHANGED


def test_a_small_change_is_approved_by_policy(make):
    deployment = make(loop={"mode": "approve"}, approval={"auto_below_replicas": 100})
    observe(deployment, history(**BUSY))
    assert tick(deployment, now=NOON).outcome is Outcome.APPLIED


def shrinking(make):
    """Two prefill replicas without load, and guards that wait for two minutes."""
    deployment = make(
        prefill=2,
        decode=1,
        loop={"mode": "auto"},
        guards={"scale_down_stabilization_s": 120, "stale_observation_s": 100_000},
    )
    observe(deployment, history(**IDLE))
    return deployment


def test_scale_down_waits_until_it_was_unneeded_for_long_enough(make):
    deployment = shrinking(make)
    outcomes = [
        tick(deployment, now=NOON + timedelta(seconds=60 * minute)).outcome for minute in range(4)
    ]
    assert outcomes[:2] == [Outcome.HELD, Outcome.HELD]
    assert Outcome.APPLIED in outcomes[2:]
    assert deployment.actuator.fleet.replicas(Role.PREFILL) == 1


def test_what_waits_keeps_the_replicas_that_it_needs(make):
    deployment = shrinking(make)
    waiting = Backlog(
        model="tiny", observed_at=NOON, waiting_prompt_tokens=50_000, decoding_sequences=1
    )
    deployment.store.put_backlog("shop", waiting)
    for minute in range(4):
        assert tick(deployment, now=NOON + timedelta(minutes=minute)).outcome is Outcome.HELD
    assert deployment.actuator.fleet.replicas(Role.PREFILL) == 2


def test_a_stale_observation_forbids_scale_down(make):
    deployment = make(prefill=3, loop={"mode": "auto"}, guards={"scale_down_stabilization_s": 0})
    observe(deployment, history(**IDLE))
    report = tick(deployment, now=NOON + timedelta(hours=1))
    assert report.outcome is Outcome.HELD
    assert "stale_observation" in report.reason


def test_a_spec_that_cannot_be_kept_moves_nothing_and_says_what_to_relax(make):
    deployment = make(
        loop={"mode": "auto"},
        pools=[
            {"model": "tiny", "role": role, "accelerator": "cpu", "max_replicas": 1}
            for role in ("prefill", "decode")
        ],
    )
    observe(deployment, history(**BUSY))
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.INFEASIBLE
    assert report.reason
    assert deployment.actuator.done == []


def test_a_step_that_fails_is_kept_with_the_plan_and_applying_again_completes_it(make):
    deployment = make(loop={"mode": "approve"})
    observe(deployment, history(**BUSY))
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    deployment.actuator.fails_at = 1
    with pytest.raises(OperationError, match="on fire"):
        lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    failed = deployment.store.plan(plan_id)
    assert failed.approval.state is ApprovalState.FAILED
    assert "on fire" in failed.approval.reason
    record = lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    assert record.approval.state is ApprovalState.APPLIED
    wanted = record.plan.windows[0].replicas(Role.PREFILL)
    assert deployment.actuator.fleet.replicas(Role.PREFILL) == wanted


def test_a_tick_that_fails_reports_and_the_fleet_stays(make):
    deployment = make(loop={"mode": "auto"})
    observe(deployment, history(**BUSY))
    deployment.actuator.objections = ("no room",)
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.FAILED
    assert "no room" in report.reason
    assert deployment.actuator.done == []


def test_a_pending_plan_expires(make):
    deployment = make(loop={"mode": "approve"}, approval={"expires_s": 60})
    observe(deployment, history(**BUSY))
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    later = NOON + timedelta(seconds=61)
    lifecycle.expire_old(deployment, at=later)
    assert deployment.store.plan(plan_id).approval.state is ApprovalState.EXPIRED


def test_a_service_that_stopped_while_applying_says_so_when_it_is_back(make):
    from planner import rollout

    deployment = make(loop={"mode": "approve"})
    observe(deployment, history(**BUSY))
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    deployment.store.change_approval(
        plan_id, lambda a: rollout.begin(a, by="ann", at=NOON), action="plan.begin"
    )
    settle_interrupted(deployment, at=NOON)
    assert "stopped while" in deployment.store.plan(plan_id).approval.reason
    assert lifecycle.apply(deployment, plan_id, by="ann", at=NOON).approval.state == "applied"


def test_ticks_are_measured(make):
    deployment, metrics = make(loop={"mode": "advise"}), Metrics()
    observe(deployment, history(**BUSY))
    tick_once(deployment, metrics)
    text = metrics.text().decode()
    assert 'poolwise_ticks_total{deployment="shop",outcome="advised"} 1.0' in text
    assert 'poolwise_planned_replicas{accelerator="cpu"' in text
    assert "poolwise_planned_usd_per_hour" in text


def test_a_plan_for_less_than_asked_for_says_so_and_is_counted(make):
    accelerator = {"name": "cpu", "per_node": 16, "inventory": 16}
    priced = {**accelerator, "usd_per_gpu_hour": {"on_demand": 1.0}}
    deployment, metrics = make(loop={"mode": "advise"}, accelerators=[priced]), Metrics()
    uneven = history(40, **{**BUSY, "requests": 2000})
    for index, window in enumerate(uneven):
        for counted in ("requests", "input_tokens", "output_tokens"):
            window[counted] = int(window[counted] * (0.2, 1, 1.8)[index % 3])
    observe(deployment, uneven)
    tick_once(deployment, metrics)
    (told,) = deployment.store.decisions("shop", limit=9)
    assert told.outcome == Outcome.ADVISED
    assert "not confirmed: demand at q90 of the forecast, which no fleet within" in told.reason
    plan = deployment.store.plan(told.plan_id).plan
    assert plan.inputs.demand_level < 0.9
    assert plan.unproven[0] in told.reason
    assert 'poolwise_lowered_ticks_total{deployment="shop"} 1.0' in metrics.text().decode()


def test_a_tick_that_breaks_does_not_end_the_loop(make):
    deployment = make(loop={"mode": "advise"})
    broken = replace(deployment, observer=None)
    tick_once(broken, Metrics())


def test_the_scheduler_ticks_by_itself_and_stops(make):
    import time

    deployment, metrics = make(loop={"mode": "advise", "slow_interval_s": 1}), Metrics()
    leadership = Leadership(NoElection(), deployment, lambda _store, _reign: deployment.actuator)
    scheduler = ticking(leadership, metrics)
    until = time.monotonic() + 20
    while not deployment.store.decisions("shop", limit=1) and time.monotonic() < until:
        time.sleep(0.05)
    scheduler.shutdown(wait=True)
    assert deployment.store.decisions("shop", limit=1)[0].outcome == "no_data"
