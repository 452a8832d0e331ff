"""A server killed at random moments: nothing decided is lost, nothing is done twice."""

import random
import sqlite3

import pytest

from tests.planner.service.crashes import PHASES, check, run_round, store_of

SEED = 20261129


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)])
def environ(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'poolwise.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    return {"POOLWISE_DATABASE_URL": url, "POOLWISE_STATE_DIR": str(tmp_path / "state")}


@pytest.mark.timeout(1_500)
@pytest.mark.parametrize(
    "phase", [pytest.param(p, marks=() if p == "apply" else pytest.mark.soak) for p in PHASES]
)
def test_a_server_that_is_killed_loses_nothing_and_does_nothing_twice(tmp_path, environ, phase):
    chance = random.Random(f"{SEED} {phase}")
    for kill in range(2):
        number = kill * len(PHASES) + PHASES.index(phase)
        this = run_round(number, tmp_path / str(number), environ, chance)
        assert check(this) == [], (this.after_s, this.killed_in)


@pytest.mark.timeout(1_500)
def test_the_check_notices_what_is_lost_done_twice_or_not_in_the_audit_log(tmp_path):
    url = f"sqlite:///{tmp_path / 'poolwise.db'}"
    environ = {"POOLWISE_DATABASE_URL": url, "POOLWISE_STATE_DIR": str(tmp_path / "state")}
    this = run_round(PHASES.index("approve"), tmp_path / "0", environ, random.Random(1))
    assert check(this) == []
    with store_of(this) as store:
        (record,) = store.plans(this.name, limit=9)
    plan_id = record.plan.plan_id
    this.acknowledged["plan-9"] = {"pending"}
    this.acknowledged[plan_id].add("rejected")
    connection = sqlite3.connect(tmp_path / "poolwise.db")
    connection.execute("DROP TRIGGER audit_no_delete")
    connection.execute("DELETE FROM audit WHERE action = 'plan.approve'")
    connection.execute(
        "INSERT INTO approvals (plan_id, state, fleet_version, changed_at, changed_by, reason) "
        "SELECT plan_id, 'approved', fleet_version, changed_at, changed_by, reason FROM approvals "
        "WHERE state = 'applied'"
    )
    connection.commit()
    connection.close()
    told = "\n".join(check(this))
    for wrong in (
        "plan-9 was lost",
        "was rejected by an answer",
        "went from applied to approved",
        "was approved 2 times",
        "lines of audit",
    ):
        assert wrong in told
