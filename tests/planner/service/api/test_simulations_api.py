"""`POST /v1/simulations`: every source of requests, every circumstance, and its limits."""

import pytest

from planner.service.api import create_app
from planner.service.api.simulations import EXAMPLES
from tests.planner.service.answers.test_circumstances import LINKS
from tests.planner.service.clients import Client, service_of
from tests.planner.service.examples import NOON, fleet, history, pool
from tests.planner.service.imagined import BUSY, make_deployment

PATH = "/v1/simulations"
COUNT = 100
REQUESTS = {
    "start_at": NOON.isoformat(),
    "arrival_offset_s": [0.1 * i for i in range(COUNT)],
    "input_tokens": [500] * COUNT,
    "output_tokens": [20] * COUNT,
}
SHAPE = {"input_tokens": [500], "output_tokens": [20], "cached_tokens": [0], "weight": [1.0]}


def generated(rate_rps=5.0, duration_s=60.0, **more):
    classes = [{"request_rate_rps": rate_rps, "shape": SHAPE, **more}]
    return {"classes": classes, "duration_s": duration_s}


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    deployment = make_deployment(tmp_path_factory.mktemp("api"))
    yield Client(create_app(service_of(deployment, insecure_local=True)), None)
    deployment.store.close()


@pytest.fixture(scope="module")
def answer(client):
    def ask(**body):
        got = client.post(PATH, body)
        assert got.status_code == 200, got.text
        return got.json()

    return ask


@pytest.fixture(scope="module")
def refusal(client):
    def ask(**body):
        got = client.post(PATH, body)
        assert got.status_code == 422, got.text
        assert got.headers["content-type"] == "application/problem+json"
        problem = got.json()
        return " ".join(
            [problem["detail"], *(f"{e['field']} {e['problem']}" for e in problem["errors"])]
        )

    return ask


def test_the_documentation_shows_examples_that_work_as_they_stand(client, answer):
    described = client.get("/openapi.json").json()["paths"][PATH]["post"]["requestBody"]
    shown = described["content"]["application/json"]["examples"]
    assert shown.keys() == EXAMPLES.keys() == {"replay", "futures"}
    assert answer(**shown["replay"]["value"])["series"]["pools"][0]["ready"][0] == 1
    assert answer(**shown["futures"]["value"])["futures"]["most"] == 32


def test_given_requests_are_replayed_on_the_fleet_that_runs(answer):
    found = answer(requests=REQUESTS)
    assert (found["requests"], found["outcomes"]["finished"], found["futures"]) == (100, 100, None)
    assert (found["holds"], found["stopped"], found["series"]) == (True, None, None)
    assert found["classes"][0]["attainment_low_ratio"] is None
    assert found["predicted"]["attainment_low_ratio"] > 0.9


def test_the_promise_holds_or_not_or_it_is_not_clear_yet(answer):
    futures = {"generated": generated(), "futures": 8}
    assert answer(**futures)["holds"] is True
    assert answer(**futures, patience_s=0.2)["holds"] is False
    alone = answer(**{**futures, "futures": 1})
    assert (alone["holds"], alone["classes"][0]["holds"]) == (None, None)
    assert alone["futures"]["half_width_ratio"] is None


def test_a_sequential_run_says_why_it_ended(answer):
    clear = answer(generated=generated(), until_clear=True)["futures"]
    assert (clear["ended_by"], clear["count"], clear["most"]) == ("clear", 8, 256)
    precise = answer(generated=generated(), precision_ratio=0.02)["futures"]
    assert precise["ended_by"] == "precision"
    assert precise["half_width_ratio"] <= 0.02


def test_series_have_a_value_per_pool_and_instant(answer):
    series = answer(requests=REQUESTS, series=True)["series"]
    lengths = {len(p[name]) for p in series["pools"] for name in p if name != "pool"}
    assert lengths == {len(series["t_s"])}
    assert len(series["pools"]) == 2
    assert series["t_s"] == sorted(series["t_s"])


def test_futures_are_like_the_given_requests(answer):
    found = answer(requests=REQUESTS, futures=4)
    assert found["futures"]["count"] == 4
    assert 300 < found["requests"] < 500


def test_futures_find_as_much_cached_as_the_replicas_kept(answer):
    shared = {"prefix_block_tokens": 240, "prefix_block_ids": [[1, i + 2] for i in range(COUNT)]}
    replayed = answer(requests={**REQUESTS, **shared})
    drawn = answer(requests={**REQUESTS, **shared}, futures=2)
    assert drawn["cached_ratio"] == pytest.approx(replayed["cached_ratio"], abs=0.01)
    assert "as these replicas did" in drawn["flags"][0]


def test_futures_are_drawn_from_a_forecast_and_its_quantiles(client, answer, refusal):
    forecast = client.post("/v1/forecasts", {"history": history(requests=300)}).json()
    high = answer(forecast=forecast, futures=2, demand_level=0.95)
    low = answer(forecast=forecast, futures=2, demand_level=0.05)
    assert high["requests"] >= low["requests"] > 0
    assert "windows 0 to 1, not 5" in refusal(forecast=forecast, window=5)
    assert "for model big" in refusal(forecast={**forecast, "model": "big"})


def test_a_rate_may_be_known_by_quantiles(answer):
    rate = {"levels": [0.1, 0.9], "values": [1.0, 9.0]}
    wide = answer(generated=generated(rate), futures=6)
    assert 6 * 60 * 1.0 < wide["requests"] < 6 * 60 * 9.0


