"""`POST /v1/backtests`: the answer of the command, at once or as a job."""

import json

import pytest

from tests.planner.service.api.test_jobs import ASYNC, ended
from tests.planner.service.clients import client_of
from tests.planner.service.examples import history, window, write_json
from tests.planner.service.imagined import make_deployment

WINDOWS = [window(-n, requests=100 + 7 * (n % 5)) for n in range(40, 0, -1)]


@pytest.fixture
def client(tmp_path):
    made = make_deployment(tmp_path)
    yield client_of(made)
    made.store.close()


def test_a_backtest_answers_what_the_command_does(client, poolwise, tmp_path):
    body = {"history": WINDOWS, "horizons": [3, 1]}
    answer = client.post("/v1/backtests", body)
    assert answer.status_code == 200, answer.text
    write_json(tmp_path / "windows.json", {"history": WINDOWS})
    status, out, _ = poolwise(
        *("backtest", "forecast", "--history", "windows.json"),
        *("--horizon", 1, "--horizon", 3, "--json"),
    )
    told = json.loads(out)
    assert status == 0
    assert answer.json()["scores"] == told["scores"]
    assert answer.json()["horizons"] == told["horizons"]
    job = ended(client, client.post("/v1/backtests", body, headers=ASYNC))
    assert (job["kind"], job["state"], job["answer"]) == ("backtests", "done", answer.json())


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"history": history(2)}, "no origin to score"),
        ({"history": [*history(20), {**window(-30), "window_s": 30}]}, "windows of one length"),
        ({"history": WINDOWS, "horizons": [0]}, "horizons"),
        ({"history": WINDOWS, "horizons": list(range(1, 18))}, "horizons"),
        ({"history": []}, "history"),
        ({}, "history"),
    ],
)
def test_what_cannot_be_scored_is_a_problem(client, body, told):
    answer = client.post("/v1/backtests", body)
    assert (answer.status_code, told in answer.text) == (422, True), answer.text
