"""The steps that the planner would make from a fleet to given counts, for fleets of two pools."""

from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.rollout import Diff, StepKind
from tests.actuators.kubernetes.rig import DECODE, PREFILL, step

GOAL = {PREFILL: 2, DECODE: 1}


def towards(fleet: Fleet, goal: dict[ReplicaShape, int]) -> Diff:
    kinds: list[tuple[StepKind, ReplicaShape]] = []
    for pool in fleet.pools:
        missing = goal[pool.shape] - pool.replicas
        kinds += [(StepKind.START, pool.shape)] * max(missing, 0)
        kinds += [(StepKind.ROUTE, pool.shape)] * (pool.starting + max(missing, 0))
        kinds += [(StepKind.DRAIN, pool.shape)] * max(-missing, 0)
        kinds += [(StepKind.STOP, pool.shape)] * (pool.draining + max(-missing, 0))
    steps = tuple(step(i, kind, shape) for i, (kind, shape) in enumerate(kinds))
    return Diff(plan_id="p", from_fleet=fleet, steps=steps)
