"""Changes, deaths and cells of a deployment: real processes and routers, stub engines."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from planner.domain.errors import EngineError, GuardRefusedError, NotEnoughMemoryError
from planner.domain.fleet import Role
from planner.domain.topology import Cell
from serving.fleet.caretaker import Caretaker, Deaths, RestartLimits
from serving.fleet.changes import Changes
from serving.fleet.deployment import LocalDeployment, RouterSettings, WorkerState
from serving.fleet.endpoints import read_endpoints
from serving.routers import RouterKind
from serving.routers.drained import HANDOVER_TIMEOUT_S
from serving.traffic.load import Completion, LoadClient, Timing
from serving.workers.launcher import Launcher, LocalSite, Worker
from tests.serving.conftest import PREFILL, StubSite

QUICK = RouterSettings(kind=RouterKind.VLLM_ROUTER)
"""Forgets removed workers at once; smg's pause of five seconds is measured elsewhere."""
LIMITS = RestartLimits(attempts=2, first_pause_s=0.1)


@contextmanager
def running(site: LocalSite, *roles: Role, cells: int = 1) -> Iterator[LocalDeployment]:
    if cells > 1:
        site = replace(site, cells=tuple(Cell(name=f"cell-{i}") for i in range(cells)))
    with LocalDeployment(site, routing=QUICK) as deployment:
        changes = Changes(deployment, PREFILL)
        for role in roles:
            changes.add(role)
        yield deployment


def ask(url: str, count: int = 1, tokens: int = 3) -> list[Timing]:
    async def go() -> list[Timing]:
        client = LoadClient(url=url, model="tiny", timeout_s=20.0)
        try:
            one = Completion(prompt="a b c", output_tokens=tokens)
            return await asyncio.gather(*(client.send(one) for _ in range(count)))
        finally:
            await client.close()

    return asyncio.run(go())


