"""What a diff comes to: the count of every pool before and after, and the target that holds it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from planner.domain.errors import InputError
from planner.domain.fleet import ReplicaShape
from planner.domain.rollout import Diff
from planner.domain.target import CountTarget
from planner.rollout import after


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetCount:
    """A target, the replicas that it has in the fleet, and those that are planned."""

    target: CountTarget
    before: int
    planned: int


def planned_counts(diff: Diff) -> dict[ReplicaShape, tuple[int, int]]:
    """Replicas of every shape before and after the diff, all purchase options together."""
    fleet = diff.from_fleet
    then = after(fleet, diff.steps, at=fleet.read_at)
    before, planned = Counter[ReplicaShape](), Counter[ReplicaShape]()
    for pool in fleet.pools:
        before[pool.shape] += pool.replicas
    for pool in then.pools:
        planned[pool.shape] += pool.replicas
    return {shape: (before[shape], planned[shape]) for shape in sorted({*before, *planned})}


def target_counts(diff: Diff, targets: Sequence[CountTarget]) -> tuple[TargetCount, ...]:
    """Counts by target, in the targets' order. Shapes that stay at zero need no target.

    Raises
    ------
    InputError
        When a pool has no target, or two; or two pools would share one.
    """
    by_target: dict[CountTarget, tuple[ReplicaShape, int, int]] = {}
    for shape, (before, planned) in planned_counts(diff).items():
        found = [target for target in targets if target.is_for(shape)]
        if not found and not before and not planned:
            continue
        if len(found) != 1:
            names = ", ".join(t.label for t in found) or "none"
            raise InputError(
                f"pool {shape.label} of {shape.model} needs exactly one target, these match: "
                f"{names}; give role, accelerator and tp in target.objects"
            )
        same = [other for other in by_target if other.place == found[0].place]
        if same:
            raise InputError(
                f"{found[0].label} would hold the count of both {by_target[same[0]][0].label} "
                f"and {shape.label}: give each its own target"
            )
        by_target[found[0]] = shape, before, planned
    return tuple(
        TargetCount(target=t, before=by_target[t][1], planned=by_target[t][2])
        for t in targets
        if t in by_target
    )
