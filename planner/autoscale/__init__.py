"""The slow and the fast scaling decision. Pure; the same code in production and replay."""

from planner.autoscale.fast import Backlog, Reaction, ReplicaStart, RoleFlip, react
from planner.autoscale.slow import Decision, PoolRecommendation, decide

__all__ = [
    "Backlog",
    "Decision",
    "PoolRecommendation",
    "Reaction",
    "ReplicaStart",
    "RoleFlip",
    "decide",
    "react",
]
