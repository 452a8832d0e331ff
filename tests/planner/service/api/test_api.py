"""The API over its transport: contract, conflicts, problems, tokens."""

import json
from datetime import timedelta
from functools import partial

import pytest

from planner.rollout import begin
from planner.service.api import Service
from profiler.files import profile_document
from tests.fakes.profiles import linear_profile
from tests.planner.service.clients import client_of, make_plan
from tests.planner.service.examples import NOON, fleet, history, pool, spec_data, window
from tests.planner.service.imagined import BUSY, make_deployment
from tests.planner.service.plans import example_fleet, example_record


@pytest.fixture
def make(tmp_path):
    """A deployment and a client that may write."""
    made = []

    def client(*, max_body_bytes=2**20, insecure_local=False, **changes):
        deployment = make_deployment(tmp_path, **changes)
        made.append(deployment)
        return deployment, client_of(
            deployment, max_body_bytes=max_body_bytes, insecure_local=insecure_local
        )

    yield client
    for deployment in made:
        deployment.store.close()


def test_a_plan_is_made_approved_and_applied_once(make):
    deployment, client = make()
    plan = make_plan(client)
    assert plan["approval"]["state"] == "pending"
    assert plan["status"] in ("optimal", "feasible")
    assert plan["diff"]["steps"]
    path = f"/v1/plans/{plan['plan_id']}"
    assert client.post(f"{path}/approve", {"reason": "looks right"}).status_code == 200
    applied = client.post(f"{path}/apply")
    assert applied.json()["approval"]["state"] == "applied"
    steps = len(deployment.actuator.done)
    assert client.post(f"{path}/apply").json()["approval"]["state"] == "applied"
    assert len(deployment.actuator.done) == steps == len(plan["diff"]["steps"])
    states = [a["state"] for a in client.get(f"{path}/approvals").json()["approvals"]]
    assert states == ["pending", "approved", "applying", "applied"]
    assert client.get(path).json()["approval"]["changed_by"] == "ann"


def test_the_plan_resource_keeps_the_keys_of_the_plan_document(make):
    _, client = make()
    plan = make_plan(client)
    for key in ("status", "usd_per_hour", "windows", "binding", "rejected", "solver", "inputs"):
        assert key in plan
    assert client.get("/v1/plans").json()["plans"][0]["plan_id"] == plan["plan_id"]
    assert client.get("/v1/plans?state=rejected").json()["plans"] == []


def test_a_plan_may_have_another_objective_and_prices_of_small_changes(make):
    _, client = make()
    plain = make_plan(client)
    told = make_plan(client, explain=True, objective="accelerators")
    assert plain["shadow_prices"] == []
    keys = {"change", "usd_per_hour", "sentence", "more", "unit"}
    assert keys == told["shadow_prices"][0].keys()
    assert {price["unit"] for price in told["shadow_prices"]} == {"accelerators"}
    stored = client.get(f"/v1/plans/{told['plan_id']}").json()
    assert stored["shadow_prices"] == told["shadow_prices"]
    refused = client.post("/v1/plans", {"history": history(**BUSY), "objective": "fame"})
    assert refused.status_code == 422


def test_a_plan_for_a_fleet_that_has_changed_is_refused_and_superseded(make):
    deployment, client = make()
    path = f"/v1/plans/{make_plan(client)['plan_id']}"
    client.post(f"{path}/approve")
    deployment.actuator.fleet = example_fleet(1, 2)
    answer = client.post(f"{path}/apply")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:poolwise:problem:stale-plan")
    assert deployment.actuator.done == []
    assert client.get(path).json()["approval"]["state"] == "superseded"


def test_only_an_approved_plan_is_applied(make):
    deployment, client = make()
    path = f"/v1/plans/{make_plan(client)['plan_id']}"
    assert client.post(f"{path}/apply").status_code == 409
    assert client.post(f"{path}/reject", {"reason": "no"}).json()["approval"]["state"] == "rejected"
    assert client.post(f"{path}/reject").status_code == 200
    assert client.post(f"{path}/approve").status_code == 409
    assert client.post(f"{path}/apply").status_code == 409
    assert deployment.actuator.done == []


