"""`poolwise backup` and `restore`: everything comes back, or nothing is touched."""

import json
import sqlite3
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select, text

from planner.domain.errors import InputError, NotLeaderError, StoreError
from planner.service.cli.main import run
from planner.service.election.lease import Lease
from planner.service.store import BegunStep, open_store
from planner.service.store.backup import back_up, restore
from planner.service.store.leases import Fence
from planner.service.store.orders import Action
from planner.service.store.tables import METADATA
from tests.planner.service.examples import NOON, history
from tests.planner.service.fleet.test_gate import RECORD
from tests.planner.service.plans import example_fleet, example_record
from tests.planner.service.store.test_retention import decide, minutes, moved
from tests.planner.service.store.test_store import REVISIONS, at_revision, read

LATER = NOON + timedelta(days=1)


AUDITED = ("audit", "audit_head")
"""Where a restore leaves a line of its own."""


def fill(store):
    """Something in every table that a test can fill by the store itself."""
    for number in range(3):
        store.add_plan(example_record(f"plan-{number}"), actor="ann")
    moved(store, "plan-1")
    run = store.approvals("plan-1")[-1]
    store.begin_step(run, BegunStep(number=1, begun_at=NOON, what="step 1 of 1 (zügig)"))
    store.orders("shop").add("plan-2", Action.APPLY, by="ann", at=NOON)
    store.add_windows("shop", "tiny", read(history(210)), received_at=NOON, actor="ann")
    store.add_windows("shop", "tiny", minutes(NOON, 1), received_at=NOON, actor="ann")
    store.put_fleet("shop", example_fleet(3), received_at=NOON, actor="ann")
    store.add_gate_requests("shop", [RECORD], now=NOON, retention_s=1e9)
    store.tokens().add_first("ab" * 32, name="admin", at=NOON)
    store.lease("shop").begin_term(4, "ann", at=NOON)
    decide(store, 5, at=NOON)
    store.instance()


def contents(url):
    """Every row of every table."""
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = {
            table.name: [tuple(row) for row in connection.execute(
                select(table).order_by(*table.primary_key.columns))]
            for table in METADATA.sorted_tables
        }  # fmt: skip
    engine.dispose()
    return rows