def test_a_stored_plan_is_simulated_window_by_window(client, answer, refusal):
    plan = client.post("/v1/plans", {"history": history(**BUSY)}).json()
    found = answer(requests=REQUESTS, plan_id=plan["plan_id"], window=1)
    planned = {p["role"]: p["replicas"] for p in plan["windows"][1]["pools"]}
    assert {p["role"]: p["replicas"] for p in found["pools"]} == planned
    assert "windows 0 to 1, not 2" in refusal(requests=REQUESTS, plan_id=plan["plan_id"], window=2)
    assert client.post(PATH, {"requests": REQUESTS, "plan_id": "plan-none"}).status_code == 404


def test_circumstances_reach_the_twin(answer):
    usual = answer(requests=REQUESTS, fleet=fleet(2, 1))
    places = [{"pool": "prefill:cpu:tp1", "places": [{"node": 0}, {"node": 1}]}]
    slow = {**LINKS["same_node"], "flow_bytes_per_s": 1e7}
    topology = {"links": {**LINKS, "same_node": slow, "same_rack": slow}, "pools": places}
    event = {"at_s": 2, "incident": "fail", "pool": 0, "replica": 0, "restarts": False}
    far = answer(requests=REQUESTS, fleet=fleet(2, 1), topology=topology)
    fewer = answer(requests=REQUESTS, fleet=fleet(2, 1), events=[event])
    assert far["latency"]["ttft_p50_s"] > usual["latency"]["ttft_p50_s"] + 0.1
    assert fewer["accelerator_hours"] < usual["accelerator_hours"]


def test_blocks_that_requests_share_are_found_again(answer):
    shared = {"prefix_block_tokens": 240, "prefix_block_ids": [[1, i + 2] for i in range(COUNT)]}
    found = answer(requests={**REQUESTS, **shared}, router="prefix_aware")
    assert found["flags"] == []
    assert 0.4 < found["cached_ratio"] < 0.5
    assert answer(requests={**REQUESTS, **shared}, prefix_cache=False)["cached_ratio"] == 0.0


def test_overload_is_an_answer_that_says_when_and_why(answer):
    found = answer(generated=generated(rate_rps=60.0), futures=2, unstable_wait_s=5)
    assert (found["holds"], found["futures"]["stopped"]) == (False, 2)
    assert found["stopped"]["reason"].startswith("pool ")
    assert found["outcomes"]["not_arrived"] > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"requests": None}, "give one of requests, generated and forecast"),
        ({"generated": generated()}, "give one of requests, generated and forecast"),
        ({"plan_id": "x", "fleet": fleet()}, "give plan_id or fleet, not both"),
        ({"fleet": {"pools": []}}, "nothing can serve"),
        ({"fleet": {"pools": [pool("prefill", 10**6), pool("decode", 1)]}}, "1,000,001 replicas"),
        ({"router": "best"}, "body.router"),
        ({"events": [{"at_s": 1, "incident": "fail", "pool": 5, "replica": 0}]}, "names pool 5"),
        ({"topology": {"links": {}}}, "body.topology.links.same_node Field required"),
        ({"longest_prompts": [{"pool": 0, "tokens": 5}]}, "the router is least_loaded"),
        ({"patience_s": 0}, "body.patience_s"),
        ({"futures": 0}, "body.futures"),
        ({"demand_level": 1.5}, "body.demand_level"),
        ({"windows": 1}, "body.windows"),
    ],
)
def test_a_question_that_is_none_is_a_problem_that_says_where(refusal, change, said):
    body = {"requests": REQUESTS, **change}
    assert said in refusal(**{key: value for key, value in body.items() if value is not None})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"input_tokens": [500]}, "requests: "),
        (
            {"arrival_offset_s": [5.0, 1.0, *range(2, COUNT)]},
            "arrival_offset_s[1] (1 s) lies before",
        ),
        ({"duration_s": 1.0}, "requests: duration_s"),
        ({"prefix_block_ids": [[1]] * COUNT}, "prefix_block_tokens go together"),
        ({"prefix_block_ids": [[1]], "prefix_block_tokens": 9}, "prefix_block_ids has 1 row"),
        (
            {"prefix_block_ids": [[1, 2, 3, 4]] * COUNT, "prefix_block_tokens": 200},
            "names 4 blocks of 200 tokens, more than its prompt of",
        ),
        ({"output_tokens": [0] * COUNT}, "body.requests.output_tokens[0]"),
        ({"request_class": [""] * COUNT}, "body.requests.request_class[0]"),
    ],
)
def test_requests_that_are_none_are_a_problem_that_says_where(refusal, change, said):
    assert said in refusal(requests={**REQUESTS, **change})


def test_no_more_is_simulated_than_the_caller_can_wait_for(answer, refusal):
    busy = generated(rate_rps=100.0, duration_s=3600.0)
    assert "ask for fewer futures" in refusal(generated=busy, futures=10)
    assert "(1 x 3,600,000,000)" in refusal(generated=generated(1e6, 3600.0))
    modest = answer(generated=generated(rate_rps=100.0, duration_s=200.0), fleet=fleet(8, 8))
    assert modest["futures"]["count"] == 20


def test_futures_run_through_all_windows_of_a_forecast(client, answer, refusal):
    forecast = client.post("/v1/forecasts", {"history": history(**BUSY)}).json()
    ready = fleet(30, 10)
    found = answer(forecast=forecast, all_windows=True, futures=2, fleet=ready)
    assert found["duration_s"] == 120.0
    assert any("past forecasts" in flag or "one level" in flag for flag in found["flags"])
    assert "all_windows goes with forecast" in refusal(generated=generated(), all_windows=True)
    asked = {"forecast": forecast, "all_windows": True, "demand_level": 0.5}
    assert "without demand_level" in refusal(**asked)
