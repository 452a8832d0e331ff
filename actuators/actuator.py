"""The port between a rollout and the world, and the one way to carry out a diff."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from planner.domain.errors import ApplyError, PoolwiseError, StalePlanError
from planner.domain.fleet import Fleet, ReplicaShape
from planner.domain.rollout import Diff, Step
from planner.domain.wording import counted
from planner.rollout import after


class Actuator(Protocol):
    """Something that can read a fleet and change it step by step.

    `tests/actuators/test_contract.py` holds every one of them to what is said here. A target that
    somebody else changed is left as it is and told, never set back. What can be said before the
    first step is said then, in one sentence each: the target may not be half changed for a
    mistake that could have been seen.
    """

    def read_fleet(self) -> Fleet:
        """Read what runs now; nothing is changed.

        Replicas that were asked for and do not serve yet are `starting`, those on their way out
        `draining`. The version changes when the fleet does, whoever changed it; equal fleets have
        equal versions, also after a restart.

        Raises
        ------
        PoolwiseError
            When it cannot be read; never an empty fleet instead.
        """

    def preflight(self, diff: Diff) -> tuple[str, ...]:
        """Say what stands in the way of these steps, one sentence each; nothing is changed.

        That is everything which can be known before the first of them: shapes and kinds of steps
        that the target does not have, missing rights, other owners.
        """

    def apply(self, step: Step) -> None:
        """Set one step going.

        Raises
        ------
        OperationError
            When the target refuses. The step then had no effect, or one that the next
            `read_fleet` shows, so that planning again completes what is left.
        """

    def await_ready(self, step: Step) -> None:
        """Wait until the step's effect is observed: that, not the write, is its success.

        Raises
        ------
        OperationError
            When it is not observed in time, or the target is no longer as it was left.
        """


@runtime_checkable
class MadeOfTemplates(Protocol):
    """An actuator whose replicas are made of templates, which others may change."""

    def templates(self) -> Mapping[ReplicaShape, frozenset[str]]:
        """What the newest replica of each pool was made of, as last read; none: no entry.

        One template for each different pod of a replica, as of leaders and workers.
        """


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

    A diff is applied once: applying it again finds another fleet. Steps of one group
    (`Diff.groups`) run at the same time; every group waits for the one before.

    Raises
    ------
    StalePlanError
        When the fleet has changed since; nothing was touched.
    ApplyError
        When a step has no replica to act on or the target objects (nothing was touched), or a
        step fails; says which step, and how many are left. Planning and applying again completes
        the rest.
    """
    now = actuator.read_fleet()
    if now.version != diff.from_fleet.version:
        raise StalePlanError(
            f"the fleet changed since plan {diff.plan_id} was made (version "
            f"{diff.from_fleet.version}, now {now.version}); nothing was touched: plan again"
        )
    objections = _missing(now, diff) or actuator.preflight(diff)
    if objections:
        raise ApplyError(
            f"plan {diff.plan_id} cannot be applied, nothing was touched: " + "; ".join(objections)
        )
    applied: list[AppliedStep] = []
    for steps in diff.groups:
        applied += _carry_out(actuator, steps, diff, tell)
    return tuple(applied)


def _missing(now: Fleet, diff: Diff) -> tuple[str, ...]:
    try:
        after(now, diff.steps, at=now.read_at)
    except StalePlanError as error:
        return (str(error),)
    return ()


def _carry_out(
    actuator: Actuator, steps: tuple[Step, ...], diff: Diff, tell: Tell
) -> list[AppliedStep]:
    began = time.monotonic()
    done: list[AppliedStep] = []
    begun, step = 0, steps[0]
    try:
        for step in steps:
            tell(step, "begun")
            begun += 1
            actuator.apply(step)
        for step in steps:
            actuator.await_ready(step)
            done.append(AppliedStep(step=step, took_s=time.monotonic() - began))
            tell(step, "done")
    except PoolwiseError as error:
        last = steps[begun - 1].index + 1
        beside = ""
        if begun > 1:
            beside = f"steps {steps[0].index + 1} to {last} were set going together, "
        raise ApplyError(
            f"plan {diff.plan_id} failed at step {step.index + 1} of {len(diff.steps)} "
            f"({step.kind} {step.shape.label}), {beside}"
            f"{counted(len(diff.steps) - last, 'step')} left undone: {error}"
        ) from error
    return done
