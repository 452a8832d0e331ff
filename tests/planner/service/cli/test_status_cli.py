"""`poolwise status`: what is shown, what is down, and what it refuses."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import yaml

from planner.domain.fleet import Role
from planner.domain.forecast import Demand, Forecast, ForecastWindow, Quantiles
from planner.domain.workload import Shape
from planner.service.store import open_store
from planner.service.store.directives import Directive, DirectiveKind
from profiler.files import write_profile
from serving.fleet.endpoints import Endpoints, RouterEndpoint, WorkerEndpoint, write_endpoints
from tests.fakes.profiles import linear_profile
from tests.planner.service.cli.test_profile_cli import CONFIG
from tests.serving.telemetry.servers import Served, serving, until
from tests.serving.telemetry.test_whole import engine_text

FAST = ("--interval", "0.2", "--deadline", "5")


@pytest.fixture
def worker():
    with serving(Served(engine_text(generated=100, waiting=3, usage=0.5))) as served:
        yield served


def test_a_worker_that_is_down_is_told_and_the_others_are_shown(poolwise, worker) -> None:
    status, out, err = poolwise(
        *("status", "--worker", f"decode={worker.url}"),
        *("--worker", "prefill=http://127.0.0.1:9", *FAST),
    )
    assert (status, err) == (0, "")
    assert "prefill 127.0.0.1:9: it does not answer" in " ".join(out.split())
    assert "50.0% / 50.0%" in out
    assert "1 of 1" in out
    assert "0 of 1" in out


def test_when_nothing_answers_it_fails_with_the_reason(poolwise) -> None:
    status, out, err = poolwise("status", "--worker", "decode=http://127.0.0.1:9", *FAST)
    assert (status, out) == (1, "")
    assert "nothing answers" in err
    assert "it does not answer" in err


def test_json_has_every_signal_with_a_value_or_a_reason(poolwise, worker) -> None:
    status, out, _ = poolwise("status", "--worker", f"decode={worker.url}", *FAST, "--json")
    assert status == 0
    told = json.loads(out)
    (role,) = told["roles"]
    assert role["activity"]["waiting"]["value"] == 3.0
    assert role["activity"]["waiting"]["metric"] == "vllm:num_requests_waiting"

    def check(value):
        if isinstance(value, dict) and "missing" in value:
            assert (value["value"] is None) == bool(value["missing"])
        for part in value.values() if isinstance(value, dict) else ():
            check(part)
        for part in value if isinstance(value, list) else ():
            check(part)

    check(told)
    for name in ("ttft", "itl", "e2e"):
        assert set(told[name]) >= {"p50_s", "p95_s", "p99_s"}


def test_without_addresses_the_endpoints_file_is_read(poolwise, folder, worker) -> None:
    state = folder / "state"
    state.mkdir(exist_ok=True)
    write_endpoints(
        state,
        Endpoints(
            pid=1,
            model="m",
            routers=(
                RouterEndpoint(
                    cell="rack", url="http://127.0.0.1:9", metrics_url="http://127.0.0.1:9"
                ),
            ),
            workers=(
                WorkerEndpoint(name="worker-0", role=Role.DECODE, cell="rack", url=worker.url),
            ),
        ),
    )
    status, out, _ = poolwise("status", *FAST)
    assert status == 0
    assert "worker-0" in out
    assert "router rack" in out
    assert "no prefill worker answers: without one a decode worker serves nobody" in out
    status, out, _ = poolwise("status", *FAST, "--json")
    assert json.loads(out)["lacks"] == ["prefill"]


def test_without_a_deployment_it_says_where_it_looked(poolwise) -> None:
    status, _, err = poolwise("status")
    assert status == 1
    assert "no deployment runs from" in err


def test_of_a_dry_run_it_shows_what_the_service_knows(poolwise, folder, spec, monkeypatch) -> None:
    url = f"sqlite:///{folder / 'store.db'}"
    monkeypatch.setenv("POOLWISE_DATABASE_URL", url)
    store = open_store(url)
    store.add_forecast("here", forecast())
    store.close()
    spec.write_text(spec.read_text() + "target: {kind: dry_run}\n")
    status, out, err = poolwise("status", "--spec", str(spec), "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert told["forecast"]["expected_rps"]["value"] == 4.0
    assert (told["lacks"], told["ttft"]["p50_s"]["value"]) == ([], None)
    status, table, _ = poolwise("status", "--spec", str(spec))
    assert status == 0
    assert "target is dry_run, of which nothing runs" in " ".join(table.split())
    spec.write_text(spec.read_text().replace("dry_run", "local"))
    assert poolwise("status", "--spec", str(spec))[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--worker", "x=http://h:1"), "ROLE one of prefill, decode, aggregated"),
        (("--worker", "decode"), "write it as ROLE=URL"),
        (("--worker", "decode=h:1"), "is no address"),
        (("--worker", "decode=http://h:port"), "is no address"),
        (("--router", "nginx=http://h:1"), "KIND one of smg, vllm-router, dynamo, llm-d"),
        (("--gate", "h"), "is no address"),
        (("--selector", "a"), "go with --prometheus"),
        (("--prometheus", "http://h:1", "--gate", "http://h:2"), "reads all targets"),
        (("--prometheus", "http://h:1", "--prometheus-header", "X"), "NAME=VALUE"),
        (("--interval", "0"), "--interval 0: give 0.1 to 3600 seconds"),
        (("--watch", "nan"), "--watch nan: give"),
        (("--model", "m"), "give --spec"),
        (("--spec", "missing.yaml"), "missing.yaml"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(poolwise, arguments, message) -> None:
    status, out, err = poolwise("status", *arguments)
    assert (status, out) == (2, "")
    assert message in " ".join(err.split())


@pytest.fixture
def spec(folder):
    """A spec with one profile and a price, for the workers of these tests."""
    write_profile(replace(linear_profile(accelerator="gpu"), model="tiny"), folder / "p.json")
    document = {
        "apiVersion": "poolwise/v1",
        "name": "here",
        "models": [{"name": "tiny", "config": CONFIG}],
        "slos": [{"model": "tiny", "ttft_s": 1.0, "tpot_s": 0.05, "attainment_ratio": 0.9}],
        "accelerators": [
            {
                "name": "gpu",
                "per_node": 8,
                "inventory": 8,
                "usd_per_gpu_hour": {"on_demand": 3.6},
            }
        ],
        "profiles": ["p.json"],
        "pools": [
            {"model": "tiny", "role": "aggregated", "accelerator": "gpu"},
        ],
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def served_more(worker: Served) -> None:
    worker.text = engine_text(
        prompt=5000, generated=1000, finished=10, ttfts=(0.2,) * 10, gaps=(0.015,) * 10
    )


def test_with_a_spec_come_promises_cost_and_predictions(poolwise, worker, spec) -> None:
    worker.text = engine_text(waiting=1)
    command = ("status", "--worker", f"aggregated={worker.url}", "--spec", str(spec), "--json")
    grow = Growing(worker)
    with grow:
        status, out, err = poolwise(*command, "--interval", "2")
    assert status == 0, err
    told = json.loads(out)
    assert told["usd_per_hour"]["value"] == 3.6
    per_s = told["output_tokens_per_s"]["value"]
    assert told["usd_per_million_tokens"]["value"] == pytest.approx(1e-3 / per_s * 1e6)
    (kept,) = told["slos"]
    assert kept["attainment_ratio"]["low"] == kept["attainment_ratio"]["high"] == 1.0
    assert told["expected"]["ttft_p95_s"]["value"] > 0
    assert told["forecast"]["expected_rps"]["missing"].startswith("no service has kept a forecast")


class Growing:
    """Makes a worker serve requests between two looks."""

    def __init__(self, worker: Served) -> None:
        self.worker = worker

    def __enter__(self):
        import threading

        self.thread = threading.Thread(target=self.grow)
        self.thread.start()

    def __exit__(self, *_error) -> None:
        self.thread.join()

    def grow(self) -> None:
        until(lambda: bool(self.worker.bodies), "nobody looked")
        time.sleep(0.3)  # that look has its page by then
        served_more(self.worker)


def test_the_forecast_for_now_stands_beside_what_comes(
    poolwise, folder, worker, spec, monkeypatch
) -> None:
    url = f"sqlite:///{folder / 'store.db'}"
    monkeypatch.setenv("POOLWISE_DATABASE_URL", url)
    store = open_store(url)
    store.add_forecast("here", forecast())
    store.lease("here").begin_term(3, "poolwise-0_7_c0ffee", at=datetime.now(UTC))
    paused = Directive(
        kind=DirectiveKind.PAUSE, subject="in", set_by="ann", set_at=datetime.now(UTC)
    )
    store.directives("here").put([paused])
    store.close()
    _, out, _ = poolwise(
        "status", "--worker", f"aggregated={worker.url}", "--spec", str(spec), *FAST, "--json"
    )
    led_by = json.loads(out)["led_by"]
    assert (led_by["holder"], led_by["term"]) == ("poolwise-0_7_c0ffee", 3)
    assert json.loads(out)["ordered"] == ["scaling in is paused by ann"]
    beside = json.loads(out)["forecast"]
    assert beside["expected_rps"]["value"] == 4.0
    assert beside["expected_high_rps"]["value"] == 6.0
    _, table, _ = poolwise(
        "status", "--worker", f"aggregated={worker.url}", "--spec", str(spec), *FAST
    )
    assert "poolwise-0_7_c0ffee, term 3" in table
    for name, tokens in (("input", 100), ("output", 10)):
        assert beside[f"expected_{name}_tokens_per_s"]["value"] == 4.0 * tokens
        assert beside[f"expected_high_{name}_tokens_per_s"]["value"] == 6.0 * tokens


def forecast() -> Forecast:
    made_at = datetime.now(UTC) - timedelta(seconds=30)
    rates = Quantiles(levels=(0.5, 0.9), values=(4.0, 6.0))
    shape = Shape(
        input_tokens=np.array([100.0]),
        output_tokens=np.array([10.0]),
        cached_tokens=np.array([0.0]),
        weight=np.array([1.0]),
    )
    demand = Demand(
        request_rate_rps=rates,
        input_tokens_per_s=rates.times(100),
        output_tokens_per_s=rates.times(10),
        shape=shape,
    )
    window = ForecastWindow(start_at=made_at, window_s=300.0, demands=(demand,))
    return Forecast(
        forecast_id="f", model="tiny", made_at=made_at, windows=(window,), method="last value"
    )


def test_watching_shows_one_look_a_line_until_it_is_stopped(worker) -> None:
    command = [sys.executable, "-m", "planner.service.cli.main", "status", "--json"]
    command += ["--worker", f"decode={worker.url}", "--watch", "0.3"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as watching:
        try:
            assert watching.stdout is not None
            looks = [json.loads(watching.stdout.readline()) for _ in range(2)]
        finally:
            watching.send_signal(signal.SIGINT)
    assert watching.returncode == 130
    assert looks[0]["looked_at"] < looks[1]["looked_at"]
    assert looks[1]["output_tokens_per_s"]["value"] == 0.0
