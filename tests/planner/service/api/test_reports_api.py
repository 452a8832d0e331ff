"""`POST /v1/reports`: a job whose answer is the report, and its page."""

import pytest

from planner.service.documents.capacity_report import CapacityReport
from planner.service.reports.capacity_page import capacity_page
from tests.planner.service.api.test_jobs import ASYNC, ended
from tests.planner.service.clients import client_of
from tests.planner.service.examples import history
from tests.planner.service.imagined import make_deployment, observe

HURRY = {"quick": True, "time_limit_s": 0.001}


@pytest.fixture
def deployment(tmp_path):
    made = make_deployment(tmp_path)
    yield made
    made.store.close()


def test_a_report_on_the_stored_windows_is_a_job_and_then_a_page(deployment):
    observe(deployment)
    client = client_of(deployment)
    job = ended(client, client.post("/v1/reports", HURRY, headers=ASYNC))
    assert (job["kind"], job["state"], job["problem"]) == ("reports", "done", None)
    report = CapacityReport.model_validate(job["answer"])
    assert report.workload.requests == 20 * 120
    page = client.get(f"/v1/reports/{job['job_id']}")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "sandbox" in page.headers["content-security-policy"]
    assert page.text == capacity_page(report)


def test_windows_may_come_with_the_request(deployment):
    client = client_of(deployment)
    body = {**HURRY, "history": history(15), "growth_per_month_ratio": 0.1}
    job = ended(client, client.post("/v1/reports", body, headers=ASYNC))
    assert job["state"] == "done", job
    assert job["answer"]["workload"]["source"] == "the request"


def test_without_windows_the_job_fails_with_a_sentence(deployment):
    client = client_of(deployment)
    job = ended(client, client.post("/v1/reports", HURRY, headers=ASYNC))
    assert job["state"] == "failed"
    assert "no data is not zero traffic" in job["problem"]["detail"]
    answer = client.get(f"/v1/reports/{job['job_id']}")
    assert answer.status_code == 409
    assert "failed" in answer.json()["detail"]


def test_other_jobs_and_unknown_ones_have_no_page(deployment):
    client = client_of(deployment)
    body = {"history": history(15)}
    job = ended(client, client.post("/v1/forecasts", body, headers=ASYNC))
    assert client.get(f"/v1/reports/{job['job_id']}").status_code == 404
    assert client.get("/v1/reports/nothing").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"growth_per_month_ratio": -2},
        {"time_limit_s": 0},
        {"time_limit_s": 1e308},
        {"history": []},
        {"quick": "perhaps"},
        {"unknown": 1},
    ],
)
def test_impossible_questions_are_refused(deployment, body):
    assert client_of(deployment).post("/v1/reports", body).status_code == 422


def test_another_deployment_is_not_here(deployment):
    assert (
        client_of(deployment)
        .post("/v1/reports", {"deployment": "other", **HURRY, "history": history(15)})
        .status_code
        == 404
    )
