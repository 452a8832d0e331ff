"""Carrying out a diff: checked first, in order, and told exactly where it stopped."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from actuators.actuator import carry_out
from actuators.dry_run import DryRunActuator, render_text
from planner.domain.errors import ApplyError, RouterError
from planner.domain.fleet import Fleet, Pool, ReplicaShape, Role, version_of
from planner.domain.rollout import Diff, Step, StepKind
from planner.domain.spec import TargetKind
from planner.domain.topology import Cell
from planner.rollout import diff
from tests.actuators import steps
from tests.planner.rollout import cases

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PREFILL = ReplicaShape(role=Role.PREFILL, model="m", accelerator="h100")
DECODE = ReplicaShape(role=Role.DECODE, model="m", accelerator="h100")


def fleet_of(prefill: int, decode: int) -> Fleet:
    pools = (Pool(shape=PREFILL, ready=prefill), Pool(shape=DECODE, ready=decode))
    return Fleet(pools=pools, read_at=NOW, version=version_of(pools))


def diff_of(fleet: Fleet, *kinds: StepKind) -> Diff:
    return steps.diff_of(fleet, PREFILL, DECODE, *kinds)


def test_consecutive_starts_begin_together() -> None:
    actuator = DryRunActuator(fleet_of(1, 1))
    told: list[str] = []
    diff = diff_of(actuator.fleet, StepKind.START, StepKind.START)
    carry_out(actuator, diff, tell=lambda s, e: told.append(f"{s.index} {e}"))
    assert told == ["0 begun", "1 begun", "0 done", "1 done"]


@dataclass(slots=True)
class FailsAt(DryRunActuator):
    """A target that refuses one step."""

    index: int = 0

    def apply(self, step: Step) -> None:
        if step.index == self.index:
            raise RouterError("the router does not answer")
        DryRunActuator.apply(self, step)


def test_failure_names_the_step_and_what_is_left() -> None:
    actuator = FailsAt(fleet_of(1, 1), index=1)
    diff = diff_of(actuator.fleet, StepKind.START, StepKind.ROUTE, StepKind.DRAIN)
    with pytest.raises(
        ApplyError, match=r"failed at step 2 of 3 \(route .*\), 1 step left undone: the router"
    ):
        carry_out(actuator, diff)
    assert [s.kind for s in actuator.shown] == [StepKind.START]


@dataclass(slots=True)
class NeverReady(DryRunActuator):
    """A target where nothing that was started comes."""

    def await_ready(self, step: Step) -> None:
        raise RouterError(f"step {step.index} did not come")


def test_failure_tells_what_was_set_going_beside_it() -> None:
    actuator = NeverReady(fleet_of(1, 1))
    diff = diff_of(actuator.fleet, *[StepKind.START] * 3, StepKind.DRAIN)
    with pytest.raises(
        ApplyError,
        match=r"failed at step 1 of 4 \(start .*\), steps 1 to 3 were set going together, 1 step",
    ):
        carry_out(actuator, diff)


def test_diff_reads_as_a_list_of_steps() -> None:
    fleet = fleet_of(1, 1)
    text = render_text(diff_of(fleet, StepKind.START, StepKind.FLIP))
    assert text.splitlines()[1].split() == (
        ["2.", "flip", "prefill:h100:tp1", "->", "decode:h100:tp1", "(about", "1", "s)", "because"]
    )
    assert "nothing to change" in render_text(replace(diff_of(fleet), steps=()))


def test_a_dry_run_imagines_replicas_in_their_cells() -> None:
    cells = (Cell(name="left"), Cell(name="right"))
    settings = replace(cases.spec(), target=TargetKind.DRY_RUN, cells=cells)
    empty = Fleet(pools=(), read_at=cases.NOW, version="v1")
    actuator = DryRunActuator(fleet=empty)
    for wanted in ({cases.P: 2, cases.D: 4}, {cases.P: 1, cases.D: 2}):
        before = actuator.read_fleet()
        carry_out(actuator, diff(before, cases.plan(wanted), settings))
        assert cases.counts(actuator.read_fleet()) == wanted
    assert {p.cell for p in actuator.read_fleet().by_cell if p.pool.ready} == {"left"}
