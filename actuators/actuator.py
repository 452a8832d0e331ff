"""The port between a rollout and the world, and the one way to carry out a diff."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from planner.domain.errors import ApplyError, PoolwiseError, StalePlanError
from planner.domain.fleet import Fleet
from planner.domain.rollout import Diff, Step


class Actuator(Protocol):
    """Something that can read a fleet and change it step by step."""

    def read_fleet(self) -> Fleet:
        """Read what runs now."""

    def preflight(self, diff: Diff) -> tuple[str, ...]:
        """Say what stands in the way of these steps, one sentence each; nothing is changed."""

    def apply(self, step: Step) -> None:
        """Set one step going. Raises an OperationError when the target refuses."""

    def await_ready(self, step: Step) -> None:
        """Wait until the step's effect is observed. Raises an OperationError when it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedStep:
    """A step that took effect, and how long that took, seconds."""

    step: Step
    took_s: float


Tell = Callable[[Step, str], None]
"""Called with a step and `begun` or `done`."""


def carry_out(
    actuator: Actuator, diff: Diff, *, tell: Tell = lambda _step, _event: None
) -> tuple[AppliedStep, ...]:
    """Apply a diff: check that the fleet is still the one it was made from, then each step.

    Steps of one group (`Diff.groups`) run at the same time; every group waits for the one before.

    Raises
    ------
    StalePlanError
        When the fleet has changed since; nothing was touched.
    ApplyError
        When the target objects beforehand (nothing was touched), or a step fails; says which
        step, and how many are left. Planning and applying again completes the rest.
    """
    now = actuator.read_fleet()
    if now.version != diff.from_fleet.version:
        raise StalePlanError(
            f"the fleet changed since plan {diff.plan_id} was made (version "
            f"{diff.from_fleet.version}, now {now.version}); nothing was touched: plan again"
        )
    objections = actuator.preflight(diff)
    if objections:
        raise ApplyError(
            f"plan {diff.plan_id} cannot be applied, nothing was touched: " + "; ".join(objections)
        )
    applied: list[AppliedStep] = []
    for steps in diff.groups:
        applied += _carry_out(actuator, steps, diff, tell)
    return tuple(applied)


def _carry_out(
    actuator: Actuator, steps: tuple[Step, ...], diff: Diff, tell: Tell
) -> list[AppliedStep]:
    began = time.monotonic()
    done: list[AppliedStep] = []
    step = steps[0]
    try:
        for step in steps:
            tell(step, "begun")
            actuator.apply(step)
        for step in steps:
            actuator.await_ready(step)
            done.append(AppliedStep(step=step, took_s=time.monotonic() - began))
            tell(step, "done")
    except PoolwiseError as error:
        left = len(diff.steps) - step.index - 1
        raise ApplyError(
            f"plan {diff.plan_id} failed at step {step.index + 1} of {len(diff.steps)} "
            f"({step.kind} {step.shape.label}), {left} steps left undone: {error}"
        ) from error
    return done
