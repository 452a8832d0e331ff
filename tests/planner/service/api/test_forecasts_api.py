"""`POST /v1/forecasts` and `GET /v1/deployments/{name}/forecast`."""

from datetime import timedelta

import numpy as np
import pytest

from planner.service.api import create_app
from planner.service.api.forecasts import EXAMPLES
from planner.service.loop.slow_tick import tick
from tests.planner.service.clients import Client, service_of
from tests.planner.service.examples import NOON, history, window
from tests.planner.service.imagined import make_deployment, observe

PATH = "/v1/forecasts"
LATEST = "/v1/deployments/shop/forecast"


@pytest.fixture
def deployment(tmp_path):
    made = make_deployment(tmp_path, loop={"mode": "advise"})
    yield made
    made.store.close()


@pytest.fixture
def client(deployment):
    return Client(create_app(service_of(deployment, insecure_local=True)), None)


@pytest.fixture
def answer(client):
    def ask(**body):
        got = client.post(PATH, body)
        assert got.status_code == 200, got.text
        return got.json()

    return ask


@pytest.fixture
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


def medians(made):
    return [
        np.interp(0.5, rate["levels"], rate["values"])
        for window_ in made["windows"]
        for rate in [window_["demands"][0]["request_rate_rps"]]
    ]


def test_the_documentation_shows_examples_that_work_as_they_stand(client, answer):
    described = client.get("/openapi.json").json()["paths"][PATH]["post"]["requestBody"]
    shown = described["content"]["application/json"]["examples"]
    assert shown.keys() == EXAMPLES.keys() == {"history", "paths"}
    launch = answer(**shown["history"]["value"])
    assert np.array(medians(launch)) / medians(launch)[0] == pytest.approx([1, 1, 2, 2, 1], rel=0.1)
    assert launch["events"][0].startswith("launch: x2")
    paths = answer(**shown["paths"]["value"])["paths"]
    assert np.array(paths["classes"][0]["request_rate_rps"]).shape == (3, 3)


def test_window_and_horizon_are_the_specs_unless_asked_for(answer):
    usual = answer(history=history())
    assert (len(usual["windows"]), usual["windows"][0]["window_s"]) == (2, 60)
    asked = answer(history=history(), window_s=120, horizon_windows=5)
    assert (len(asked["windows"]), asked["windows"][0]["window_s"]) == (5, 120)


def test_stored_windows_are_forecast_from(deployment, answer, refusal):
    assert "no data is not zero traffic" in refusal(deployment="shop")
    observe(deployment)
    made = answer(deployment="shop")
    assert made["made_at"] == NOON.isoformat().replace("+00:00", "Z")
    assert (
        made["forecast_id"] == answer()["forecast_id"] == answer(history=history())["forecast_id"]
    )


def test_nothing_after_the_instant_is_looked_at(deployment, answer):
    earlier = (NOON - timedelta(minutes=5)).isoformat()
    observe(deployment, [*history(20)[:15], *[window(i, requests=9000) for i in range(-5, 0)]])
    stored = answer(made_at=earlier)
    assert medians(stored)[0] == pytest.approx(2.0)
    assert answer(history=history(), made_at=earlier)["forecast_id"] == stored["forecast_id"]
    assert answer(history=history(), now=earlier)["forecast_id"] == stored["forecast_id"]


def test_an_event_of_an_unknown_class_is_remarked(answer):
    event = {
        "name": "launch",
        "start_at": NOON.isoformat(),
        "end_at": (NOON + timedelta(hours=1)).isoformat(),
        "rate_ratio": 2,
    }
    known = answer(history=history(20), events=[event])
    odd = answer(history=history(20), events=[{**event, "request_class": "zz"}])
    assert known["notes"] == []
    assert "the history has no class zz" in odd["notes"][0]


def test_answers_that_were_not_counted_are_remarked(answer):
    silent = [{**w, "output_tokens": 0} for w in history(20)]
    assert "without a single output token" in answer(history=silent)["notes"][0]
    few = [{**w, "output_tokens": 3} for w in history(20)]
    assert "2,400 requests with only 60 output tokens" in answer(history=few)["notes"][0]


