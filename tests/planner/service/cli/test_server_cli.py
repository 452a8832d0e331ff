"""Commands that talk to a server: a real one, on a port of this machine."""

import json
import os
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
import uvicorn

from planner.service.api import create_app
from planner.service.listening import listening
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.security.tokens import hash_of, new_token
from tests.planner.service.clients import service_of
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, make_deployment, observe

DECODE = "decode:cpu:tp1"


@contextmanager
def listening_app(app):
    """The address of an app that is served in a thread."""
    socket = listening("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def deployment(folder):
    made = make_deployment(folder, loop={"mode": "approve"})
    observe(made, history(**BUSY))
    yield made
    made.store.close()


@pytest.fixture
def server(deployment, monkeypatch):
    """A server that commands find by the environment, and may write to."""
    token = new_token()
    deployment.store.tokens().replace_all(hash_of(token), name="ann", at=NOON)
    with listening_app(create_app(service_of(deployment))) as url:
        monkeypatch.setenv("POOLWISE_SERVER", url)
        monkeypatch.setenv("POOLWISE_TOKEN", token)
        yield url


@pytest.fixture
def plan_id(deployment):
    return tick(deployment, now=NOON).decision.plan.plan_id


@pytest.mark.usefixtures("server")
def test_a_plan_is_listed_approved_applied_and_rolled_back(poolwise, plan_id):
    status, out, _ = poolwise("plans", "--state", "pending")
    assert status == 0
    assert plan_id in out
    status, out, _ = poolwise("approve", plan_id, "--reason", "looks right")
    assert (status, f"{plan_id} is approved, by ann (looks right)" in out) == (0, True)
    status, out, _ = poolwise("apply", plan_id)
    assert (status, "is applied, by ann" in out) == (0, True)
    status, out, _ = poolwise("plans", plan_id)
    assert status == 0
    for said in ("1. start", "approved by ann: looks right", "step 1 of", "applied by ann"):
        assert said in out
    status, out, _ = poolwise("rollback", plan_id)
    assert (status, "is rolled_back, by ann" in out) == (0, True)


@pytest.mark.usefixtures("server")
def test_machines_get_the_server_s_own_json(poolwise, plan_id):
    status, out, _ = poolwise("plans", "--json")
    assert status == 0
    assert [p["plan_id"] for p in json.loads(out)["plans"]] == [plan_id]
    status, out, _ = poolwise("reject", plan_id, "--json")
    assert json.loads(out)["approval"]["state"] == "rejected"
    status, out, _ = poolwise("plans", plan_id, "--json")
    assert [a["state"] for a in json.loads(out)["history"]["approvals"]][-1] == "rejected"


@pytest.mark.usefixtures("server")
def test_a_refusal_comes_in_the_server_s_words_with_status_1(poolwise, plan_id):
    status, out, err = poolwise("apply", plan_id)
    assert (status, out) == (1, "")
    assert "only an approved plan can be applied" in err


@pytest.mark.usefixtures("server")
def test_an_unknown_plan_is_bad_input(poolwise):
    for verb in ("plans", "approve", "reject", "apply", "rollback"):
        status, out, err = poolwise(verb, "plan-x")
        assert (status, out) == (2, "")
        assert "no plan plan-x is stored" in err


def test_without_a_server_it_says_how_to_name_one(poolwise, taken_port, monkeypatch):
    monkeypatch.setenv("POOLWISE_SERVER", "http://127.0.0.1:9")
    status, _, err = poolwise("plans")
    assert status == 1
    assert "no Poolwise server answers at http://127.0.0.1:9" in err
    assert "--server or POOLWISE_SERVER" in err
    for address in ("localhost:8765", "ftp://x", "http://", "http://x:port"):
        status, _, err = poolwise("plans", "--server", address)
        assert status == 2
        assert "is no address" in err


@pytest.mark.parametrize(("token", "said"), [("", "wants a token"), ("pw_x", "refuses the token")])
def test_without_the_right_token_it_says_where_one_is_looked_for(
    poolwise, server, plan_id, monkeypatch, token, said
):
    monkeypatch.setenv("POOLWISE_TOKEN", token)
    status, _, err = poolwise("approve", plan_id)
    assert status == 2
    assert said in err
    assert "POOLWISE_TOKEN_FILE or --token-file" in err


def test_the_token_may_lie_in_a_file(poolwise, server, plan_id, folder, monkeypatch):
    import os

    (folder / "token").write_text(os.environ["POOLWISE_TOKEN"] + "\n")
    monkeypatch.delenv("POOLWISE_TOKEN")
    assert poolwise("approve", plan_id, "--token-file", folder / "token")[0] == 0
    status, _, err = poolwise("approve", plan_id, "--token-file", folder / "nothing")
    assert (status, "cannot be read" in err) == (2, True)
    (folder / "token").write_text("two words")
    status, _, err = poolwise("approve", plan_id, "--token-file", folder / "token")
    assert (status, "holds no token" in err) == (2, True)


def test_what_answers_but_is_no_poolwise_is_told(poolwise):
    async def page(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 502, "headers": []})
        await send({"type": "http.response.body", "body": b"<html>gateway</html>"})

    with listening_app(page) as url:
        status, _, err = poolwise("plans", "--server", url)
    assert status == 1
    assert "is no Poolwise server: HTTP 502" in err


