"""A request's id is in its answer, its lines of log and its span; ticks are spans of stages."""

import asyncio
import io
import json
import logging
import subprocess
import sys
from dataclasses import replace

import httpx
import pytest

from planner.domain.errors import InputError
from planner.domain.fleet import Role
from planner.service.api import create_app
from planner.service.loop.scheduler import tick_once
from planner.service.loop.slow_tick import tick
from planner.service.telemetry.logs import REQUEST_ID, fields, log_to
from planner.service.telemetry.metrics import Metrics
from planner.service.telemetry.observability import LogFormat, read_log_format
from planner.service.telemetry.tracing import make_tracing, tracing_to
from tests.planner.service.clients import service_of
from tests.planner.service.examples import NOON, fleet, history, write_spec
from tests.planner.service.imagined import BUSY, make_deployment, observe
from tests.planner.service.served import served

LOG = logging.getLogger("poolwise.tests")


@pytest.fixture
def written():
    """What is logged, as a function of the format."""
    stream, handlers = io.StringIO(), []

    def lines(how: LogFormat):
        handlers.append(log_to(stream, how, level=logging.DEBUG))
        return stream

    yield lines
    for handler in handlers:
        logging.getLogger().removeHandler(handler)


@pytest.fixture
def deployment(tmp_path):
    made = make_deployment(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def spans():
    exporter_of = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = exporter_of.InMemorySpanExporter()
    tracing = tracing_to(exporter, at_once=True)
    yield tracing, exporter
    tracing.stop()


def test_json_lines_hold_every_figure_by_name_and_whatever_text_there_is(written):
    stream = written(LogFormat.JSON)
    nasty = 'a "quoted"\nline = with é and \x1b[31m'
    LOG.info("tick", extra=fields(deployment="shop", took_s=0.25, reason=nasty, plan_id=None))
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)
    assert told["reason"] == nasty
    assert (told["level"], told["logger"], told["msg"]) == ("info", "poolwise.tests", "tick")
    assert told["took_s"] == 0.25
    assert told["at"].endswith("Z")
    assert "request_id" not in told


def test_key_value_lines_stay_one_line_and_quote_what_needs_it(written):
    stream = written(LogFormat.KEY_VALUE)
    LOG.warning("two words", extra=fields(deployment="shop", reason="a=b\nc", url="http://h:1/x"))
    (line,) = stream.getvalue().splitlines()
    assert ' level=warning logger=poolwise.tests msg="two words" deployment=shop ' in line
    assert 'reason="a=b\\nc"' in line
    assert line.endswith("url=http://h:1/x")


def test_a_traceback_is_part_of_the_line(written):
    stream = written(LogFormat.JSON)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        LOG.exception("it failed")
    told = json.loads(stream.getvalue())
    assert "RuntimeError: broken" in told["exception"]


def test_addresses_that_clients_ask_are_not_logged(written):
    stream = written(LogFormat.KEY_VALUE)
    with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
        client.get("https://hooks.example/T0PSECRET")
    assert "T0PSECRET" not in stream.getvalue()


def test_an_unknown_format_is_refused_by_name():
    with pytest.raises(InputError, match="POOLWISE_LOG_FORMAT must be one of key-value, json"):
        read_log_format({"POOLWISE_LOG_FORMAT": "xml"})


class Client:
    """Requests to an app without a socket."""

    def __init__(self, deployment, tracing=None):
        service = service_of(deployment, insecure_local=True, tracing=tracing)
        self.app = create_app(service)

    def get(self, path, **headers):
        async def answer():
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as ours:
                return await ours.get(path, headers=headers)

        return asyncio.run(answer())


def test_an_id_that_comes_with_a_request_goes_with_its_answer_and_its_lines(written, deployment):
    stream = written(LogFormat.JSON)
    answer = Client(deployment).get("/v1/plans", **{"X-Request-ID": "abc-1"})
    assert answer.headers["X-Request-ID"] == "abc-1"
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (told,) = [line for line in lines if line["msg"] == "request"]
    assert (told["request_id"], told["path"], told["status"]) == ("abc-1", "/v1/plans", 200)
    assert REQUEST_ID.get() == ""


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a\x00b", "é", "<script>"])
def test_an_id_that_is_none_is_replaced(deployment, given):
    client, headers = Client(deployment), {"X-Request-ID": given.encode("latin-1")}
    ids = {client.get("/healthz", **headers).headers["X-Request-ID"] for _ in range(2)}
    assert len(ids) == 2
    assert all(len(one) == 32 for one in ids)