def test_an_approval_is_taken_back_before_the_plan_is_begun(make):
    deployment, client = make()
    deployment.store.add_plan(example_record("plan-1", at=NOON), actor="ann")
    path = "/v1/plans/plan-1"
    assert client.post(f"{path}/approve").status_code == 200
    taken_back = client.post(f"{path}/reject", {"reason": "the launch is off"})
    assert taken_back.json()["approval"]["state"] == "rejected"
    assert client.post(f"{path}/apply").status_code == 409
    assert deployment.actuator.done == []
    last = deployment.store.audit(limit=1)[0]
    assert (last.action, last.actor, last.detail) == ("plan.reject", "ann", "the launch is off")


def test_a_plan_that_is_being_applied_cannot_be_rejected_any_more(make):
    deployment, client = make()
    deployment.store.add_plan(example_record("plan-1", at=NOON), actor="ann")
    assert client.post("/v1/plans/plan-1/approve").status_code == 200
    begun = partial(begin, by="ann", at=NOON)
    deployment.store.change_approval("plan-1", begun, action="plan.begin")
    refused = client.post("/v1/plans/plan-1/reject")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:poolwise:problem:plan-state")
    assert "it is too late to reject it" in refused.json()["detail"]


def test_a_newer_plan_supersedes_the_waiting_one(make):
    _, client = make()
    first = make_plan(client)["plan_id"]
    second = make_plan(client, history=history(requests=2000, isl=900, osl=90))["plan_id"]
    assert client.get(f"/v1/plans/{first}").json()["approval"]["state"] == "superseded"
    assert client.get(f"/v1/plans/{second}").json()["approval"]["state"] == "pending"


def test_equal_inputs_give_the_stored_plan(make):
    _, client = make()
    assert make_plan(client)["plan_id"] == make_plan(client)["plan_id"]
    assert len(client.get("/v1/plans").json()["plans"]) == 1


def test_a_plan_that_is_dead_is_made_anew_and_can_be_approved(make):
    _, client = make()
    other = {"history": history(requests=2000, isl=900, osl=90)}
    first, second = make_plan(client)["plan_id"], make_plan(client, **other)["plan_id"]
    again = make_plan(client)
    assert again["plan_id"] == f"{first}-2"
    assert again["diff"]["plan_id"] == again["plan_id"]
    assert again["approval"]["state"] == "pending"
    for dead in (first, second):
        assert client.get(f"/v1/plans/{dead}").json()["approval"]["state"] == "superseded"
    assert make_plan(client)["plan_id"] == again["plan_id"]  # while that one lives
    assert client.post(f"/v1/plans/{again['plan_id']}/reject").status_code == 200
    third = make_plan(client)
    assert (third["plan_id"], third["approval"]["state"]) == (f"{first}-3", "pending")
    assert client.post(f"/v1/plans/{third['plan_id']}/approve").status_code == 200


def test_asking_for_an_applied_plan_again_supersedes_nothing(make):
    deployment, client = make()
    before = deployment.actuator.fleet
    applied = f"/v1/plans/{make_plan(client)['plan_id']}"
    client.post(f"{applied}/approve")
    client.post(f"{applied}/apply")
    deployment.actuator.fleet = before
    waits = make_plan(client, history=history(requests=2000, isl=900, osl=90))["plan_id"]
    assert make_plan(client)["approval"]["state"] == "applied"
    assert client.get(f"/v1/plans/{waits}").json()["approval"]["state"] == "pending"


def test_a_plan_comes_from_stored_observations_too(make):
    _, client = make()
    path = "/v1/deployments/shop/observations"
    assert client.post(path, {"history": history(**BUSY)}).json() == {"windows": 20}
    answer = client.post("/v1/plans", {})
    assert answer.status_code == 201
    assert answer.json()["windows"][0]["start_at"] == NOON.isoformat().replace("+00:00", "Z")


