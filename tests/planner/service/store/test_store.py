"""The store: nothing is lost, nothing is changed behind one's back, the schema follows."""

import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, create_engine, delete, event, insert, select, text
from sqlalchemy.exc import DBAPIError

from planner.domain.errors import InputError, PlanStateError, StoreError, UnknownPlanError
from planner.domain.rollout import ApprovalState
from planner.rollout import approve
from planner.service.documents import window_document, windows_of
from planner.service.documents.history import WindowDocument
from planner.service.spec.file import read_spec
from planner.service.store import DecisionRecord, open_store
from planner.service.store.database import MIGRATIONS, bare_engine, migrate, open_engine, queue_up
from planner.service.store.tables import METADATA
from tests.planner.service.examples import NOON, history, window, write_spec
from tests.planner.service.plans import example_fleet, example_record


@pytest.fixture
def url(tmp_path):
    """A file, for what is particular to SQLite."""
    return f"sqlite:///{tmp_path / 'deep' / 'poolwise.db'}"


@pytest.fixture
def store(database_url):
    opened = open_store(database_url)
    yield opened
    opened.close()


def read(data):
    return windows_of([WindowDocument.model_validate(d) for d in data], where="x")


def approving(by="ann"):
    return lambda approval: approve(approval, by=by, at=NOON, reason="ok")


@pytest.mark.usefixtures("store")
def test_the_migrations_make_the_schema_that_the_code_uses(database_url):
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, METADATA)
    engine.dispose()
    assert differences == []


REVISIONS = [path.name[1:5] for path in sorted((MIGRATIONS / "versions").glob("v*.py"))]


def upgraded(connection, revision):
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


VALUES = {"Integer": 1, "BigInteger": 2**40, "Float": 1.5, "Boolean": True, "LargeBinary": b"x"}


def some_row(table):
    """A value for every column of whatever table; rows that it refers to are there."""
    row = {}
    for column in table.columns:
        kinds = [kind.__name__ for kind in type(column.type).__mro__]
        row[column.name] = next((VALUES[kind] for kind in kinds if kind in VALUES), column.name)
        if column.name.endswith("_at"):
            row[column.name] = NOON.isoformat(timespec="microseconds")
    return row


def at_revision(url, revision):
    """A database of an earlier version with a row in every table, and a decision of the shop."""
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True)
    engine = create_engine(url)
    with engine.begin() as connection:
        upgraded(connection, revision)
        known = MetaData()
        known.reflect(connection)
        for table in reversed(known.sorted_tables):  # some hold something from the beginning
            if table.name != "alembic_version":
                connection.execute(delete(table))
        for table in known.sorted_tables:
            row = some_row(table)
            for key in table.foreign_keys:
                row[key.parent.name] = some_row(key.column.table)[key.column.name]
            if table.name != "alembic_version":
                connection.execute(insert(table).values(row))
        decision = {
            "seq": 2,
            "deployment": "shop",
            "decided_at": NOON.isoformat(),
            "plan_id": None,
            "outcome": "unchanged",
            "reason": "kept",
            "removes": 0,
        }
        there = {name: v for name, v in decision.items() if name in known.tables["decisions"].c}
        connection.execute(insert(known.tables["decisions"]).values(there))
    engine.dispose()


def rows_of(url):
    """Every row of every table, as column: value."""
    engine = create_engine(url)
    with engine.connect() as connection:
        known = MetaData()
        known.reflect(connection)
        rows = {
            table.name: [dict(row) for row in connection.execute(select(table)).mappings()]
            for table in known.sorted_tables
            if table.name != "alembic_version"
        }
    engine.dispose()
    return rows


DROPPED = {"decisions": {"removes"}}
"""Columns of earlier versions that nothing needed."""


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_database_of_every_earlier_version_is_brought_up_and_keeps_what_it_holds(
    database_url, revision
):
    at_revision(database_url, revision)
    before = rows_of(database_url)
    assert all(before.values())
    store = open_store(database_url)
    assert [decision.reason for decision in store.decisions("shop", limit=9)] == ["kept"]
    assert store.forecast_outcomes("shop", "tiny", limit=9) == ()
    assert store.stock_outs("shop", at=NOON) == ()
    assert store.steps("plan-1") == ()
    store.close()
    after = rows_of(database_url)
    for name, rows in before.items():
        columns = rows[0].keys() - DROPPED.get(name, set())
        kept, held = ([{c: row[c] for c in columns} for row in rs] for rs in (after[name], rows))
        assert kept == held, name
    engine = create_engine(database_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []
    engine.dispose()


def test_processes_that_migrate_an_old_database_at_once_do_it_once(database_url):
    at_revision(database_url, REVISIONS[0])
    before = rows_of(database_url)
    program = f"from planner.service.store import open_store; open_store({database_url!r}).close()"
    started = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(3)]
    assert [process.wait(timeout=240) for process in started] == [0, 0, 0]
    after = rows_of(database_url)
    assert {name: len(after[name]) for name in before} == {n: len(r) for n, r in before.items()}


