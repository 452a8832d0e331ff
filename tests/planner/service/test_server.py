"""`poolwise serve` as a process with a real socket: starts, answers, remembers, stops."""

import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import pytest

from planner.service.listening import listening
from tests.planner.service.examples import fleet, history, write_spec
from tests.planner.service.imagined import BUSY
from tests.planner.service.served import hand_in, served


def test_the_service_plans_applies_and_remembers_after_a_restart(tmp_path):
    write_spec(tmp_path, loop={"mode": "approve", "slow_interval_s": 3600})
    with served(tmp_path) as (process, facts):
        headers = {"Authorization": f"Bearer {facts['token']}"}
        with httpx.Client(base_url=facts["url"], headers=headers, timeout=60) as client:
            assert client.get("/readyz").json() == {"status": "ready"}
            assert client.get("/v1/deployments/shop/fleet").status_code == 404
            assert client.put("/v1/deployments/shop/fleet", json=fleet()).status_code == 200
            plan = client.post("/v1/plans", json={"history": history(**BUSY)}).json()
            path = f"/v1/plans/{plan['plan_id']}"
            assert client.post(f"{path}/approve").json()["approval"]["state"] == "approved"
            applied = client.post(f"{path}/apply").json()
        assert applied["approval"]["state"] == "applied"
        assert "dry run" in applied["approval"]["reason"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    with served(tmp_path) as (process, again):
        assert again["token"] is None
        with httpx.Client(base_url=again["url"], headers=headers, timeout=60) as client:
            assert client.get(path).json()["approval"]["state"] == "applied"
            moved = client.put("/v1/deployments/shop/fleet", json=fleet(2, 2))
            assert moved.status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130


def test_the_loop_forecasts_and_what_came_stands_beside_it(tmp_path):
    write_spec(
        tmp_path,
        forecast={"window_s": 2.0, "horizon_windows": 2},
        loop={"mode": "advise", "slow_interval_s": 1},
    )
    with (
        served(tmp_path, "--insecure-local") as (_, facts),
        httpx.Client(base_url=facts["url"], timeout=60) as client,
    ):
        here = "/v1/deployments/shop"
        problem = client.get(f"{here}/forecast")
        assert (problem.status_code, problem.json()["status"]) == (404, 404)
        client.put(f"{here}/fleet", json=fleet())
        until = time.monotonic() + 60
        counted = ""
        while "poolwise_forecast_scored_windows_total{" not in counted:
            assert time.monotonic() < until, counted
            hand_in(client, here)
            time.sleep(0.5)
            counted = client.get("/metrics").text
        told = client.get(f"{here}/forecast").json()
    assert len(told["actual"]) == len(told["forecast"]["windows"]) == 2
    outcome = told["outcomes"][0]
    assert outcome["request_rate_rps"] == pytest.approx(5.0)
    assert told["q90_coverage_ratio"] is not None


def test_a_new_token_ends_the_old_one(tmp_path):
    write_spec(tmp_path)
    with served(tmp_path) as (_, first), served(tmp_path, "--new-token") as (_, second):
        statuses = [
            httpx.put(
                f"{second['url']}/v1/deployments/shop/fleet",
                json=fleet(),
                headers={"Authorization": f"Bearer {facts['token']}"},
            ).status_code
            for facts in (first, second)
        ]
    assert statuses == [401, 200]


def test_a_local_server_needs_no_token_and_makes_none(tmp_path):
    write_spec(tmp_path)
    with served(tmp_path, "--insecure-local") as (_, facts):
        assert facts["token"] is None
        answer = httpx.put(f"{facts['url']}/v1/deployments/shop/fleet", json=fleet())
    assert answer.status_code == 200


def test_a_taken_port_is_one_clear_message(tmp_path, taken_port):
    write_spec(tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "planner.service.cli.main", "serve"),
            *("--spec", str(tmp_path / "spec.yaml"), "--port", str(taken_port)),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "POOLWISE_STATE_DIR": str(tmp_path / "state")},
    )
    assert done.returncode == 1
    assert f"port {taken_port}" in done.stderr
    assert "--port 0" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "state").exists()


def test_what_is_listened_on_sends_small_pieces_at_once() -> None:
    """Asyncio switches Nagle's algorithm off for sockets whose protocol is named, no others."""
    with listening("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
