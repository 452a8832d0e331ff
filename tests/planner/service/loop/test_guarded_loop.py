"""Guards and approval policies act in the loop and in `apply`, as the spec sets them."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from actuators.kubernetes.stock_out import StockOut
from planner import rollout
from planner.domain.errors import GuardRefusedError, PlanStateError
from planner.domain.fleet import Role
from planner.domain.guards import Pause
from planner.domain.rollout import ApprovalState
from planner.service.deployment import Observation, guard_conditions
from planner.service.fleet import lifecycle
from planner.service.loop.slow_tick import Outcome, tick
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, IDLE, make_deployment, observe
from tests.planner.service.plans import example_record

LOCAL = {"kind": "local"}
"""Whose applied plans have moved something, unlike those of a dry run."""


@pytest.fixture
def make(tmp_path):
    made = []

    def deployment(**changes):
        made.append(make_deployment(tmp_path, **changes))
        return made[-1]

    yield deployment
    for one in made:
        one.store.close()


def replicas(deployment) -> tuple[int, int]:
    fleet = deployment.actuator.fleet
    return fleet.replicas(Role.PREFILL), fleet.replicas(Role.DECODE)


def busy(make, **changes):
    deployment = make(**{"loop": {"mode": "auto"}} | changes)
    observe(deployment, history(**BUSY))
    return deployment


def test_a_rate_limit_lets_the_fleet_grow_bit_by_bit(make):
    limit = {"scale_up": {"replicas": 1, "period_s": 60}}
    deployment = busy(make, guards=limit, target=LOCAL)
    assert tick(deployment, now=NOON).outcome is Outcome.APPLIED
    first = replicas(deployment)
    assert first[0] == 2
    assert tick(deployment, now=NOON + timedelta(seconds=30)).outcome is Outcome.HELD
    assert replicas(deployment) == first
    assert tick(deployment, now=NOON + timedelta(seconds=60)).outcome is Outcome.APPLIED
    assert replicas(deployment)[0] == 3


@pytest.mark.parametrize(("period_s", "seen"), [(60, 50), (86_400, 60)])
def test_a_rate_limit_looks_back_over_its_whole_period(make, period_s, seen):
    limit = {"scale_up": {"replicas": 60, "period_s": period_s}}
    deployment = make(guards=limit, target=LOCAL)
    for number in range(60):
        at = NOON - timedelta(minutes=60 - number)
        record = example_record(f"plan-{number}", at=at)
        deployment.store.add_plan(record, actor="ann")
        for move in (rollout.approve, rollout.begin, rollout.finish):
            deployment.store.change_approval(
                f"plan-{number}", partial(move, by="ann", at=at), action="x"
            )
    nothing = Observation(windows=(), observed_at=NOON)
    recent = guard_conditions(deployment, nothing, now=NOON).recent
    assert len({change.at for change in recent}) == seen


def test_without_a_rate_limit_it_grows_at_once(make):
    deployment = busy(make, target=LOCAL)
    tick(deployment, now=NOON)
    assert replicas(deployment)[0] > 3


def test_a_paused_deployment_holds_and_says_so(make):
    deployment = busy(make, guards={"pause": "all"})
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.HELD
    assert "paused" in report.reason
    assert report.decision.recommended.steps  # what is recommended stays visible
    assert deployment.actuator.done == []


def test_a_plan_without_a_step_is_held_and_cannot_be_approved(make):
    deployment = busy(make, guards={"pause": "all"})
    decision = tick(deployment, now=NOON).decision
    held = lifecycle.propose(deployment, decision, by="ann", at=NOON)
    assert held.approval.state is ApprovalState.DRAFT
    assert "held: " in held.approval.reason
    assert "paused" in held.approval.reason
    with pytest.raises(PlanStateError, match=r"draft.*paused"):
        lifecycle.approve(deployment, held.plan.plan_id, by="bob", at=NOON)
    with pytest.raises(PlanStateError, match="draft"):
        lifecycle.apply(deployment, held.plan.plan_id, by="bob", at=NOON)
    assert deployment.actuator.done == []


def test_a_held_plan_that_is_asked_for_again_when_it_may_move_takes_its_steps(make):
    deployment = busy(make, guards={"pause": "all"}, loop={"mode": "approve"})
    decision = tick(deployment, now=NOON).decision
    lifecycle.propose(deployment, decision, by="ann", at=NOON)
    now_allowed = replace(decision, diff=decision.recommended, findings=())
    asked = lifecycle.propose(deployment, now_allowed, by="ann", at=NOON)
    assert asked.approval.state is ApprovalState.PENDING
    assert len(asked.diff.steps) == len(decision.recommended.steps)
    assert asked.findings == ()
    assert [e.action for e in deployment.store.audit(limit=2)] == ["plan.renew", "plan.create"]


def test_a_held_plan_takes_the_place_of_none_that_a_person_may_still_apply(make):
    deployment = busy(make, loop={"mode": "approve"})
    decision = tick(deployment, now=NOON).decision
    lifecycle.approve(deployment, decision.plan.plan_id, by="ann", at=NOON)
    paused = replace(deployment.spec, guards=replace(deployment.spec.guards, pause=Pause.ALL))
    held = tick(replace(deployment, spec=paused), now=NOON + timedelta(seconds=1)).decision
    drafts = [
        lifecycle.propose(
            deployment, replace(held, plan=replace(held.plan, plan_id=name)), by="bob", at=NOON
        )
        for name in ("one", "two")
    ]
    assert {d.approval.state for d in drafts} == {ApprovalState.DRAFT}
    stored = deployment.store.plan
    assert stored(decision.plan.plan_id).approval.state is ApprovalState.APPROVED
    assert stored("one").approval.state is ApprovalState.SUPERSEDED  # by the newer draft


def test_a_held_plan_that_is_held_for_another_reason_says_so(make):
    deployment = busy(make, guards={"pause": "all"}, loop={"mode": "approve"})
    decision = tick(deployment, now=NOON).decision
    lifecycle.propose(deployment, decision, by="ann", at=NOON)
    for reason in ("nobody may", "nobody may"):
        other = tuple(replace(f, reason=reason) for f in decision.findings)
        again = lifecycle.propose(deployment, replace(decision, findings=other), by="a", at=NOON)
        assert again.approval.reason == "held: paused: nobody may"
        assert {f.reason for f in again.findings} == {"nobody may"}
    renewed = [e for e in deployment.store.audit(limit=20) if e.action == "plan.renew"]
    assert len(renewed) == 1


def test_held_back_are_only_findings_that_cut_steps(make):
    limit = {"scale_up": {"replicas": 1}}
    deployment = busy(make, loop={"mode": "auto"}, guards=limit, target=LOCAL)
    out = StockOut(accelerator="cpu", usable=15, until_at=NOON + timedelta(hours=1))
    deployment.store.add_stock_out("shop", out, at=NOON, actor="x")
    decision = tick(deployment, now=NOON).decision
    record = deployment.store.plan(decision.plan.plan_id)
    assert "no more than 15 cpu" in str(record.findings)
    said = record.approval.reason
    assert "held back from the plan: rate_limits" in said
    assert "stock_out" not in said


def test_a_pin_that_was_applied_is_not_told_as_held_back(make):
    pins = [{"pool": "decode:cpu:tp1", "replicas": 3}]
    deployment = busy(make, loop={"mode": "auto"}, guards={"pins": pins}, target=LOCAL)
    decision = tick(deployment, now=NOON).decision
    wanted = decision.plan.windows[0].replicas("decode")
    assert wanted != 3
    said = deployment.store.plan(decision.plan.plan_id).approval.reason
    steps = len(decision.diff.steps)
    assert said == (
        f"{steps} steps done; pins that counted: decode:cpu:tp1 is pinned to 3 replicas, "
        f"{wanted} are recommended"
    )


def test_beside_a_pin_what_was_held_back_is_told_as_that(make):
    pins = [{"pool": "decode:cpu:tp1", "replicas": 3}]
    limits = {"pins": pins, "scale_up": {"replicas": 1}}
    deployment = busy(make, loop={"mode": "auto"}, guards=limits, target=LOCAL)
    decision = tick(deployment, now=NOON).decision
    said = deployment.store.plan(decision.plan.plan_id).approval.reason
    pinned, held = said.split("; held back from the plan: ")
    assert "pins that counted: decode:cpu:tp1 is pinned to 3" in pinned
    assert "pinned" not in held
    assert held.startswith("rate_limits: ")


def test_a_plan_that_the_fleet_is_already_may_be_approved(make):
    deployment = busy(make)
    decision = tick(deployment, now=NOON).decision
    nothing = replace(decision.diff, steps=())
    done = replace(
        decision,
        plan=replace(decision.plan, plan_id="done"),
        diff=nothing,
        recommended=nothing,
    )
    assert lifecycle.propose(deployment, done, by="a", at=NOON).approval.state == "pending"


def test_a_freeze_window_binds_the_loop_and_people(make):
    frozen = {"start_at": "2026-11-02T00:00:00+00:00", "end_at": "2026-11-03T00:00:00+00:00"}
    deployment = busy(make, loop={"mode": "approve"}, guards={"freeze_windows": [frozen]})
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    with pytest.raises(GuardRefusedError, match="freeze window"):
        lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    assert deployment.actuator.done == []


def test_a_freeze_window_that_lets_people_through_does(make):
    frozen = {"start_at": "2026-11-02T00:00:00+00:00", "end_at": "2026-11-03T00:00:00+00:00"}
    deployment = busy(
        make, loop={"mode": "approve"}, guards={"freeze_windows": [frozen | {"manual": True}]}
    )
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    applied = lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    assert applied.approval.state is ApprovalState.APPLIED


def test_only_the_leader_applies(make):
    follower = replace(busy(make), leads=lambda: False)
    report = tick(follower, now=NOON)
    assert report.outcome is Outcome.HELD
    assert "leader" in report.reason
    assert follower.actuator.done == []


def test_exactly_the_steps_that_were_shown_are_applied(make):
    limit = {"scale_up": {"replicas": 1}}
    deployment = busy(make, loop={"mode": "approve"}, guards=limit, target=LOCAL)
    report = tick(deployment, now=NOON)
    plan_id = report.decision.plan.plan_id
    shown = [(s.kind, s.shape) for s in report.decision.diff.steps]
    assert len(shown) < len(report.decision.recommended.steps)
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    assert [(s.kind, s.shape) for s in deployment.actuator.done] == shown
    assert "held back from the plan" in deployment.store.plan(plan_id).approval.reason


def test_a_clamped_scale_down_counts_as_unneeded_until_it_may_happen(make):
    deployment = make(
        prefill=3,
        loop={"mode": "auto"},
        guards={"scale_down_stabilization_s": 120, "stale_observation_s": 100_000},
    )
    observe(deployment, history(**IDLE))
    outcomes = [tick(deployment, now=NOON + timedelta(seconds=60 * n)).outcome for n in range(4)]
    assert outcomes[:2] == [Outcome.HELD, Outcome.HELD]
    assert Outcome.APPLIED in outcomes
    assert replicas(deployment)[0] == 1


def test_two_persons_have_to_approve_a_large_change(make):
    deployment = busy(make, loop={"mode": "auto"}, approval={"two_persons_from_replicas": 2})
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.PENDING  # even in mode auto
    plan_id = report.decision.plan.plan_id
    once = lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    assert (once.approval.state, once.approval.approvers) == (ApprovalState.PENDING, ("ann",))
    again = lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    assert again.approval == once.approval
    with pytest.raises(PlanStateError):
        lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    twice = lifecycle.approve(deployment, plan_id, by="bea", at=NOON)
    assert twice.approval.approvers == ("ann", "bea")
    applied = lifecycle.apply(deployment, plan_id, by="ann", at=NOON)
    assert applied.approval.state is ApprovalState.APPLIED


def test_without_that_policy_one_person_is_enough(make):
    deployment = busy(make, loop={"mode": "approve"})
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    assert lifecycle.approve(deployment, plan_id, by="ann", at=NOON).approval.state == "approved"


def test_who_asked_does_not_approve_where_the_policy_says_so(make):
    strict = {"requester_may_approve": False}
    deployment = busy(make, loop={"mode": "advise"}, approval=strict)
    decision = tick(deployment, now=NOON).decision
    deployment.store.close()
    asked = busy(make, loop={"mode": "off"}, approval=strict)
    plan_id = lifecycle.propose(
        asked, replace(decision, plan=replace(decision.plan, plan_id="p-ann")), by="ann", at=NOON
    ).plan.plan_id
    with pytest.raises(PlanStateError, match="somebody else"):
        lifecycle.approve(asked, plan_id, by="ann", at=NOON)
    assert lifecycle.approve(asked, plan_id, by="bea", at=NOON).approval.state == "approved"


def test_a_change_of_small_price_is_approved_by_policy(make):
    cheap = {"auto_below_usd_per_hour": 1_000.0}
    deployment = busy(make, loop={"mode": "approve"}, approval=cheap)
    assert tick(deployment, now=NOON).outcome is Outcome.APPLIED
    dear = busy(make, loop={"mode": "approve"}, approval={"auto_below_usd_per_hour": 0.5})
    assert tick(dear, now=NOON + timedelta(seconds=1)).outcome is Outcome.PENDING


def test_an_approved_plan_that_nobody_applied_expires(make):
    deployment = busy(make, loop={"mode": "approve"}, approval={"approved_expires_s": 60})
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    lifecycle.expire_old(deployment, at=NOON + timedelta(seconds=61))
    approval = deployment.store.plan(plan_id).approval
    assert approval.state is ApprovalState.EXPIRED
    assert "not applied" in approval.reason


def test_an_approval_that_has_expired_moves_nothing_though_no_tick_came_since(make):
    deployment = busy(make, loop={"mode": "approve"}, approval={"approved_expires_s": 60})
    plan_id = tick(deployment, now=NOON).decision.plan.plan_id
    lifecycle.approve(deployment, plan_id, by="ann", at=NOON)
    before = replicas(deployment)
    with pytest.raises(PlanStateError, match="is expired; only an approved plan"):
        lifecycle.apply(deployment, plan_id, by="ann", at=NOON + timedelta(seconds=61))
    assert replicas(deployment) == before


def test_the_plan_that_came_last_goes_back_first_though_the_clock_was_set_back(make):
    limit = {"scale_up": {"replicas": 1, "period_s": 60}}
    deployment = busy(make, guards=limit, target=LOCAL)
    first = tick(deployment, now=NOON).decision.plan.plan_id
    set_back = replace(deployment, clock=lambda: NOON - timedelta(hours=1))
    second = tick(set_back, now=NOON + timedelta(seconds=61)).decision.plan.plan_id
    with pytest.raises(PlanStateError, match=f"{second} was applied after {first}"):
        lifecycle.roll_back(deployment, first, by="ann", at=NOON)
    for plan_id in (second, first):
        record = lifecycle.roll_back(deployment, plan_id, by="ann", at=NOON)
        assert record.approval.state is ApprovalState.ROLLED_BACK


FALLBACK = {
    "fallback": "static",
    "fallback_after": 3,
    "fallback_pools": [
        {"pool": "prefill:cpu:tp1", "replicas": 5},
        {"pool": "decode:cpu:tp1", "replicas": 2},
    ],
}


def test_when_the_load_cannot_be_seen_for_long_the_fallback_counts(make):
    guards = FALLBACK | {"stale_observation_s": 60}
    deployment = busy(make, guards=guards, loop={"mode": "auto", "slow_interval_s": 60})
    tick(deployment, now=NOON)
    seen = replicas(deployment)
    tick(deployment, now=NOON + timedelta(seconds=130))  # twice too old: not yet
    assert replicas(deployment) == seen != (5, 2)
    report = tick(deployment, now=NOON + timedelta(seconds=190))
    assert report.outcome is Outcome.FELL_BACK
    assert "cannot be seen" in report.reason
    assert replicas(deployment) == (5, 2)
    again = tick(deployment, now=NOON + timedelta(seconds=250))
    assert again.outcome is Outcome.FELL_BACK
    assert replicas(deployment) == (5, 2)


def test_without_a_fallback_the_fleet_stays_as_it_was_last_seen_to_be_needed(make):
    deployment = busy(make, guards={"stale_observation_s": 60})
    tick(deployment, now=NOON)
    seen = replicas(deployment)
    tick(deployment, now=NOON + timedelta(seconds=190))
    assert replicas(deployment) == seen


def applied(make, **changes):
    deployment = busy(make, target=LOCAL, **changes)
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.APPLIED
    return deployment, report.decision.plan.plan_id


def test_a_plan_that_was_applied_can_be_rolled_back_once(make):
    deployment, plan_id = applied(make)
    assert replicas(deployment) != (1, 1)
    for _ in range(2):
        record = lifecycle.roll_back(deployment, plan_id, by="eve", at=NOON)
        assert record.approval.state is ApprovalState.ROLLED_BACK
        assert replicas(deployment) == (1, 1)
    assert record.approval.changed_by == "eve"


def test_a_plan_that_failed_on_its_way_can_be_rolled_back(make):
    deployment = busy(make, target=LOCAL)
    deployment.actuator.fails_at = 2
    report = tick(deployment, now=NOON)
    assert report.outcome is Outcome.FAILED
    (record,) = deployment.store.plans("shop", limit=5)
    before = len(deployment.actuator.done)
    assert before == 2
    lifecycle.roll_back(deployment, record.plan.plan_id, by="eve", at=NOON)
    assert replicas(deployment) == (1, 1)


def test_a_plan_that_changed_nothing_or_is_not_the_last_is_not_rolled_back(make):
    deployment, plan_id = applied(make)
    observe(deployment, history(**IDLE))
    asked = make_plan_waiting(deployment)
    with pytest.raises(PlanStateError, match="only a plan that was applied"):
        lifecycle.roll_back(deployment, asked, by="eve", at=NOON)
    assert plan_id != asked


def make_plan_waiting(deployment):
    from planner.autoscale.slow import decide
    from planner.service.loop.slow_tick import _look
    from planner.service.loop.stages import Course

    course = Course(deployment.stages, deployment.spec.loop.deadlines)
    seen = _look(deployment, course, now=NOON)
    decision = decide(deployment.spec, seen.forecast, deployment.actuator.read_fleet(), now=NOON)
    return lifecycle.propose(deployment, decision, by="eve", at=NOON).plan.plan_id


def test_a_pause_holds_a_rollback_too(make):
    deployment, plan_id = applied(make)
    paused = replace(deployment.spec, guards=replace(deployment.spec.guards, pause=Pause.ALL))
    with pytest.raises(GuardRefusedError, match=r"must not be rolled back now: .*paused"):
        lifecycle.roll_back(replace(deployment, spec=paused), plan_id, by="eve", at=NOON)
