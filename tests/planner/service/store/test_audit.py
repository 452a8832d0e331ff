"""The audit log: one chain, whoever writes; whatever is done to it shows, and where."""

import subprocess
import sys
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from planner.domain.errors import StoreError
from planner.service.store import DecisionRecord, open_store
from planner.service.store.audit import NOTHING, add, hash_of
from planner.service.store.database import open_engine
from tests.planner.service.examples import NOON
from tests.planner.service.store.test_store import at_revision

TRIGGERS = {
    "sqlite": tuple(f"DROP TRIGGER audit_no_{what}" for what in ("update", "delete", "replace")),
    "postgresql": ("ALTER TABLE audit DISABLE TRIGGER USER",),
}


@pytest.fixture
def store(database_url):
    opened = open_store(database_url)
    yield opened
    opened.close()


def write(store, count, actor="ann"):
    for index in range(count):
        at = NOON + timedelta(seconds=index)
        store.add_audit(at, actor, "test", f"thing {index}", 'a "detail", and ümläuts')


def tamper(url, *statements, past_triggers=True):
    """Somebody with the database's own password."""
    engine = create_engine(url)
    away = TRIGGERS[engine.dialect.name] if past_triggers else ()
    try:
        with engine.begin() as connection:
            for statement in (*away, *statements):
                connection.execute(text(statement))
    finally:
        engine.dispose()


def test_an_empty_log_is_in_order(store):
    check = store.verify_audit()
    assert (check.rows, check.head, check.broken) == (0, NOTHING, "")


def test_a_log_that_nobody_touched_is_in_order_and_has_the_head_that_was_noted(store):
    write(store, 3)
    noted = store.verify_audit().head
    write(store, 1_100)
    check = store.verify_audit(expect=noted)
    assert (check.rows, check.broken, check.broken_seq) == (1_103, "", None)
    assert check.head == store.audit(limit=1)[0].hash != noted


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit SET actor = 'bob' WHERE seq = 2", "DELETE FROM audit WHERE seq = 3"],
)
def test_the_database_itself_refuses_to_change_the_log(store, database_url, statement):
    write(store, 4)
    with pytest.raises(DBAPIError, match="the audit log is append-only"):
        tamper(database_url, statement, past_triggers=False)
    assert store.verify_audit().broken == ""


REPLACED = (
    "REPLACE INTO audit (seq, at, actor, action, subject, detail, prev_hash, hash) "
    "SELECT {seq}, at, 'eve', action, subject, detail, {prev}, {own} FROM audit WHERE seq = 2"
)


@pytest.mark.parametrize("same", ["seq", "prev", "own"])
def test_sqlite_refuses_to_replace_a_line_by_its_number_or_by_a_hash(tmp_path, same):
    url = f"sqlite:///{tmp_path / 'poolwise.db'}"
    store = open_store(url)
    write(store, 4)
    fields = {"seq": "9", "prev": f"'{'a' * 64}'", "own": f"'{'b' * 64}'"}
    fields |= {same: {"seq": "2", "prev": "prev_hash", "own": "hash"}[same]}
    with pytest.raises(DBAPIError, match="the audit log is append-only"):
        tamper(url, REPLACED.format(**fields), past_triggers=False)
    write(store, 1)
    assert (store.verify_audit().broken, store.verify_audit().rows) == ("", 5)
    store.close()


def test_postgresql_refuses_to_empty_the_log(postgres):
    url = postgres.new_database()
    store = open_store(url)
    write(store, 1)
    with pytest.raises(DBAPIError, match="the audit log is append-only"):
        tamper(url, "TRUNCATE audit", past_triggers=False)
    store.close()


FORGED = (
    "INSERT INTO audit (seq, at, actor, action, subject, detail, prev_hash, hash) "
    "SELECT 9, at, 'eve', action, subject, detail, '{prev}', '{own}' FROM audit WHERE seq = 1"
)


@pytest.mark.parametrize(
    ("statements", "seq", "what"),
    [
        (["UPDATE audit SET actor = 'bob' WHERE seq = 2"], 2, "line 2 was changed"),
        (["UPDATE audit SET detail = '' WHERE seq = 1"], 1, "line 1 was changed"),
        (["UPDATE audit SET seq = 9 WHERE seq = 4"], 5, "between line 3 and line 5 were removed"),
        (["DELETE FROM audit WHERE seq = 3"], 4, "lines between line 2 and line 4 were removed"),
        (
            ["DELETE FROM audit WHERE seq < 3"],
            3,
            "lines between the beginning and line 3 were removed",
        ),
        (["DELETE FROM audit WHERE seq > 3"], None, "ends at line 3, line 5 was written last"),
        (["DELETE FROM audit"], None, "ends at line 0, line 5 was written last"),
        ([FORGED.format(prev="a" * 64, own="b" * 64)], 9, "line 9 was changed"),
        (["DELETE FROM audit_head"], None, "the head of the log was removed"),
    ],
)
def test_what_was_done_to_the_log_is_named(store, database_url, statements, seq, what):
    write(store, 5)
    tamper(database_url, *statements)
    check = store.verify_audit()
    assert (check.broken_seq, what in check.broken) == (seq, True), check


@pytest.mark.parametrize("change", ["detail = x'00ff'", "at = 'yesterday'"])
def test_a_line_that_cannot_be_one_of_ours_is_named_and_not_shown(tmp_path, change):
    url = f"sqlite:///{tmp_path / 'poolwise.db'}"
    store = open_store(url)
    write(store, 3)
    tamper(url, f"UPDATE audit SET {change} WHERE seq = 2")
    assert store.verify_audit().broken_seq == 2
    with pytest.raises(StoreError, match="line 2 of the audit log is none that Poolwise wrote"):
        store.audit(limit=9)
    store.close()


