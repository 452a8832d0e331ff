"""Secrets stay out of logs, messages and tracebacks."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from planner.domain.errors import StoreError
from planner.service.security.redaction import RedactingFormatter, redact
from planner.service.security.tokens import new_token
from planner.service.settings import read_settings
from planner.service.store import open_store
from tests.planner.service.examples import fleet, write_spec
from tests.planner.service.served import served

SECRET = "hunter2-s3cret"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
        ("token pw_" + "a" * 43, "token pw_***"),
        (f"postgresql://ann:{SECRET}@db:5432/x", "postgresql://ann:***@db:5432/x"),
        (f"postgresql://ann:p@{SECRET}@db/x", "postgresql://ann:***@db/x"),
        (f"host=db password={SECRET} user=ann", "host=db password=*** user=ann"),
        (f"{{'password': '{SECRET}'}}", "{'password': ***}"),
        (f"postgresql://db/x?password={SECRET}&sslmode=require",
         "postgresql://db/x?password=***&sslmode=require"),
        ("per token: 46 ms, 500 tokens; bearer of news", None),
        ("http://127.0.0.1:8765/v1/plans, 3 steps", None),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_hidden_and_nothing_else(text, shown):
    assert redact(text) == (text if shown is None else shown)


def test_a_traceback_in_a_log_is_without_the_secret():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(RedactingFormatter(logging.Formatter("%(levelname)s %(message)s")))
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed: %s", (new_token(),), None)
    try:
        raise ValueError(f"no connection with password={SECRET}")
    except ValueError:
        record.exc_info = sys.exc_info()
    handler.handle(record)
    told = stream.getvalue()
    assert "ERROR failed: pw_***" in told
    assert "ValueError: no connection with password=***" in told
    assert SECRET not in told


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{SECRET}@127.0.0.1:1/x",
        f"postgresql://127.0.0.1:1/x?password={SECRET}",
        f"postgresql://ann:a@b:{SECRET}@127.0.0.1:1/x",
        f"postgresql://ann@127.0.0.1:{SECRET}/x",
        f"postgresql:ann:{SECRET}@127.0.0.1/x",
        f"postgresql://ann:{SECRET}@127.0.0.1:1/x?no_such_option=1",
        f"nonsense://ann:{SECRET}@127.0.0.1/x",
        f"{SECRET}",
    ],
)
def test_what_is_said_of_a_database_is_without_its_password(url):
    with pytest.raises(StoreError) as refused:
        open_store(url)
    assert SECRET not in str(refused.value)


def test_settings_are_shown_without_the_password(tmp_path):
    url = f"postgresql://ann:{SECRET}@db/x"
    settings = read_settings({"POOLWISE_DATABASE_URL": url, "HOME": str(tmp_path)})
    assert settings.storage.database_url == url
    assert SECRET not in repr(settings)


def test_a_command_says_nothing_of_the_password(tmp_path):
    environ = {
        **os.environ,
        "POOLWISE_DATABASE_URL": f"postgresql://ann:{SECRET}@127.0.0.1:1/x",
        "POOLWISE_STATE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "planner.service.cli.main", "token", "list"],
        capture_output=True, text=True, env=environ, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "ann:***@127.0.0.1:1/x" in done.stderr
    assert SECRET not in done.stdout + done.stderr


def test_a_server_writes_no_token_and_no_password_anywhere(tmp_path, postgres, monkeypatch):
    """Real requests, good and bad, and faults; then all that was written is searched."""
    write_spec(tmp_path, loop={"mode": "advise", "slow_interval_s": 1})
    plain = postgres.new_database()
    monkeypatch.setenv("POOLWISE_DATABASE_URL", plain.replace("poolwise@", f"poolwise:{SECRET}@"))
    wrong = new_token()
    with served(tmp_path) as (process, facts):
        token, here = facts["token"], f"{facts['url']}/v1/deployments/shop"
        headers = {"Authorization": f"Bearer {token}"}
        assert httpx.get(f"{here}/decisions", headers=headers).status_code == 200
        assert httpx.put(f"{here}/fleet", headers=headers, json=fleet()).status_code == 200
        bad = {"Authorization": f"Bearer {wrong}"}
        assert httpx.get(f"{here}/fleet", headers=bad).status_code == 401
        assert httpx.get(f"{here}/fleet?token={token}", headers=headers).status_code == 200
        with postgres.connect() as connection:
            name = plain.rpartition("/")[2]
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
        failed = httpx.put(f"{here}/fleet", headers=headers, json=fleet(), timeout=60)
        assert failed.status_code == 503
        process.terminate()
        out, errors = process.communicate(timeout=60)
    written = out + errors + failed.text
    files = [path for path in Path(tmp_path).rglob("*") if path.is_file()]
    written += "".join(path.read_text(errors="replace") for path in files)
    assert "authentication failed" in errors
    assert "not currently accepting connections" in failed.text
    for secret in (token, wrong, SECRET):
        assert secret not in written
