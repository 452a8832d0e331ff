"""The gate before a deployment: whoever comes while a part is started again is answered later."""

import threading
import time
from dataclasses import replace

import httpx
import psutil
import pytest

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.service.fleet.deploying import gate
from planner.service.fleet.gate import GateOptions
from serving.fleet.caretaker import Caretaker
from tests.planner.service.examples import write_spec
from tests.serving.conftest import StubSite, stub_site
from tests.serving.fleet.test_deployment import LIMITS, running, wait_for

__all__ = ["stub_site"]
BODY = {"model": "tiny", "prompt": "hello there", "max_tokens": 2}


def kill_below(pid: int) -> None:
    for process in psutil.Process(pid).children(recursive=True):
        process.kill()


@pytest.mark.parametrize("part", ["gate", "router"])
def test_requests_sent_while_a_part_is_dead_are_answered(tmp_path, stub_site: StubSite, part: str):
    options = GateOptions(
        spec=write_spec(tmp_path), port=0, anonymous=True, admission=False, direct=False
    )
    site = replace(stub_site(), endpoints_dir=tmp_path)
    with (
        running(site, Role.PREFILL, Role.DECODE) as deployment,
        Caretaker(deployment, limits=LIMITS),
        gate(deployment, options) as front,
    ):
        assert front is not None
        url = f"{deployment.endpoints().gate}/v1/completions"
        first = httpx.post(url, json=BODY, timeout=30)
        assert first.status_code == 200, first.text
        dead = front.pid if part == "gate" else deployment.router.pid
        kill_below(dead)
        answers: list[int] = []
        asking = [
            threading.Thread(
                target=lambda: answers.append(httpx.post(url, json=BODY, timeout=60).status_code)
            )
            for _ in range(5)
        ]
        for one in asking:
            one.start()
            time.sleep(0.05)
        for one in asking:
            one.join()
        assert answers == [200] * 5
        wait_for(lambda: front.is_up() and deployment.router.is_alive())
    assert not psutil.pid_exists(dead)


def test_a_gate_that_nobody_could_use_is_refused_before_anything_starts(tmp_path, monkeypatch):
    from planner.service.fleet.gate import check_access

    monkeypatch.setenv("POOLWISE_STATE_DIR", str(tmp_path))
    with pytest.raises(InputError, match="holds no API key"):
        check_access(GateOptions(spec=write_spec(tmp_path)))