def wait_for(condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def kill(deployment: LocalDeployment, worker: Worker) -> None:
    supervisor, _ = deployment.launcher.process_of(worker)
    for process in psutil.Process(supervisor).children(recursive=True):
        process.kill()


def ready(deployment: LocalDeployment, role: Role) -> list[str]:
    return [m.name for m in deployment.members if (m.role, m.state) == (role, WorkerState.READY)]


def test_the_endpoints_file_follows_every_change(stub_site: StubSite) -> None:
    site = stub_site()
    with running(site, Role.PREFILL, Role.DECODE) as deployment:
        told = read_endpoints(site.state_dir)
        assert {(w.name, w.role) for w in told.workers} == {
            ("prefill-1", Role.PREFILL),
            ("decode-2", Role.DECODE),
        }
        assert told.routers[0].url == deployment.router.url
        changes = Changes(deployment, PREFILL)
        changes.add(Role.DECODE)
        changes.flip("decode-3", Role.PREFILL)
        assert len(read_endpoints(site.state_dir).of_role(Role.PREFILL)) == 2
    with pytest.raises(EngineError, match="no deployment runs"):
        read_endpoints(site.state_dir)


def test_kv_events_have_an_address_of_their_own_for_every_worker(stub_site: StubSite) -> None:
    site = replace(stub_site(), kv_events=True)
    with running(site, Role.PREFILL, Role.DECODE):
        addresses = {w.kv_events for w in read_endpoints(site.state_dir).workers}
    assert len(addresses) == 2
    assert all(a is not None and a.startswith("tcp://127.0.0.1:") for a in addresses)


def test_the_last_worker_of_a_role_stays_while_others_need_it(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        changes = Changes(deployment, PREFILL)
        for change in (
            lambda: changes.remove("prefill-1"),
            lambda: changes.flip("decode-2", Role.PREFILL),
        ):
            with pytest.raises(GuardRefusedError, match="is the last"):
                change()
        assert ask(deployment.router.url)[0].error == ""


def test_a_flip_under_traffic_loses_nothing(stub_site: StubSite) -> None:
    roles = (Role.PREFILL, Role.PREFILL, Role.DECODE)
    with running(stub_site("--stub-token-s", "0.02"), *roles) as deployment:
        answers: list[Timing] = []
        url = deployment.router.url
        load = threading.Thread(target=lambda: answers.extend(ask(url, 8, tokens=60)))
        load.start()
        time.sleep(0.2)
        changes = Changes(deployment, PREFILL)
        changes.flip("prefill-2", Role.DECODE)
        changes.flip("decode-3", Role.PREFILL)
        load.join()
        assert [a.error for a in answers] == [""] * 8
        assert len(ready(deployment, Role.PREFILL)) == 2
        assert [a.error for a in ask(url, 2)] == ["", ""]


def test_a_failed_flip_brings_the_worker_back(
    stub_site: StubSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = (Role.PREFILL, Role.PREFILL, Role.DECODE)
    with running(stub_site("--stub-token-s", "0.1"), *roles) as deployment:
        monkeypatch.setattr("serving.routers.drained.DRAIN_TIMEOUT_S", 0.5)
        load = threading.Thread(
            target=lambda: ask(deployment.member("prefill-2").worker.url, 1, 30)
        )
        load.start()
        time.sleep(0.3)
        with pytest.raises(EngineError, match=r"still has requests .* it is back as prefill"):
            Changes(deployment, PREFILL).flip("prefill-2", Role.DECODE)
        load.join()
        assert ready(deployment, Role.PREFILL) == ["prefill-1", "prefill-2"]
        listed = {w.url for w in deployment.router.workers() if w.role is Role.PREFILL}
        assert deployment.member("prefill-2").worker.url in listed


def test_one_change_at_a_time(stub_site: StubSite) -> None:
    with running(stub_site("--stub-start-s", "1.5"), Role.PREFILL, Role.DECODE) as deployment:
        changes = Changes(deployment, PREFILL)
        adding = threading.Thread(target=lambda: changes.add(Role.PREFILL))
        adding.start()
        time.sleep(0.3)
        with pytest.raises(EngineError, match=r"under way \(adding a prefill worker\)"):
            changes.add(Role.DECODE)
        adding.join()


def test_a_dead_worker_is_replaced_at_fresh_addresses(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        said: list[str] = []
        dead = deployment.member("prefill-1").worker
        with Caretaker(deployment, said.append, LIMITS):
            kill(deployment, dead)
            wait_for(lambda: ready(deployment, Role.PREFILL) == ["prefill-3"])
            assert ask(deployment.router.url)[0].error == ""
        assert deployment.member("prefill-3").worker.url != dead.url
        assert dead.url not in {w.url for w in deployment.router.workers()}
        assert any("prefill-1 died" in line for line in said)


def test_a_standby_takes_the_place_of_a_dead_worker(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        spare = Changes(deployment, PREFILL).add(Role.DECODE, standby=True)
        assert ready(deployment, Role.DECODE) == ["decode-2"]
        assert sum(p.replicas for p in deployment.fleet().pools) == 2
        with Caretaker(deployment, limits=LIMITS):
            kill(deployment, deployment.member("prefill-1").worker)
            wait_for(lambda: ready(deployment, Role.PREFILL) == [spare.name])
            assert ask(deployment.router.url)[0].error == ""
            wait_for(lambda: deployment.cells()[0].standby == 1)


def test_a_worker_that_dies_again_and_again_is_given_up(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        said: list[str] = []
        site = deployment.site
        dying = replace(site, flags=replace(site.flags, extra=("--stub-dies",)))
        deployment.site = deployment.launcher.site = dying
        with Caretaker(deployment, said.append, LIMITS) as caretaker:
            kill(deployment, deployment.member("prefill-1").worker)
            wait_for(lambda: bool(caretaker.given_up))
        assert caretaker.given_up == ["prefill worker prefill-1 of cell local"]
        assert any("gave up on the prefill worker" in line for line in said)
        assert ready(deployment, Role.PREFILL) == []


def test_a_killed_router_is_back_at_its_address_with_its_workers(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        url, pid = deployment.router.url, deployment.router.pid
        with Caretaker(deployment, limits=LIMITS):
            for process in psutil.Process(pid).children(recursive=True):
                process.kill()
            wait_for(lambda: deployment.router.pid != pid)
            wait_for(lambda: len(deployment.router.workers()) == 2)
            assert deployment.router.url == url
            assert ask(url)[0].error == ""


def test_pauses_grow_and_end(stub_site: StubSite) -> None:
    limits = RestartLimits(attempts=3, window_s=100.0, first_pause_s=1.0, longest_pause_s=3.0)
    deaths = Deaths(limits)
    assert [deaths.pause_s(t) for t in (0.0, 1.0, 2.0, 3.0)] == [1.0, 2.0, 3.0, None]
    assert deaths.pause_s(500.0) == 1.0


def test_two_cells_have_routers_and_workers_of_their_own(stub_site: StubSite) -> None:
    roles = (Role.PREFILL, Role.DECODE) * 2
    with running(stub_site(), *roles, cells=2) as deployment:
        first, second = (deployment.router_of(f"cell-{i}") for i in range(2))
        urls = [{w.url for w in router.workers()} for router in (first, second)]
        assert [len(u) for u in urls] == [2, 2]
        assert urls[0].isdisjoint(urls[1])
        before = [m for m in deployment.members if m.cell == "cell-1"]
        for _ in range(3):
            assert ask(first.url)[0].error == ""
        untouched = {m.worker.name: deployment.reading(m.worker) for m in before}
        assert all(r.counters.requests_finished == 1 for r in untouched.values())  # readiness
        assert [c.lacks for c in deployment.cells()] == [(), ()]


def test_a_cell_that_lacks_a_partner_is_reported_and_filled_first(stub_site: StubSite) -> None:
    roles = (Role.PREFILL, Role.PREFILL, Role.DECODE)
    with running(stub_site(), *roles, cells=2) as deployment:
        assert [c.lacks for c in deployment.cells()] == [(), (Role.DECODE,)]
        assert Changes(deployment, PREFILL).add(Role.DECODE).cell == "cell-1"
        with pytest.raises(GuardRefusedError, match="of cell cell-0"):
            Changes(deployment, PREFILL).flip("prefill-1", Role.DECODE)


def test_new_flags_reach_every_worker_one_at_a_time(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        flags = replace(deployment.site.flags, max_num_seqs=4)
        said: list[str] = []
        assert Changes(deployment, PREFILL).replace_all(flags, say=said.append) == 2
        assert ready(deployment, Role.PREFILL) == ["prefill-3"]
        assert ready(deployment, Role.DECODE) == ["decode-4"]
        supervisor, _ = deployment.launcher.process_of(deployment.member("decode-4").worker)
        line = psutil.Process(supervisor).cmdline()
        assert line[line.index("--max-num-seqs") + 1] == "4"
        assert ask(deployment.router.url)[0].error == ""


def test_flags_that_no_worker_comes_up_with_leave_the_fleet_as_it_was(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        old = deployment.site.flags
        bad = replace(old, extra=("--stub-dies",))
        with pytest.raises(EngineError, match="0 of 2 workers were replaced, then prefill-1"):
            Changes(deployment, PREFILL).replace_all(bad)
        assert deployment.site.flags == old
        assert [m.name for m in deployment.members] == ["prefill-1", "decode-2"]
        assert ask(deployment.router.url)[0].error == ""


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Limits how many workers the machine's memory holds."""

    def limit(workers: int) -> None:
        def check(launcher: Launcher) -> None:
            if len(launcher.workers) >= workers:
                raise NotEnoughMemoryError("full")

        monkeypatch.setattr(Launcher, "_check_memory", check)

    return limit


def test_without_memory_for_both_the_old_worker_leaves_first(
    stub_site: StubSite, room: Callable[[int], None]
) -> None:
    roles = (Role.PREFILL, Role.PREFILL, Role.DECODE, Role.DECODE)
    with running(stub_site(), *roles) as deployment:
        room(4)
        said: list[str] = []
        changes = Changes(deployment, PREFILL)
        assert changes.replace_all(deployment.site.flags, say=said.append) == 4
        assert sum("leaves before its successor starts" in line for line in said) == 4


def test_without_memory_the_last_worker_of_a_role_is_not_replaced(
    stub_site: StubSite, room: Callable[[int], None]
) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        room(2)
        with pytest.raises(EngineError, match="no memory for its successor beside it"):
            Changes(deployment, PREFILL).replace_all(deployment.site.flags)
        assert ask(deployment.router.url)[0].error == ""


def test_nothing_is_left_when_a_supervisor_was_killed(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL) as deployment:
        supervisor, _ = deployment.launcher.process_of(deployment.member("prefill-1").worker)
        children = psutil.Process(supervisor).children(recursive=True)
        os.kill(supervisor, signal.SIGKILL)
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in children)


def test_workers_of_a_cell_are_bound_to_its_processors(stub_site: StubSite) -> None:
    site = replace(stub_site(), cells=(Cell(name="one", cpus=(0,)),))
    with running(site, Role.PREFILL) as deployment:
        supervisor, _ = deployment.launcher.process_of(deployment.member("prefill-1").worker)
        (child, *_rest) = psutil.Process(supervisor).children()
        assert child.cpu_affinity() == [0]


def test_a_prefill_worker_stays_until_decode_has_fetched_what_it_computed(
    stub_site: StubSite, tmp_path: Path
) -> None:
    waiting = tmp_path / "waiting"
    waiting.mkdir()
    site = stub_site("--stub-waiting-in", str(waiting))
    with running(site, Role.PREFILL, Role.PREFILL, Role.DECODE) as deployment:
        decode = deployment.member("decode-3").worker
        a_request_waits = waiting / decode.url.rpartition(":")[2]
        a_request_waits.touch()
        assert deployment.reading(decode).waiting == 1
        leaving = deployment.member("prefill-1").worker
        with ThreadPoolExecutor(max_workers=1) as beside:
            drained = beside.submit(deployment.drain, leaving)
            wait_for(lambda: len(deployment.router.workers()) == 2)
            time.sleep(2.0)  # ten looks; it ends at the second one without the wait
            assert not drained.done()
            a_request_waits.unlink()
            assert drained.result(timeout=30) < HANDOVER_TIMEOUT_S