def test_what_is_yet_to_come_was_not_observed(make):
    """It would be the newest until then: nothing else would count, and nothing look stale."""
    deployment, client = make()
    here = "/v1/deployments/shop"
    waits = {"waiting_prompt_tokens": 9, "decoding_sequences": 1}
    for path, method, body in (
        (f"{here}/observations", "POST", {"history": [*history(3), window(60 * 24 * 365)]}),
        (f"{here}/backlog", "PUT", {"observed_at": "2062-11-02T12:00:00Z", **waits}),
    ):
        answer = client.request(method, path, json=body)
        assert answer.status_code == 422
        assert "is a clock or a time zone wrong?" in answer.json()["detail"]
    assert deployment.store.windows("shop", "tiny", limit=9) == ()
    assert client.post(f"{here}/observations", {"history": [window(0)]}).status_code == 201


def test_history_that_is_handed_in_is_planned_for_its_own_time(make, monkeypatch):
    _, client = make()
    fresh = make_plan(client)
    later = NOON + timedelta(hours=3)
    monkeypatch.setattr(Service, "now", lambda _self: later)
    old = make_plan(client)
    assert old["windows"] == fresh["windows"]
    assert old["status"] == fresh["status"]


def test_without_observations_a_plan_is_refused(make):
    _, client = make()
    answer = client.post("/v1/plans", {})
    assert answer.status_code == 422
    assert "no data is not zero traffic" in answer.json()["detail"]


def test_a_forecast_may_be_planned_for(make):
    _, client = make()
    forecast = client.post("/v1/forecasts", {"history": history(**BUSY)}).json()
    assert len(forecast["windows"]) == 2
    plan = make_plan(client, history=None, forecast=forecast)
    assert plan["inputs"]["forecast_id"] == forecast["forecast_id"]
    other = {**forecast, "model": "big"}
    refused = client.post("/v1/plans", {"forecast": other})
    assert (refused.status_code, "big" in refused.json()["detail"]) == (422, True)


def test_a_recommendation_has_the_promised_keys_and_stores_nothing(make):
    deployment, client = make()
    body = {"history": history(**BUSY), "fleet": fleet()}
    answer = client.post("/v1/recommendations", body)
    assert answer.status_code == 200, answer.text
    data = answer.json()
    assert data.keys() >= {"pools", "forecast", "plan_id"}
    keys = {"role", "accelerator", "tp", "replicas", "replicas_now", "reason"}
    assert all(p.keys() >= keys and p["reason"] for p in data["pools"])
    by_role = {p["role"]: p for p in data["pools"]}
    assert by_role["prefill"]["replicas"] > by_role["prefill"]["replicas_now"] == 1
    assert deployment.store.plans("shop", limit=9) == ()


def test_a_recommendation_says_nothing_of_windows_after_its_instant(make):
    _, client = make()
    body = {"history": history(), "fleet": fleet(), "now": NOON.isoformat()}
    plain = client.post("/v1/recommendations", body)
    later = [window(0, requests=-5), window(1, request_class="gold")]
    odd = client.post("/v1/recommendations", {**body, "history": [*history(), *later]})
    assert (odd.status_code, odd.json()) == (200, plain.json())


def test_a_recommendation_remarks_on_answers_that_were_not_counted(make):
    _, client = make()
    silent = [{**w, "output_tokens": 0} for w in history()]
    answer = client.post("/v1/recommendations", {"history": silent, "fleet": fleet()}).json()
    assert "without a single output token" in answer["forecast"]["notes"][0]


def test_a_recommendation_may_bring_its_own_spec(make):
    _, client = make()
    profile = profile_document(linear_profile()).model_dump(mode="json", exclude={"profile_id"})
    body = {"history": history(), "fleet": fleet(), "spec": spec_data(profiles=[profile])}
    assert client.post("/v1/recommendations", body).status_code == 200
    body["spec"]["profiles"] = ["/etc/passwd"]
    refused = client.post("/v1/recommendations", body)
    assert refused.status_code == 422
    assert "may not" in refused.json()["detail"]


