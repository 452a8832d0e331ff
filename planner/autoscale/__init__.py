"""The slow and the fast scaling decision. Pure; the same code in production and replay."""

from planner.autoscale.backlog import Backlog
from planner.autoscale.fast import Reaction, RoleFlip, keeping_what_waits, react
from planner.autoscale.slow import Decision, PoolRecommendation, decide
from planner.autoscale.surge import ReplicaStart

__all__ = [
    "Backlog",
    "Decision",
    "PoolRecommendation",
    "Reaction",
    "ReplicaStart",
    "RoleFlip",
    "decide",
    "keeping_what_waits",
    "react",
]