def test_a_new_database_is_in_write_ahead_mode(url, tmp_path):
    open_store(url).close()
    connection = sqlite3.connect(tmp_path / "deep" / "poolwise.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_plan_is_there_after_the_store_was_closed(database_url):
    first = open_store(database_url)
    kept = first.add_plan(example_record(), actor="ann")
    first.close()
    again = open_store(database_url)
    record = again.plan("plan-1")
    again.close()
    assert record.plan == kept.plan == example_record().plan
    assert record.findings == example_record().findings
    assert record.approval.state is ApprovalState.PENDING


def test_a_plan_that_is_added_twice_is_stored_once(store):
    store.add_plan(example_record(), actor="ann")
    store.change_approval("plan-1", approving(), action="plan.approve")
    again = store.add_plan(example_record(), actor="bob")
    assert again.approval.state is ApprovalState.APPROVED
    assert len(store.plans("shop", limit=10)) == 1
    assert len(store.approvals("plan-1")) == 2


def test_an_unknown_plan_is_named(store):
    with pytest.raises(UnknownPlanError, match="no plan plan-9"):
        store.plan("plan-9")
    with pytest.raises(UnknownPlanError):
        store.change_approval("plan-9", approving(), action="plan.approve")


def test_plans_are_listed_newest_first_by_deployment_and_state(store):
    for index in range(3):
        at = NOON + timedelta(minutes=index)
        store.add_plan(example_record(f"plan-{index}", at=at), actor="ann")
    store.add_plan(example_record("plan-other", deployment="other"), actor="ann")
    store.change_approval("plan-1", approving(), action="plan.approve")
    listed = [r.plan.plan_id for r in store.plans("shop", limit=2)]
    assert listed == ["plan-2", "plan-1"]
    approved = store.plans("shop", limit=9, states=[ApprovalState.APPROVED])
    assert [r.plan.plan_id for r in approved] == ["plan-1"]


def test_as_many_statements_read_one_plan_as_many(store):
    for index in range(9):
        store.add_plan(example_record(f"plan-{index}"), actor="ann")
    statements = []
    event.listen(store.access.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    counts = []
    for limit in (1, 9):
        statements.clear()
        assert len(store.plans("shop", limit=limit)) == limit
        counts.append(sum(text.startswith("SELECT") for text in statements))
    assert counts == [2, 2]


def test_approval_states_are_appended_and_a_refused_step_stores_nothing(store):
    store.add_plan(example_record(), actor="ann")
    store.change_approval("plan-1", approving(), action="plan.approve")
    with pytest.raises(PlanStateError):
        store.change_approval("plan-1", approving(by="bob"), action="plan.approve")
    states = [approval.state for approval in store.approvals("plan-1")]
    assert states == [ApprovalState.PENDING, ApprovalState.APPROVED]
    assert [entry.action for entry in store.audit(limit=9)] == ["plan.approve", "plan.create"]


def test_of_two_who_decide_at_once_one_wins(store):
    store.add_plan(example_record(), actor="ann")
    barrier, outcomes = threading.Barrier(8), []

    def decide(index):
        barrier.wait()
        try:
            store.change_approval("plan-1", approving(by=f"p{index}"), action="plan.approve")
            outcomes.append("won")
        except PlanStateError:
            outcomes.append("lost")

    threads = [threading.Thread(target=decide, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost"] * 7 + ["won"]
    assert len(store.approvals("plan-1")) == 2


def test_a_window_replaces_the_older_one_of_its_class_and_start(store):
    store.add_windows("shop", "tiny", read(history(3)), received_at=NOON, actor="ann")
    corrected = read([window(-2, requests=7)])
    later = NOON + timedelta(seconds=5)
    store.add_windows("shop", "tiny", corrected, received_at=later, actor="ann")
    stored = store.windows("shop", "tiny", limit=10)
    assert [s.window.requests for s in stored] == [120, 7, 120]
    assert stored[1].received_at == later
    assert window_document(stored[0].window) == window_document(read(history(3))[0])


@pytest.mark.parametrize(
    ("newer", "left"),
    [
        ({"index": -2, "window_s": 120.0}, [-3, -2]),
        ({"index": -1.5}, [-3, -1.5]),
        ({"index": -2.25, "window_s": 15.0}, [-2.25, -2, -1]),
        ({"index": -4.5, "window_s": 600.0}, [-4.5]),
        ({"index": 0}, [-3, -2, -1, 0]),
    ],
)
def test_windows_that_lie_across_older_ones_take_their_place(store, newer, left):
    """None counts twice, whatever grid they come on: else no forecast could be made of them."""
    store.add_windows("shop", "tiny", read(history(3)), received_at=NOON, actor="ann")
    across = read([window(**newer)])
    store.add_windows("shop", "tiny", across, received_at=NOON, actor="ann")
    stored = [s.window for s in store.windows("shop", "tiny", limit=10)]
    minutes = [(w.start_at - NOON).total_seconds() / 60 for w in stored]
    assert minutes == left
    assert all(a.end_at <= b.start_at for a, b in pairwise(stored))


def test_windows_are_kept_apart_by_deployment_model_and_class(store):
    store.add_windows("shop", "tiny", read(history(2)), received_at=NOON, actor="ann")
    store.add_windows("shop", "big", read(history(1)), received_at=NOON, actor="ann")
    batch = read([window(-1, request_class="batch")])
    store.add_windows("shop", "tiny", batch, received_at=NOON, actor="ann")
    assert len(store.windows("shop", "tiny", limit=10)) == 3
    assert len(store.windows("shop", "tiny", limit=1)) == 2
    assert store.windows("other", "tiny", limit=10) == ()


def test_the_fleet_that_was_handed_in_last_counts(store, tmp_path):
    spec = read_spec(write_spec(tmp_path))
    assert store.fleet(spec) is None
    for prefill in (1, 3):
        store.put_fleet("shop", example_fleet(prefill), received_at=NOON, actor="ann")
    assert store.fleet(spec).fleet == example_fleet(3)


def test_decisions_come_back_newest_first(store):
    for index in range(3):
        store.add_decision(
            DecisionRecord(
                deployment="shop",
                decided_at=NOON + timedelta(minutes=index),
                plan_id=None,
                outcome="unchanged",
                reason=str(index),
            )
        )
    assert [d.reason for d in store.decisions("shop", limit=2)] == ["2", "1"]


def test_a_database_of_a_newer_poolwise_is_refused_and_left_alone(database_url):
    open_store(database_url).close()
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreError, match="another version of Poolwise"):
        open_store(database_url)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / "x.db").write_text("hello, I am a text file, not a database" * 50)
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite:///{tmp_path / 'x.db'}")


def test_a_state_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "state").write_text("a file, not a folder")
    with pytest.raises(StoreError, match="cannot be made"):
        open_store(f"sqlite:///{tmp_path / 'state' / 'poolwise.db'}")


@pytest.mark.parametrize("url", ["nonsense", "mysqq://x", "sqlite:////proc/none/x.db"])
def test_a_url_that_cannot_be_is_refused(url):
    with pytest.raises(StoreError):
        open_store(url)


def test_several_processes_may_open_a_new_database_at_once(database_url):
    program = f"from planner.service.store import open_store; open_store({database_url!r}).close()"
    started = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0, 0]