def rehash(store, url, seq, prev):
    """Give a changed line the hash that its fields have, as somebody who knows how would."""
    engine = create_engine(url)
    with engine.connect() as connection:
        row = connection.execute(text(f"SELECT * FROM audit WHERE seq = {seq}")).mappings().one()
    engine.dispose()
    return hash_of({**row, "actor": "eve", "prev_hash": prev})


def test_a_line_that_was_replaced_with_its_hash_is_noticed_at_the_next(store, database_url):
    write(store, 5)
    second = store.audit(limit=1, before=3)[0]
    forged = rehash(store, database_url, 3, second.hash)
    tamper(database_url, f"UPDATE audit SET actor = 'eve', hash = '{forged}' WHERE seq = 3")
    check = store.verify_audit()
    assert check.broken_seq == 4
    assert "line 4 does not follow line 3, which was changed or replaced" in check.broken


def test_lines_cut_off_together_with_the_head_are_noticed_by_whoever_noted_it(store, database_url):
    write(store, 5)
    noted = store.verify_audit().head
    third = store.audit(limit=1, before=4)[0]
    tamper(
        database_url,
        "DELETE FROM audit WHERE seq > 3",
        f"UPDATE audit_head SET seq = 3, hash = '{third.hash}'",
    )
    assert store.verify_audit().broken == ""
    assert f"no line has the expected hash {noted}" in store.verify_audit(expect=noted).broken


def test_a_line_put_in_with_hashes_that_fit_is_called_inserted(store, database_url):
    write(store, 2)
    tamper(database_url, "DROP INDEX ix_audit_prev_hash")
    first, second = store.audit(limit=1, before=2)[0], store.audit(limit=1)[0]
    line = {
        "seq": 3, "at": NOON.isoformat(), "actor": "eve", "action": "x", "subject": "y",
        "detail": "", "prev_hash": second.hash,
    }  # fmt: skip
    forged = {**line, "seq": 2, "prev_hash": first.hash}
    columns = "seq, at, actor, action, subject, detail, prev_hash, hash"
    real = {**line, "seq": 3, "actor": second.actor, "prev_hash": first.hash}
    tamper(
        database_url,
        "DELETE FROM audit WHERE seq = 2",
        *(
            f"INSERT INTO audit ({columns}) VALUES ({r['seq']}, '{r['at']}', '{r['actor']}', 'x', "
            f"'y', '', '{r['prev_hash']}', '{hash_of(r)}')"
            for r in (forged, real)
        ),
        past_triggers=False,
    )
    check = store.verify_audit()
    assert check.broken_seq == 3
    assert "lines 2 to 2 were inserted" in check.broken


def test_the_lines_of_an_earlier_version_are_chained_as_they_are(database_url):
    at_revision(database_url, "0006")
    tamper(
        database_url,
        "DELETE FROM audit",  # the one row that every table of an earlier version has
        *(
            "INSERT INTO audit (seq, at, actor, action, subject, detail) VALUES "
            f"({seq}, '{NOON.isoformat()}', 'ann', 'plan.create', 'plan-{seq}', 'é')"
            for seq in (1, 2, 5)
        ),
        past_triggers=False,
    )
    store = open_store(database_url)
    write(store, 2)
    check = store.verify_audit()
    assert (check.rows, check.broken) == (5, "")
    assert [entry.seq for entry in store.audit(limit=9)] == [7, 6, 5, 2, 1]
    store.close()


def test_several_processes_write_one_chain_and_none_waits_for_ever(database_url):
    open_store(database_url).close()
    program = (
        "from datetime import UTC, datetime\n"
        "from planner.service.store import open_store\n"
        "import sys\n"
        f"store = open_store({database_url!r})\n"
        "lease = store.lease('shop')\n"
        "for index in range(40):\n"
        "    now = datetime.now(UTC)\n"
        "    store.add_audit(now, sys.argv[1], 'test', str(index), '')\n"
        "    if index % 10 == 0:\n"
        "        lease.begin_term(lease.newest_term() + 1, sys.argv[1], at=now)\n"
    )
    started = [subprocess.Popen([sys.executable, "-c", program, f"p{i}"]) for i in range(4)]
    assert [process.wait(timeout=120) for process in started] == [0, 0, 0, 0]
    store = open_store(database_url)
    check = store.verify_audit()
    lines = store.audit(limit=1_000)
    store.close()
    assert check.broken == ""
    assert check.rows == len(lines)
    assert sum(line.action == "test" for line in lines) == 160


def test_a_line_that_is_rolled_back_leaves_no_gap_in_the_chain(store, database_url):
    write(store, 1)
    engine = open_engine(database_url)
    with engine.connect() as connection:
        add(connection, NOON, "ann", "test", "never")
        connection.rollback()
    engine.dispose()
    write(store, 1)
    assert [line.seq for line in store.audit(limit=9)] == [2, 1]
    assert store.verify_audit().broken == ""


def test_decisions_are_told_when_they_are_not_what_the_last_one_was(store):
    for outcome in ("unchanged", "unchanged", "held", "unchanged"):
        store.add_decision(
            DecisionRecord(
                deployment="shop",
                decided_at=NOON,
                plan_id=None,
                outcome=outcome,
                reason="so",
            )
        )
    told = [(line.actor, line.action, line.subject) for line in store.audit(limit=9)]
    assert told == [
        ("loop", "decision.unchanged", "shop"),
        ("loop", "decision.held", "shop"),
        ("loop", "decision.unchanged", "shop"),
    ]