def test_answers_that_stop_being_counted_are_remarked_and_unknown(answer):
    windows = history(20)
    counted = answer(history=windows)
    made = answer(history=[*windows[:10], *[{**w, "output_tokens": 0} for w in windows[10:]]])
    assert counted["notes"] == []
    assert "10 of 20 windows, from 2026-11-02T11:50:00+00:00" in made["notes"][0]
    assert "unknown, not as zero" in made["notes"][0]
    tokens = [m["windows"][0]["demands"][0]["output_tokens_per_s"] for m in (counted, made)]
    assert tokens[1]["values"][3] == pytest.approx(tokens[0]["values"][3], rel=0.02)


@pytest.mark.parametrize(
    "later",
    [
        [window(0), window(0)],
        [window(0) | {"output_tokens": 10**12}],
        [window(0, request_class="gold")],
        [window(5), window(0) | {"window_s": 600}],
        [window(0) | {"requests": -5}],
        [window(0) | {"requests": "5", "input_tokens": None}, {"start_at": NOON.isoformat()}],
        [window(0) | {"start_at": "2999-01-01T00:00:00Z"}],
        [window(-1) | {"window_s": 120, "request_class": "", "surprise": 3}],
    ],
)
def test_windows_after_the_instant_may_be_anything(answer, later):
    plain = answer(history=history(20), made_at=NOON.isoformat())
    altered = answer(history=[*history(20), *later], made_at=NOON.isoformat())
    assert altered == plain


def test_a_fault_of_a_past_window_is_told_with_its_place(refusal):
    windows = [window(3) | {"requests": -5}, *history(3), window(-1) | {"requests": -7}]
    assert "history[4].requests" in refusal(history=windows, made_at=NOON.isoformat())
    unread = [*history(3), window(0) | {"start_at": "later"}]
    assert "history[3].start_at" in refusal(history=unread, made_at=NOON.isoformat())
    assert "history[0].requests" in refusal(history=windows)


SHAPE = {"output_tokens": [60], "cached_tokens": [0], "weight": [1]}


def test_a_shape_must_be_of_the_windows_requests(answer, refusal):
    fitting = [window(-1, shape={**SHAPE, "input_tokens": [820]})]
    assert answer(history=fitting)["windows"][0]["demands"][0]["shape"]["input_tokens"] == [820]
    said = refusal(history=[window(-2), window(-1, shape={**SHAPE, "input_tokens": [100_000]})])
    assert "history[1]: shape.input_tokens has a mean of 1e+05 tokens a request" in said
    assert "96,000 for 120 requests, 800 each" in said
    said = refusal(
        history=[window(-1, shape={**SHAPE, "input_tokens": [800], "output_tokens": [6]})]
    )
    assert "shape.output_tokens has a mean of 6 tokens" in said


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requests", "5"),
        ("requests", True),
        ("input_tokens", "96000"),
        ("cached_tokens", False),
        ("window_s", "60"),
        ("window_s", True),
        ("ttft_p95_s", "0.2"),
        ("attainment_ratio", True),
    ],
)
def test_a_text_or_a_boolean_is_no_number(refusal, field, value):
    said = refusal(history=[window(-2), window(-1) | {field: value}])
    assert f"history[1].{field}" in said
    assert "should be a number, not text or a boolean" in said


@pytest.mark.parametrize("field", ["horizon_windows", "paths", "seed", "events[0].rate_ratio"])
@pytest.mark.parametrize("value", ["2", True])
def test_a_text_or_a_boolean_is_no_number_of_a_question_either(refusal, field, value):
    end_at = (NOON + timedelta(minutes=1)).isoformat()
    launch = {"name": "launch", "start_at": NOON.isoformat(), "end_at": end_at, "rate_ratio": value}
    asked = {"events": [launch]} if field.startswith("events") else {field: value}
    said = refusal(history=history(2), **asked)
    assert f"{field} input should be a number, not text or a boolean" in said


@pytest.mark.parametrize("moment", [1793615999, 1793615999.5, "1793615999", "1793615999000", True])
def test_a_number_is_no_instant(refusal, moment):
    for body in (
        {"history": [window(-2), window(-1) | {"start_at": moment}]},
        {"history": [window(-2), window(-1) | {"start_at": moment}], "made_at": NOON.isoformat()},
        {"history": history(2), "made_at": moment},
    ):
        assert "should be an instant in ISO 8601 with a time zone" in refusal(**body)


def test_a_poor_history_is_remarked(answer):
    assert "one request in all" in answer(history=[window(-1, requests=1)])["notes"][0]
    notes = answer(history=[window(-90), *history(20)])["notes"]
    assert "count as unknown" in notes[0]


