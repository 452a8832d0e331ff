"""What a process does while it leads ends with its term, in the middle of an apply as well."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from planner.domain.errors import (
    ApplyError,
    GuardRefusedError,
    NotLeaderError,
    OperationError,
    StalePlanError,
    UnknownPlanError,
)
from planner.domain.rollout import ApprovalState
from planner.service.deployment import Deployment
from planner.service.election.elector import NoElection
from planner.service.election.leadership import Leadership, Reign
from planner.service.fleet import lifecycle
from planner.service.fleet.orders import carry_out_orders, move
from planner.service.loop.scheduler import take_over, tick_as_leader
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.store import open_store
from planner.service.store.orders import Action
from planner.service.telemetry.metrics import Metrics
from tests.planner.service.election.conftest import Place
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, make_deployment, observe
from tests.planner.service.plans import example_fleet


@dataclass
class Two:
    """Two processes: their deployments share a store and a target."""

    place: Place
    deployment: Deployment

    def process(self, identity: str) -> Leadership:
        elector = self.place.candidate(identity)
        elector.step()
        actuator = self.deployment.actuator
        own = replace(self.deployment, running=[])  # a process knows of its own only
        return Leadership(elector, own, lambda _store, _reign: actuator)


@pytest.fixture
def two(tmp_path):
    deployment = make_deployment(tmp_path, loop={"mode": "approve"})
    observe(deployment, history(**BUSY))
    yield Two(Place(deployment.store, deployment.store.lease("shop")), deployment)
    deployment.store.close()


def approved(two):
    plan_id = tick(two.deployment, now=NOON).decision.plan.plan_id
    lifecycle.approve(two.deployment, plan_id, by="ann", at=NOON)
    return plan_id


def test_a_follower_moves_nothing_and_names_the_leader(two):
    approved(two)
    two.process("a")
    follower = two.process("b")
    assert follower.leading() is None
    assert follower.who_leads() == "b does not lead: only a (term 1) moves the fleet"
    tick_as_leader(follower, Metrics())
    assert two.deployment.actuator.done == []
    assert len(two.deployment.store.decisions("shop", limit=9)) == 1


def test_no_step_is_begun_after_the_term_is_over(two):
    """The lease is lost while a step takes effect; nobody else has come yet."""
    plan_id = approved(two)
    leader = two.process("a")
    target = two.deployment.actuator
    ready = target.await_ready
    target.await_ready = lambda step: (ready(step), two.place.wait(11.0))
    with pytest.raises(ApplyError, match="a does not lead any more"):
        lifecycle.apply(leader.leading(), plan_id, by="ann", at=NOON)
    diff = two.deployment.store.plan(plan_id).diff
    assert 0 < len(target.done) < len(diff.steps)


def test_without_the_lease_a_process_that_was_late_goes_on(two):
    plan_id = approved(two)
    target = two.deployment.actuator
    ready = target.await_ready
    target.await_ready = lambda step: (ready(step), two.place.wait(11.0))
    lifecycle.apply(two.deployment, plan_id, by="ann", at=NOON)
    assert len(target.done) == len(two.deployment.store.plan(plan_id).diff.steps)


def test_the_next_leader_finds_the_plan_half_applied_and_it_can_be_completed(two):
    plan_id = approved(two)
    leader, follower = two.process("a"), two.process("b")
    target, store = two.deployment.actuator, two.deployment.store
    ready, seen = target.await_ready, []

    def while_a_step_takes_effect(step):
        ready(step)
        if seen:
            return
        two.place.wait(16.0)
        follower.election.step()
        seen.append(store.plan(plan_id).approval.state)
        take_over(follower)
        seen.append(store.plan(plan_id).approval.state)

    target.await_ready = while_a_step_takes_effect
    with pytest.raises(OperationError, match="b leads since term 2"):
        lifecycle.apply(leader.leading(), plan_id, by="ann", at=NOON)
    assert seen == [ApprovalState.APPLYING, ApprovalState.FAILED]
    begun = len(target.done)
    assert begun < len(store.plan(plan_id).diff.steps)
    assert leader.leading() is None

    completed = lifecycle.apply(follower.leading(), plan_id, by="ann", at=NOON)
    assert completed.approval.state is ApprovalState.APPLIED
    assert len(target.done) > begun


def test_a_new_term_of_the_same_process_does_not_revive_what_began_in_the_old_one(two):
    leader = two.process("a")
    old = leader.leading()
    two.place.wait(11.0)
    leader.election.step()
    new = leader.leading()
    assert (old.leads(), new.leads()) == (False, True)
    plan_id = approved(two)
    with pytest.raises(GuardRefusedError, match="another process leads"):
        lifecycle.apply(old, plan_id, by="ann", at=NOON)
    assert lifecycle.apply(new, plan_id, by="ann", at=NOON).approval.state == "applied"


def test_what_waits_for_a_step_gives_up_with_its_term(two):
    leader = two.process("a")
    reign, waited = Reign(election=leader.election, term=1), []
    reign.sleep_then_check(waited.append, 2.0)
    two.place.wait(11.0)
    with pytest.raises(NotLeaderError, match="no further step is begun"):
        reign.sleep_then_check(waited.append, 2.0)
    assert waited == [2.0, 2.0]


def test_the_leader_ticks(two):
    leader = two.process("a")
    tick_as_leader(leader, Metrics())
    assert two.deployment.store.decisions("shop", limit=1)[0].outcome == Outcome.PENDING


def test_the_store_that_cannot_be_asked_does_not_end_the_loop(two):
    leader = two.process("a")
    two.deployment.store.close()
    two.deployment.store.lease("shop").begin_term(5, "eve", at=NOON)
    tick_as_leader(leader, Metrics())
    assert two.deployment.actuator.done == []


# -- orders ------------------------------------------------------------------------------------


def ordered(two, follower, plan_id, **more):
    """What a follower answers who is asked to apply, while `more` happens."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(move, follower, plan_id, Action.APPLY, by="ann", **more)
        while not two.deployment.store.orders("shop").waiting() and not asked.done():
            time.sleep(0.02)
        yield asked
        asked.exception(30)


