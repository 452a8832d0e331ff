"""What hangs without ending: stopped processes that take connections and answer nothing."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from planner.domain.fleet import Role
from serving.fleet.caretaker import Caretaker
from serving.fleet.changes import Changes
from serving.fleet.deployment import LocalDeployment
from serving.fleet.health import HangLimits
from serving.workers.launcher import Worker
from tests.serving.conftest import PREFILL, StubSite
from tests.serving.fleet.test_deployment import LIMITS, ask, ready, running, wait_for

HANGS = HangLimits(every_s=0.2, timeout_s=1.0, router_s=1.5, worker_s=2.0)


@contextmanager
def cared_for(deployment: LocalDeployment, hangs: HangLimits = HANGS) -> Iterator[list[str]]:
    said: list[str] = []
    with Caretaker(deployment, said.append, LIMITS, hangs):
        yield said


def stop(pid: int, *, with_supervisor: bool = False) -> list[psutil.Process]:
    """Stop all that hangs below a supervisor, as SIGSTOP does."""
    supervisor = psutil.Process(pid)
    stopped = supervisor.children(recursive=True)
    for process in [*stopped, *([supervisor] if with_supervisor else [])]:
        process.suspend()
    return stopped


def supervisor_of(deployment: LocalDeployment, worker: Worker) -> int:
    return deployment.launcher.process_of(worker)[0]


@pytest.mark.parametrize("with_supervisor", [False, True])
def test_a_router_that_hangs_is_replaced_at_its_address(
    stub_site: StubSite, with_supervisor: bool
) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        url, pid = deployment.router.url, deployment.router.pid
        with cared_for(deployment) as said:
            stopped = stop(pid, with_supervisor=with_supervisor)
            began = time.monotonic()
            wait_for(lambda: deployment.router.pid != pid)
            wait_for(lambda: len(deployment.router.workers()) == 2)
            assert time.monotonic() - began < 15.0
            assert deployment.router.url == url
            assert ask(url)[0].error == ""
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in stopped)
        assert any(line.startswith("the router of cell local hangs") for line in said)


def test_requests_that_wait_for_a_hanging_router_are_told_of_its_end(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        stop(deployment.router.pid)
        with cared_for(deployment):
            began = time.monotonic()
            assert ask(deployment.router.url)[0].error != ""
            assert time.monotonic() - began < 10.0


def test_a_worker_that_hangs_leaves_the_router_and_is_started_again(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.PREFILL, Role.DECODE) as deployment:
        hanging = deployment.member("prefill-1").worker
        with cared_for(deployment) as said:
            stopped = stop(supervisor_of(deployment, hanging))
            wait_for(lambda: ready(deployment, Role.PREFILL) == ["prefill-2", "prefill-4"])
            assert hanging.url not in {w.url for w in deployment.router.workers()}
            assert [a.error for a in ask(deployment.router.url, 4)] == [""] * 4
        assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in stopped)
        assert any(line.startswith("prefill-1 hangs: no answer for") for line in said)


def test_a_standby_takes_the_place_of_a_worker_that_hangs(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        spare = Changes(deployment, PREFILL).add(Role.DECODE, standby=True)
        with cared_for(deployment):
            stop(supervisor_of(deployment, deployment.member("decode-2").worker))
            wait_for(lambda: ready(deployment, Role.DECODE) == [spare.name])
            assert ask(deployment.router.url)[0].error == ""


def test_what_stands_still_for_a_moment_is_left_alone(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.DECODE) as deployment:
        hangs = HangLimits(every_s=0.1, timeout_s=0.2, router_s=2.0, worker_s=2.0)
        pids = [deployment.router.pid, supervisor_of(deployment, deployment.members[0].worker)]
        with cared_for(deployment, hangs) as said:
            for _ in range(3):  # 3 s in all, never 2 s in a row
                stopped = [p for pid in pids for p in stop(pid)]
                time.sleep(1.0)
                for process in stopped:
                    process.resume()
                time.sleep(0.6)
            assert said == []
        assert ask(deployment.router.url)[0].error == ""


def test_changes_on_a_hanging_router_end_with_an_error(stub_site: StubSite) -> None:
    with running(stub_site(), Role.PREFILL, Role.PREFILL, Role.DECODE) as deployment:
        pid = deployment.router.pid
        stop(pid)
        told: list[str] = []

        def remove() -> None:
            try:
                Changes(deployment, PREFILL).remove("prefill-2")
            except Exception as error:  # whatever it is, it is looked at below
                told.append(f"{type(error).__name__}: {error}")

        change = threading.Thread(target=remove)
        change.start()
        with cared_for(deployment):
            change.join(timeout=20)
            assert not change.is_alive()
            assert any("router" in text for text in told)
            wait_for(lambda: deployment.router.pid != pid)
            wait_for(lambda: len(deployment.router.workers()) == 3)
