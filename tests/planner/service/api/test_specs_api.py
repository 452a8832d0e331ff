"""The spec of a running server: looked at, replaced, followed by others, there after a restart."""

import json
import time

import httpx
import pytest
import yaml

from planner.service.api.examples import FLEET, PROFILE, SPEC
from tests.planner.service.examples import history
from tests.planner.service.imagined import BUSY
from tests.planner.service.served import served

HERE = "/v1/deployments/demo"


@pytest.fixture
def folder(tmp_path):
    """A spec whose profile and model config lie in files beside it."""
    (tmp_path / "tiny.json").write_text(json.dumps(PROFILE))
    (tmp_path / "config.json").write_text(json.dumps(SPEC["models"][0]["config"]))
    write(tmp_path)
    return tmp_path


def write(folder, **changes):
    models = [{"name": "tiny", "config": "config.json"}]
    spec = {**SPEC, "models": models, "profiles": ["tiny.json"], **changes}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))


def promising(ttft_s):
    return {**SPEC, "slos": [{**SPEC["slos"][0], "ttft_s": ttft_s}]}


def serving(folder):
    return served(folder, "--insecure-local")


def client_of(facts):
    return httpx.Client(base_url=facts["url"], timeout=120)


def make_plan(client):
    client.put(f"{HERE}/fleet", json=FLEET)
    answer = client.post(
        "/v1/plans", json={"history": history(**BUSY)}, headers={"Prefer": "wait=100"}
    )
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_spec_is_replaced_by_the_one_that_was_shown_and_stays_after_a_restart(folder):
    with serving(folder) as (_, facts), client_of(facts) as client:
        shown = client.get(HERE)
        assert (shown.json()["version"], shown.json()["put_by"]) == (1, "serve")
        same = client.put(HERE, json=shown.json()["spec"])
        assert (same.status_code, same.json()["version"]) == (200, 1), same.text
        plan = make_plan(client)
        stricter = client.put(
            HERE, json=promising(0.45), headers={"If-Match": shown.headers["etag"]}
        ).json()
        assert (stricter["version"], stricter["put_by"]) == (2, "local")
        assert stricter["spec_id"] != shown.json()["spec_id"]
        left = client.get(f"/v1/plans/{plan['plan_id']}").json()["approval"]
        assert left["state"] == "superseded"
        assert left["reason"].startswith("a spec changed under a pending plan")
        assert client.post(f"/v1/plans/{plan['plan_id']}/approve").status_code == 409
        stale = client.put(HERE, json=promising(0.2), headers={"If-Match": shown.headers["etag"]})
        assert (stale.status_code, stale.json()["type"]) == (
            412,
            "urn:poolwise:problem:spec-changed",
        )
        assert "version 2" in stale.json()["detail"]
        fresh = make_plan(client)
        assert fresh["inputs"]["spec_id"] == stricter["spec_id"]
        assert client.get(f"{HERE}/slo").json()["classes"][0]["ttft_s"] == 0.45
    with serving(folder) as (_, facts), client_of(facts) as client:
        assert client.get(HERE).json() == stricter
        kept = client.get(f"/v1/plans/{fresh['plan_id']}").json()["approval"]
        assert kept == fresh["approval"]
    write(folder, slos=promising(0.48)["slos"])
    with serving(folder) as (_, facts), client_of(facts) as client:
        again = client.get(HERE).json()
        assert (again["version"], again["put_by"]) == (3, "serve")
        assert again["spec"]["slos"][0]["ttft_s"] == 0.48
        assert (
            client.get(f"/v1/plans/{fresh['plan_id']}").json()["approval"]["state"] == "superseded"
        )


def test_another_process_follows(folder):
    with (
        serving(folder) as (_, one),
        serving(folder) as (_, other),
        client_of(one) as first,
        client_of(other) as second,
    ):
        put = first.put(HERE, json=promising(0.45)).json()
        until = time.monotonic() + 60
        while (seen := second.get(HERE).json())["version"] != 2:
            assert time.monotonic() < until, seen
            time.sleep(0.2)
        assert seen == put


def test_what_a_server_cannot_become_is_refused_as_a_whole(folder):
    with serving(folder) as (_, facts), client_of(facts) as client:
        before = client.get(HERE).json()
        refused = {
            "name": {**SPEC, "name": "mill"},
            "target.kind": {**SPEC, "target": {"kind": "metrics"}},
            "ttft_s": promising(500),
            "did you mean `tiny`": {**SPEC, "pools": [{**SPEC["pools"][0], "model": "tny"}]},
            "no profile": {**SPEC, "profiles": ["profile-9"]},
            "milliseconds": {
                **SPEC,
                "slos": [{"model": "tiny", "ttft_ms": 500, "tpot_s": 0.1}],
            },
            "apiVersion": {},
        }
        for told, spec in refused.items():
            answer = client.put(HERE, json=spec)
            assert answer.status_code == 422, told
            assert told in answer.json()["detail"], answer.json()
        assert client.put("/v1/deployments/mill", json=SPEC).status_code == 422  # names another
        assert client.get(HERE).json() == before


def test_a_spec_names_profiles_that_were_handed_in_by_their_ids(folder):
    slower = {**PROFILE, "first_token_s": 0.1}
    with serving(folder) as (_, facts), client_of(facts) as client:
        (in_use,) = client.get("/v1/profiles").json()["in_use"]
        added = client.post("/v1/profiles", json=slower)
        assert added.status_code == 201
        profile_id = added.json()["profile_id"]
        assert added.headers["location"] == f"/v1/profiles/{profile_id}"
        assert client.post("/v1/profiles", json=slower).json() == added.json()
        listed = client.get("/v1/profiles").json()
        assert [p["profile_id"] for p in listed["profiles"]] == [profile_id]
        put = client.put(HERE, json={**SPEC, "profiles": [profile_id]})
        assert put.status_code == 200, put.text
        assert put.json()["spec"]["profiles"][0]["first_token_s"] == 0.1
        kept = client.get(f"/v1/profiles/{profile_id}").json()["profile"]
        assert kept["first_token_s"] == 0.1
        assert client.get(f"/v1/profiles/{in_use['profile_id']}").status_code == 404
        assert [p["profile_id"] for p in client.get("/v1/profiles").json()["in_use"]] == [
            profile_id
        ]
        wrong = client.post("/v1/profiles", json={**slower, "tp": 0})
        assert (wrong.status_code, "tp" in wrong.json()["detail"]) == (422, True)
        assert client.get("/v1/profiles/p-9").status_code == 404


def test_who_has_to_approve_is_changed_by_admins_only(folder):
    strict = {"requester_may_approve": False}
    write(folder, approval=strict)
    with served(folder) as (_, facts), client_of(facts) as client:
        admin = {"Authorization": f"Bearer {facts['token']}"}
        made = client.post(
            "/v1/tokens", json={"name": "ann", "role": "approver"}, headers=admin
        ).json()
        ann = {"Authorization": f"Bearer {made['token']}"}
        for loose in ({}, {"approval": {**strict, "auto_below_replicas": 100}}):
            refused = client.put(HERE, json={**SPEC, **loose}, headers=ann)
            assert (refused.status_code, "by admins only" in refused.text) == (403, True)
        kept = client.put(HERE, json={**promising(0.45), "approval": strict}, headers=ann)
        assert (kept.status_code, kept.json()["version"]) == (200, 2)
        assert client.put(HERE, json=SPEC, headers=admin).json()["version"] == 3