def test_a_server_that_is_silent_is_given_up(poolwise, monkeypatch):
    async def silent(_scope, _receive, _send):
        import asyncio

        await asyncio.sleep(5)

    with listening_app(silent) as url:
        status, _, err = poolwise("apply", "plan-x", "--wait", "1", "--server", url)
    assert status == 1
    assert "did not answer within 1 s" in err
    assert "may go on there" in err


def test_pause_resume_pin_and_mode_reach_the_loop(poolwise, server, deployment):
    later = datetime.now(UTC) + timedelta(hours=3)
    status, out, _ = poolwise("pause", "out", "--for", "2h", "--reason", "network work")
    assert status == 0
    assert "scaling out is paused by ann until" in out
    assert "network work" in out
    assert tick(deployment, now=NOON).outcome is Outcome.HELD
    assert poolwise("pin", DECODE, "3", "--until", later.isoformat())[0] == 0
    status, out, _ = poolwise("directives")
    assert (status, f"{DECODE} is pinned to 3 replicas" in out) == (0, True)
    assert "the loop's mode is auto; as ordered" in poolwise("mode", "auto")[1]
    assert poolwise("unpin", DECODE)[0] == poolwise("resume")[0] == 0
    status, out, _ = poolwise("mode", "spec", "--json")
    assert json.loads(out)["mode"] == "approve"
    assert json.loads(out)["directives"] == []


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pause", "all", "--for", "2 weeks"), "write it as 90s"),
        (("pause", "all", "--for", "0h"), "more than 0 s"),
        (("pause", "--for", "1h", "--until", "2030-01-01T00:00:00Z"), "not both"),
        (("pause", "--until", "tomorrow"), "is no instant"),
        (("pause", "--until", "2001-01-01T00:00:00Z"), "is over already"),
        (("pause", "--deployment", "other"), "no deployment other"),
        (("pin", "decode:h100:tp1", "2"), "no pool decode:h100:tp1"),
        (("mode", "spec", "--for", "1h"), "takes an order back"),
    ],
)
def test_orders_that_cannot_be_are_refused(poolwise, arguments, said):
    status, out, err = poolwise(*arguments)
    assert (status, out) == (2, "")
    assert said in err


def test_a_decision_is_listed_and_replayed_from_the_server_or_the_database(
    poolwise, server, plan_id, deployment, monkeypatch
):
    status, out, _ = poolwise("decisions")
    assert (status, plan_id in out, "pending" in out) == (0, True, True)
    status, out, _ = poolwise("replay-decision", 1)
    assert (status, out) == (0, "decision 1: the same answer in all but elapsed times\n")
    monkeypatch.setenv("POOLWISE_DATABASE_URL", deployment.store._where)
    monkeypatch.setenv("POOLWISE_SERVER", "http://127.0.0.1:9")
    arguments = ("replay-decision", 1, "--from-database", "--deployment", "shop", "--json")
    status, out, _ = poolwise(*arguments)
    assert (status, json.loads(out)["same"]) == (0, True)
    status, _, err = poolwise("replay-decision", 1, "--from-database")
    assert (status, "goes with --deployment" in err) == (2, True)


def test_a_decision_that_is_not_kept_is_bad_input_and_another_answer_status_1(
    poolwise, server, plan_id, deployment
):
    status, _, err = poolwise("replay-decision", 99)
    assert (status, "no decision 99 of shop" in err) == (2, True)
    record, parts = deployment.store.decision("shop", 1)
    deployment.store.add_decision(record)
    status, _, err = poolwise("replay-decision", 2)
    assert (status, "was not kept: it cannot be replayed" in err) == (2, True)
    answer = json.loads(parts["answer"])
    answer["plan"]["usd_per_hour"] = 999.0
    deployment.store.add_decision(record, parts | {"answer": json.dumps(answer)})
    status, out, _ = poolwise("replay-decision", 3)
    assert status == 1
    assert "plan.usd_per_hour: 999.0 before" in out


def test_the_server_replays_too(server, plan_id):
    import httpx

    here = f"{server}/v1/deployments/shop/decisions"
    token = {"Authorization": f"Bearer {os.environ['POOLWISE_TOKEN']}"}
    told = httpx.get(f"{here}/1", params={"again": True}, headers=token, timeout=60).json()
    assert told["replay"] == {"decision_id": 1, "same": True, "differences": [], "versions": []}
    assert told["plan_id"] == plan_id
    assert set(told["inputs"]) == {"spec", "forecast", "fleet", "conditions", "moment"}
    assert told["versions"]["ortools"]
    assert told["parts"] is None
    assert httpx.get(f"{here}/0", headers=token).status_code == 422
    assert httpx.get(f"{here}/77", headers=token).status_code == 404
