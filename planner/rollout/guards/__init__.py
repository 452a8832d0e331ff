"""Guards: small functions that allow, clamp, delay or refuse a change, each with its reason.

Pure ones only; those that need the target (permissions, second controllers, progress) belong to
the actuators' preflight. `docs/guards.md` lists all of them.

`clamp` cuts the wanted replicas to those that may be, so that the diff that follows is really the
smaller one; `guard` judges a diff, when it is made and again before it is applied. A REFUSE binds
everybody, a DELAY may be overridden by a person's approval.
"""

from planner.rollout.guards.case import (
    BrokenPool,
    Change,
    GuardConditions,
    HandEdit,
    Recommended,
)
from planner.rollout.guards.clamp import CAUTIONS, ORDERS, clamp
from planner.rollout.guards.fallback import fallback
from planner.rollout.guards.judge import GUARDS, guard, refused, with_clamps
from planner.rollout.guards.permission import frozen

__all__ = [
    "CAUTIONS",
    "GUARDS",
    "ORDERS",
    "BrokenPool",
    "Change",
    "GuardConditions",
    "HandEdit",
    "Recommended",
    "clamp",
    "fallback",
    "frozen",
    "guard",
    "refused",
    "with_clamps",
]
