"""Two deployments behind one API: what is asked of one is not done to the other."""

import pytest

from planner.service.api import create_app
from planner.service.api.examples import MINUTES
from tests.planner.service.clients import Client, service_of
from tests.planner.service.examples import fleet, history
from tests.planner.service.hosting.beside import beside
from tests.planner.service.imagined import BUSY, IDLE, make_deployment

GENERATED = {
    "generated": {
        "duration_s": 10,
        "classes": [
            {
                "request_rate_rps": 1.0,
                "shape": {
                    "input_tokens": [200],
                    "output_tokens": [10],
                    "cached_tokens": [0],
                    "weight": [1.0],
                },
            }
        ],
    },
    "futures": 1,
}


@pytest.fixture
def two(tmp_path):
    """(shop, mill, a client that may do everything)."""
    shop = make_deployment(tmp_path)
    tight = [{"model": "tiny", "ttft_s": 0.4, "tpot_s": 0.05, "attainment_ratio": 0.9}]
    mill = beside(shop, tmp_path / "mill", "mill", slos=tight, loop={"mode": "approve"})
    app = create_app(service_of(shop, mill, insecure_local=True, answer_within_s=600))
    yield shop, mill, Client(app, None)
    shop.store.close()


def planned(client, name, load=BUSY):
    answer = client.post("/v1/plans", {"history": history(**load), "deployment": name})
    assert answer.status_code == 201, answer.text
    return answer.json()


def listed(client, query=""):
    return [plan["plan_id"] for plan in client.get(f"/v1/plans{query}").json()["plans"]]


def test_a_plan_is_of_the_deployment_that_was_named_and_moves_no_other(two):
    shop, mill, client = two
    names = [one["name"] for one in client.get("/v1/deployments").json()["deployments"]]
    assert names == ["mill", "shop"]
    unnamed = client.post("/v1/plans", {"history": history(**BUSY)})
    assert unnamed.status_code == 422
    assert "this server plans mill, shop: name one by `deployment`" in unnamed.json()["detail"]
    unknown = client.post("/v1/plans", {"history": history(**BUSY), "deployment": "forge"})
    assert (unknown.status_code, unknown.json()["title"]) == (404, "Unknown deployment")

    plan, other = planned(client, "mill"), planned(client, "shop")
    assert (plan["deployment"], other["deployment"]) == ("mill", "shop")
    assert plan["plan_id"] != other["plan_id"]
    for verb in ("approve", "apply"):
        answer = client.post(f"/v1/plans/{plan['plan_id']}/{verb}")
        assert answer.status_code == 200, answer.text
    assert mill.actuator.done
    assert shop.actuator.done == []
    assert client.get(f"/v1/plans/{other['plan_id']}").json()["approval"]["state"] == "pending"


def test_plans_are_listed_over_all_deployments_or_of_one(two):
    _, _, client = two
    mine = [planned(client, "shop", load)["plan_id"] for load in (BUSY, IDLE)]
    theirs = [planned(client, "mill", load)["plan_id"] for load in (BUSY, IDLE)]
    assert set(listed(client)) == {*mine, *theirs}
    assert set(listed(client, "?deployment=shop")) == set(mine)
    assert client.get("/v1/plans?deployment=forge").status_code == 404
    paged, path = [], "/v1/plans?limit=1"
    while path is not None:
        page = client.get(path).json()
        paged += [plan["plan_id"] for plan in page["plans"]]
        path = page["next"] and f"/v1/plans?limit=1&cursor={page['next']}"
    assert paged == listed(client)


def test_pause_pin_and_mode_are_those_of_one_deployment(two):
    _, _, client = two
    client.post("/v1/deployments/mill/pause", {"what": "all"})
    client.put("/v1/deployments/mill/pins/decode:cpu:tp1", {"replicas": 4})
    client.put("/v1/deployments/mill/mode", {"mode": "off"})
    ordered = client.get("/v1/deployments/mill/directives").json()
    untouched = client.get("/v1/deployments/shop/directives").json()
    assert (len(ordered["directives"]), untouched["directives"]) == (4, [])
    assert (ordered["mode"], untouched["mode"]) == ("off", "approve")
    # What the pause holds back of one plan, it does not of the other's.
    client.delete("/v1/deployments/mill/pins/decode:cpu:tp1")
    held, free = planned(client, "mill"), planned(client, "shop")
    assert held["diff"]["steps"] == []
    assert free["diff"]["steps"]


def test_questions_say_whose_spec_counts(two):
    _, _, client = two
    asked = {
        "/v1/recommendations": {"history": MINUTES, "fleet": fleet()},
        "/v1/forecasts": {"history": history(**IDLE)},
        "/v1/simulations": {**GENERATED, "fleet": fleet()},
    }
    for path, body in asked.items():
        assert client.post(path, body).status_code == 422, path
        answer = client.post(path, {**body, "deployment": "mill"})
        assert answer.status_code == 200, (path, answer.text)
    plan = planned(client, "mill")["plan_id"]
    assert client.post("/v1/simulations", {**GENERATED, "plan_id": plan}).status_code == 200
    wrong = client.post("/v1/simulations", {**GENERATED, "plan_id": plan, "deployment": "shop"})
    assert (wrong.status_code, "is of deployment mill" in wrong.text) == (422, True)


def test_what_is_handed_in_for_one_is_not_the_others(two):
    shop, mill, client = two
    client.post("/v1/deployments/mill/observations", {"history": history(3)})
    assert len(shop.store.windows("mill", "tiny", limit=9)) == 3
    assert shop.store.windows("shop", "tiny", limit=9) == ()
    promised = [
        client.get(f"/v1/deployments/{one.spec.name}/slo").json()["classes"][0]["ttft_s"]
        for one in (shop, mill)
    ]
    assert promised == [0.5, 0.4]
