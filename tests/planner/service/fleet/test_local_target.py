"""`poolwise serve` moves the deployment that `poolwise deployment up` runs; with stub engines."""

import json
import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from planner.domain.errors import EngineError, HistoryError, OperationError
from planner.domain.fleet import Role
from planner.domain.rollout import StepKind
from planner.service.cli.main import run
from planner.service.fleet.local_target import RunningDeployment, _step_document
from planner.service.spec.file import read_spec
from serving.fleet.control import ControlClient
from serving.fleet.endpoints import read_endpoints
from tests.actuators.steps import diff_of
from tests.planner.service.examples import history, write_spec
from tests.planner.service.plans import DECODE, PREFILL
from tests.planner.service.served import hand_in, served
from tests.planner.service.stubbed import start, write_engine

POOLS = [
    {"model": "tiny", "role": "prefill", "accelerator": "cpu", "min_replicas": 2},
    {"model": "tiny", "role": "decode", "accelerator": "cpu"},
]
"""Ask for a second prefill replica, whatever the load."""


@pytest.fixture
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("POOLWISE_ENGINE_PYTHON", str(write_engine(tmp_path)))
    return dict(os.environ)


@pytest.fixture
def up(environment, tmp_path):
    process = start(environment, tmp_path, "--name", "tiny", "--accelerator", "cpu")
    yield process
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def write(folder, **changes):
    usual = {"target": {"kind": "local"}, "loop": {"mode": "approve"}, "pools": POOLS}
    write_spec(folder, **usual | changes)


def workers(folder) -> dict[str, int]:
    answer = ControlClient(folder / "state" / "local").ask("list")
    roles = [worker["role"] for worker in answer["workers"] if worker["state"] == "ready"]
    return {role: roles.count(role) for role in set(roles)}


def running_deployment(folder) -> RunningDeployment:
    spec = read_spec(folder / "spec.yaml")
    return RunningDeployment(control=ControlClient(folder / "state" / "local"), spec=spec)


def planned(facts, **load: int) -> tuple[str, dict[str, int]]:
    body = {"history": history(**load)}
    plan = httpx.post(f"{facts['url']}/v1/plans", json=body, timeout=60)
    assert plan.status_code == 201, plan.text
    pools = plan.json()["windows"][0]["pools"]
    path = f"{facts['url']}/v1/plans/{plan.json()['plan_id']}"
    assert httpx.post(f"{path}/approve", timeout=60).status_code == 200
    return path, {pool["role"]: pool["replicas"] for pool in pools}


@pytest.mark.usefixtures("up")
def test_an_approved_plan_moves_the_workers_there_and_back(tmp_path):
    write(tmp_path, pools=[{**pool, "min_replicas": 1} for pool in POOLS])
    assert workers(tmp_path) == {"prefill": 1, "decode": 1}
    with served(tmp_path, "--insecure-local") as (_process, facts):
        path, wanted = planned(facts, requests=600)
        assert wanted == {"prefill": 2, "decode": 1}
        applied = httpx.post(f"{path}/apply", timeout=120).json()
        assert applied.get("approval", {}).get("state") == "applied", applied
        assert workers(tmp_path) == wanted
        back = httpx.post(f"{path}/rollback", timeout=120).json()
        assert back.get("approval", {}).get("state") == "rolled_back", back
        assert workers(tmp_path) == {"prefill": 1, "decode": 1}


@pytest.mark.usefixtures("up")
def test_the_loop_moves_them_by_itself(tmp_path):
    write(
        tmp_path,
        loop={"mode": "auto", "slow_interval_s": 2},
        forecast={"window_s": 1.0, "horizon_windows": 2},
    )
    with (
        served(tmp_path, "--insecure-local") as (_process, facts),
        httpx.Client(base_url=facts["url"], timeout=60) as client,
    ):
        hand_in(client, "/v1/deployments/shop")
        deadline = time.monotonic() + 120
        while workers(tmp_path) != {"prefill": 2, "decode": 1} and time.monotonic() < deadline:
            time.sleep(0.5)
        assert workers(tmp_path) == {"prefill": 2, "decode": 1}


@pytest.mark.usefixtures("up")
def test_load_that_nobody_hands_in_is_seen_at_the_workers_and_planned_for(tmp_path, monkeypatch):
    monkeypatch.setenv("POOLWISE_WATCH_INTERVAL_S", "0.5")
    write(tmp_path, forecast={"window_s": 2.0, "horizon_windows": 2})
    url = read_endpoints(tmp_path / "state").routers[0].url
    prompt = {"model": "tiny", "prompt": "word " * 300, "max_tokens": 4, "stream": True}
    with (
        served(tmp_path, "--insecure-local") as (_process, facts),
        httpx.Client(base_url=facts["url"], timeout=60) as client,
    ):
        answer = client.post("/v1/plans", json={})
        assert answer.status_code == 422, answer.text  # nothing was seen yet
        deadline = time.monotonic() + 60
        while answer.status_code != 201 and time.monotonic() < deadline:
            for _ in range(10):
                assert httpx.post(f"{url}/v1/completions", json=prompt, timeout=30).is_success
            answer = client.post("/v1/plans", json={})
        assert answer.status_code == 201, answer.text
        first = answer.json()["windows"][0]
        assert first["request_rate_rps"] > 0


