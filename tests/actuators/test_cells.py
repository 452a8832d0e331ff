"""A plan applied to two cells: real routers over disjoint workers, stub engines."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest

from actuators.actuator import carry_out
from actuators.local import LocalActuator
from planner.domain.errors import ApplyError
from planner.domain.fleet import ReplicaShape, Role
from planner.domain.plan import Plan
from planner.domain.spec import TargetKind
from planner.domain.topology import Cell
from planner.rollout import diff, with_placements
from serving.fleet.changes import Changes
from serving.fleet.deployment import LocalDeployment, RouterSettings, WorkerState
from serving.gate.cells import Cells
from serving.routers import RouterKind
from serving.traffic.load import Completion, LoadClient, Timing
from serving.workers.launcher import LocalSite
from tests.planner.rollout import cases
from tests.serving.conftest import StubSite

P, D = (cases.shape(role) for role in (Role.PREFILL, Role.DECODE))
CELLS = (Cell(name="left"), Cell(name="right"))
SPEC = replace(cases.spec(), target=TargetKind.LOCAL, cells=CELLS)


@pytest.fixture
def site(stub_site: StubSite, monkeypatch: pytest.MonkeyPatch) -> LocalSite:
    """Two cells for stubs, which take a fraction of an engine's memory."""
    monkeypatch.setattr("serving.workers.launcher.WORKER_BASE_BYTES", 5e7)
    made = stub_site()
    return replace(made, cells=CELLS, flags=replace(made.flags, kv_cache_gib=0))


@contextmanager
def running(site: LocalSite, *workers: tuple[ReplicaShape, str]) -> Iterator[LocalDeployment]:
    """Both cells with these workers, by shape and cell."""
    routing = RouterSettings(kind=RouterKind.VLLM_ROUTER)
    with LocalDeployment(site, routing=routing) as deployment:
        for shape, cell in workers:
            Changes(deployment, shape).add(shape.role, cell=cell)
        yield deployment


def apply(deployment: LocalDeployment, wanted: Mapping[ReplicaShape, int]) -> Plan:
    """Plan, diff and carry out, as the loop does; the plan with its placement."""
    actuator = LocalActuator(deployment)
    fleet = actuator.read_fleet()
    made = with_placements(cases.plan(wanted), SPEC, fleet)
    carry_out(actuator, diff(fleet, made, SPEC))
    return made


def serving(deployment: LocalDeployment) -> dict[str, tuple[int, int]]:
    """Prefill and decode workers that take traffic, by cell."""
    return {c.cell: (c.prefill, c.decode) for c in deployment.cells()}


def ask(url: str, count: int = 3) -> list[str]:
    """What went wrong with some requests to a router."""

    async def go() -> list[Timing]:
        client = LoadClient(url=url, model="tiny", timeout_s=20.0)
        try:
            one = Completion(prompt="a b c", output_tokens=3)
            return await asyncio.gather(*(client.send(one) for _ in range(count)))
        finally:
            await client.close()

    return [timing.error for timing in asyncio.run(go())]


def routed(deployment: LocalDeployment, cell: str) -> set[str]:
    return {worker.url for worker in deployment.router_of(cell).workers()}


def test_one_prefill_and_two_decode_serve_from_one_cell(site: LocalSite) -> None:
    with running(site) as deployment:
        made = apply(deployment, {P: 1, D: 2})
        assert serving(deployment) == {"left": (1, 2), "right": (0, 0)}
        assert made.placements[0].crossing_ratio == 0
        assert deployment.emptiest() == "left"  # a spare in the other would have nobody
        assert [c.lacks for c in deployment.cells()] == [(), ()]
        assert ask(deployment.router_of("left").url) == [""] * 3
        assert routed(deployment, "right") == set()


def test_two_prefill_and_four_decode_are_a_whole_in_each_cell(site: LocalSite) -> None:
    with running(site) as deployment:
        apply(deployment, {P: 2, D: 4})
        assert serving(deployment) == {"left": (1, 2), "right": (1, 2)}
        left, right = (routed(deployment, cell) for cell in ("left", "right"))
        assert (len(left), len(right)) == (3, 3)
        assert left.isdisjoint(right)
        for cell in ("left", "right"):
            others = [m.worker for m in deployment.members if m.cell != cell]
            before = [deployment.reading(w).counters.requests_finished for w in others]
            assert ask(deployment.router_of(cell).url) == [""] * 3
            after = [deployment.reading(w).counters.requests_finished for w in others]
            assert after == before


def test_a_plan_that_shrinks_leaves_one_cell_whole_and_none_halved(site: LocalSite) -> None:
    pairs = ((P, "left"), (D, "left"), (P, "right"), (D, "right"))
    with running(site, *pairs) as deployment:
        made = apply(deployment, {P: 1, D: 2})
        assert made.placements[0].moves == 1
        assert sorted(serving(deployment).values()) == [(0, 0), (1, 2)]
        whole = next(c.cell for c in deployment.cells() if c.serves)
        assert ask(deployment.router_of(whole).url) == [""] * 3


def test_a_flip_stays_in_its_cell(site: LocalSite) -> None:
    there = ((P, "left"), (P, "left"), (D, "left"), (P, "right"), (D, "right"), (D, "right"))
    with running(site, *there) as deployment:
        processes = {m.worker.url for m in deployment.members}
        apply(deployment, {P: 2, D: 4})
        assert serving(deployment) == {"left": (1, 2), "right": (1, 2)}
        assert {m.worker.url for m in deployment.members} == processes


def test_a_standby_of_another_cell_is_left_alone(site: LocalSite) -> None:
    with running(site, (P, "left"), (D, "left")) as deployment:
        changes = Changes(deployment, D)
        near = changes.add(Role.DECODE, cell="left", standby=True)
        far = changes.add(Role.DECODE, cell="right", standby=True)
        apply(deployment, {P: 1, D: 2})
        assert deployment.member(near.name).state is WorkerState.READY
        assert deployment.member(far.name).state is WorkerState.STANDBY


def test_workers_that_changed_places_since_are_an_objection(site: LocalSite) -> None:
    with running(site, (P, "left"), (D, "left"), (D, "right")) as deployment:
        actuator = LocalActuator(deployment)
        change = diff(actuator.read_fleet(), cases.plan({P: 2, D: 2}), SPEC)
        deployment.forget(deployment.member("decode-3").worker)
        Changes(deployment, D).add(Role.DECODE, cell="left")
        with pytest.raises(ApplyError, match="cell right was read with 1 ready decode"):
            carry_out(actuator, change)


def test_the_gate_sends_nothing_to_a_cell_without_a_pair(site: LocalSite) -> None:
    with running(site) as deployment:
        apply(deployment, {P: 1, D: 2})
        cells = Cells(model="tiny", state_dir=deployment.site.published_in)
        cells.refresh()
        assert [cell.name for cell in cells.by_load()] == ["left"]
        assert {cell.name for cell in cells.all} == {"left", "right"}
        apply(deployment, {P: 2, D: 4})
        cells.refresh()
        assert {cell.name for cell in cells.by_load()} == {"left", "right"}
