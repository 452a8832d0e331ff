"""From a fleet to a plan: ordered steps, guards, approval states. Pure."""

from planner.rollout.approval import (
    approve,
    begin,
    draft,
    expire,
    fail,
    finish,
    has_expired,
    policy_approves,
    reject,
    replicas_touched,
    roll_back,
    submit,
    supersede,
)
from planner.rollout.diff import diff
from planner.rollout.effects import after
from planner.rollout.guards import GuardConditions, guard, refused

__all__ = [
    "GuardConditions",
    "after",
    "approve",
    "begin",
    "diff",
    "draft",
    "expire",
    "fail",
    "finish",
    "guard",
    "has_expired",
    "policy_approves",
    "refused",
    "reject",
    "replicas_touched",
    "roll_back",
    "submit",
    "supersede",
]