def test_errors_carry_the_id_too(deployment):
    answer = Client(deployment).get("/v1/plans/none", **{"X-Request-ID": "abc-2"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (404, "abc-2")


def test_a_request_is_a_span_with_its_route_and_goes_on_from_the_caller_s(deployment, spans):
    tracing, exporter = spans
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    client = Client(deployment, tracing)
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "X-Request-ID": "abc-3"}
    client.get("/v1/plans/none", **headers)
    client.get("/metrics")
    (span,) = exporter.get_finished_spans()
    assert f"{span.context.trace_id:032x}" == trace
    assert span.attributes["http.route"] == "/v1/plans/{plan_id}"
    assert span.attributes["http.response.status_code"] == 404
    assert span.attributes["poolwise.request_id"] == "abc-3"


def test_a_tick_is_a_span_with_its_stages_inside(tmp_path, spans):
    tracing, exporter = spans
    made = replace(make_deployment(tmp_path, loop={"mode": "auto"}), span=tracing.span)
    observe(made, history(**BUSY))
    report = tick(made, now=NOON)
    finished = {span.name: span for span in exporter.get_finished_spans()}
    assert list(finished) == ["compare", "observe", "forecast", "plan", "apply", "tick"]
    whole = finished.pop("tick")
    assert whole.attributes["poolwise.outcome"] == "applied"
    assert whole.attributes["poolwise.plan_id"] == report.decision.plan.plan_id
    for span in finished.values():
        assert span.parent.span_id == whole.context.span_id
    made.store.close()


def test_a_tick_that_fails_is_a_span_with_an_error(tmp_path, spans):
    tracing, exporter = spans
    made = replace(make_deployment(tmp_path, loop={"mode": "auto"}), span=tracing.span)
    made.actuator.fails_at = 0
    observe(made, history(**BUSY))
    tick(made, now=NOON)
    (whole,) = [span for span in exporter.get_finished_spans() if span.name == "tick"]
    assert not whole.status.is_ok
    assert "the machine is on fire" in whole.status.description
    made.store.close()


def test_a_tick_is_one_line_with_its_figures(written, deployment):
    stream = written(LogFormat.JSON)
    observe(deployment, history(**BUSY))
    tick_once(deployment, Metrics())
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (told,) = [line for line in lines if line["msg"] == "tick"]
    assert told["outcome"] == "pending"
    assert told["plan_id"] in told["reason"]
    assert deployment.actuator.fleet.replicas(Role.PREFILL) == 1


def test_without_an_address_there_is_no_tracing():
    assert make_tracing({}) is None
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}
    assert make_tracing(told) is None


def test_the_service_works_without_opentelemetry_and_says_what_to_install_for_traces():
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['opentelemetry.sdk', 'opentelemetry.exporter']))\n"
        "from planner.service.telemetry.tracing import make_tracing, no_span\n"
        "import planner.service.server\n"
        "with no_span('x') as told: told['a'] = 1\n"
        "assert make_tracing({}) is None\n"
        "try: make_tracing({'OTEL_EXPORTER_OTLP_ENDPOINT': 'http://h'})\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'poolwise[otel]'" in done.stdout, done.stderr


def test_serve_writes_json_where_it_is_asked_to(tmp_path):
    write_spec(tmp_path, loop={"mode": "advise", "slow_interval_s": 1})
    with served(tmp_path, "--insecure-local", "--log-format", "json") as (process, facts):
        httpx.put(f"{facts['url']}/v1/deployments/shop/fleet", json=fleet(), timeout=60)
        line = process.stderr.readline()
        while '"request"' not in line:
            assert json.loads(line)
            line = process.stderr.readline()
    told = json.loads(line)
    assert (told["method"], told["status"]) == ("PUT", 200)
