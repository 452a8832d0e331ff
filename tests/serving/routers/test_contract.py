"""What every router adapter keeps, asked of the real routers before stub workers."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import psutil
import pytest

from planner.domain.errors import NoFreePortError, RouterError
from planner.domain.fleet import Role
from serving.routers import Router, RouterKind, start_router
from serving.routers import process as router_process
from serving.routers.drained import wait_idle
from serving.routers.policies import Policies, RouterPolicy
from serving.telemetry import read_engine
from serving.traffic.load import Completion, LoadClient, Timing
from serving.workers.launcher import Launcher, Worker
from tests.serving.conftest import AGGREGATED, DECODE, PREFILL, StubSite

KINDS = list(RouterKind)


class Stand:
    """A router and stub workers."""

    def __init__(self, router: Router, launcher: Launcher) -> None:
        self.router, self.launcher = router, launcher

    def worker(self, role: Role = Role.PREFILL) -> Worker:
        worker = self.launcher.start(PREFILL if role is Role.PREFILL else DECODE)
        self.launcher.await_ready(worker)
        return worker

    def pair(self) -> tuple[Worker, Worker]:
        pair = self.worker(Role.PREFILL), self.worker(Role.DECODE)
        self.router.add(pair[0].url, Role.PREFILL)
        self.router.add(pair[1].url, Role.DECODE)
        return pair

    def ask(self, count: int, tokens: int = 3) -> list[Timing]:
        return asyncio.run(asked(self.router.url, count, tokens))

    def counters(self, worker: Worker):
        with httpx.Client() as client:
            return read_engine(client, worker.url).counters


async def asked(url: str, count: int, tokens: int) -> list[Timing]:
    client = LoadClient(url=url, model="tiny", timeout_s=30.0)
    completion = Completion(prompt="a b c d", output_tokens=tokens)
    try:
        return await asyncio.gather(*(client.send(completion) for _ in range(count)))
    finally:
        await client.close()


@pytest.fixture(params=KINDS)
def stand(request: pytest.FixtureRequest, stub_site: StubSite) -> Iterator[Stand]:
    with ExitStack() as stack:
        launcher = stack.enter_context(Launcher(stub_site()))
        router = start_router(request.param, launcher.site.state_dir)
        stack.callback(router.stop)
        yield Stand(router, launcher)


def test_a_pair_answers_and_decode_computes_no_prompt(stand: Stand) -> None:
    prefill, decode = stand.pair()
    before = stand.counters(decode)
    answers = stand.ask(4)
    moved = stand.counters(decode) - before
    assert [a.error for a in answers] == [""] * 4
    assert (moved.prompt_tokens_computed, moved.prompt_tokens_transferred) == (0, 16)
    assert stand.router.transfers() == 4
    assert {(w.url, w.role, w.healthy, w.transfers_kv) for w in stand.router.workers()} == {
        (prefill.url, Role.PREFILL, True, True),
        (decode.url, Role.DECODE, True, True),
    }


def test_a_removed_worker_finishes_what_it_began_and_gets_nothing_more(stand: Stand) -> None:
    _, decode = stand.pair()
    other = stand.worker(Role.DECODE)

    async def during() -> list[Timing]:
        running = asyncio.create_task(asked(stand.router.url, 4, 100))
        await asyncio.sleep(0.2)
        await asyncio.to_thread(stand.router.add, other.url, Role.DECODE)
        await asyncio.to_thread(stand.router.remove, decode.url)
        return await running

    assert [a.error for a in asyncio.run(during())] == [""] * 4
    stand.router.wait_drained(decode.url)
    with httpx.Client() as client:
        wait_idle(decode.url, lambda url: read_engine(client, url), timeout_s=5.0)
    before = stand.counters(decode).requests_finished
    assert [a.error for a in stand.ask(4)] == [""] * 4
    assert stand.counters(decode).requests_finished == before
    assert decode.url not in {w.url for w in stand.router.workers()}


def test_a_worker_comes_back_in_the_other_role(stand: Stand) -> None:
    prefill, decode = stand.pair()
    for worker in (prefill, decode):
        stand.router.remove(worker.url)
        stand.router.wait_drained(worker.url)
    stand.router.add(prefill.url, Role.DECODE)
    stand.router.add(decode.url, Role.PREFILL)
    before = stand.counters(prefill)
    assert [a.error for a in stand.ask(2)] == ["", ""]
    assert (stand.counters(prefill) - before).prompt_tokens_transferred == 8


def test_a_worker_that_moves_no_kv_caches_is_refused(
    stand: Stand, stub_site: StubSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.launcher.site = _without_nixl(stand.launcher.site)
    worker = stand.worker()
    with pytest.raises(RouterError, match="decode would compute every prompt again"):
        stand.router.add(worker.url, Role.PREFILL)
    assert stand.router.workers() == ()


@pytest.mark.parametrize("labels", [{}, {"kv_connector": "NoSuchConnector"}])
def test_a_worker_that_smg_pairs_without_transfer_is_taken_out(
    stub_site: StubSite, monkeypatch: pytest.MonkeyPatch, labels: dict[str, str]
) -> None:
    """smg keys its transfer mode by labels alone, whatever the worker can do."""
    monkeypatch.setattr("serving.routers.smg._LABELS", labels)
    with ExitStack() as stack:
        launcher = stack.enter_context(Launcher(stub_site()))
        router = start_router(RouterKind.SMG, launcher.site.state_dir)
        stack.callback(router.stop)
        worker = Stand(router, launcher).worker()
        with pytest.raises(RouterError, match=r"paired .* without KV transfer"):
            router.add(worker.url, Role.PREFILL)
        assert router.workers() == ()


def _without_nixl(site):
    from dataclasses import replace

    return replace(site, flags=replace(site.flags, extra=("--stub-without-nixl",)))


def test_a_worker_that_is_not_there_is_refused(stand: Stand) -> None:
    with pytest.raises(RouterError, match="does not answer, it was not added"):
        stand.router.add("http://127.0.0.1:9", Role.PREFILL)
    assert stand.router.workers() == ()


def test_a_worker_is_added_once(stand: Stand) -> None:
    prefill, _ = stand.pair()
    with pytest.raises(RouterError, match="refused worker"):
        stand.router.add(prefill.url, Role.DECODE)
    assert {w.role for w in stand.router.workers() if w.url == prefill.url} == {Role.PREFILL}


def test_a_worker_that_is_not_known_may_be_removed(stand: Stand) -> None:
    stand.router.remove("http://127.0.0.1:9")


def test_a_router_that_ended_is_told_with_its_log(stand: Stand) -> None:
    stand.router.stop()
    assert not stand.router.is_alive()
    with pytest.raises(RouterError, match="does not answer"):
        stand.router.workers()


@pytest.mark.parametrize("kind", KINDS)
def test_a_taken_port_is_refused(kind: RouterKind, stub_site: StubSite) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(NoFreePortError, match=f"port {port} .* is taken"):
            start_router(kind, stub_site().state_dir, port=port)


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_router_says_how_to_get_it(
    kind: RouterKind, stub_site: StubSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_process, "find_spec", lambda _name: None)
    with pytest.raises(RouterError, match=r"pip install 'poolwise\[serve\]'"):
        start_router(kind, stub_site().state_dir)


def test_aggregated_workers_stand_beside_a_pair_behind_smg(stub_site: StubSite) -> None:
    with ExitStack() as stack:
        launcher = stack.enter_context(Launcher(stub_site()))
        router = start_router(RouterKind.SMG, launcher.site.state_dir, mixed=True)
        stack.callback(router.stop)
        stand = Stand(router, launcher)
        _, decode = stand.pair()
        aggregated = launcher.start(AGGREGATED)
        launcher.await_ready(aggregated)
        router.add(aggregated.url, Role.AGGREGATED)
        before = stand.counters(decode)
        answers = stand.ask(12)
        assert [a.error for a in answers] == [""] * 12
        served = {a.text.split()[0] for a in answers}
        assert served == {w.url.rpartition(":")[2] for w in (decode, aggregated)}
        assert (stand.counters(decode) - before).prompt_tokens_computed == 0


def test_smg_chooses_as_it_is_told_and_pairs_all_the_same(stub_site: StubSite) -> None:
    policies = Policies(prefill=RouterPolicy.CACHE_AWARE, decode=RouterPolicy.CACHE_AWARE)
    with ExitStack() as stack:
        launcher = stack.enter_context(Launcher(stub_site()))
        router = start_router(RouterKind.SMG, launcher.site.state_dir, policies=policies)
        stack.callback(router.stop)
        line = " ".join(
            psutil.Process(router.pid).cmdline()
        )  # of its supervisor: smg renames itself
        assert "--prefill-policy cache_aware --decode-policy cache_aware" in line
        stand = Stand(router, launcher)
        _, decode = stand.pair()
        before = stand.counters(decode)
        assert [a.error for a in stand.ask(6)] == [""] * 6
        assert (stand.counters(decode) - before).prompt_tokens_computed == 0


def test_vllm_router_takes_no_policy(stub_site: StubSite) -> None:
    with pytest.raises(RouterError, match="by its own policy"):
        start_router(
            RouterKind.VLLM_ROUTER,
            stub_site().state_dir,
            policies=Policies(decode=RouterPolicy.CACHE_AWARE),
        )


def test_vllm_router_is_refused_for_a_mix(stub_site: StubSite) -> None:
    with pytest.raises(RouterError, match="sends nothing to aggregated workers"):
        start_router(RouterKind.VLLM_ROUTER, stub_site().state_dir, mixed=True)