@pytest.mark.usefixtures("up")
def test_a_server_that_is_killed_on_the_way_leaves_the_rest_to_the_next_one(tmp_path):
    write(tmp_path)
    with served(tmp_path, "--insecure-local") as (process, facts):
        path, wanted = planned(facts)
        with ThreadPoolExecutor() as pool:
            applying = pool.submit(httpx.post, f"{path}/apply", timeout=120)
            steps = []
            while not steps:
                steps = httpx.get(f"{path}/approvals", timeout=60).json()["steps"]
            process.kill()
            assert isinstance(applying.exception(), httpx.TransportError)
    assert workers(tmp_path)["prefill"] >= 1  # the deployment does not care
    with served(tmp_path, "--insecure-local") as (_process, facts):
        path = f"{facts['url']}{path[path.index('/v1') :]}"
        applied = httpx.post(f"{path}/apply", timeout=120).json()
        assert applied.get("approval", {}).get("state") == "applied", applied
        assert workers(tmp_path) == wanted


@pytest.mark.usefixtures("up")
def test_a_worker_that_somebody_takes_meanwhile_makes_the_plan_stale(tmp_path, capsys):
    write(tmp_path)
    with served(tmp_path, "--insecure-local") as (_process, facts):
        path, _wanted = planned(facts)
        assert run(["deployment", "add", "decode", "--json"]) == 0
        answer = httpx.post(f"{path}/apply", timeout=120)
        assert answer.status_code == 409
        assert "stale" in answer.json()["detail"]
        assert workers(tmp_path) == {"prefill": 1, "decode": 2}
        assert json.loads(capsys.readouterr().out)["worker"]["role"] == "decode"


@pytest.mark.usefixtures("up")
def test_what_the_deployment_does_not_run_is_told_before_anything_moves(tmp_path):
    write(tmp_path)
    running = running_deployment(tmp_path)
    fleet = running.read_fleet()
    assert (fleet.replicas(Role.PREFILL), fleet.replicas(Role.DECODE)) == (1, 1)
    other = replace(DECODE, max_num_seqs=4)
    (objection,) = running.preflight(diff_of(fleet, other, None, StepKind.START))
    assert "decode:cpu:tp1:seqs4 of tiny, but the deployment runs decode:cpu:tp1 of" in objection
    assert running.preflight(diff_of(fleet, DECODE, None, StepKind.START)) == ()


@pytest.mark.usefixtures("up")
def test_a_deployment_of_another_spec_is_not_taken_for_this_one(tmp_path):
    write(tmp_path)
    running = running_deployment(tmp_path)
    running.spec = replace(running.spec, models=(replace(running.spec.models[0], name="other"),))
    with pytest.raises(HistoryError, match=r"running deployment.*`tiny` is not in the spec"):
        running.read_fleet()


@pytest.mark.usefixtures("up")
def test_two_specs_do_not_move_one_deployment_while_both_are_served(tmp_path):
    write(tmp_path)
    first = running_deployment(tmp_path)
    own = first.spec.name
    fleet = first.read_fleet()
    (start_one, route_it) = diff_of(fleet, PREFILL, None, StepKind.START, StepKind.ROUTE).steps
    with subprocess.Popen(["sleep", "600"]) as other:
        step = _step_document(start_one)
        mover = {"spec": "another", "pid": other.pid}
        first.control.ask("apply", step=step, mover=mover)
        (objection,) = first.preflight(diff_of(fleet, DECODE, None, StepKind.START))
        assert f"spec {own} may not move this deployment: the server of spec another" in objection
        with pytest.raises(OperationError, match=f"process {other.pid}"):
            first.apply(route_it)
        other.kill()
    assert first.preflight(diff_of(fleet, DECODE, None, StepKind.START)) == ()
    first.apply(route_it)
    assert workers(tmp_path) == {"prefill": 2, "decode": 1}


@pytest.mark.usefixtures("environment")
def test_without_a_deployment_the_way_to_one_is_told(tmp_path):
    write(tmp_path)
    with served(tmp_path, "--insecure-local") as (_process, facts):
        answer = httpx.post(f"{facts['url']}/v1/plans", json={"history": history()}, timeout=60)
        assert answer.status_code >= 400
        assert "poolwise deployment up" in answer.json()["detail"]
    with pytest.raises(EngineError, match="no deployment runs"):
        workers(tmp_path)
