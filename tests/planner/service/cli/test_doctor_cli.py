"""`poolwise doctor`: a line for each check, what to do, and nothing changed."""

import json
import sys
from datetime import timedelta

import pytest

from planner.service.doctor.database import clock_finding
from planner.service.store import open_store
from planner.service.store.database import bare_engine, migrate, newest_revision
from tests.actuators.kubernetes.rig import deployment
from tests.kubernetes import FakeCluster
from tests.planner.service.examples import write_spec

ROLES = ("prefill", "decode")
OBJECTS = [{"role": role, "kind": "Deployment", "name": role} for role in ROLES]


@pytest.fixture
def checked(poolwise):
    """Findings by check; the exit status tells whether any has failed."""

    def check(*arguments):
        status, out, _ = poolwise("doctor", *arguments, "--json")
        findings = {f["check"]: f for f in json.loads(out)["findings"]}
        failed = [f for f in findings.values() if f["health"] == "failed"]
        assert status == (1 if failed else 0)
        assert all(f["todo"] for f in failed)
        return findings

    return check


@pytest.fixture(autouse=True)
def no_engine(monkeypatch):
    monkeypatch.delenv("POOLWISE_ENGINE_PYTHON", raising=False)
    monkeypatch.delenv("POOLWISE_DATABASE_URL", raising=False)


def health(findings, *checks):
    return [findings[check]["health"] for check in checks]


def test_a_machine_that_is_well_has_nothing_to_do(checked, folder):
    found = checked("--spec", "spec.yaml")
    profiles = ("profile of prefill:cpu:tp1", "profile of decode:cpu:tp1")
    assert health(found, "disk", "store", "spec", *profiles) == ["good"] * 5
    assert health(found, "engine", "cluster", "database clock") == ["skipped"] * 3
    assert not (folder / "state").exists()  # nothing was made


def test_people_get_a_line_for_each(poolwise):
    status, out, _ = poolwise("doctor", "--spec", "none.yaml")
    lines = out.strip().splitlines()
    assert all(line.split()[0] in ("GOOD", "NOTE", "FAILED", "SKIPPED") for line in lines)
    told = [line for line in lines if line.startswith("FAILED  spec: none.yaml: no such file")]
    assert (status, len(told)) == (1, 1)


def test_a_profile_that_is_missing_is_told(checked, folder):
    path = write_spec(folder, profiles=None)
    path.write_text(path.read_text().replace("cpu", "h100"))  # of which the catalogue knows
    found = checked("--spec", "spec.yaml")["profile of decode:h100:tp1"]
    assert (found["health"], "poolwise profile run" in found["todo"]) == ("failed", True)


def test_a_database_of_another_version_is_told_and_not_migrated(checked, database_url, monkeypatch):
    monkeypatch.setenv("POOLWISE_DATABASE_URL", database_url)
    open_store(database_url).close()
    assert health(checked(), "store") == ["good"]
    engine = bare_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0007'")
    found = checked()["store"]
    assert (found["health"], "0007" in found["found"]) == ("note", True)
    with engine.begin() as connection:
        kept = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert (kept, health(checked(), "store")) == ("0007", ["failed"])
    engine.dispose()


def test_an_empty_database_stays_empty(checked, monkeypatch, postgres):
    url = postgres.new_database()
    monkeypatch.setenv("POOLWISE_DATABASE_URL", url)
    assert health(checked(), "store", "database clock") == ["good", "good"]
    engine = bare_engine(url)
    with engine.begin() as connection:
        tables = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).scalar()
        assert tables == 0
        migrate(connection)
    engine.dispose()
    assert newest_revision() in checked()["store"]["found"]


def test_a_database_that_is_away_has_failed_and_its_password_is_not_told(checked, monkeypatch):
    monkeypatch.setenv("POOLWISE_DATABASE_URL", "postgresql://ann:geheim@127.0.0.1:1/x")
    found = checked()["store"]
    assert (found["health"], "geheim" in str(found)) == ("failed", False)


@pytest.mark.parametrize(
    ("ahead_s", "said"), [(0.4, "good"), (-2, "note"), (3, "note"), (-60, "failed")]
)
def test_clocks_that_differ_are_told(ahead_s, said):
    assert clock_finding("clock", timedelta(seconds=ahead_s)).health == said
    unsure = clock_finding("clock", timedelta(seconds=ahead_s), sure=timedelta(minutes=2))
    assert unsure.health == "good"


def test_an_engine_that_is_none_is_told(checked, monkeypatch):
    monkeypatch.setenv("POOLWISE_ENGINE_PYTHON", sys.executable)
    assert "cannot import vLLM" in checked()["engine"]["found"]
    monkeypatch.setenv("POOLWISE_ENGINE_PYTHON", "/nowhere/python")
    assert health(checked(), "engine") == ["failed"]


def test_settings_that_cannot_be_read_are_told(checked, monkeypatch):
    monkeypatch.setenv("POOLWISE_PORT", "many")
    assert "POOLWISE_PORT" in checked()["settings"]["found"]


def test_a_cluster_is_asked_for_its_clock_and_for_rights(checked, folder):
    with FakeCluster() as cluster:
        for role in ROLES:
            cluster.load(deployment(role, 1))
        kubeconfig = str(cluster.kubeconfig(folder / "config"))
        target = {"kind": "kubernetes", "kubeconfig": kubeconfig, "objects": OBJECTS}
        write_spec(folder, target=target)
        found = checked("--spec", "spec.yaml")
        assert health(found, "cluster", "cluster clock") == ["good", "good"]
        assert {"pool prefill:cpu:tp1", "pool decode:cpu:tp1"} <= found.keys()
        kept = [cluster.get("deployments", role)["spec"]["replicas"] for role in ROLES]
        assert kept == [1, 1]
    found = checked("--spec", "spec.yaml")["cluster"]
    assert (found["health"], "cannot be reached" in found["found"]) == ("failed", True)
