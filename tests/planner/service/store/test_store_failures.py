"""A full disk, a database that is gone: a typed problem, nothing lost, and the loop goes on."""

import contextlib
import re
import resource
import sqlite3
from datetime import timedelta

import pytest
from sqlalchemy import event, insert
from sqlalchemy.exc import IntegrityError, OperationalError

from planner.domain.errors import StoreError
from planner.domain.spec import LoopMode
from planner.service.loop.scheduler import tick_once
from planner.service.loop.slow_tick import Outcome, tick
from planner.service.store import open_store
from planner.service.store.database import bare_engine
from planner.service.store.tables import LEADERS
from planner.service.telemetry.logs import KeyValue
from planner.service.telemetry.metrics import Metrics
from tests.planner.service.clients import client_of
from tests.planner.service.election.processes import SLACK_S, eventually, replica
from tests.planner.service.examples import NOON, window, write_spec
from tests.planner.service.imagined import make_deployment, observe
from tests.planner.service.plans import example_record
from tests.postgres import running_postgres

EVERY_SECOND = {"mode": "advise", "slow_interval_s": 1}


@contextlib.contextmanager
def full(store, spare_pages=0):
    """A SQLite store that must not grow by more than some pages."""
    engine = store._engine
    with engine.connect() as connection:
        most = connection.exec_driver_sql("PRAGMA page_count").scalar() + spare_pages

    def bound(connection, *_):
        connection.execute(f"PRAGMA max_page_count = {most}")

    event.listen(engine, "checkout", bound)
    yield
    event.remove(engine, "checkout", bound)
    engine.dispose()


def test_a_full_store_refuses_with_a_sentence_keeps_what_it_has_and_goes_on(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'poolwise.db'}")
    stored = 0

    def fill():
        nonlocal stored
        while stored < 10_000:
            store.add_plan(example_record(f"plan-{stored}"), actor="ann")
            stored += 1

    with full(store, spare_pages=5):
        with pytest.raises(StoreError, match=r"database or disk is full; check .* has space"):
            fill()
        # The plan that did not fit is not there by half.
        assert [len(store.approvals(f"plan-{n}")) for n in (stored - 1, stored)] == [1, 0]
        assert len(store.plans("shop", limit=9_999)) == stored
    store.add_plan(example_record(f"plan-{stored}"), actor="ann")
    creates = [e for e in store.audit(limit=99_999) if e.action == "plan.create"]
    assert len(creates) == stored + 1
    store.close()


def test_a_tick_on_a_full_disk_is_lost_and_said_and_the_next_one_works(tmp_path, caplog):
    deployment = make_deployment(tmp_path, loop={"mode": "auto"})
    observe(deployment)
    fleet = deployment.actuator.fleet
    with full(deployment.store), caplog.at_level("INFO"):
        tick_once(deployment, Metrics())
        (kept,) = deployment.store.decisions("shop", limit=1)  # while pages have room for a line
        assert kept.outcome == "failed"
        assert "database or disk is full" in kept.reason

        def fill():
            for number in range(10_000):
                deployment.store.add_plan(example_record(f"plan-{number}"), actor="ann")

        with pytest.raises(StoreError):
            fill()
        lost = ""
        for _ in range(200):  # a line or two may still fit
            tick_once(deployment, Metrics())
            lost = KeyValue().format(caplog.records[-1])
            if "could not be kept" in lost:
                break
    assert "outcome=failed" in lost
    assert "this could not be kept: database sqlite:///" in lost
    assert "full; check that its folder exists, is writable and has space" in lost
    assert "Traceback" not in caplog.text
    assert deployment.spec.loop.mode is LoopMode.AUTO
    report = tick(deployment, now=NOON)
    assert report.outcome in (Outcome.APPLIED, Outcome.UNCHANGED, Outcome.HELD), report.reason
    assert deployment.actuator.fleet.version == fleet.version or deployment.actuator.done


def body(minutes_ago=1, requests=60):
    return {"history": [window(-minutes_ago, requests=requests)]}


OBSERVATIONS = "/v1/deployments/shop/observations"


def refused(answer):
    """Whether an answer says what is wrong with the store, as every problem is said."""
    if answer.status_code != 503:
        return False
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:poolwise:problem:store"
    assert "check that its folder exists, is writable and has space" in problem["detail"]
    return True


def up(metrics):
    """What `poolwise_store_up` says."""
    return {"1.0": True, "0.0": False}[re.search(r"^poolwise_store_up\S* (.*)$", metrics, re.M)[1]]