def test_a_simulation_answers_latencies(make):
    _, client = make()
    requests = {
        "start_at": NOON.isoformat(),
        "arrival_offset_s": [0.1 * i for i in range(100)],
        "input_tokens": [500] * 100,
        "output_tokens": [20] * 100,
    }
    answer = client.post("/v1/simulations", {"requests": requests})
    assert answer.status_code == 200, answer.text
    assert answer.json()["latency"]["attainment_ratio"] == 1.0
    assert answer.json()["requests"] == 100
    nothing = client.post("/v1/simulations", {"requests": requests, "fleet": {"pools": []}})
    assert nothing.status_code == 422
    requests["input_tokens"] = [500]
    assert client.post("/v1/simulations", {"requests": requests}).status_code == 422


def test_the_fleet_is_handed_in_and_read(make):
    _, client = make()
    assert client.put("/v1/deployments/shop/fleet", fleet(2, 3)).status_code == 200
    seen = client.get("/v1/deployments/shop/fleet").json()
    assert seen["pools"][0]["ready"] == 1  # the imagined target reads its own fleet
    bad = client.put("/v1/deployments/shop/fleet", {"pools": [pool("decode", 1, model="tny")]})
    assert (bad.status_code, "did you mean `tiny`" in bad.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/none", 404),
        ("GET", "/v1/plans/plan-9", 404),
        ("POST", "/v1/plans/plan-9/approve", 404),
        ("POST", "/v1/plans/plan-9/apply", 404),
        ("GET", "/v1/deployments/other/fleet", 404),
        ("PUT", "/v1/deployments/other/fleet", 404),
        ("PUT", "/v1/deployments/shop/fleet", 422),
        ("DELETE", "/v1/plans", 405),
        ("GET", "/v1/recommendations", 405),
        ("POST", "/v1/recommendations", 422),
        ("GET", "/v1/plans?limit=0", 422),
        ("GET", "/v1/plans?state=happy", 422),
        ("GET", "/v1/plans/%00", 404),
    ],
)
def test_every_error_is_a_problem(make, method, path, status):
    _, client = make()
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:poolwise:problem:")
    assert problem["detail"]


@pytest.mark.parametrize("body", ["{", "[]", '"x"', "null", '{"histroy": []}', '{"history": 3}'])
def test_a_malformed_body_is_a_problem_that_names_the_field(make, body):
    _, client = make()
    answer = client.post(
        "/v1/recommendations", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["field"].startswith("body")


def test_an_unexpected_error_is_a_problem_without_its_inside(make):
    deployment, client = make()
    deployment.actuator.fleet = None
    answer = client.get("/v1/deployments/shop/fleet")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text


def test_a_body_above_the_limit_is_refused_told_or_not(make):
    _, client = make(max_body_bytes=1000)
    big = json.dumps({"history": history()})
    told = client.post("/v1/forecasts", content=big, headers={"Content-Type": "application/json"})

    async def pieces():
        for start in range(0, len(big), 100):
            yield big[start : start + 100].encode()

    untold = client.post(
        "/v1/forecasts", content=pieces(), headers={"Content-Type": "application/json"}
    )
    for answer in (told, untold):
        assert answer.status_code == 413
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("header", [None, "Bearer ", "Bearer wrong", "Basic abc", "pw_x"])
def test_writes_without_the_token_are_refused(make, header):
    _, client = make()
    client.headers = {} if header is None else {"Authorization": header}
    answer = client.post("/v1/plans", {"history": history(1), "fleet": fleet()})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_local_server_without_token_accepts_writes_that_name_this_machine(make):
    _, client = make(insecure_local=True)
    client.headers = {}
    assert client.post("/v1/forecasts", {"history": history()}).status_code == 200
    client.headers = {"Host": "evil.example"}
    assert client.post("/v1/forecasts", {"history": history()}).status_code == 403


def test_health_and_metrics_answer(make):
    _, client = make()
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    assert 'poolwise_http_requests_total{method="GET",status="200"} 2.0' in metrics.text


def test_decisions_are_listed(make):
    from planner.service.loop.slow_tick import tick

    deployment, client = make()
    tick(deployment, now=NOON)
    listed = client.get("/v1/deployments/shop/decisions").json()["decisions"]
    assert [d["outcome"] for d in listed] == ["no_data"]


def test_a_process_that_is_alone_leads(make):
    _, client = make()
    told = client.get("/v1/leader").json()
    assert (told["leads"], told["leader"], told["term"]) == (True, told["identity"], None)