def test_readers_do_not_wait_for_a_writer(url):
    store = open_store(url)
    store.add_plan(example_record(), actor="ann")
    path = url.removeprefix("sqlite:///")
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    began = datetime.now(UTC)
    assert store.plan("plan-1").plan.plan_id == "plan-1"
    writer.execute("ROLLBACK")
    writer.close()
    store.close()
    assert datetime.now(UTC) - began < timedelta(seconds=5)


def test_a_record_can_be_stored_under_another_clock(store):
    zoned = replace(example_record(), created_at=NOON.astimezone())
    assert store.add_plan(zoned, actor="ann").created_at == NOON


def test_a_url_without_a_driver_means_the_one_that_the_extra_installs(postgres):
    url = postgres.new_database().replace("postgresql+psycopg://", "postgresql://")
    store = open_store(url)
    store.add_plan(example_record(), actor="ann")
    assert store.plan("plan-1").plan.plan_id == "plan-1"
    store.close()


@pytest.mark.parametrize("what", ["a\0b", "a" * 5_000])
def test_what_no_column_of_postgresql_can_hold_is_bad_input_and_no_outage(postgres, what):
    store = open_store(postgres.new_database())
    with pytest.raises(InputError, match="can be neither kept nor looked for"):
        store.add_audit(NOON, "ann", "test", what, "")
    store.ping()
    store.close()


def test_a_server_that_does_not_answer_is_one_sentence(postgres):
    url = postgres.url("there_is_none")
    with pytest.raises(StoreError, match=r"there_is_none.* does not exist"):
        open_store(url)


def test_a_process_that_stopped_in_the_middle_of_a_write_does_not_hold_up_others_for_ever(postgres):
    url = postgres.new_database()
    open_store(url).close()
    stopped = open_engine(url)
    connection = stopped.connect()
    queue_up(connection)
    other = open_store(url)
    began_s = time.monotonic()
    other.add_plan(example_record(), actor="ann")  # waits, and is let through
    assert 1 < time.monotonic() - began_s < 14
    other.close()
    with pytest.raises(DBAPIError, match="idle-in-transaction timeout"):
        connection.execute(text("SELECT 1"))
    connection.invalidate()
    connection.close()
    stopped.dispose()


def test_a_migration_that_is_slow_between_two_statements_is_not_cut_off(postgres):
    """Every other transaction is, after 8 s: a machine without time for it must still start."""
    engine = bare_engine(postgres.new_database())
    with engine.begin() as connection:
        migrate(connection, REVISIONS[0])
        time.sleep(9)
        migrate(connection)
    engine.dispose()
