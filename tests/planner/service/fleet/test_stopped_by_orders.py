"""Orders that are given while a plan moves the fleet: no further step against them is begun."""

import pytest

from planner.domain.errors import ApplyError
from planner.domain.guards import Pause
from planner.domain.rollout import ApprovalState
from planner.domain.spec import LoopMode
from planner.service.fleet import lifecycle
from planner.service.loop import directives
from planner.service.loop.directives import Word
from planner.service.loop.slow_tick import Outcome, tick
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, make_deployment, observe


def pause(way):
    return lambda made: directives.pause(made, way, Word(by="ann", at=NOON))


def off(made):
    directives.set_mode(made, LoopMode.OFF, Word(by="ann", at=NOON))


def busy(folder, **loop):
    made = make_deployment(folder, loop={"mode": "auto", **loop})
    observe(made, history(**BUSY))
    return made


def ordered_in_the_first_step(made, order):
    """Have an order be given while the first step is under way; the kinds of steps applied."""
    applied, really = [], made.actuator.apply

    def apply(step):
        if not applied:
            order(made)
        applied.append(step.kind)
        really(step)

    made.actuator.apply = apply
    return applied


@pytest.mark.parametrize(
    ("order", "said"),
    [
        (pause(Pause.ALL), "scaling out is paused"),
        (pause(Pause.OUT), "scaling out is paused"),
        (off, "the loop's mode is off"),
    ],
)
def test_what_the_loop_moves_stops_before_its_next_step(tmp_path, order, said):
    made = busy(tmp_path)
    applied = ordered_in_the_first_step(made, order)
    report = tick(made, now=NOON)
    assert report.outcome is Outcome.FAILED
    assert applied == ["start"]
    kept = made.store.plan(report.plan_id or made.store.plans("shop", limit=1)[0].plan.plan_id)
    assert kept.approval.state is ApprovalState.FAILED
    assert f"ordered meanwhile: {said}" in kept.approval.reason
    assert "ann" in kept.approval.reason
    tick(made, now=NOON)
    assert set(applied[1:]) <= {"route"}  # no capacity comes or goes


def test_a_pause_the_other_way_stops_nothing(tmp_path):
    made = busy(tmp_path)
    applied = ordered_in_the_first_step(made, pause(Pause.IN))
    assert tick(made, now=NOON).outcome is Outcome.APPLIED
    assert len(applied) > 1


def test_what_a_person_applies_goes_on_in_mode_off_and_stops_at_a_pause(tmp_path):
    made = busy(tmp_path, mode="approve")
    plan_id = tick(made, now=NOON).plan_id
    lifecycle.approve(made, plan_id, by="bob", at=NOON)
    applied = ordered_in_the_first_step(made, lambda it: (off(it), pause(Pause.OUT)(it)))
    with pytest.raises(ApplyError, match="ordered meanwhile: scaling out is paused") as stopped:
        lifecycle.apply(made, plan_id, by="bob", at=NOON)
    assert "mode is off" not in str(stopped.value)
    assert applied == ["start"]
    directives.resume(made, Pause.OUT, Word(by="ann", at=NOON))
    assert lifecycle.apply(made, plan_id, by="bob", at=NOON).approval.state is ApprovalState.APPLIED
    assert len(applied) > 1
