"""What guards are asked about: a fleet, a plan, settings, the moment; and the fleet that follows.

A guard is tested twice: in `rolled_out` it holds, and with its setting off the same situation
does the harm that it is there to prevent.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.guards import GuardSettings
from planner.domain.plan import Plan
from planner.domain.rollout import Diff, GuardFinding, Verdict
from planner.domain.spec import LoopMode, Spec
from planner.rollout import GuardConditions, after, clamp, diff_to, guard, with_clamps
from tests.planner.rollout.cases import NOW, counts, spec

CALM = GuardConditions(
    now=NOW,
    observed_at=NOW - timedelta(seconds=10),
    recommended_since=NOW - timedelta(seconds=900),
)
"""The load is seen, nothing is paused, and what would go was not needed for long."""


def guarded(**settings) -> Spec:
    """The example spec in mode auto with these guard settings."""
    return replace(spec(mode=LoopMode.AUTO), guards=GuardSettings(**settings))


def steps_taken(
    before: Fleet, wanted: Plan, settings: Spec, conditions: GuardConditions = CALM
) -> tuple[Diff, tuple[GuardFinding, ...]]:
    """The clamped diff, and every guard's word on it."""
    kept, clamps = clamp(before, wanted, settings, conditions)
    steps = diff_to(before, kept, settings, can_flip=conditions.can_flip)
    return steps, with_clamps(guard(steps, settings, conditions, plan=wanted), clamps)


def rolled_out(
    before: Fleet, wanted: Plan, settings: Spec, conditions: GuardConditions = CALM
) -> Mapping[ReplicaShape, int]:
    """Replicas by shape after what the guards let through; as before where one holds all."""
    steps, findings = steps_taken(before, wanted, settings, conditions)
    if any(f.verdict in (Verdict.REFUSE, Verdict.DELAY) for f in findings):
        return {p.shape: p.replicas for p in before.pools if p.replicas}
    return counts(after(before, steps.steps, at=NOW))


def verdict(name: str, findings: tuple[GuardFinding, ...]) -> Verdict:
    """What one guard said."""
    return next((f.verdict for f in findings if f.guard == name), Verdict.ALLOW)


def reason(name: str, findings: tuple[GuardFinding, ...]) -> str:
    """Why."""
    return next((f.reason for f in findings if f.guard == name), "")
