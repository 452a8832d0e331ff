"""Long work as jobs: asked for, or too slow; cancelled, refused, watched, begun again."""

import json
import signal
import threading
import time

import httpx
import pytest

from planner.domain.errors import BusyError, PlanStateError
from planner.service.api.bodies import DecisionBody
from planner.service.api.problems import problem_of
from planner.service.job_runner import MOST_ATTEMPTS, JobRunner, Kind, Made, Task
from planner.service.loop.presence import Presence
from planner.service.security.access import AccessRole
from planner.service.security.tokens import hash_of, new_token
from planner.service.store import open_store
from planner.service.store.jobs import JobRequest, JobState, StoredJobs
from tests.planner.service.clients import client_of
from tests.planner.service.examples import NOON, fleet, history, write_spec
from tests.planner.service.imagined import BUSY, make_deployment
from tests.planner.service.served import served

ASYNC = {"Prefer": "respond-async"}
SHAPE = {
    "input_tokens": [400, 1600],
    "output_tokens": [60, 40],
    "cached_tokens": [0, 0],
    "weight": [0.7, 0.3],
}
LONG = {
    "generated": {"duration_s": 600, "classes": [{"request_rate_rps": 6.0, "shape": SHAPE}]},
    "fleet": fleet(4, 4),
    "futures": 500,
}
"""A simulation of some 1.8 million requests."""


@pytest.fixture
def deployment(tmp_path):
    made = make_deployment(tmp_path)
    yield made
    made.store.close()


def ended(client, answer):
    """The job that a 202 names, when it has ended."""
    assert answer.status_code == 202, answer.text
    path, until = answer.headers["location"], time.monotonic() + 120
    while (job := client.get(path).json())["state"] in ("queued", "running"):
        assert time.monotonic() < until, job
        time.sleep(0.05)
    return job


def test_a_plan_may_be_asked_for_as_a_job(deployment):
    client = client_of(deployment)
    answer = client.post("/v1/plans", {"history": history(**BUSY)}, headers=ASYNC)
    assert answer.headers["preference-applied"] == "respond-async"
    assert answer.json()["state"] in ("queued", "running")
    job = ended(client, answer)
    assert (job["state"], job["status"], job["problem"]) == ("done", 201, None)
    stored = client.get(job["location"]).json()
    assert job["answer"] == stored
    assert stored["approval"]["changed_by"] == job["asked_by"] == "ann"
    assert [j["job_id"] for j in client.get("/v1/jobs").json()["jobs"]] == [job["job_id"]]


def test_what_takes_longer_than_the_caller_waits_becomes_a_job(deployment):
    slow = client_of(deployment, answer_within_s=0.001)
    job = ended(slow, slow.post("/v1/plans", {"history": history(**BUSY)}))
    assert (job["state"], job["kind"], job["attempts"]) == ("done", "plans", 1)
    assert slow.get(job["location"]).status_code == 200
    patient = slow.post("/v1/forecasts", {"history": history()}, headers={"Prefer": "wait=60"})
    assert patient.status_code == 200


def test_a_job_that_fails_says_why_as_the_route_would(deployment):
    client = client_of(deployment)
    body = {"history": history(isl=500_000)}  # longer than anything that was measured
    job = ended(client, client.post("/v1/plans", body, headers=ASYNC))
    straight = client.post("/v1/plans", body)
    assert straight.status_code == 422
    assert (job["state"], job["status"], job["answer"]) == ("failed", 422, None)
    assert job["problem"]["detail"] == straight.json()["detail"]


@pytest.mark.parametrize("more", [{"futures": 8}, {"futures": 8, "until_clear": True}])
def test_the_progress_of_a_job_that_is_done_is_complete(deployment, more):
    client = client_of(deployment)
    short = {**LONG["generated"], "duration_s": 30}
    body = {"generated": short, "fleet": fleet(4, 4), **more}
    job = ended(client, client.post("/v1/simulations", body, headers=ASYNC))
    count = job["answer"]["futures"]["count"]
    assert job["progress"] == {"done": count, "total": count}
    plan = ended(client, client.post("/v1/plans", {"history": history(**BUSY)}, headers=ASYNC))
    assert plan["progress"] == {"done": 1, "total": 1}


