"""Steps on a running deployment of stub engines: standby workers first, cells kept whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from actuators.actuator import carry_out
from actuators.local import LocalActuator
from planner.domain.errors import ApplyError, EngineError
from planner.domain.fleet import Role
from planner.domain.rollout import Diff, Step, StepKind
from planner.domain.topology import Cell
from serving.fleet.caretaker import Caretaker
from serving.fleet.changes import Changes
from serving.fleet.deployment import LocalDeployment, RouterSettings, WorkerState
from serving.routers import RouterKind
from tests.actuators.steps import diff_of
from tests.serving.conftest import DECODE, PREFILL, StubSite
from tests.serving.fleet.test_deployment import LIMITS, kill, ready, wait_for


@contextmanager
def running(stub_site: StubSite, *roles: Role, cells: int = 1) -> Iterator[Changes]:
    site = replace(stub_site(), cells=tuple(Cell(name=f"c{i}") for i in range(cells)))
    routing = RouterSettings(kind=RouterKind.VLLM_ROUTER)
    with LocalDeployment(site, routing=routing) as deployment:
        changes = Changes(deployment, PREFILL)
        for role in roles:
            changes.add(role)
        yield changes


def start_with(changes: Changes, *options: str) -> None:
    """Workers that start from now on have these options."""
    site = changes.deployment.site
    site = replace(site, flags=replace(site.flags, extra=options))
    changes.deployment.site = changes.deployment.launcher.site = site


def starting(changes: Changes) -> list[str]:
    return [m.name for m in changes.deployment.members if m.state is WorkerState.STARTING]


def counts(changes: Changes, role: Role) -> tuple[int, int]:
    """(ready, starting), as the fleet is read."""
    pools = [p for p in changes.deployment.fleet().pools if p.shape.role is role]
    return sum(p.ready for p in pools), sum(p.starting for p in pools)


def step(actuator: LocalActuator, kind: StepKind) -> Step:
    return diff(actuator, kind).steps[0]


def diff(actuator: LocalActuator, *kinds: StepKind) -> Diff:
    return diff_of(actuator.read_fleet(), PREFILL, DECODE, *kinds)


def test_a_standby_worker_is_taken_before_a_new_one_is_started(stub_site: StubSite) -> None:
    with running(stub_site, Role.PREFILL, Role.DECODE) as changes:
        spare = changes.add(Role.DECODE, standby=True)
        actuator = LocalActuator(changes.deployment)
        carry_out(actuator, diff(actuator, StepKind.START, StepKind.ROUTE))
        member = changes.deployment.member(spare.name)
        assert (member.role, member.state) == (Role.PREFILL, WorkerState.READY)
        assert len(changes.deployment.members) == 3


def test_a_flip_takes_the_worker_that_its_cell_can_spare(stub_site: StubSite) -> None:
    roles = (Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE, Role.PREFILL)
    with running(stub_site, *roles, cells=2) as changes:
        extra = changes.deployment.member("prefill-5")
        actuator = LocalActuator(changes.deployment)
        carry_out(actuator, diff(actuator, StepKind.FLIP))
        flipped = [m for m in changes.deployment.members if m.role is Role.DECODE]
        assert {m.cell for m in flipped} == {"c0", "c1"}
        assert all(c.serves for c in changes.deployment.cells())
        assert extra.cell == "c0"
        assert changes.deployment.member("prefill-2").role is Role.PREFILL


def test_the_last_of_every_cell_is_not_taken(stub_site: StubSite) -> None:
    roles = (Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE)
    with running(stub_site, *roles, cells=2) as changes:
        actuator = LocalActuator(changes.deployment)
        with pytest.raises(ApplyError, match="the last one of its cell"):
            carry_out(actuator, diff(actuator, StepKind.FLIP))
        assert all(c.serves for c in changes.deployment.cells())


def test_a_worker_that_still_starts_leaves_before_the_ready_one(stub_site: StubSite) -> None:
    with running(stub_site, Role.PREFILL, Role.DECODE) as changes:
        start_with(changes, "--stub-start-s=60")
        actuator = LocalActuator(changes.deployment)
        actuator.apply(step(actuator, StepKind.START))
        assert counts(changes, Role.PREFILL) == (1, 1)
        carry_out(actuator, diff(actuator, StepKind.DRAIN, StepKind.STOP))
        assert [m.name for m in changes.deployment.members] == ["prefill-1", "decode-2"]
        assert changes.deployment.cells()[0].serves


def test_a_successor_for_the_standby_is_nobody_of_the_role(stub_site: StubSite) -> None:
    with running(stub_site, Role.PREFILL, Role.DECODE) as changes:
        spare = changes.add(Role.DECODE, standby=True)
        start_with(changes, "--stub-start-s=2")
        actuator = LocalActuator(changes.deployment)
        with Caretaker(changes.deployment, limits=LIMITS):
            kill(changes.deployment, changes.deployment.member("prefill-1").worker)
            wait_for(lambda: bool(starting(changes)))
            assert ready(changes.deployment, Role.PREFILL) == [spare.name]
            assert counts(changes, Role.PREFILL) == (1, 0)
            with pytest.raises(ApplyError, match="no starting replica"):
                actuator.apply(step(actuator, StepKind.ROUTE))
            wait_for(lambda: changes.deployment.cells()[0].standby == 1)
        assert ready(changes.deployment, Role.PREFILL) == [spare.name]


def test_a_successor_that_a_plan_has_no_use_for_is_ended_and_not_started_again(
    stub_site: StubSite,
) -> None:
    with running(stub_site, Role.PREFILL, Role.PREFILL, Role.DECODE) as changes:
        start_with(changes, "--stub-start-s=60")
        actuator = LocalActuator(changes.deployment)
        said: list[str] = []
        with Caretaker(changes.deployment, said.append, LIMITS):
            kill(changes.deployment, changes.deployment.member("prefill-1").worker)
            wait_for(lambda: bool(starting(changes)))
            with pytest.raises(ApplyError, match="the only ready replica of prefill"):
                actuator.apply(step(actuator, StepKind.FLIP))
            carry_out(actuator, diff(actuator, StepKind.DRAIN, StepKind.STOP))
            wait_for(lambda: any("prefill-1 is not started again" in line for line in said))
            assert [m.name for m in changes.deployment.members] == ["prefill-2", "decode-3"]


def test_a_plan_waits_for_the_successor_that_the_caretaker_routes(stub_site: StubSite) -> None:
    with running(stub_site, Role.PREFILL, Role.PREFILL, Role.DECODE) as changes:
        start_with(changes, "--stub-start-s=1")
        actuator = LocalActuator(changes.deployment)
        said: list[str] = []
        with Caretaker(changes.deployment, said.append, LIMITS):
            kill(changes.deployment, changes.deployment.member("prefill-1").worker)
            wait_for(lambda: bool(starting(changes)))
            carry_out(actuator, diff(actuator, StepKind.ROUTE))
            assert ready(changes.deployment, Role.PREFILL) == ["prefill-2", "prefill-4"]
            wait_for(lambda: any("serves as prefill" in line for line in said))
        assert not any("could not" in line for line in said)


@pytest.mark.parametrize("command", ["remove", "promote"])
def test_people_may_take_what_a_plan_left_unrouted(stub_site: StubSite, command: str) -> None:
    with running(stub_site, Role.PREFILL, Role.DECODE) as changes:
        actuator = LocalActuator(changes.deployment)
        begun = step(actuator, StepKind.START)
        actuator.apply(begun)
        actuator.await_ready(begun)
        with pytest.raises(EngineError, match="only a ready worker can be flipped"):
            changes.flip("prefill-3", Role.DECODE)
        if command == "remove":
            changes.remove("prefill-3")
            assert counts(changes, Role.PREFILL) == (1, 0)
        else:
            changes.promote("prefill-3", Role.DECODE)
            assert ready(changes.deployment, Role.DECODE) == ["decode-2", "prefill-3"]
            assert counts(changes, Role.DECODE) == (2, 0)


def test_a_death_of_what_a_plan_left_unrouted_is_told_and_fails_no_other_plan(
    stub_site: StubSite,
) -> None:
    with running(stub_site, Role.PREFILL, Role.DECODE) as changes:
        actuator = LocalActuator(changes.deployment)
        left = step(actuator, StepKind.START)
        actuator.apply(left)
        actuator.await_ready(left)
        kill(changes.deployment, changes.deployment.member("prefill-3").worker)
        wait_for(lambda: bool(changes.deployment.launcher.dead()))
        carry_out(actuator, diff(actuator, StepKind.START, StepKind.ROUTE))
        assert ready(changes.deployment, Role.PREFILL) == ["prefill-1", "prefill-4"]
        said: list[str] = []
        with Caretaker(changes.deployment, said.append, LIMITS):
            wait_for(lambda: counts(changes, Role.PREFILL) == (2, 0))
        assert any("prefill-3 died before a plan routed it" in line for line in said)


def test_a_claimed_standby_that_is_not_routed_is_on_standby_again(stub_site: StubSite) -> None:
    with running(stub_site, Role.PREFILL, Role.DECODE) as changes:
        spare = changes.add(Role.DECODE, standby=True)
        actuator = LocalActuator(changes.deployment)
        actuator.apply(step(actuator, StepKind.START))
        assert starting(changes) == [spare.name]
        assert counts(changes, Role.PREFILL) == (1, 1)
        changes.deployment.site = replace(changes.deployment.site, ready_timeout_s=0.5)
        with Caretaker(changes.deployment, limits=LIMITS):
            wait_for(lambda: changes.deployment.cells()[0].standby == 1)
        assert counts(changes, Role.PREFILL) == (1, 0)


def test_a_claimed_standby_that_dies_is_replaced_on_standby(stub_site: StubSite) -> None:
    with running(stub_site, Role.PREFILL, Role.DECODE) as changes:
        spare = changes.add(Role.DECODE, standby=True)
        actuator = LocalActuator(changes.deployment)
        actuator.apply(step(actuator, StepKind.START))
        kill(changes.deployment, spare.worker)
        with Caretaker(changes.deployment, limits=LIMITS):
            wait_for(lambda: changes.deployment.cells()[0].standby == 1)
        assert counts(changes, Role.PREFILL) == (1, 0)