@pytest.fixture
def filled(database_url):
    store = open_store(database_url)
    fill(store)
    store.close()
    return database_url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path):
    """Where to restore to: another database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'other' / 'poolwise.db'}"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
def taken(tmp_path):
    """A backup of a filled SQLite store."""
    url = f"sqlite:///{tmp_path / 'source.db'}"
    store = open_store(url)
    fill(store)
    store.close()
    back_up(url, tmp_path / "a.backup")
    return tmp_path / "a.backup"


def test_everything_comes_back_from_each_kind_of_database_into_each(filled, empty_url, tmp_path):
    file = tmp_path / "a.backup"
    backed_up = back_up(filled, file)
    restored = restore(empty_url, file, now=LATER)
    before, after = contents(filled), contents(empty_url)
    assert {n: r for n, r in after.items() if n not in AUDITED} == {
        n: r for n, r in before.items() if n not in AUDITED
    }
    assert after["audit"][:-1] == before["audit"]
    assert after["audit"][-1][1:4] == (LATER.isoformat(timespec="microseconds"), "restore",
                                       "store.restore")  # fmt: skip
    counts = {name: len(rows) for name, rows in before.items() if name != "leases"}
    assert backed_up.rows == restored.rows == counts
    assert restored.revision == backed_up.revision == REVISIONS[-1]


def test_a_restored_store_goes_on(filled, empty_url, tmp_path):
    back_up(filled, tmp_path / "a.backup")
    restore(empty_url, tmp_path / "a.backup", now=LATER)
    store = open_store(empty_url)
    fill_again = example_record("plan-new")
    store.add_plan(fill_again, actor="bob")
    decide(store, 2, at=LATER)
    store.add_gate_requests("shop", [RECORD], now=NOON, retention_s=1e9)
    assert len(store.decisions("shop", limit=99)) == 7
    assert len(store.audit(limit=999)) == len({e.seq for e in store.audit(limit=999)})
    assert store.tokens().find("ab" * 32).name == "admin"
    assert store.verify_audit().broken == ""
    store.close()


def test_a_backup_is_one_instant_while_others_write(database_url, tmp_path):
    store = open_store(database_url)
    fill(store)
    stop = threading.Event()

    def write():
        """A plan and its audit line belong together."""
        number = 0
        while not stop.is_set():
            store.add_plan(example_record(f"busy-{number}"), actor="busy")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            back_up(database_url, tmp_path / f"{number}.backup")
    finally:
        stop.set()
        writer.join()
    store.close()
    counts = []
    for number in range(3):
        connection = sqlite3.connect(tmp_path / f"{number}.backup")
        counts += [
            connection.execute(query).fetchone()[0]
            for query in (
                "SELECT count(*) FROM plans WHERE plan_id LIKE 'busy-%'",
                "SELECT count(*) FROM audit WHERE actor = 'busy'",
                "SELECT count(*) FROM approvals WHERE plan_id LIKE 'busy-%'",
            )
        ]
        connection.close()
    assert counts[0::3] == counts[1::3] == counts[2::3]
    assert counts[0] < counts[6]  # it did write meanwhile


def test_only_its_owner_may_read_it_and_it_is_one_file(taken):
    assert stat.S_IMODE(taken.stat().st_mode) == 0o600
    assert sorted(p.name for p in taken.parent.glob("*.backup*")) == ["a.backup"]


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_backup_of_every_earlier_version_is_brought_up(database_url, tmp_path, revision):
    at_revision(database_url, revision)
    assert back_up(database_url, tmp_path / "old.backup").revision == revision
    url = f"sqlite:///{tmp_path / 'new.db'}"
    restore(url, tmp_path / "old.backup", now=LATER)
    store = open_store(url)
    assert [d.reason for d in store.decisions("shop", limit=9)] == ["kept"]
    store.close()


def test_a_store_that_holds_something_is_left_as_it_is(taken, empty_url):
    store = open_store(empty_url)
    decide(store, 1, at=NOON)
    store.close()
    before = contents(empty_url)
    with pytest.raises(InputError, match=r"is not empty \(1 audit, 1 decisions\).*--force"):
        restore(empty_url, taken, now=LATER)
    assert contents(empty_url) == before


def test_force_replaces_all_and_no_term_goes_back(taken, empty_url):
    store = open_store(empty_url)
    fill(store)
    decide(store, 9, at=NOON)
    store.lease("shop").begin_term(9, "bob", at=NOON)
    restore(empty_url, taken, now=LATER, force=True)
    assert len(store.decisions("shop", limit=99)) == 5
    assert store.lease("shop").newest_term() == 9
    late = store.fenced(Fence(name="shop", term=8))
    with pytest.raises(NotLeaderError, match="leads since term 9"):
        decide(late, 1, at=NOON)
    assert store.verify_audit().broken == ""
    with (
        pytest.raises(StoreError, match="append-only"),
        store.access.writing() as connection,
    ):
        connection.execute(text("DELETE FROM audit"))
    store.close()


def test_nothing_is_restored_under_a_server_that_runs(taken, empty_url):
    store = open_store(empty_url)
    wanted = Lease(holder="host_1", term=1, duration_s=15.0, renewed_at=NOON, version="")
    store.lease("shop").replace(None, wanted)
    for force in (False, True):
        with pytest.raises(StoreError, match=r"host_1 works on .*stop every"):
            restore(empty_url, taken, now=NOON + timedelta(seconds=14), force=force)
    restore(empty_url, taken, now=NOON + timedelta(seconds=16), force=True)
    store.close()


def damaged(path, how):
    whole = path.read_bytes()
    if how == "half":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "a byte of a value":
        at = whole.rindex(b"step 1 of 1")
        path.write_bytes(whole[:at] + b"stop" + whole[at + 4 :])
    elif how == "a row":
        connection = sqlite3.connect(path)
        connection.execute("DROP TRIGGER audit_no_delete")
        connection.execute("DELETE FROM audit WHERE seq = 2")
        connection.commit()
        connection.close()
    elif how == "a table":
        connection = sqlite3.connect(path)
        connection.execute("DROP TABLE gate_hours")
        connection.commit()
        connection.close()
    elif how == "a page":
        path.write_bytes(whole[:8192] + bytes(4096) + whole[12288:])


@pytest.mark.parametrize("how", ["half", "a byte of a value", "a row", "a table", "a page"])
def test_a_damaged_backup_is_refused_and_nothing_is_made(taken, tmp_path, how):
    damaged(taken, how)
    with pytest.raises(InputError, match=r"a\.backup is damaged \(.*nothing was restored"):
        restore(f"sqlite:///{tmp_path / 'new.db'}", taken, now=LATER)
    assert not (tmp_path / "new.db").exists()


def foreign(path, kind):
    if kind == "text":
        path.write_text("a letter to the editor")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "another SQLite database":
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE songs (title TEXT)")
        connection.commit()
        connection.close()
    elif kind == "a store":
        open_store(f"sqlite:///{path}").close()


@pytest.mark.parametrize("kind", ["text", "empty", "another SQLite database", "a store"])
def test_a_file_that_is_no_backup_is_refused(tmp_path, kind):
    foreign(tmp_path / "x", kind)
    with pytest.raises(InputError, match="no backup of Poolwise"):
        restore(f"sqlite:///{tmp_path / 'new.db'}", tmp_path / "x", now=LATER)
    assert not (tmp_path / "new.db").exists()


def test_a_backup_of_a_newer_poolwise_is_refused(taken, tmp_path):
    connection = sqlite3.connect(taken)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(InputError, match="has version 9999 of the tables; update Poolwise"):
        restore(f"sqlite:///{tmp_path / 'new.db'}", taken, now=LATER)
    assert not (tmp_path / "new.db").exists()


def test_a_store_of_a_newer_poolwise_is_not_backed_up(filled, tmp_path):
    engine = create_engine(filled)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(StoreError, match="another version of Poolwise"):
        back_up(filled, tmp_path / "a.backup")
    assert not (tmp_path / "a.backup").exists()


def test_a_row_that_cannot_be_stored_undoes_the_whole_restore(taken, postgres):
    """PostgreSQL is strict about lengths; the backup's own checks do not see it."""
    connection = sqlite3.connect(taken)
    connection.execute("UPDATE plans SET deployment = ? WHERE plan_id = 'plan-2'", ("x" * 99,))
    connection.commit()
    connection.close()
    engine = create_engine(f"sqlite:///{taken}")
    from planner.service.store import backup

    with engine.begin() as opened:
        _, digest = backup._sum(opened, METADATA, "plans")
        opened.execute(
            backup.CONTENTS.update().where(backup.CONTENTS.c.name == "plans").values(sha256=digest)
        )
    engine.dispose()
    url = postgres.new_database()
    with pytest.raises(InputError, match="too long"):
        restore(url, taken, now=LATER)
    assert [name for name, rows in contents(url).items() if rows] == ["audit_head"]


