"""What people change while the loop decides counts, whenever it comes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

import pytest

from planner.domain.errors import OvertakenError
from planner.domain.guards import Pause
from planner.domain.rollout import ApprovalState
from planner.domain.spec import LoopMode
from planner.service.deployment import Observation, Observer
from planner.service.fleet import lifecycle
from planner.service.loop import directives
from planner.service.loop.directives import Word
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.store.deployments import Membership, StoredDeployments
from planner.service.store.specs import SpecVersion, StoredSpecs
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, make_deployment, observe


@dataclass
class Meanwhile:
    """Sees what another observer sees, and then lets something happen, once."""

    observer: Observer
    happens: Callable[[], None] | None

    def observe(self, *, now: datetime) -> Observation:
        seen = self.observer.observe(now=now)
        if self.happens is not None:
            happens, self.happens = self.happens, None
            happens()
        return seen


@pytest.fixture
def busy(tmp_path):
    made = make_deployment(tmp_path, loop={"mode": "auto"})
    put(made, made.spec.spec_id)
    observe(made, history(**BUSY))
    yield made
    made.store.close()


def put(deployment, spec_id):
    """Another version of the spec, as another process of the server puts it."""
    StoredSpecs(access=deployment.store.access, deployment="shop").add(
        SpecVersion(
            version=0,
            spec_id=spec_id,
            given="spec-given",
            content={},
            allow_estimates=False,
            put_at=NOON,
            put_by="ann",
        )
    )


def retire(deployment, *, retired):
    StoredDeployments(access=deployment.store.access, lease="test").put(
        Membership(deployment="shop", given="", changed_at=NOON, changed_by="ann", retired=retired)
    )


def order(deployment, what):
    word = Word(by="ann", at=NOON)
    if what == "off":
        directives.set_mode(deployment, LoopMode.OFF, word)
    elif what == "pause":
        directives.pause(deployment, Pause.ALL, word)
    else:
        directives.pin(deployment, deployment.spec.pools[0].shape.label, 1, word)


def asking(deployment):
    """The same deployment, whose loop asks a person."""
    loop = replace(deployment.spec.loop, mode=LoopMode.APPROVE)
    return replace(deployment, spec=replace(deployment.spec, loop=loop))


def states(deployment):
    return [r.approval.state for r in deployment.store.plans("shop", limit=9)]


def test_a_plan_is_not_stored_under_a_spec_that_was_replaced_while_it_was_made(busy):
    watching = replace(busy, observer=Meanwhile(busy.observer, lambda: put(busy, "spec-new")))
    report = tick(watching, now=NOON)
    assert report.outcome is Outcome.HELD
    assert "spec-new is in force: plan again" in report.reason
    assert states(busy) == []
    assert busy.actuator.done == []


OVERTAKEN = "the next tick goes by them"


@pytest.mark.parametrize(
    ("what", "told"), [("off", OVERTAKEN), ("pin", OVERTAKEN), ("pause", "scaling out is paused")]
)
def test_orders_given_while_the_loop_decides_keep_its_plan_from_moving(busy, what, told):
    watching = replace(busy, observer=Meanwhile(busy.observer, lambda: order(busy, what)))
    report = tick(watching, now=NOON)
    assert report.outcome is Outcome.HELD
    assert told in report.reason
    assert busy.actuator.done == []
    assert ApprovalState.APPLIED not in states(busy)
    assert ApprovalState.PENDING not in states(busy)


def test_a_plan_that_waits_is_neither_approved_nor_applied_under_another_spec(busy):
    waiting = replace(
        busy, spec=replace(busy.spec, loop=replace(busy.spec.loop, mode=LoopMode.APPROVE))
    )
    first = tick(waiting, now=NOON).plan_id
    put(busy, "spec-new")
    with pytest.raises(OvertakenError, match="spec-new is in force"):
        lifecycle.approve(waiting, first, by="ann", at=NOON)
    assert states(busy) == [ApprovalState.SUPERSEDED]

    put(busy, busy.spec.spec_id)
    second = tick(waiting, now=NOON).plan_id
    lifecycle.approve(waiting, second, by="ann", at=NOON)
    put(busy, "spec-newer")
    with pytest.raises(OvertakenError, match="spec-newer is in force"):
        lifecycle.apply(waiting, second, by="ann", at=NOON)
    assert states(busy) == [ApprovalState.SUPERSEDED] * 2
    assert busy.actuator.done == []


def test_a_deployment_that_is_retired_while_it_is_planned_for_keeps_no_plan(busy):
    gone = Meanwhile(busy.observer, lambda: retire(busy, retired=True))
    report = tick(replace(busy, observer=gone), now=NOON)
    assert "is retired" in report.reason
    assert states(busy) == []
    retire(busy, retired=False)
    assert tick(busy, now=NOON).outcome is Outcome.APPLIED


def test_what_a_person_applies_does_not_wait_for_the_loops_orders(busy):
    waiting = replace(
        busy, spec=replace(busy.spec, loop=replace(busy.spec.loop, mode=LoopMode.APPROVE))
    )
    plan_id = tick(waiting, now=NOON).plan_id
    order(busy, "off")
    lifecycle.approve(waiting, plan_id, by="ann", at=NOON)
    applied = lifecycle.apply(waiting, plan_id, by="ann", at=NOON)
    assert applied.approval.state is ApprovalState.APPLIED
