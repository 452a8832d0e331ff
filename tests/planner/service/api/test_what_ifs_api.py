"""`POST /v1/what-ifs`: what `poolwise plan --what-if` says, for what runs here."""

import pytest

from planner.service.api import create_app
from planner.service.dashboard.views.what_if import answer_view
from planner.service.documents.answers import RefusedAnswer
from tests.planner.service.clients import Client
from tests.planner.service.dashboard.site import site_of, tokens_of
from tests.planner.service.examples import history
from tests.planner.service.imagined import BUSY, busy_deployments


@pytest.fixture
def shop(tmp_path):
    """A deployment under load, and a viewer's client of its API."""
    with busy_deployments(tmp_path) as make:
        deployment = make()
        token = tokens_of(deployment.store)["viewer"]
        yield deployment, Client(create_app(site_of(deployment, folder=tmp_path)), token)


def ask(client, *changes, **more):
    return client.post("/v1/what-ifs", {"changes": list(changes), **more})


def test_more_load_costs_more_and_nothing_is_kept(shop):
    deployment, client = shop
    answer = ask(client, "rate=x1.5", "isl=x1.2", "rate=x0.1", "rate=x2")
    assert answer.status_code == 200, answer.text
    more, longer, less, unkept = answer.json()["what_if"]
    assert more["more_usd_per_hour"] > 0
    assert longer["more_usd_per_hour"] > 0
    assert less["more_usd_per_hour"] < 0
    assert (unkept["plan"]["status"], unkept["more_usd_per_hour"]) == ("infeasible", None)
    assert deployment.store.plans("shop", limit=10) == ()


def test_it_says_what_the_command_says(shop, tmp_path, monkeypatch, capfd):
    import json

    from planner.service.cli.main import run
    from tests.planner.service.examples import fleet, write_json

    _, client = shop
    told = ask(client, "slos.0.ttft_s=x0.8,rate=x1.5", history=history(**BUSY)).json()
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "fleet.json", fleet())
    # The same forecast, so that only the asking differs.
    forecast = client.post("/v1/forecasts", {"history": history(**BUSY)}).json()
    forecast.pop("notes"), forecast.pop("paths")
    write_json(tmp_path / "forecast.json", forecast)
    line = "plan --spec spec.yaml --forecast forecast.json --fleet fleet.json --json"
    run([*line.split(), "--what-if", "slos.0.ttft_s=x0.8,rate=x1.5"])
    said = json.loads(capfd.readouterr().out)
    assert told["usd_per_hour"] == pytest.approx(said["usd_per_hour"])
    mine, theirs = told["what_if"][0], said["what_if"][0]
    assert mine["plan"]["windows"][0]["pools"] == theirs["plan"]["windows"][0]["pools"]
    assert mine["more_usd_per_hour"] == pytest.approx(theirs["more_usd_per_hour"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("rate=2", "rate takes a factor"),
        ("osl=x0", "osl takes a factor"),
        ("slos.7.ttft_s=1", "has no `7`"),
        ("slos.0.ttft_s=900", "ttft_s"),
        ("nonsense", "KEY=VALUE"),
    ],
)
def test_what_cannot_be_asked_is_refused(shop, change, words):
    answer = ask(shop[1], change)
    assert (answer.status_code, words in answer.text) == (422, True), answer.text


def test_the_way_out_of_what_cannot_be_planned_stands_beside_the_refusal(shop):
    too_long = history(requests=120, isl=40_000)
    answer = ask(shop[1], "isl=x0.02", history=too_long)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert "meet_demand[tiny/default,0]" in told["refused"]
    (other,) = told["what_if"]
    assert (other["more_usd_per_hour"], other["more"]) == (None, None)
    assert other["plan"]["windows"]
    shown = answer_view(RefusedAnswer.model_validate(told))
    assert [cell.text for cell in shown.table.rows[0]][:2] == ["as things are", "refused"]
    assert shown.notes[0].startswith("As things are: ")


def test_no_change_is_no_question(shop):
    assert ask(shop[1]).status_code == 422
