from dataclasses import replace
from datetime import timedelta

import pytest

from planner.domain.errors import PlanStateError
from planner.domain.guards import ApprovalPolicy
from planner.domain.rollout import Approval, ApprovalState
from planner.domain.spec import Spec
from planner.rollout import (
    approve,
    begin,
    begin_back,
    diff,
    draft,
    expire,
    fail,
    finish,
    has_expired,
    persons_needed,
    policy_approves,
    reject,
    remark,
    roll_back,
    submit,
    supersede,
)
from tests.planner.rollout.cases import NOW, D, P, fleet, plan, spec

DRAFT = draft(plan_id="p", fleet_version="v1", by="loop", at=NOW)


def moved(*moves) -> Approval:
    approval = DRAFT
    for move in moves:
        approval = move(approval, by="ann", at=NOW, reason="why")
    return approval


@pytest.mark.parametrize(
    ("moves", "state"),
    [
        ((submit,), ApprovalState.PENDING),
        ((submit, approve, begin, finish), ApprovalState.APPLIED),
        ((submit, approve, begin, fail), ApprovalState.FAILED),
        ((submit, approve, begin, fail, begin, finish), ApprovalState.APPLIED),
        ((submit, approve, begin, finish, begin_back, roll_back), ApprovalState.ROLLED_BACK),
        ((submit, approve, begin, fail, begin_back, roll_back), ApprovalState.ROLLED_BACK),
        ((submit, approve, begin, finish, begin_back, fail), ApprovalState.FAILED),
        ((submit, approve, begin, supersede), ApprovalState.SUPERSEDED),
        ((submit, reject), ApprovalState.REJECTED),
        ((submit, approve, reject), ApprovalState.REJECTED),
        ((submit, expire), ApprovalState.EXPIRED),
        ((submit, approve, supersede), ApprovalState.SUPERSEDED),
    ],
)
def test_a_plan_reaches_its_state_by_allowed_moves(moves, state: ApprovalState) -> None:
    assert moved(*moves).state is state


@pytest.mark.parametrize(
    "moves",
    [
        (approve,),
        (submit, begin),
        (submit, reject, approve),
        (submit, approve, reject, begin),
        (submit, approve, begin, reject),
        (submit, approve, begin, finish, reject),
        (submit, approve, begin, fail, reject),
        (submit, approve, supersede, reject),
        (submit, approve, begin, begin),
        (submit, approve, begin, finish, begin),
        (submit, approve, begin, roll_back),
        (submit, approve, begin, finish, roll_back),
        (submit, approve, begin, finish, begin_back, begin),
        (submit, approve, begin, finish, begin_back, begin_back),
        (submit, approve, begin, begin_back),
        (submit, approve, begin, finish, expire),
        (submit, supersede, approve),
    ],
)
def test_a_move_that_the_state_forbids_is_refused(moves) -> None:
    with pytest.raises(PlanStateError, match="plan p is"):
        moved(*moves)


def test_a_move_records_who_when_and_why() -> None:
    later = NOW + timedelta(minutes=1)
    approved = approve(moved(submit), by="bea", at=later, reason="looks right")
    assert (approved.changed_by, approved.changed_at, approved.reason) == (
        "bea",
        later,
        "looks right",
    )


def test_a_pending_plan_expires_and_an_approved_one_does_not() -> None:
    late, policy = NOW + timedelta(seconds=61), ApprovalPolicy(expires_s=60.0)
    assert has_expired(moved(submit), policy, now=late)
    assert not has_expired(moved(submit, approve), policy, now=late)


def policy_spec(**policy) -> Spec:
    return replace(spec(), approval=ApprovalPolicy(**policy))


GROWTH = diff(fleet({P: 1, D: 1}), plan({P: 1, D: 3}), spec())
"""Two replicas more, 8 USD/h more."""


@pytest.mark.parametrize(
    ("policy", "approved"),
    [
        ({}, False),
        ({"auto_below_replicas": 2}, False),
        ({"auto_below_replicas": 3}, True),
        ({"auto_below_usd_per_hour": 8.0}, False),
        ({"auto_below_usd_per_hour": 8.1}, True),
        ({"auto_below_replicas": 3, "auto_below_usd_per_hour": 8.0}, False),
    ],
)
def test_the_policy_approves_only_changes_below_its_size_and_cost(policy, approved: bool) -> None:
    assert policy_approves(GROWTH, policy_spec(**policy)) is approved


def test_large_and_dear_changes_need_two_persons() -> None:
    assert persons_needed(GROWTH, policy_spec()) == 1
    assert persons_needed(GROWTH, policy_spec(two_persons_from_replicas=2)) == 2
    assert persons_needed(GROWTH, policy_spec(two_persons_from_replicas=3)) == 1
    assert persons_needed(GROWTH, policy_spec(two_persons_from_usd_per_hour=8.0)) == 2


def test_two_different_persons_have_to_approve_where_two_are_needed() -> None:
    asked = submit(replace(DRAFT, needed=2), by="loop", at=NOW)
    once = approve(asked, by="ann", at=NOW)
    assert (once.state, once.approvers) == (ApprovalState.PENDING, ("ann",))
    with pytest.raises(PlanStateError, match="approval of ann already"):
        approve(once, by="ann", at=NOW)
    twice = approve(once, by="bea", at=NOW)
    assert (twice.state, twice.approvers) == (ApprovalState.APPROVED, ("ann", "bea"))


def test_where_one_is_needed_the_first_yes_is_enough() -> None:
    assert approve(moved(submit), by="ann", at=NOW).state is ApprovalState.APPROVED


def test_who_asked_may_not_approve_when_the_policy_says_so() -> None:
    strict = ApprovalPolicy(requester_may_approve=False)
    asked = submit(replace(DRAFT, requested_by="ann"), by="ann", at=NOW)
    with pytest.raises(PlanStateError, match="somebody else has to"):
        approve(asked, by="ann", at=NOW, policy=strict)
    assert approve(asked, by="bea", at=NOW, policy=strict).state is ApprovalState.APPROVED
    assert approve(asked, by="ann", at=NOW, policy=ApprovalPolicy()).approvers == ("ann",)


def test_an_approved_plan_expires_where_the_policy_limits_that() -> None:
    late, approved = NOW + timedelta(seconds=61), moved(submit, approve)
    assert has_expired(approved, ApprovalPolicy(approved_expires_s=60.0), now=late)
    assert not has_expired(approved, ApprovalPolicy(approved_expires_s=62.0), now=late)


def test_a_remark_says_more_and_moves_nothing() -> None:
    before = moved(submit, approve, begin)
    later = remark(before, by="loop", at=NOW + timedelta(seconds=5), reason="waits for a node")
    assert (later.state, later.reason) == (before.state, "waits for a node")
    assert (later.changed_by, later.changed_at) == ("loop", NOW + timedelta(seconds=5))