def test_a_job_under_a_key_is_one_job(deployment):
    client, body = client_of(deployment), {"history": history()}
    first, again = (
        client.post("/v1/forecasts", body, headers={**ASYNC, "Idempotency-Key": "k"})
        for _ in range(2)
    )
    assert first.headers["location"] == again.headers["location"]
    ended(client, first)
    assert len(client.get("/v1/jobs").json()["jobs"]) == 1


def test_viewers_cancel_their_own_jobs_and_operators_everybodys(deployment):
    client, headers = client_of(deployment), {}
    for name, role in (("bob", "viewer"), ("eve", "viewer"), ("olga", "operator")):
        token = new_token()
        deployment.store.tokens().create(
            hash_of(token), name=name, role=AccessRole(role), at=NOON, by="test"
        )
        headers[name] = {"Authorization": f"Bearer {token}"}
    one, other = (
        client.post("/v1/simulations", LONG, headers={**ASYNC, **headers["bob"]}).headers[
            "location"
        ]
        for _ in range(2)
    )
    refused = client.request("DELETE", one, headers=headers["eve"])
    assert (refused.status_code, "bob's" in refused.json()["detail"]) == (403, True)
    assert client.get(one).json()["state"] in ("queued", "running")
    for path, who in ((one, "bob"), (other, "olga")):
        answer = client.request("DELETE", path, headers=headers[who])
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    client.app.state.runner.stop()


def test_a_simulation_is_broken_off_when_its_job_is_cancelled(deployment):
    client = client_of(deployment)
    answer = client.post("/v1/simulations", LONG, headers=ASYNC)
    path = answer.headers["location"]
    cancelled = client.delete(path)
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    assert client.delete(path).status_code == 200
    quick = ended(client, client.post("/v1/forecasts", {"history": history()}, headers=ASYNC))
    done = client.delete(f"/v1/jobs/{quick['job_id']}")
    assert (done.status_code, "there is nothing to cancel" in done.json()["detail"]) == (409, True)
    runner = client.app.state.runner
    began = time.monotonic()
    runner.stop()
    assert time.monotonic() - began < 60
    assert client.get(path).json()["answer"] is None


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("path", ["/v1/jobs/job-9", "/v1/jobs/%00"])
def test_an_unknown_job_is_a_problem(deployment, method, path):
    answer = client_of(deployment).request(method, path)
    assert (answer.status_code, answer.json()["title"]) == (404, "Unknown job")


class Workshop:
    """A runner over a store, of work that ends when it is let go."""

    def __init__(self, store, **options):
        self.go = threading.Event()
        self.begun = []
        self.presence = Presence(store.access, lambda: NOON, every_s=0.05)
        self.jobs = StoredJobs(access=store.access, deployment="shop", owner=self.presence.identity)
        self.runner = JobRunner(
            {"plans": Kind(body=DecisionBody, perform=self.perform)},
            self.jobs,
            self.presence,
            clock=lambda: NOON,
            failure=lambda error: Made(status=409, text=problem_of(error).model_dump_json()),
            **options,
        )

    def perform(self, body, by, progress):
        self.begun.append(body.reason)
        assert self.go.wait(30)
        if body.reason == "fails":
            raise PlanStateError("it is not pending")
        return Made(status=200, text=json.dumps(body.reason))

    def state(self, job):
        return self.jobs.job(job.job_id).state

    def await_state(self, job, state):
        until = time.monotonic() + 30
        while self.state(job) is not state:
            assert time.monotonic() < until, self.jobs.job(job.job_id)
            time.sleep(0.02)
        return self.jobs.job(job.job_id)


@pytest.fixture
def store(database_url):
    opened = open_store(database_url)
    yield opened
    opened.close()


def ask(reason):
    return DecisionBody(reason=reason)


