"""Disk full, folder gone, PostgreSQL gone: a typed problem meanwhile, nothing lost, then back."""

import resource
import signal
import subprocess
import time

import httpx
import pytest

from tests import postgres as real
from tests.planner.service.examples import fleet, write_spec
from tests.planner.service.served import served
from tests.planner.service.test_jobs import ASYNC, LONG

FLEET = "/v1/deployments/shop/fleet"


def serving(folder):
    write_spec(folder)
    return served(folder, "--insecure-local")


def client_of(facts):
    return httpx.Client(base_url=facts["url"], timeout=120)


def put(client, prefill):
    return client.put(FLEET, json=fleet(prefill, 1))


def is_away(answer):
    """A problem that says to come back."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    return answer.json()["type"] == "urn:poolwise:problem:store"


def ready(client):
    return client.get(FLEET).json()["pools"][0]["ready"]


def until_back(ask):
    """What is answered once the service is back; it needs nobody for that."""
    until = time.monotonic() + 60
    while (answer := ask()).status_code != 200:
        assert is_away(answer)
        assert time.monotonic() < until, answer.text
        time.sleep(0.5)
    return answer


def test_a_full_disk_is_a_problem_until_there_is_space(tmp_path):
    with serving(tmp_path) as (process, facts), client_of(facts) as client:
        assert put(client, 1).status_code == 200
        before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, before[1]))
        assert is_away(put(client, 2))
        key = {"Idempotency-Key": "k"}
        assert is_away(client.post("/v1/plans/x/approve", headers=key))
        assert is_away(client.post("/v1/simulations", json=LONG, headers=ASYNC))
        assert ready(client) == 1
        assert client.get("/v1/plans").status_code == 200
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
        until_back(lambda: put(client, 3))
        assert ready(client) == 3
        assert client.get("/v1/jobs").json()["jobs"] == []


def test_nothing_is_lost_where_the_folder_of_the_database_goes_and_comes_back(tmp_path):
    state, away = tmp_path / "state", tmp_path / "elsewhere"
    with serving(tmp_path) as (_, facts), client_of(facts) as client:
        assert put(client, 1).status_code == 200
        kept = 1
        state.rename(away)
        for prefill in range(2, 6):
            answer = put(client, prefill)  # a connection that is open still reaches the file
            if answer.status_code == 200:
                kept = prefill
            else:
                assert is_away(answer)
            assert client.get("/healthz").status_code == 200
        away.rename(state)
        until_back(lambda: client.get("/readyz"))
        assert ready(client) == kept
        until_back(lambda: put(client, 7))
        assert ready(client) == 7


@pytest.fixture
def own_postgres(monkeypatch):
    """A PostgreSQL server that a test may stop and start again."""
    try:
        with real.running_postgres() as server:
            monkeypatch.setenv("POOLWISE_DATABASE_URL", server.url())
            yield server
    except real.MissingError as why:
        pytest.skip(str(why))


def stop(server):
    server.process.send_signal(signal.SIGQUIT)
    server.process.wait(30)


def start_again(server):
    data = server.folder / "data"
    (data / "postmaster.pid").unlink(missing_ok=True)
    with (server.folder / "log").open("ab") as log:
        server.process = subprocess.Popen(
            server.process.args,
            stdout=subprocess.DEVNULL,
            stderr=log,
            user=data.stat().st_uid or None,
            cwd=server.folder,
        )


def test_postgresql_goes_and_comes_back_and_a_job_is_answered_afterwards(tmp_path, own_postgres):
    with serving(tmp_path) as (_, facts), client_of(facts) as client:
        assert put(client, 1).status_code == 200
        path = client.post("/v1/simulations", json=LONG, headers=ASYNC).headers["location"]
        stop(own_postgres)
        assert is_away(put(client, 2))
        assert is_away(client.get("/readyz"))
        assert is_away(client.get(path))
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/none").status_code == 404
        start_again(own_postgres)
        until_back(lambda: client.get("/readyz"))
        assert ready(client) == 1
        until_back(lambda: put(client, 3))
        until = time.monotonic() + 120
        while (job := client.get(path).json())["state"] in ("queued", "running"):
            assert time.monotonic() < until, job
            time.sleep(0.5)
        assert (job["state"], job["attempts"]) == ("done", 1)
