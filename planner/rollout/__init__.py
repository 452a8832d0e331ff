"""From a fleet to a plan: ordered steps, guards, approval states. Pure."""

from planner.rollout.approval import (
    approve,
    begin,
    draft,
    expire,
    fail,
    finish,
    has_expired,
    persons_needed,
    policy_approves,
    reject,
    replicas_touched,
    roll_back,
    submit,
    supersede,
)
from planner.rollout.cells import place, site_of, with_placements
from planner.rollout.diff import Wanted, diff, diff_to, led_from, led_to, wanted_of
from planner.rollout.dip import Dip, dip
from planner.rollout.effects import after
from planner.rollout.guards import (
    Change,
    GuardConditions,
    clamp,
    deadline_s,
    fallback,
    frozen,
    guard,
    refused,
    with_clamps,
)
from planner.rollout.victims import Candidate, victims

__all__ = [
    "Candidate",
    "Change",
    "Dip",
    "GuardConditions",
    "Wanted",
    "after",
    "approve",
    "begin",
    "clamp",
    "deadline_s",
    "diff",
    "diff_to",
    "dip",
    "draft",
    "expire",
    "fail",
    "fallback",
    "finish",
    "frozen",
    "guard",
    "led_from",
    "led_to",
    "has_expired",
    "persons_needed",
    "place",
    "policy_approves",
    "refused",
    "reject",
    "replicas_touched",
    "roll_back",
    "site_of",
    "submit",
    "supersede",
    "victims",
    "wanted_of",
    "with_clamps",
    "with_placements",
]
