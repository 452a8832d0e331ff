"""Steps on a running deployment of stub engines: standby workers first, cells kept whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from actuators.actuator import carry_out
from actuators.local import LocalActuator
from planner.domain.errors import ApplyError
from planner.domain.fleet import Role
from planner.domain.rollout import Diff, StepKind
from planner.domain.topology import Cell
from serving.fleet.changes import Changes
from serving.fleet.deployment import LocalDeployment, RouterSettings, WorkerState
from serving.routers import RouterKind
from tests.actuators.steps import diff_of
from tests.serving.conftest import DECODE, PREFILL, StubSite


@contextmanager
def running(stub_site: StubSite, *roles: Role, cells: int = 1) -> Iterator[Changes]:
    site = replace(stub_site(), cells=tuple(Cell(name=f"c{i}") for i in range(cells)))
    routing = RouterSettings(kind=RouterKind.VLLM_ROUTER)
    with LocalDeployment(site, routing=routing) as deployment:
        changes = Changes(deployment, PREFILL)
        for role in roles:
            changes.add(role)
        yield changes


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