# The commands -------------------------------------------------------------------------------------


@pytest.fixture
def poolwise(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(tmp_path / "state"))

    def command(*arguments):
        status = run(list(arguments))
        told = capsys.readouterr()
        return status, told.out, told.err

    return command


def test_the_commands_say_what_they_did(poolwise, tmp_path, monkeypatch):
    store = open_store(f"sqlite:///{tmp_path / 'state' / 'poolwise.db'}")
    fill(store)
    store.close()
    status, out, _ = poolwise("backup", "a.backup")
    assert status == 0
    assert out.startswith("a.backup: ")
    assert poolwise("backup", "a.backup")[0] == 2
    assert "--force" in poolwise("backup", "a.backup")[2]
    status, out, _ = poolwise("backup", "a.backup", "--force", "--json")
    told = json.loads(out)
    assert (status, told["rows"]["plans"], told["schema_version"]) == (0, 3, REVISIONS[-1])
    assert told["file_bytes"] == Path("a.backup").stat().st_size
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(tmp_path / "elsewhere"))
    status, out, _ = poolwise("restore", "a.backup")
    assert (status, out) == (0, f"{sum(told['rows'].values()):,} rows restored from a.backup\n")
    status, _, err = poolwise("restore", "a.backup")
    assert status == 2
    assert "is not empty" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["backup", "a.backup"], "there is no store to back up at sqlite:///"),
        (["backup", "none/a.backup"], "there is no folder"),
        (["restore", "none.backup"], "none.backup cannot be read: No such file"),
        (["restore", "."], "cannot be read: Is a directory"),
    ],
)
def test_what_cannot_be_is_one_sentence(poolwise, arguments, told):
    status, out, err = poolwise(*arguments)
    assert (status, out) == (2, "")
    assert told in err
    assert err.count("\n") == 1
    assert list(Path().glob("*")) == []


def test_a_new_database_without_tables_is_no_store(tmp_path, postgres):
    with pytest.raises(InputError, match="there is no store"):
        back_up(postgres.new_database(), tmp_path / "a.backup")
