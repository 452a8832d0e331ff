"""What repeated, stale and paged requests get: keys, ETags, cursors."""

import json
import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from planner.service.api.paging import cursor as cursor_of
from planner.service.store import DecisionRecord
from planner.service.store.repeats import Claim
from tests.planner.service.clients import client_of, make_plan
from tests.planner.service.examples import NOON, history
from tests.planner.service.imagined import BUSY, make_deployment
from tests.planner.service.plans import example_record


@pytest.fixture
def deployment(tmp_path):
    made = make_deployment(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def client(deployment):
    return client_of(deployment)


def test_a_plan_has_the_same_etag_until_it_changes(client):
    path = f"/v1/plans/{make_plan(client)['plan_id']}"
    first, again = client.get(path), client.get(path)
    assert first.headers["etag"] == again.headers["etag"]
    approved = client.post(f"{path}/approve")
    assert approved.headers["etag"] == client.get(path).headers["etag"] != first.headers["etag"]


def test_who_has_the_plan_already_is_not_sent_it_again(client):
    path = f"/v1/plans/{make_plan(client)['plan_id']}"
    tag = client.get(path).headers["etag"]
    for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        same = client.get(path, headers={"If-None-Match": known})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    client.post(f"{path}/reject")
    assert client.get(path, headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize("action", ["approve", "reject", "apply", "rollback"])
def test_a_decision_about_what_has_changed_is_refused_and_told_what_it_is_now(
    deployment, client, action
):
    path = f"/v1/plans/{make_plan(client)['plan_id']}"
    seen = client.get(path).headers["etag"]
    client.post(f"{path}/approve", {"reason": "by somebody faster"})
    stale = client.post(f"{path}/{action}", headers={"If-Match": seen})
    assert (stale.status_code, stale.json()["type"]) == (
        412,
        "urn:poolwise:problem:plan-changed",
    )
    assert "it is approved" in stale.json()["detail"]
    assert "by somebody faster" in stale.json()["detail"]
    assert client.get(path).json()["approval"]["state"] == "approved"
    assert deployment.actuator.done == []


def test_a_decision_about_what_was_seen_is_taken(client):
    path = f"/v1/plans/{make_plan(client)['plan_id']}"
    for action, state in (("approve", "approved"), ("apply", "applied")):
        tag = client.get(path).headers["etag"]
        done = client.post(f"{path}/{action}", headers={"If-Match": tag})
        assert (done.status_code, done.json()["approval"]["state"]) == (200, state)
    assert client.post(f"{path}/apply", headers={"If-Match": "*"}).status_code == 200
    weak = client.post(f"{path}/rollback", headers={"If-Match": f"W/{tag}"})
    assert weak.status_code == 412
    assert client.post(f"{path}/rollback", headers={"If-Match": "17"}).status_code == 422


def test_pages_of_plans_hold_each_plan_once_whatever_comes_meanwhile(deployment, client):
    for number in range(25):
        at = NOON + timedelta(seconds=number // 4)  # some of one instant
        deployment.store.add_plan(example_record(f"plan-{number:02}", at=at), actor="ann")
    known = [p["plan_id"] for p in client.get("/v1/plans?limit=200").json()["plans"]]
    seen, path = [], "/v1/plans?limit=7"
    while path:
        answer = client.get(path)
        seen += [plan["plan_id"] for plan in answer.json()["plans"]]
        late = example_record(f"late-{len(seen)}", at=NOON + timedelta(hours=1))
        deployment.store.add_plan(late, actor="ann")
        following = answer.json()["next"]
        if following:
            assert f'cursor={following}>; rel="next"' in answer.headers["link"]
        path = following and f"/v1/plans?limit=7&cursor={following}"
    assert seen == known
    assert len(set(seen)) == 25


def test_pages_of_decisions_hold_each_decision_once(deployment, client):
    for number in range(10):
        deployment.store.add_decision(
            DecisionRecord(
                deployment="shop",
                decided_at=NOON,
                plan_id=None,
                outcome="unchanged",
                reason=str(number),
            )
        )
    path, seen = "/v1/deployments/shop/decisions?limit=4", []
    first = client.get(path).json()
    second = client.get(f"{path}&cursor={first['next']}").json()
    third = client.get(f"{path}&cursor={second['next']}").json()
    seen = [d["reason"] for d in first["decisions"] + second["decisions"] + third["decisions"]]
    assert seen == [str(number) for number in reversed(range(10))]
    assert third["next"] is None


HALF = cursor_of("2026-11-02T12:00:00+00:00", "\ud800")


@pytest.mark.parametrize("cursor", ["x", "W10", "bnVsbA", "WzFd", "e30", "WyJhIiwiYiJd", "é", HALF])
def test_a_cursor_that_no_list_gave_is_a_problem(client, cursor):
    answer = client.get("/v1/plans", params={"cursor": cursor})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("number", [10**30, 0, -1, -(10**30)])
def test_a_cursor_of_no_number_in_the_list_is_an_end_or_the_beginning(client, number):
    for path in ("/v1/jobs", "/v1/profiles", "/v1/deployments/shop/decisions"):
        answer = client.get(path, params={"cursor": cursor_of(number)})
        assert (answer.status_code, answer.json()["next"]) == (200, None)


@pytest.mark.parametrize("text", ["\0", "\ud800", "a\udfffb"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/plans", lambda text: {"deployment": text}),
        ("/v1/deployments/shop/pause", lambda text: {"what": "in", "reason": text}),
        ("/v1/profiles", lambda text: {"notes": [{text: 1}]}),
    ],
)
def test_a_text_that_nothing_can_keep_is_a_problem(client, path, body, text):
    answer = client.post(
        path, content=json.dumps(body(text)), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, "which no text may hold" in answer.json()["detail"]) == (422, True)


def test_a_text_may_hold_whatever_else_there_is(client):
    whole = "\\u0000 \\ud83d \N{GRINNING FACE} ü"
    answer = client.post("/v1/deployments/shop/pause", json={"what": "in", "reason": whole})
    assert answer.json()["directives"][0]["reason"] == whole


def test_a_request_under_a_key_is_carried_out_once(deployment, client):
    path = f"/v1/plans/{make_plan(client)['plan_id']}"
    client.post(f"{path}/approve")
    key = {"Idempotency-Key": "apply-1"}
    first = client.post(f"{path}/apply", headers=key)
    client.post(f"{path}/rollback")
    moved = len(deployment.actuator.done)
    again = client.post(f"{path}/apply", headers=key)
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert (again.status_code, again.text, again.headers["etag"]) == (
        first.status_code,
        first.text,
        first.headers["etag"],
    )
    assert len(deployment.actuator.done) == moved


def test_a_key_holds_over_a_restart_and_for_other_processes(deployment, client):
    key, body = {"Idempotency-Key": "plan-1"}, {"history": history(**BUSY)}
    first = client.post("/v1/plans", body, headers=key)
    other = client_of(deployment)
    again = other.post("/v1/plans", body, headers=key)
    assert (again.status_code, again.text) == (201, first.text)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"


def test_a_key_is_not_taken_for_another_request(client):
    key = {"Idempotency-Key": "k"}
    body = {"history": history(5), "horizon_windows": 2}
    assert client.post("/v1/forecasts", body, headers=key).status_code == 200
    for path, other in (("/v1/forecasts", {**body, "seed": 1}), ("/v1/plans", body)):
        refused = client.post(path, other, headers=key)
        assert refused.status_code == 422
    other = client.post("/v1/forecasts", {**body, "seed": 1}, headers=key)
    assert other.json()["type"] == "urn:poolwise:problem:idempotency-key-reused"


def test_keys_of_two_people_are_two_keys(deployment, client):
    key, body = {"Idempotency-Key": "k"}, {"history": history(5), "horizon_windows": 2}
    client.post("/v1/forecasts", body, headers=key)
    bob = client_of(deployment, name="bob")
    answer = bob.post("/v1/forecasts", {**body, "seed": 1}, headers=key)
    assert answer.status_code == 200
    assert "idempotency-replayed" not in answer.headers


def test_without_the_token_nobody_reads_a_kept_answer(client):
    key, body = {"Idempotency-Key": "k"}, {"history": history(5), "horizon_windows": 2}
    assert client.post("/v1/forecasts", body, headers=key).status_code == 200
    client.headers = {}
    assert client.post("/v1/forecasts", body, headers=key).status_code == 401


def test_while_the_first_request_is_under_way_a_repeat_is_told_so(deployment, client):
    path = f"/v1/plans/{make_plan(client)['plan_id']}"
    client.post(f"{path}/approve")
    target = deployment.actuator
    target.goes_on = threading.Event()
    answers = []
    key = {"Idempotency-Key": "k"}
    first = threading.Thread(
        target=lambda: answers.append(client.post(f"{path}/apply", headers=key))
    )
    first.start()
    assert target.reached.wait(30)
    meanwhile = client.post(f"{path}/apply", headers=key)
    target.goes_on.set()
    first.join(30)
    assert (meanwhile.status_code, meanwhile.json()["type"]) == (
        409,
        "urn:poolwise:problem:request-under-way",
    )
    assert meanwhile.headers["retry-after"] == "1"
    assert answers[0].status_code == 200
    assert client.post(f"{path}/apply", headers=key).text == answers[0].text


def test_after_a_refusal_the_key_is_free_again(client):
    path = f"/v1/plans/{make_plan(client)['plan_id']}"
    key = {"Idempotency-Key": "k"}
    assert client.post(f"{path}/apply", headers=key).status_code == 409
    client.post(f"{path}/approve")
    assert client.post(f"{path}/apply", headers=key).status_code == 200


def test_the_key_of_a_process_that_died_over_it_is_free_again(deployment, client):
    clock = [NOON]
    moving = replace(deployment, clock=lambda: clock[0])
    died, other = client_of(moving), client_of(moving)
    body = {"history": history(5), "horizon_windows": 2}
    # Whoever begins says farewell for those of its own process number: both are of this one.
    assert other.post("/v1/forecasts", body, headers={"Idempotency-Key": "j"}).status_code == 200
    repeats = died.app.state.repeats
    claim = Claim(actor="ann", key="k", fingerprint="x", owner=repeats.presence.identity)
    assert repeats.claim(claim, at=NOON) is None  # and then it is gone without a word
    key = {"Idempotency-Key": "k"}
    refused = other.post("/v1/forecasts", body, headers=key)
    assert refused.json()["type"] == "urn:poolwise:problem:idempotency-key-reused"
    repeats.presence.end()
    clock[0] = NOON + timedelta(seconds=31)
    assert other.post("/v1/forecasts", body, headers=key).status_code == 200


def test_a_kept_answer_goes_after_a_day(deployment):
    clock = [NOON]
    client = client_of(replace(deployment, clock=lambda: clock[0]))
    key, body = {"Idempotency-Key": "k"}, {"history": history(5), "horizon_windows": 2}
    client.post("/v1/forecasts", body, headers=key)
    clock[0] = NOON + timedelta(hours=24, seconds=1)
    again = client.post("/v1/forecasts", {**body, "seed": 2}, headers=key)
    assert again.status_code == 200


@pytest.mark.parametrize("key", ["", "with space", "x" * 256])
def test_a_key_that_is_none_is_a_problem(client, key):
    answer = client.post("/v1/forecasts", {"history": history(5)}, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert "idempotency-key" in answer.json()["errors"][0]["field"]


def test_a_problem_points_to_the_field_and_says_what_was_expected(client):
    windows = history(2)
    windows[1]["window_s"] = "long"
    windows[0]["ttft_p95_ms"] = 12
    problem = client.post("/v1/forecasts", {"history": windows, "a/b": 1}).json()
    told = {error["pointer"]: error for error in problem["errors"]}
    assert (
        told["#/history/1/window_s"]["problem"] == "input should be a number, not text or a boolean"
    )
    assert told["#/history/1/window_s"]["got"] == '"long"'
    assert "in seconds" in told["#/history/0/ttft_p95_ms"]["problem"]
    assert "`ttft_p95_s`" in told["#/history/0/ttft_p95_ms"]["problem"]
    assert "#/a~1b" in told


def test_a_body_that_is_no_json_is_told_so(client):
    answer = client.post(
        "/v1/forecasts",
        content=json.dumps({"history": history(1)})[:-3],
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:poolwise:problem:malformed-json"
