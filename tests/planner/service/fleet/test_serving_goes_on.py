"""When Poolwise is down, serving goes on: the service is killed under load, and nobody notices."""

import os
import signal
import threading
import time

import httpx
import pytest

from planner.domain.fleet import Role
from serving.fleet.endpoints import read_endpoints
from serving.workers.processes import free_ports
from tests.planner.service.examples import write_spec
from tests.planner.service.served import served
from tests.planner.service.stubbed import start, write_engine
from tests.serving.telemetry.servers import until

PROMPT = {"model": "tiny", "prompt": "word " * 50, "max_tokens": 8, "stream": True}


class Load:
    """Clients that ask one request after another until they are told to stop."""

    def __init__(self, url: str, clients: int = 4):
        self.url, self.answers, self.stopped = url, [], threading.Event()
        self.threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def _ask(self):
        with httpx.Client(timeout=30) as client:
            while not self.stopped.is_set():
                try:
                    answer = client.post(f"{self.url}/v1/completions", json=PROMPT)
                    whole = answer.status_code == 200 and "[DONE]" in answer.text
                    self.answers.append("whole" if whole else f"{answer.status_code}")
                except httpx.HTTPError as error:
                    self.answers.append(repr(error))

    def await_more(self, count: int) -> None:
        goal = len(self.answers) + count
        until(lambda: len(self.answers) >= goal, f"only {len(self.answers)} answers", timeout_s=120)


@pytest.fixture
def up(tmp_path, monkeypatch):
    """A deployment with a gate before its router, on stub engines."""
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("POOLWISE_ENGINE_PYTHON", str(write_engine(tmp_path)))
    monkeypatch.setenv("POOLWISE_WATCH_INTERVAL_S", "0.5")
    spec = write_spec(
        tmp_path, target={"kind": "local"}, loop={"mode": "approve", "slow_interval_s": 1}
    )
    (port,) = free_ports(1)
    process = start(
        dict(os.environ),
        tmp_path,
        *("--name", "tiny", "--accelerator", "cpu", "--gate", "--spec", str(spec)),
        *("--gate-port", str(port), "--anonymous"),
    )
    yield process
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


@pytest.mark.usefixtures("up")
def test_the_service_is_killed_under_load_and_every_request_is_answered(tmp_path):
    before = read_endpoints(tmp_path / "state")
    assert before.gate is not None
    with Load(before.gate) as load:
        with served(tmp_path, "--insecure-local") as (process, facts):
            metrics = f"{facts['url']}/metrics"
            until(
                lambda: "poolwise_workers{" in httpx.get(metrics, timeout=30).text,
                "the service never saw its workers",
                timeout_s=60,
            )
            load.await_more(20)
            process.kill()
            assert process.wait(timeout=30) == -signal.SIGKILL
        load.await_more(100)
        time.sleep(1)
        assert read_endpoints(tmp_path / "state") == before, "no part was started anew"
        with served(tmp_path, "--insecure-local") as (_, facts):
            load.await_more(20)
            fleet = httpx.get(f"{facts['url']}/readyz", timeout=30)
            assert fleet.status_code == 200
    assert set(load.answers) == {"whole"}
    after = read_endpoints(tmp_path / "state")
    assert {w.name for w in after.workers} == {w.name for w in before.workers}
    assert {w.role for w in after.workers} == {Role.PREFILL, Role.DECODE}
