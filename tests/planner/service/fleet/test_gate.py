"""`poolwise gate`: the command as a process, its keys, and what the store keeps of requests."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from planner.service.fleet.gate import prices_of
from planner.service.spec.file import read_spec
from planner.service.store import open_store
from serving.gate.records import RequestRecord
from tests.fakes.upstream import StubUpstream, says, whole
from tests.planner.service.examples import write_spec

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
OK = says(whole(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}'))
RECORD = RequestRecord(
    started_at=NOW,
    model="tiny",
    request_class="chat",
    priority=3,
    client="shop",
    kind="chat",
    decision="admit",
    reason="fits",
    cell="a",
    outcome="complete",
    status=200,
    input_tokens=12,
    cached_tokens=None,
    output_tokens=5,
    tokens_counted=True,
    ttft_s=0.25,
    tpot_s=None,
    itl_p99_s=None,
    e2e_s=0.5,
    predicted_ttft_s=0.2,
    predicted_tpot_s=0.01,
    met=True,
    cost_usd=1e-6,
)


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path / 'poolwise.db'}")
    yield opened
    opened.close()


def kept(store, **changes):
    asked = {"start_at": NOW - timedelta(days=30), "limit": 100, **changes}
    return store.gate_requests_since("shop", **asked)


def test_records_come_back_as_they_were(store):
    later = replace(RECORD, started_at=NOW + timedelta(seconds=1), met=None, ttft_s=None)
    store.add_gate_requests("shop", [later, RECORD], now=NOW, retention_s=60)
    store.add_gate_requests("other", [RECORD], now=NOW, retention_s=60)
    assert kept(store) == (RECORD, later)
    assert kept(store, limit=1) == (later,)
    assert kept(store, start_at=later.started_at) == (later,)


def test_records_go_when_they_are_old_those_of_other_deployments_stay(store):
    for name in ("shop", "other"):
        store.add_gate_requests(name, [RECORD], now=NOW, retention_s=60)
    store.add_gate_requests("shop", [], now=NOW + timedelta(seconds=61), retention_s=60)
    assert kept(store) == ()
    assert len(store.gate_requests_since("other", start_at=NOW, limit=5)) == 1


def test_no_column_could_hold_a_prompt(store, tmp_path):
    connection = sqlite3.connect(tmp_path / "poolwise.db")
    columns = {row[1] for row in connection.execute("PRAGMA table_info(gate_requests)")}
    connection.close()
    assert not columns & {"prompt", "messages", "text", "body", "answer", "content"}


def test_a_second_of_a_replica_is_priced_by_the_spec(tmp_path):
    spec = read_spec(write_spec(tmp_path))
    prices = prices_of(spec, spec.profiles)
    assert prices.prefill_usd_per_s == prices.decode_usd_per_s == pytest.approx(1.0 / 3600)


def command(folder, *arguments, state="state"):
    return [
        sys.executable, "-m", "planner.service.cli.main", "gate", *arguments
    ], {**os.environ, "POOLWISE_STATE_DIR": str(folder / state)}  # fmt: skip


def called(folder, *arguments):
    line, environment = command(folder, *arguments)
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


@contextmanager
def running(folder, *arguments):
    line, environment = command(folder, "run", "--spec", str(folder / "spec.yaml"), *arguments)
    process = subprocess.Popen(
        [*line, "--json", "--port", "0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
        assert "Traceback" not in errors


def test_the_gate_serves_by_key_and_its_records_survive_it(tmp_path):
    write_spec(tmp_path)
    made = json.loads(called(tmp_path, "key", "add", "shop", "--priority", "4", "--json").stdout)
    headers = {"Authorization": f"Bearer {made['key']}"}
    body = {"model": "tiny", "prompt": "hello"}
    with (
        StubUpstream(OK) as upstream,
        running(tmp_path, "--router", upstream.url) as (process, url),
    ):
        assert httpx.post(f"{url}/v1/completions", json=body).status_code == 401
        assert httpx.post(f"{url}/v1/completions", json=body, headers=headers).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    opened = open_store(f"sqlite:///{tmp_path / 'state' / 'poolwise.db'}")
    (record,) = opened.gate_requests_since("shop", start_at=NOW, limit=5)
    opened.close()
    assert (record.client, record.priority, record.output_tokens) == ("shop", 4, 5)


def test_an_answer_under_way_is_finished_before_the_gate_ends(tmp_path):
    write_spec(tmp_path)

    async def slow(writer, _request):
        await asyncio.sleep(1.5)
        writer.write(whole(b'{"choices":[]}'))

    answers = []
    with (
        StubUpstream(slow) as upstream,
        running(tmp_path, "--router", upstream.url, "--anonymous", "--no-record") as (process, url),
    ):
        body = {"model": "tiny", "prompt": "x"}
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{url}/v1/completions", json=body))
        )
        asking.start()
        time.sleep(0.7)
        process.send_signal(signal.SIGTERM)
        asking.join(10)
        assert process.wait(timeout=20) == 0
    assert [a.status_code for a in answers] == [200]


def test_keys_are_listed_without_secrets_and_revoked(tmp_path):
    made = called(tmp_path, "key", "add", "shop", "--class", "chat", "--requests-per-s", "2")
    assert made.returncode == 0
    secret = made.stdout.split("shown only now: ")[1].split()[0]
    again = called(tmp_path, "key", "add", "shop")
    assert (again.returncode, "has a key named shop" in again.stderr) == (2, True)
    listed = called(tmp_path, "key", "list")
    assert "chat" in listed.stdout
    assert secret not in listed.stdout + (tmp_path / "state" / "gate-keys.json").read_text()
    assert called(tmp_path, "key", "revoke", "shop").returncode == 0
    assert called(tmp_path, "key", "revoke", "shop").returncode == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "holds no API key"),
        (("--anonymous", "--host", "0.0.0.0"), "loopback address only"),
        (("--anonymous", "--router", "127.0.0.1:3000"), "is no address"),
        (("--anonymous", "--keys", "spec.yaml"), "cannot be read as a file of API keys"),
        (("--anonymous", "--model", "other"), "other"),
    ],
)
def test_bad_options_are_told_in_one_line(tmp_path, arguments, words, monkeypatch):
    write_spec(tmp_path)
    monkeypatch.chdir(tmp_path)
    line, environment = command(tmp_path, "run", "--spec", "spec.yaml", *arguments)
    done = subprocess.run(
        line,
        env={**environment, "PYTHONPATH": str(Path(__file__).resolve().parents[4])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_told(tmp_path):
    write_spec(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        arguments = ("run", "--spec", str(tmp_path / "spec.yaml"), "--anonymous", "--port", port)
        done = called(tmp_path, *arguments)
    assert done.returncode == 1
    assert f"port {port}" in done.stderr


def test_only_a_listening_socket_is_taken_over(tmp_path):
    write_spec(tmp_path)
    spec = ("run", "--spec", str(tmp_path / "spec.yaml"), "--anonymous", "--no-record")
    refused = called(tmp_path, *spec, "--listen-fd", "77")
    assert refused.returncode == 2
    assert "--listen-fd 77 is no open socket" in refused.stderr
    with socket.socket() as silent:
        line, environment = command(tmp_path, *spec, "--listen-fd", str(silent.fileno()))
        refused = subprocess.run(
            line,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            pass_fds=[silent.fileno()],
        )
    assert refused.returncode == 2
    assert "does not listen" in refused.stderr
