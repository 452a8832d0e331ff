"""Keys and jobs in the store, on both kinds of database: what dies with a process, what stays."""

from datetime import timedelta

import pytest

from planner.domain.errors import SpecChangedError, UnknownJobError
from planner.service.api.repeating import Repeats
from planner.service.loop.presence import Presence
from planner.service.store import open_store
from planner.service.store.jobs import JobAnswer, JobRequest, JobState, StoredJobs
from planner.service.store.processes import SILENT_S, say_alive, say_farewell
from planner.service.store.profiles import StoredProfiles
from planner.service.store.repeats import KEPT_S, Claim, KeptAnswer, StoredRepeats
from planner.service.store.specs import SpecVersion, StoredSpecs
from tests.planner.service.examples import NOON

ASKED = JobRequest(kind="plans", request="{}", asked_by="ann")
DONE = JobAnswer(state=JobState.DONE, status=201, location="/v1/plans/p", answer='{"a": 1}')


@pytest.fixture
def access(database_url):
    store = open_store(database_url)
    yield store.access
    store.close()


def jobs_of(access, owner, *, at=NOON):
    with access.writing() as connection:
        say_alive(connection, owner, at=at)
    return StoredJobs(access=access, deployment="shop", owner=owner)


def at(seconds):
    return NOON + timedelta(seconds=seconds)


def test_a_job_is_kept_with_its_answer(access):
    jobs = jobs_of(access, "a")
    job = jobs.add(ASKED, at=NOON)
    assert (job.state, job.attempts, job.request) == (JobState.QUEUED, 0, "{}")
    assert jobs.begin(job.job_id, at=at(1))
    assert jobs.tell(job.job_id, done=3, total=8, at=at(2))
    assert jobs.end(job.job_id, DONE, at=at(3))
    kept = jobs_of(access, "b").job(job.job_id)
    assert (kept.state, kept.attempts, kept.done, kept.total) == (JobState.DONE, 1, 3, 8)
    assert (kept.status, kept.location, kept.answer) == (201, "/v1/plans/p", '{"a": 1}')
    assert kept.changed_at == at(3)


def test_the_jobs_of_a_silent_process_are_taken_over_once(access):
    died, first, second = (jobs_of(access, owner) for owner in "abc")
    job = died.add(ASKED, at=NOON, begun=True)
    for owner in "bc":
        with access.writing() as connection:
            say_alive(connection, owner, at=at(SILENT_S))
    assert first.take_orphans(at=at(SILENT_S), limit=9) == ()
    late = at(SILENT_S + 1)
    (taken,) = first.take_orphans(at=late, limit=9)
    assert (taken.job_id, taken.state) == (job.job_id, JobState.QUEUED)
    assert second.take_orphans(at=late, limit=9) == ()
    assert not died.end(job.job_id, DONE, at=late)  # it was only slow: too late
    assert first.begin(job.job_id, at=late)
    assert first.job(job.job_id).attempts == 2


def test_jobs_that_are_given_back_are_taken_at_once(access):
    stopped, following = jobs_of(access, "a"), jobs_of(access, "b")
    job = stopped.add(ASKED, at=NOON, begun=True)
    stopped.give_back()
    assert [j.job_id for j in following.take_orphans(at=at(1), limit=9)] == [job.job_id]


def test_a_cancelled_job_is_not_answered(access):
    jobs = jobs_of(access, "a")
    job = jobs.add(ASKED, at=NOON, begun=True)
    assert jobs.cancel(job.job_id, by="bob", at=at(1)).state is JobState.CANCELLED
    assert not jobs.tell(job.job_id, done=1, total=2, at=at(2))
    assert not jobs.end(job.job_id, DONE, at=at(2))
    assert jobs.cancel(job.job_id, by="bob", at=at(3)).changed_at == at(1)


def test_ended_jobs_go_after_a_week_or_when_there_are_too_many(access, monkeypatch):
    monkeypatch.setattr("planner.service.store.jobs.MOST_KEPT", 3)
    jobs = jobs_of(access, "a")
    ids = []
    for second in range(5):
        job = jobs.add(ASKED, at=at(second), begun=True)
        jobs.end(job.job_id, DONE, at=at(second))
        ids.append(job.job_id)
    assert [job.job_id for job in jobs.jobs(limit=9)] == ids[:1:-1]
    with pytest.raises(UnknownJobError, match="GET /v1/jobs"):
        jobs.job(ids[0])
    waiting = jobs.add(ASKED, at=NOON)
    late = jobs.add(ASKED, at=NOON, begun=True)
    jobs.end(late.job_id, DONE, at=NOON + timedelta(days=8))
    assert [job.job_id for job in jobs.jobs(limit=9)] == [late.job_id, waiting.job_id]


def test_jobs_of_another_deployment_are_not_seen(access):
    job = jobs_of(access, "a").add(ASKED, at=NOON)
    other = StoredJobs(access=access, deployment="mill", owner="a")
    assert other.jobs(limit=9) == ()
    with pytest.raises(UnknownJobError):
        other.job(job.job_id)