def test_a_store_that_reads_and_cannot_be_written_is_not_ready_until_a_write_succeeds(tmp_path):
    deployment = make_deployment(tmp_path)
    client, store = client_of(deployment), deployment.store
    metrics = client.app.state.service.metrics
    metrics.follow(deployment)

    def told():
        return client.get("/readyz").status_code, up(metrics.text().decode())

    assert told() == (200, True)

    def fill():
        for number in range(10_000):
            store.add_plan(example_record(f"plan-{number}"), actor="ann")

    with full(store):
        with pytest.raises(StoreError):
            fill()
        assert store.plans("shop", limit=9)  # it reads
        with store.access.writing():
            pass  # what changes nothing is no write
        assert told() == (503, False)
        assert refused(client.get("/readyz"))
        assert "cannot be written" in client.get("/readyz").json()["detail"]
    store.add_plan(example_record("plan-again"), actor="ann")
    with pytest.raises(IntegrityError), store.access.engine.begin() as connection:
        connection.execute(insert(LEADERS).values(name="x", term=1, holder=None, since_at=""))
    assert told() == (200, True)  # a statement that cannot be kept says nothing of the disk
    with (
        contextlib.closing(sqlite3.connect(store.access.engine.url.database)) as other,
        store.access.engine.connect() as connection,
    ):
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
        connection.commit()
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            connection.execute(insert(LEADERS).values(name="y", term=1, holder="me", since_at=""))
    assert told() == (200, True)  # somebody else is writing, so it can be written
    store.close()


def test_a_server_whose_files_must_not_grow_serves_reads_and_writes_again_later(tmp_path):
    """The kernel refuses its writes (RLIMIT_FSIZE), as it does on a full disk."""
    write_spec(tmp_path, loop=EVERY_SECOND)
    with replica(tmp_path, "a") as server:
        eventually(server.leads, SLACK_S)
        assert server.post(OBSERVATIONS, body(2)).status_code == 201
        pid = server.process.pid
        _, most = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, most))
        eventually(lambda: refused(server.post(OBSERVATIONS, body(1, requests=77))), SLACK_S)
        assert server.get("/healthz").status_code == 200
        assert server.get("/v1/plans").status_code == 200
        eventually(lambda: refused(server.get("/readyz")), SLACK_S)
        eventually(lambda: not up(server.get("/metrics").text), SLACK_S)
        eventually(lambda: "has space" in server.log.read_text(), SLACK_S)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))
        eventually(lambda: server.post(OBSERVATIONS, body(1)).status_code == 201, SLACK_S)
        eventually(lambda: server.get("/readyz").status_code == 200, SLACK_S)
        eventually(lambda: up(server.get("/metrics").text), SLACK_S)
        before = server.ticks()
        eventually(lambda: server.ticks() > before, 2 * SLACK_S)
        assert "Traceback" not in server.log.read_text()
    url = f"sqlite:///{tmp_path / 'state' / 'poolwise.db'}"
    store = open_store(url)
    assert [w.window.requests for w in store.windows("shop", "tiny", limit=9)] == [60, 60]
    store.close()
    engine = bare_engine(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
    engine.dispose()


@pytest.fixture
def own_postgres():
    """A server that this test alone stops and starts."""
    with running_postgres() as server:
        yield server


def test_a_server_whose_database_is_gone_for_a_while_carries_on_when_it_is_back(
    tmp_path, own_postgres
):
    write_spec(tmp_path, loop=EVERY_SECOND)
    url = own_postgres.new_database()
    with replica(tmp_path, "a", POOLWISE_DATABASE_URL=url) as server:
        eventually(server.leads, SLACK_S)
        assert server.post(OBSERVATIONS, body()).status_code == 201
        eventually(lambda: server.ticks() > 0, SLACK_S)
        term = server.leader()["term"]
        own_postgres.stop()
        eventually(lambda: refused(server.post(OBSERVATIONS, body(2))), SLACK_S)
        assert refused(server.get("/v1/plans"))
        assert server.get("/readyz").status_code == 503
        assert server.get("/healthz").status_code == 200
        eventually(lambda: not server.leads(), 2 * SLACK_S)  # it could not renew
        own_postgres.start()
        eventually(lambda: server.get("/readyz").status_code == 200, SLACK_S)
        eventually(server.leads, 2 * SLACK_S)
        assert server.leader()["term"] >= term
        before = server.ticks()
        eventually(lambda: server.ticks() > before, 2 * SLACK_S)
        assert server.post(OBSERVATIONS, body(3)).status_code == 201
        assert "Traceback" not in server.log.read_text()
    store = open_store(url)
    kept = [w.window.start_at for w in store.windows("shop", "tiny", limit=9)]
    assert kept == [NOON - timedelta(minutes=3), NOON - timedelta(minutes=1)]
    store.close()


def test_a_database_that_is_not_there_is_one_sentence_in_the_end(tmp_path, own_postgres):
    url = own_postgres.new_database()
    own_postgres.stop()
    with pytest.raises(StoreError, match=r"database postgresql.*: connection"):
        open_store(url)
    own_postgres.start()
    open_store(url).close()
