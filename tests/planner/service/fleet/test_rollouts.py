"""Plans on their way, there or back: one at a time, and whatever happens is kept."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from actuators.kubernetes.stock_out import StockOut, StockOutError
from planner.domain.errors import (
    ApplyError,
    DeadlineMissedError,
    OperationError,
    PlanStateError,
    StalePlanError,
)
from planner.domain.fleet import Role
from planner.domain.rollout import ApprovalState
from planner.service.deployment import Observation
from planner.service.fleet import lifecycle
from planner.service.fleet.rollouts import settle_interrupted
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.store import open_store
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, busy_deployments, observe
from tests.planner.service.plans import example_fleet

LOCAL = {"kind": "local"}
STEADY = {"requests": 1000, "isl": 1200, "osl": 80}


@pytest.fixture
def make(tmp_path):
    with busy_deployments(tmp_path, loop={"mode": "auto"}, target=LOCAL) as made:
        yield made


def replicas(deployment) -> tuple[int, int]:
    fleet = deployment.actuator.fleet
    return fleet.replicas(Role.PREFILL), fleet.replicas(Role.DECODE)


class Blind:
    """Whoever looks at the load through it sees none."""

    def observe(self, *, now):
        return Observation(windows=(), observed_at=None)


def applied(deployment) -> str:
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.APPLIED, report.reason
    return report.decision.plan.plan_id


def approved(deployment) -> str:
    """A plan that a person has approved and nobody has applied."""
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    return plan_id


def states(deployment, plan_id) -> list[str]:
    return [approval.state.value for approval in deployment.store.approvals(plan_id)]


def told(deployment, plan_id) -> str:
    return deployment.store.plan(plan_id).approval.reason


@contextmanager
def under_way(deployment, move, plan_id):
    """While a plan is moved by another thread, held at a step; its outcome afterwards."""
    deployment.actuator.goes_on = threading.Event()
    with ThreadPoolExecutor() as pool:
        running = pool.submit(move, deployment, plan_id, by="ann", at=NOON)
        try:
            assert deployment.actuator.reached.wait(timeout=30)
            yield running
        finally:
            deployment.actuator.goes_on.set()
        running.result()


def test_of_two_rollbacks_at_once_one_runs(make):
    deployment = make()
    plan_id = applied(deployment)
    grown, done = replicas(deployment), len(deployment.actuator.done)
    deployment.actuator.reached.clear()
    with (
        under_way(deployment, lifecycle.roll_back, plan_id) as first,
        pytest.raises(PlanStateError, match="is rolling_back"),
    ):
        lifecycle.roll_back(deployment, plan_id, by="bea", at=NOON)
    assert first.result().approval.state is ApprovalState.ROLLED_BACK
    assert replicas(deployment) == (1, 1) != grown
    drained = [step for step in deployment.actuator.done[done:] if step.kind == "drain"]
    assert len(drained) == sum(grown) - 2


def test_while_one_plan_moves_no_other_does_and_the_loop_holds(make):
    deployment = make(loop={"mode": "approve"})
    plan_id = approved(deployment)
    with under_way(deployment, lifecycle.apply, plan_id) as first:
        automatic = replace(deployment.spec, loop=replace(deployment.spec.loop, mode="auto"))
        report = tick(replace(deployment, spec=automatic), now=NOON + timedelta(seconds=1))
        with pytest.raises(PlanStateError, match="is applying"):
            lifecycle.apply(deployment, plan_id, by="bea", at=NOON)
    assert first.result().approval.state is ApprovalState.APPLIED
    assert report.outcome is Outcome.HELD
    assert report.reason.startswith(f"plan {plan_id} is applying: step 1 of ")


def test_another_plan_waits_for_the_one_that_moves(make):
    deployment = make(loop={"mode": "approve"})
    first = approved(deployment)
    with under_way(deployment, lifecycle.apply, first):
        decision = tick(deployment, now=NOON + timedelta(seconds=1)).decision
        other = replace(decision, plan=replace(decision.plan, plan_id="other"))
        lifecycle.propose(deployment, other, by="bea", at=NOON)
        lifecycle.approve(deployment, "other", by="bea", at=NOON)
        said = rf"plan {first} is applying .*step 1 of .*one plan at a time"
        with pytest.raises(PlanStateError, match=said):
            lifecycle.apply(deployment, "other", by="bea", at=NOON)
    assert states(deployment, "other")[-1] == "approved"


def test_a_rollback_that_fails_is_kept_and_rolling_back_again_completes_it(make):
    deployment = make()
    plan_id = applied(deployment)
    deployment.actuator.fails_at = 2
    with pytest.raises(OperationError, match=r"failed at step 3 of .* on fire"):
        lifecycle.roll_back(deployment, plan_id, by="eve", at=NOON)
    assert states(deployment, plan_id)[-3:] == ["applied", "rolling_back", "failed"]
    assert told(deployment, plan_id).startswith("the rollback stopped: plan")
    record = lifecycle.roll_back(deployment, plan_id, by="eve", at=NOON)
    assert record.approval.state is ApprovalState.ROLLED_BACK
    assert replicas(deployment) == (1, 1)


def test_what_could_not_be_had_on_the_way_back_is_remembered_as_on_the_way_there(make):
    deployment = make()
    plan_id = applied(deployment)
    until = NOON + timedelta(minutes=30)
    found = StockOut(accelerator="cpu", usable=5, until_at=until)
    deployment.actuator.fails_at = 0
    deployment.actuator.fails_with = StockOutError("no cpu is left", found)
    with pytest.raises(ApplyError, match="no cpu is left"):
        lifecycle.roll_back(deployment, plan_id, by="eve", at=NOON)
    assert deployment.store.stock_outs("shop", at=NOON) == (found,)


QUIET = {**STEADY, "requests": STEADY["requests"] // 2}
"""What four accelerators serve with confidence."""


@pytest.mark.parametrize(
    ("load", "outcome"), [(QUIET, Outcome.ADVISED), (BUSY, Outcome.INFEASIBLE)]
)
def test_what_could_not_be_had_counts_after_a_restart_and_is_told(make, tmp_path, load, outcome):
    deployment = make(loop={"mode": "advise"})
    observe(deployment, history(**load))
    assert tick(deployment, now=NOON).outcome is Outcome.ADVISED
    found = StockOut(accelerator="cpu", usable=4, until_at=NOON + timedelta(minutes=30))
    deployment.store.add_stock_out("shop", found, at=NOON, actor="policy")
    deployment.store.close()
    again = replace(deployment, store=open_store(f"sqlite:///{tmp_path / 'poolwise.db'}"))
    try:
        report = tick(again, now=NOON + timedelta(seconds=1))
        said = "no more than 4 cpu could be had: plans count on no more until 12:30 UTC"
        assert report.outcome is outcome
        assert said in [finding.reason for finding in report.decision.findings]
        assert (said in report.reason) is (outcome is Outcome.INFEASIBLE)
        later = found.until_at
        assert again.plannable(now=later).accelerators[0].inventory == 16
        assert again.shortages(now=later) == ()
    finally:
        again.store.close()


def late(deployment, at_step: int):
    deployment.actuator.fails_at = at_step
    deployment.actuator.fails_with = DeadlineMissedError("nothing came within 600 s")


def test_a_late_plan_goes_back_by_itself_and_says_why(make):
    deployment = make()
    late(deployment, 0)
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.FAILED
    assert report.reason.endswith("nothing came within 600 s; it was rolled back")
    (record,) = deployment.store.plans("shop", limit=5)
    assert record.approval.state is ApprovalState.ROLLED_BACK
    assert record.approval.changed_by == "policy"
    assert "failed at step 1 of" in record.approval.reason
    assert states(deployment, record.plan.plan_id)[-4:] == [
        *("applying", "failed", "rolling_back", "rolled_back")
    ]
    assert replicas(deployment) == (1, 1)


def test_a_late_plan_stays_where_the_spec_says_so(make):
    deployment = make(guards={"roll_back_late_plans": False})
    late(deployment, 2)
    assert tick(deployment, now=NOON).outcome is Outcome.FAILED
    (record,) = deployment.store.plans("shop", limit=5)
    assert record.approval.state is ApprovalState.FAILED
    assert sum(replicas(deployment)) == 4


def test_a_plan_that_failed_otherwise_is_left_to_people(make):
    deployment = make()
    deployment.actuator.fails_at = 2
    assert tick(deployment, now=NOON).outcome is Outcome.FAILED
    (record,) = deployment.store.plans("shop", limit=5)
    assert states(deployment, record.plan.plan_id)[-2:] == ["applying", "failed"]


def test_a_way_back_that_fails_too_stops_there_and_says_so(make):
    deployment = make()
    late(deployment, 2)
    target, applies = deployment.actuator, deployment.actuator.apply

    def broken(step):
        if step.kind == "drain":
            raise OperationError("the cluster is gone")
        applies(step)

    target.apply = broken
    report = tick(deployment, now=NOON)
    (record,) = deployment.store.plans("shop", limit=5)
    assert record.approval.state is ApprovalState.FAILED
    for said in (report.reason, record.approval.reason):
        assert "nothing came within 600 s" in said
        assert "the cluster is gone" in said
    assert "the rollback stopped: plan" in record.approval.reason


def test_a_way_back_that_a_guard_forbids_is_not_taken_and_says_so(make):
    deployment = make(guards={"scale_down": {"enabled": False}})
    late(deployment, 2)
    report = tick(deployment, now=NOON)
    (record,) = deployment.store.plans("shop", limit=5)
    assert record.approval.state is ApprovalState.FAILED
    assert sum(replicas(deployment)) == 4
    for said in (report.reason, record.approval.reason):
        assert "nothing came within 600 s" in said
        assert "it was not rolled back" in said
        assert "guards.scale_down is disabled" in said


def test_a_person_may_undo_a_plan_though_the_load_was_not_seen_for_long(make):
    deployment = make(loop={"mode": "approve"})
    plan_id = approved(deployment)
    lifecycle.apply(deployment, plan_id, by="eve", at=NOON)
    assert sum(replicas(deployment)) > 2
    done = lifecycle.roll_back(deployment, plan_id, by="eve", at=NOON + timedelta(days=1))
    assert done.approval.state is ApprovalState.ROLLED_BACK
    assert replicas(deployment) == (1, 1)


def test_the_policy_does_not_take_away_what_may_be_needed_by_load_that_nobody_sees(make):
    deployment = make(loop={"mode": "approve"})
    late(deployment, 2)
    plan_id = approved(deployment)
    blind = replace(deployment, observer=Blind())
    with pytest.raises(ApplyError, match=r"it was not rolled back: .*the load was never observed"):
        lifecycle.apply(blind, plan_id, by="eve", at=NOON)
    assert sum(replicas(deployment)) == 4


def test_a_plan_whose_fleet_changed_at_the_last_moment_is_superseded(make):
    deployment = make(loop={"mode": "approve"})
    plan_id = approved(deployment)
    first = deployment.actuator.read_fleet

    def moved():
        found = first()
        deployment.actuator.fleet = example_fleet(2, 1)
        return found

    deployment.actuator.read_fleet = moved
    with pytest.raises(StalePlanError):
        lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    assert states(deployment, plan_id)[-1] == "superseded"
    assert deployment.actuator.done == []


def test_a_plan_that_was_refused_beforehand_is_still_for_its_fleet_only(make):
    deployment = make(loop={"mode": "approve"})
    plan_id = approved(deployment)
    deployment.actuator.objections = ("no room",)
    with pytest.raises(ApplyError, match="no room"):
        lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    deployment.actuator.objections = ()
    deployment.actuator.fleet = example_fleet(2, 1)
    with pytest.raises(StalePlanError):
        lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    assert deployment.actuator.done == []


def test_a_run_that_another_process_took_over_applies_no_further_step(make, tmp_path):
    deployment = make(loop={"mode": "approve"})
    plan_id = approved(deployment)
    deployment.actuator.goes_on = threading.Event()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(lifecycle.apply, deployment, plan_id, by="ann", at=NOON)
        assert deployment.actuator.reached.wait(timeout=30)
        with pytest.raises(PlanStateError, match="is applying already: its steps are under way"):
            lifecycle.apply(deployment, plan_id, by="bob", at=NOON)
        settle_interrupted(replace(deployment, running=[]), at=NOON)  # as one that starts anew
        assert "failed at step 1 of" in told(deployment, plan_id)
        deployment.actuator.goes_on.set()
        with pytest.raises(ApplyError, match="was taken over by serve"):
            first.result()
    assert len(deployment.actuator.done) == 1
    assert states(deployment, plan_id)[-2:] == ["applying", "failed"]
    assert lifecycle.apply(deployment, plan_id, by="ann", at=NOON).approval.state == "applied"


def test_only_the_leader_settles_what_was_interrupted(make):
    from planner import rollout

    deployment = make(loop={"mode": "approve"})
    plan_id = approved(deployment)
    deployment.store.change_approval(
        plan_id, lambda a: rollout.begin(a, by="ann", at=NOON), action="plan.begin"
    )
    settle_interrupted(replace(deployment, leads=lambda: False), at=NOON)
    assert states(deployment, plan_id)[-1] == "applying"
    settle_interrupted(deployment, at=NOON)
    assert states(deployment, plan_id)[-1] == "failed"
    assert "failed before its first step" in told(deployment, plan_id)
    assert "the fleet is now prefill:cpu:tp1 1 ready" in told(deployment, plan_id)


def test_an_interrupted_plan_whose_fleet_got_there_is_finished(make):
    from planner import rollout

    deployment = make(loop={"mode": "approve"})
    plan_id = approved(deployment)
    planned = deployment.store.plan(plan_id).plan.windows[0]
    deployment.store.change_approval(
        plan_id, lambda a: rollout.begin(a, by="ann", at=NOON), action="plan.begin"
    )
    deployment.actuator.fleet = example_fleet(*(planned.replicas(r) for r in ("prefill", "decode")))
    settle_interrupted(deployment, at=NOON)
    assert states(deployment, plan_id)[-1] == "applied"
    assert deployment.actuator.done == []


def test_the_audit_says_who_did_what_and_why_step_by_step(make):
    deployment = make(loop={"mode": "approve"})
    plan_id = approved(deployment)
    lifecycle.apply(deployment, plan_id, by="bea", at=NOON)
    lines = [line for line in deployment.store.audit(limit=100) if line.subject == plan_id]
    told = [(line.actor, line.action) for line in reversed(lines)]
    steps = len(deployment.store.plan(plan_id).diff.steps)
    assert told == [
        ("policy", "plan.create"),
        ("loop", "decision.pending"),
        ("ann", "plan.approve"),
        ("bea", "plan.begin"),
        *[("bea", "plan.step")] * steps,
        ("bea", "plan.finish"),
    ]
    assert lines[-5].detail.startswith("step 1 of ")


def test_without_the_audit_only_the_last_word_on_a_plan_would_be_known(make):
    deployment = make(loop={"mode": "approve"})
    plan_id = approved(deployment)
    lifecycle.apply(deployment, plan_id, by="bea", at=NOON)
    lifecycle.roll_back(deployment, plan_id, by="eve", at=NOON)
    approval = deployment.store.plan(plan_id).approval
    assert approval.changed_by == "eve"
    assert "ann" in approval.approvers
    assert "bea" not in str(approval)  # who applied it