def claim(owner="a", fingerprint="f"):
    return Claim(actor="ann", key="k", fingerprint=fingerprint, owner=owner)


def answer(body="ü"):
    return KeptAnswer(fingerprint="f", status=200, headers={"etag": '"1"'}, body=body)


def test_a_key_is_taken_once_and_gives_the_kept_answer(access):
    repeats = StoredRepeats(access=access)
    with access.writing() as connection:
        say_alive(connection, "a", at=NOON)
    assert repeats.claim(claim(), at=NOON) is None
    under_way = repeats.claim(claim("b"), at=at(1))
    assert under_way is not None
    assert under_way.status is None
    repeats.keep(claim(), answer())
    assert repeats.claim(claim("b"), at=at(KEPT_S - 1)) == answer()
    assert repeats.claim(claim("b"), at=at(KEPT_S + 1)) is None


def test_the_key_of_a_silent_process_is_free(access):
    repeats = StoredRepeats(access=access)
    with access.writing() as connection:
        say_alive(connection, "a", at=NOON)
    repeats.claim(claim("a"), at=NOON)
    assert repeats.claim(claim("b"), at=at(SILENT_S)) is not None
    assert repeats.claim(claim("b"), at=at(SILENT_S + 1)) is None
    repeats.keep(claim("a"), answer("of the one that was only slow"))
    with access.writing() as connection:
        say_alive(connection, "b", at=at(SILENT_S + 1))
    still = repeats.claim(claim("c"), at=at(SILENT_S + 1))
    assert still is not None
    assert still.status is None


def test_the_key_of_a_process_that_said_farewell_is_free_but_its_answers_stay(access):
    repeats = StoredRepeats(access=access)
    with access.writing() as connection:
        say_alive(connection, "a", at=NOON)
    repeats.claim(claim("a"), at=NOON)
    repeats.keep(claim("a"), answer())
    with access.writing() as connection:
        say_farewell(connection, "a")
    assert repeats.claim(claim("b"), at=at(1)) == answer()


def version(spec_id, *, given="spec-f", by="ann"):
    return SpecVersion(
        version=0,
        spec_id=spec_id,
        given=given,
        content={"name": spec_id},
        allow_estimates=False,
        put_at=NOON,
        put_by=by,
    )


def test_versions_of_a_spec_are_counted_and_equal_ones_are_one(access):
    specs = StoredSpecs(access=access, deployment="shop")
    assert specs.newest() is None
    assert specs.add(version("spec-f")).version == 1
    assert specs.add(version("spec-g")).version == 2
    assert specs.add(version("spec-g"), expected=2).version == 2
    assert specs.newest_id() == (2, "spec-g")
    with pytest.raises(SpecChangedError, match="version 2"):
        specs.add(version("spec-h"), expected=1)
    newest = specs.newest()
    assert newest is not None
    assert newest.content == {"name": "spec-g"}
    assert StoredSpecs(access=access, deployment="mill").newest_id() is None


def test_a_profile_is_kept_once(access):
    profiles = StoredProfiles(access=access)
    assert profiles.add("p-1", "{}", by="ann", at=NOON)
    assert not profiles.add("p-1", "{}", by="bob", at=at(1))
    assert profiles.add("p-2", "{}", by="bob", at=at(1))
    assert [p.profile_id for p in profiles.profiles(limit=9)] == ["p-2", "p-1"]
    assert profiles.profile("p-1").added_by == "ann"


def test_a_request_under_way_is_not_done_again_where_the_clock_was_set_forward(access):
    repeats = StoredRepeats(access=access)
    with access.writing() as connection:
        say_alive(connection, "a", at=NOON)
    assert repeats.claim(claim("a"), at=NOON) is None
    under_way = repeats.claim(claim("a"), at=at(3600))
    assert under_way is not None
    assert under_way.status is None


def test_machines_whose_clocks_are_a_day_apart_take_nothing_from_each_other(postgres):
    store = open_store(postgres.new_database())
    early, late = (Presence(store.access, lambda d=d: at(86_400 * d)) for d in (0, 1))
    early.begin()
    late.begin()
    jobs, others = (
        StoredJobs(access=store.access, deployment="shop", owner=one.identity)
        for one in (early, late)
    )
    jobs.add(ASKED, at=NOON, begun=True)
    stored = StoredRepeats(access=store.access)
    keys, other_keys = (Repeats(stored=stored, presence=one) for one in (early, late))
    assert keys.claim(claim(early.identity), at=NOON) is None
    under_way = other_keys.claim(claim(late.identity), at=at(86_400))
    assert under_way is not None
    assert under_way.status is None
    assert others.take_orphans(at=store.access.shared_now(at(86_400)), limit=9) == ()
    for one in (early, late):
        one.end()
    store.close()
