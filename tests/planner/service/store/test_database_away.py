"""The database is moved away, read-only or cut off under a running server, and comes back."""

import shutil
import sys
import threading
from datetime import timedelta

import pytest

from planner.domain.errors import StoreError
from planner.service.store import open_store
from tests.planner.service.election.processes import SLACK_S, eventually, replica
from tests.planner.service.examples import NOON, window, write_spec
from tests.planner.service.plans import example_record
from tests.planner.service.store.test_outages import is_away

EVERY_SECOND = {"mode": "advise", "slow_interval_s": 1}
OBSERVATIONS = "/v1/deployments/shop/observations"
OBEYING = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(24, 1); "  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    "os.execv(sys.argv[1], sys.argv[1:])"
)
"""What makes root, too, need write permission to write."""


def hand_in(server, minutes_ago):
    """Hand in the window that began so many minutes before noon."""
    return server.post(OBSERVATIONS, {"history": [window(-minutes_ago)]})


def away(answer):
    """Whether the store is said to be away: a problem that says to come back."""
    return answer.status_code == 503 and is_away(answer)


def kept_minutes(url):
    """Which windows a store holds, in minutes before noon; its audit log is in order."""
    store = open_store(url)
    try:
        check = store.verify_audit()
        assert (check.broken, check.rows > 0) == ("", True)
        windows = store.windows("shop", "tiny", limit=9_999)
        return [round((NOON - w.window.start_at) / timedelta(minutes=1)) for w in windows]
    finally:
        store.close()


def sqlite_url(folder):
    return f"sqlite:///{folder / 'state' / 'poolwise.db'}"


def goes_on(server):
    """Wait until the loop has ticked and a window is taken; nobody helps."""
    eventually(lambda: server.get("/readyz").status_code == 200, SLACK_S)
    before = server.ticks()
    eventually(lambda: server.ticks() > before, 2 * SLACK_S)
    eventually(lambda: hand_in(server, 9).status_code == 201, SLACK_S)
    assert "Traceback" not in server.log.read_text()


def test_a_folder_that_is_moved_away_holds_the_loop_until_it_is_back(tmp_path):
    write_spec(tmp_path, loop=EVERY_SECOND)
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    with replica(tmp_path, "a") as server:
        assert hand_in(server, 1).status_code == 201
        eventually(lambda: server.ticks() > 0, SLACK_S)
        state.rename(elsewhere)
        assert away(hand_in(server, 2))
        assert away(server.get("/v1/plans"))
        assert away(server.get("/readyz"))
        assert server.get("/healthz").status_code == 200
        eventually(lambda: not server.leads(), SLACK_S)  # nothing is planned or moved
        held = server.ticks()
        assert "could not be asked: database" in server.log.read_text()
        state.mkdir()
        assert away(hand_in(server, 3))
        assert list(state.iterdir()) == []  # an empty database would look like no data
        assert server.ticks() == held
        state.rmdir()
        elsewhere.rename(state)
        goes_on(server)
    assert kept_minutes(sqlite_url(tmp_path)) == [9, 1]


def test_a_backup_that_is_put_in_the_place_of_a_lost_file_is_taken_up(tmp_path):
    url = sqlite_url(tmp_path)
    store = open_store(url)
    store.add_plan(example_record("plan-1"), actor="ann")
    shutil.copytree(tmp_path / "state", tmp_path / "copy")
    store.add_plan(example_record("plan-2"), actor="ann")
    shutil.rmtree(tmp_path / "state")
    with pytest.raises(StoreError, match="was there and is gone; check that its folder exists"):
        store.plans("shop", limit=9)
    (tmp_path / "copy").rename(tmp_path / "state")
    store.add_plan(example_record("plan-3"), actor="ann")
    known = [record.plan.plan_id for record in store.plans("shop", limit=9)]
    store.close()
    assert sorted(known) == ["plan-1", "plan-3"]
    again = open_store(url)
    assert sorted(r.plan.plan_id for r in again.plans("shop", limit=9)) == ["plan-1", "plan-3"]
    again.close()


def permissions(path, *, folder, files):
    for one in path.iterdir():
        one.chmod(files)
    path.chmod(folder)


def test_a_file_that_came_back_read_only_is_read_and_written_after_a_restart(tmp_path):
    write_spec(tmp_path, loop=EVERY_SECOND)
    state, elsewhere, copied = (tmp_path / name for name in ("state", "elsewhere", "copied"))
    with replica(tmp_path, "a", through=(sys.executable, "-c", OBEYING)) as server:
        assert hand_in(server, 1).status_code == 201
        eventually(lambda: server.ticks() > 0, SLACK_S)
        state.rename(elsewhere)
        assert away(hand_in(server, 2))
        # A copy: what was opened before may still write to the file that was moved.
        shutil.copytree(elsewhere, copied)
        permissions(copied, folder=0o500, files=0o400)
        copied.rename(state)
        assert away(hand_in(server, 3))
        assert server.get("/v1/plans").status_code == 200
        eventually(lambda: "readonly database" in server.log.read_text(), SLACK_S)
        permissions(state, folder=0o700, files=0o600)
    with replica(tmp_path, "b") as server:
        goes_on(server)
    assert kept_minutes(sqlite_url(tmp_path)) == [9, 1]


def test_connections_that_are_cut_in_a_transaction_lose_nothing_that_was_answered(
    tmp_path, postgres
):
    write_spec(tmp_path, loop=EVERY_SECOND)
    url = postgres.new_database()
    taken, wrong, done = set(), [], threading.Event()

    def write(server, first):
        for minute in range(first, 100_000, 3):
            if done.is_set():
                return
            answer = hand_in(server, minute)
            if answer.status_code == 201:
                taken.add(minute)
            elif not away(answer):
                wrong.append(answer.text)

    with replica(tmp_path, "a", POOLWISE_DATABASE_URL=url) as server, postgres.connect() as admin:

        def cut():
            """Whether a transaction was under way, and was cut off."""
            return admin.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE datname = %s AND xact_start IS NOT NULL",
                (url.rpartition("/")[2],),
            ).fetchone()[0]

        eventually(server.leads, SLACK_S)
        writers = [threading.Thread(target=write, args=(server, 100 + n)) for n in range(3)]
        for writer in writers:
            writer.start()
        try:
            for _ in range(8):
                eventually(cut, SLACK_S)
                before = len(taken)
                eventually(lambda before=before: len(taken) > before, SLACK_S)
        finally:
            done.set()
            for writer in writers:
                writer.join()
        assert wrong == []
        goes_on(server)
    kept = kept_minutes(url)
    assert taken <= set(kept)
    assert len(kept) == len(set(kept))
