"""Diffs as tests of actuators write them."""

from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.hardware import PurchaseOption
from planner.domain.rollout import Diff, Step, StepKind


def diff_of(fleet: Fleet, shape: ReplicaShape, flipped: ReplicaShape, *kinds: StepKind) -> Diff:
    """Steps of these kinds on one shape; flips go to the other."""
    steps = tuple(
        Step(
            index=i,
            kind=kind,
            shape=shape,
            to_shape=flipped if kind is StepKind.FLIP else None,
            purchase_option=PurchaseOption.ON_DEMAND,
            expected_s=1.0,
            expected_usd=0.0,
            reason="because",
        )
        for i, kind in enumerate(kinds)
    )
    return Diff(plan_id="plan-1", from_fleet=fleet, steps=steps)