def test_prompts_of_no_tokens_are_a_problem(refusal):
    none = [{**w, "input_tokens": 0, "output_tokens": 0, "cached_tokens": 0} for w in history(3)]
    assert "each prompt has at least 1" in refusal(history=none)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"history": []}, "no data is not zero traffic"),
        ({"history": history(2), "window_s": 0}, "window_s"),
        ({"history": history(2), "horizon_windows": 0}, "horizon_windows"),
        ({"history": history(2), "paths": 10**6}, "paths"),
        ({"history": history(2), "paths": 1000, "horizon_windows": 1000}, "ask for fewer"),
        ({"history": history(2), "window_s": 31622400, "horizon_windows": 1000}, "reach"),
        ({"history": history(2), "made_at": "2199-01-01T00:00:00Z"}, "beyond the history"),
        ({"history": history(2), "made_at": "2026-11-02T12:00:00"}, "timezone"),
        (
            {"history": history(2), "made_at": "2020-01-01T00:00:00Z"},
            "history: no window has ended by 2020",
        ),
        (
            {"history": history(2), "made_at": NOON.isoformat(), "now": NOON.isoformat()},
            "older name",
        ),
        ({"history": [window(-1), window(-1)]}, "overlap"),
        ({"history": [window(-1) | {"requests": -1}]}, "history[0].requests"),
        ({"history": [window(-1) | {"output_tokens": 10**12}]}, "a request"),
        ({"history": history(2), "events": [{"name": "launch"}]}, "events[0].start_at"),
        (
            {
                "history": history(2),
                "events": [
                    {
                        "name": "launch",
                        "start_at": NOON.isoformat(),
                        "end_at": NOON.isoformat(),
                        "rate_ratio": 2,
                    }
                ],
            },
            "must be after start_at",
        ),
    ],
)
def test_what_cannot_be_forecast_from_is_a_problem(refusal, body, said):
    assert said in refusal(**body)


def test_another_deployment_is_not_known(client):
    assert client.post(PATH, {"deployment": "other"}).status_code == 404
    assert client.get("/v1/deployments/other/forecast").status_code == 404


def test_the_newest_forecast_of_the_loop_stands_beside_what_came(client, deployment):
    missing = client.get(LATEST)
    assert missing.status_code == 404
    assert "has made no forecast" in missing.json()["detail"]
    observe(deployment)
    tick(deployment, now=NOON)
    told = client.get(LATEST).json()
    assert [row["request_rate_rps"] for row in told["actual"]] == [None, None]
    assert (told["outcomes"], told["q90_coverage_ratio"]) == ([], None)
    observe(deployment, [window(0, requests=240, cached_tokens=96_000)])
    tick(deployment, now=NOON + timedelta(minutes=1))
    newest = client.get(LATEST).json()
    assert newest["forecast"]["made_at"] == "2026-11-02T12:01:00Z"
    assert newest["outcomes"][0]["request_rate_rps"] == pytest.approx(4.0)
    assert newest["outcomes"][0]["covered"] is False
    assert newest["q90_coverage_ratio"] == 0.0
    first = client.get(LATEST, params={"made_by": NOON.isoformat(), "outcomes": 0}).json()
    assert first["forecast"]["made_at"] == "2026-11-02T12:00:00Z"
    assert first["outcomes"] == []
    came = first["actual"][0]
    assert came["request_rate_rps"] == pytest.approx(4.0)
    assert came["reuse_ratio"] == pytest.approx(0.5)
    assert first["actual"][1]["request_rate_rps"] is None


@pytest.mark.parametrize("query", ["made_by=noon", "outcomes=-1", "made_by=2026-11-02T12:00:00"])
def test_a_query_that_cannot_be_is_a_problem(client, query):
    refused = client.get(f"{LATEST}?{query}")
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"


def test_the_specs_events_count(tmp_path):
    event = {
        "name": "sale",
        "start_at": NOON.isoformat(),
        "end_at": (NOON + timedelta(minutes=1)).isoformat(),
        "rate_ratio": 3,
    }
    deployment = make_deployment(
        tmp_path, forecast={"window_s": 60.0, "horizon_windows": 2, "events": [event]}
    )
    client = Client(create_app(service_of(deployment, insecure_local=True)), None)
    first, second = medians(client.post(PATH, {"history": history()}).json())
    deployment.store.close()
    assert first / second == pytest.approx(3.0)
