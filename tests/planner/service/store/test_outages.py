"""A full disk: a typed problem meanwhile, nothing lost, back by itself."""

import resource
import time

import httpx

from tests.planner.service.api.test_jobs import ASYNC, LONG
from tests.planner.service.examples import fleet, write_spec
from tests.planner.service.served import served

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
