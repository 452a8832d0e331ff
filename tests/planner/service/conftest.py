"""Commands in a folder with everything that they need."""

import socket

import pytest

from planner.service.cli.main import run
from tests import postgres as real
from tests.planner.service.examples import fleet, history, write_json, write_spec, write_trace
from tests.planner.service.imagined import BUSY


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with spec, profile, trace, history and fleet; commands run in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POOLWISE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "160")
    write_spec(tmp_path)
    write_trace(tmp_path / "trace.jsonl")
    write_json(tmp_path / "history.json", {"history": history(**BUSY), "fleet": fleet()})
    write_json(tmp_path / "fleet.json", fleet())
    return tmp_path


@pytest.fixture
def poolwise(folder, capfd):
    """Run a command in this process; (status, stdout, stderr)."""

    def command(*arguments):
        status = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return status, captured.out, captured.err

    return command


@pytest.fixture
def taken_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture(scope="session")
def postgres():
    """A real PostgreSQL server, from the project's own set-up: never skipped."""
    with real.running_postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """The URL of a new database, of each kind that is supported."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'deep' / 'poolwise.db'}"
    return request.getfixturevalue("postgres").new_database()
