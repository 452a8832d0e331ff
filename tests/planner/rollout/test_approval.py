from datetime import timedelta

import pytest

from planner.domain.errors import PlanStateError
from planner.domain.rollout import Approval, ApprovalState
from planner.domain.guards import ApprovalPolicy
from planner.rollout import (
    approve,
    begin,
    diff,
    draft,
    expire,
    fail,
    finish,
    has_expired,
    policy_approves,
    reject,
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
        ((submit, approve, begin, finish, roll_back), ApprovalState.ROLLED_BACK),
        ((submit, approve, begin, fail, roll_back), ApprovalState.ROLLED_BACK),
        ((submit, reject), ApprovalState.REJECTED),
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
        (submit, approve, begin, begin),
        (submit, approve, begin, finish, begin),
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


def test_the_policy_approves_only_changes_below_its_size() -> None:
    change = diff(fleet({P: 1, D: 1}), plan({P: 1, D: 3}), spec())
    assert not policy_approves(change, ApprovalPolicy(auto_below_replicas=2))
    assert policy_approves(change, ApprovalPolicy(auto_below_replicas=3))
