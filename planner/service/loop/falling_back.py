"""What the loop does when the load cannot be seen for long: the replicas that the spec set."""

from dataclasses import replace
from datetime import datetime

from planner import rollout
from planner.autoscale.slow import Decision, guarded
from planner.domain.fleet import Fleet
from planner.domain.plan import Plan
from planner.domain.spec import Spec
from planner.service.deployment import Deployment, Observation, guard_conditions
from planner.service.loop.adjusted_plan import PoolOf, pools_of, with_replicas

PREFIX = "fallback-"
"""What ids of such plans begin with."""
_UNSEEN = ("no_data", "failed", "fell_back")
"""Outcomes of ticks that did not see the load."""


def failures(deployment: Deployment, observation: Observation, *, now: datetime) -> int:
    """Ticks in a row, this one included, that could not see the load; 0: this one can.

    A stale observation counts once for every interval by which it is too old.
    """
    spec = deployment.spec
    unseen = 0
    for decision in deployment.store.decisions(spec.name, limit=spec.guards.fallback_after):
        if decision.outcome not in _UNSEEN:
            break
        unseen += 1
    if observation.observed_at is None:
        return unseen + 1
    too_old_s = (now - observation.observed_at).total_seconds() - spec.guards.stale_observation_s
    if too_old_s <= 0:
        return 0
    return 1 + int(too_old_s // spec.loop.slow_interval_s)


def fall_back(
    deployment: Deployment, fleet: Fleet, observation: Observation, *, now: datetime
) -> Decision | None:
    """The decision for the spec's fallback, or None where it does not count (yet).

    It needs an earlier plan to stand on, which tells what the fleet was for: without one the
    fleet stays as it is.
    """
    spec = deployment.spec
    failed = failures(deployment, observation, now=now)
    replicas = rollout.fallback(fleet, spec.guards, failures=failed)
    earlier = deployment.store.plans(spec.name, limit=1)
    if not replicas or not earlier:
        return None
    pools = _pools(earlier[0].plan, fleet, replicas, spec)
    made = with_replicas(earlier[0].plan, fleet, pools, prefix=PREFIX, now=now)
    conditions = replace(guard_conditions(deployment, observation, now=now), falling_back=True)
    recommended = rollout.diff(fleet, made, spec, can_flip=conditions.can_flip)
    steps, findings = guarded(fleet, made, spec, conditions)
    return Decision(
        plan=made, diff=steps, findings=findings, recommendations=(), recommended=recommended
    )


def is_fallback(plan_id: str) -> bool:
    """Whether a plan's replicas are those that the spec set."""
    return plan_id.startswith(PREFIX)


def _pools(earlier: Plan, fleet: Fleet, replicas: dict[str, int], spec: Spec) -> dict[PoolOf, int]:
    """The fleet's pools with other replicas; those that are not named stay."""
    pools = pools_of(fleet, earlier.model)
    for label, count in replicas.items():
        keys = [key for key in pools if key[0].label == label]
        if not keys:
            shape = next(b.shape for b in spec.pools if b.shape.label == label)
            offer = spec.accelerator(shape.accelerator).offers[0]
            keys = [(shape, offer.purchase_option)]
        pools |= dict.fromkeys(keys, 0) | {keys[0]: count}
    return pools