def test_no_more_waits_than_may_and_all_of_it_is_done(store):
    shop = Workshop(store, workers=1, most_waiting=2)
    first = shop.runner.submit_job("plans", ask("1"), by="ann")
    shop.await_state(first, JobState.RUNNING)
    waiting = [shop.runner.submit_job("plans", ask(str(n)), by="ann") for n in (2, 3)]
    with pytest.raises(BusyError, match="no more may"):
        shop.runner.submit_job("plans", ask("4"), by="ann")
    with pytest.raises(BusyError, match="ask again later"):
        shop.runner.submit(Task(kind="plans", body=ask("5"), by="ann"))
    shop.jobs.cancel(waiting[0].job_id, by="ann", at=NOON)
    shop.go.set()
    assert shop.await_state(waiting[1], JobState.DONE).answer == '"3"'
    shop.runner.stop()
    assert shop.begun == ["1", "3"]
    assert len(shop.jobs.jobs(limit=9)) == 3


def test_what_a_stopped_process_leaves_the_next_one_does(store):
    stopped = Workshop(store, workers=1)
    running = stopped.runner.submit_job("plans", ask("runs"), by="ann")
    stopped.await_state(running, JobState.RUNNING)
    waiting = stopped.runner.submit_job("plans", ask("waits"), by="ann")
    threading.Timer(0.3, stopped.go.set).start()
    stopped.runner.stop()
    assert stopped.state(running) is JobState.DONE
    assert stopped.state(waiting) is JobState.QUEUED
    following = Workshop(store)
    following.go.set()
    following.runner.start()
    assert following.await_state(waiting, JobState.DONE).answer == '"waits"'
    following.runner.stop()
    assert (stopped.begun, following.begun) == (["runs"], ["waits"])


def test_a_job_that_ends_the_process_again_and_again_is_given_up(store):
    gone = StoredJobs(access=store.access, deployment="shop", owner="gone")
    asked = JobRequest(kind="plans", request='{"reason": "x"}', asked_by="ann")
    job = gone.add(asked, at=NOON)
    for _ in range(MOST_ATTEMPTS):
        gone.begin(job.job_id, at=NOON)
    old = gone.add(JobRequest(kind="plans", request='{"raison": 1}', asked_by="ann"), at=NOON)
    shop = Workshop(store)
    shop.runner.start()
    assert f"begun {MOST_ATTEMPTS} times" in shop.await_state(job, JobState.FAILED).answer
    assert "cannot read what was asked" in shop.await_state(old, JobState.FAILED).answer
    shop.runner.stop()
    assert shop.begun == []


def test_a_failure_is_kept_as_one(store):
    shop = Workshop(store)
    shop.go.set()
    job = shop.await_state(shop.runner.submit_job("plans", ask("fails"), by="ann"), JobState.FAILED)
    assert (job.status, json.loads(job.answer)["detail"]) == (409, "it is not pending")
    shop.runner.stop()


def events(client, path):
    """The events of a stream: (name, data)."""
    with client.stream("GET", path) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in stream.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def test_a_job_is_watched_and_goes_on_after_its_server_was_killed(tmp_path):
    write_spec(tmp_path)
    with served(tmp_path, "--insecure-local") as (process, facts):
        with httpx.Client(base_url=facts["url"], timeout=60) as client:
            client.post("/v1/simulations", json={**LONG, "futures": 1})  # compiled by now
            path = client.post("/v1/simulations", json=LONG, headers=ASYNC).headers["location"]
            for name, data in events(client, f"{path}/events"):
                assert (name, data["state"]) in (("progress", "queued"), ("progress", "running"))
                if data["progress"]["done"]:
                    break
            process.send_signal(signal.SIGKILL)
        process.wait()
    with (
        served(tmp_path, "--insecure-local") as (_, facts),
        httpx.Client(base_url=facts["url"], timeout=120) as client,
    ):
        seen = list(events(client, f"{path}/events"))
        job = client.get(path).json()
    assert seen[-1][0] == "done"
    assert seen[-1][1]["job_id"] == job["job_id"]
    assert (job["state"], job["attempts"], job["status"]) == ("done", 2, 200)
    assert job["answer"]["futures"]["count"] == 500
    assert job["progress"] == seen[-1][1]["progress"] == {"done": 500, "total": 500}