def test_what_a_follower_is_asked_to_apply_the_leader_applies(two):
    plan_id = approved(two)
    leader, follower = two.process("a"), two.process("b")
    for asked in ordered(two, follower, plan_id):
        carry_out_orders(follower)  # not its own business
        assert two.deployment.actuator.done == []
        carry_out_orders(leader)
        record, over = asked.result(30)
    assert over
    assert (record.approval.state, record.approval.changed_by) == (ApprovalState.APPLIED, "ann")
    assert two.deployment.store.orders("shop").waiting() == ()
    assert "plan.order_apply" in [e.action for e in two.deployment.store.audit(limit=100)]


def test_the_leaders_refusal_is_the_followers_answer(two):
    plan_id = approved(two)
    leader, follower = two.process("a"), two.process("b")
    two.deployment.actuator.fleet = example_fleet(5, 5)
    for asked in ordered(two, follower, plan_id):
        carry_out_orders(leader)
        with pytest.raises(StalePlanError, match="the fleet is now"):
            asked.result(30)


def test_an_order_outlives_the_leader_that_took_it(two):
    plan_id = approved(two)
    leader, follower = two.process("a"), two.process("b")
    target = two.deployment.actuator
    ready = target.await_ready

    def lost_meanwhile(step):
        ready(step)
        two.place.wait(16.0)
        follower.election.step()

    target.await_ready = lost_meanwhile
    orders = two.deployment.store.orders("shop")
    orders.add(plan_id, Action.APPLY, by="ann", at=NOON)
    carry_out_orders(leader)
    assert len(orders.waiting()) == 1
    target.await_ready = ready
    carry_out_orders(follower)
    assert orders.waiting() == ()
    assert two.deployment.store.plan(plan_id).approval.state is ApprovalState.APPLIED


def test_a_rollout_that_takes_longer_than_a_request_goes_on(two):
    plan_id = approved(two)
    two.process("a")
    follower = two.process("b")
    record, over = move(follower, plan_id, Action.APPLY, by="ann", patience_s=0.0)
    assert not over
    assert record.approval.state is ApprovalState.APPROVED
    assert len(two.deployment.store.orders("shop").waiting()) == 1


def test_an_old_order_is_not_carried_out(two):
    plan_id = approved(two)
    orders = two.deployment.store.orders("shop")
    order = orders.add(plan_id, Action.APPLY, by="ann", at=NOON - timedelta(seconds=61))
    carry_out_orders(two.process("a"))
    assert orders.answer_to(order).error == "NotLeaderError"
    assert two.deployment.actuator.done == []


def test_where_nobody_leads_nothing_is_ordered(two):
    plan_id = approved(two)
    two.process("a").election.stop()
    nobody = Leadership(
        two.place.candidate("b"), two.deployment, lambda _s, _r: two.deployment.actuator
    )
    with pytest.raises(NotLeaderError, match="nobody else does yet"):
        move(nobody, plan_id, Action.APPLY, by="ann")
    with pytest.raises(UnknownPlanError):
        move(nobody, "plan-9", Action.APPLY, by="ann")
    assert two.deployment.store.orders("shop").waiting() == ()


def test_without_an_election_an_older_leaders_term_is_no_fence(two):
    plan_id = approved(two)
    two.process("a")
    alone = Leadership(NoElection(), two.deployment, lambda _s, _r: two.deployment.actuator)
    assert move(alone, plan_id, Action.APPLY, by="ann")[0].approval.state == "applied"


def test_a_follower_whose_clock_is_an_hour_behind_is_obeyed_all_the_same(tmp_path, postgres):
    store = open_store(postgres.new_database())
    made = make_deployment(tmp_path, loop={"mode": "approve"})
    deployment = replace(made, store=store, observer=replace(made.observer, store=store))
    observe(deployment, history(**BUSY))
    pair = Two(Place(store, store.lease("shop")), deployment)
    plan_id = approved(pair)
    leader, follower = pair.process("a"), pair.process("b")
    behind = replace(follower.deployment, clock=lambda: NOON - timedelta(hours=1))
    follower.deployment = behind
    for asked in ordered(pair, follower, plan_id):
        carry_out_orders(leader)
        record, _ = asked.result(30)
    assert record.approval.state is ApprovalState.APPLIED
    store.close()
    made.store.close()
