"""Through a real Prometheus server: rates, restarts, what is down, what is refused."""

import json
from pathlib import Path

import pytest

from planner.domain.errors import EngineError
from planner.domain.fleet import Role
from serving.telemetry.prometheus import PrometheusServer, look_through
from serving.telemetry.reader import PrometheusReader
from serving.telemetry.signals import Source, TargetSignals, TargetState
from serving.telemetry.targets import signals_of
from tests.serving.telemetry.look import histogram_text
from tests.serving.telemetry.servers import Served, prometheus, serving, until, value_of


def page(tokens: int, *, colon: bool = True, ttfts: int = 0) -> str:
    text = (
        f'vllm:num_requests_running{{model_name="m"}} 2\nvllm:generation_tokens_total {tokens}\n'
        + histogram_text("vllm:time_to_first_token_seconds", [0.3] * ttfts, (0.1, 0.5))
    )
    return text if colon else text.replace("vllm:", "vllm_").replace("tokens_total", "tokens")


def read(url: str, *, window_s: float = 60.0, selector: str = "") -> tuple[TargetSignals, ...]:
    server = PrometheusServer(url=url, window_s=window_s, selector=selector)
    return PrometheusReader(server, 10.0).read().targets


def scraped(url: str, query: str, value: float) -> None:
    until(lambda: value_of(url, query) == value, f"{query} did not become {value}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def test_targets_with_their_roles_and_rates_are_read_whatever_their_spelling(folder: Path) -> None:
    with serving(Served(page(100))) as one, serving(Served(page(100, colon=False))) as two:
        jobs = {"a": (one.url, "role: prefill"), "b": (two.url, "llm_d_ai_role: decode")}
        with prometheus(folder, jobs) as url:
            scraped(url, "count(count_over_time(up[1m]) >= 2)", 2)
            scraped(url, 'vllm:generation_tokens_total{job="a"}', 100)
            one.text, two.text = page(400, ttfts=3), page(700, colon=False)
            scraped(url, 'vllm:generation_tokens_total{job="a"}', 400)
            scraped(url, 'vllm_generation_tokens{job="b"}', 700)
            prefill, decode = read(url)
    assert (prefill.role, decode.role) == (Role.PREFILL, Role.DECODE)
    assert {t.source for t in (prefill, decode)} == {Source.VLLM}
    assert (prefill.model, prefill.state) == ("m", TargetState.UP)
    for target, tokens in ((prefill, 300), (decode, 600)):
        assert target.interval_s is not None
        rate = target.activity.output_tokens_per_s.value
        assert rate == pytest.approx(tokens / target.interval_s)
    assert prefill.activity.ttft.count.value == 3
    assert prefill.activity.ttft.p50_s.low == 0.1


def test_a_restart_in_the_window_is_counted_over_as_prometheus_does(folder: Path) -> None:
    with serving(Served(page(1000))) as one, prometheus(folder, {"a": (one.url, "")}) as url:
        for tokens in (1000, 1600, 50, 250):
            one.text = page(tokens)
            scraped(url, "vllm:generation_tokens_total", tokens)
        (target,) = read(url)
    assert target.state is TargetState.RESTARTED
    assert target.interval_s is not None
    grown = target.activity.output_tokens_per_s.value
    assert grown == pytest.approx((600 + 250) / target.interval_s)


def test_what_is_not_scraped_any_more_is_down_and_the_others_are_read(folder: Path) -> None:
    with (
        serving(Served(page(1))) as one,
        serving(Served(page(1))) as two,
        prometheus(folder, {"a": (one.url, ""), "b": (two.url, "")}) as url,
    ):
        scraped(url, "count(vllm:generation_tokens_total)", 2)
        two.status = 500
        scraped(url, 'up{job="b"}', 0)
        first, second = read(url)
        # Its series carry a staleness mark: the server does not answer with them any more.
        assert value_of(url, "count(vllm:generation_tokens_total)") == 1
    assert first.state is TargetState.UP
    assert second.state is TargetState.DOWN
    assert "Prometheus cannot scrape it" in second.note


def test_when_everything_is_down_that_is_an_error(folder: Path) -> None:
    with serving(Served(page(1))) as one, prometheus(folder, {"a": (one.url, "")}) as url:
        scraped(url, "count(vllm:generation_tokens_total)", 1)
        one.status = 500
        scraped(url, "up", 0)
        with pytest.raises(EngineError, match=r"nothing answers:\n.*Prometheus cannot scrape it"):
            read(url)


def test_a_selector_chooses_series_and_a_wrong_one_is_refused(folder: Path) -> None:
    with (
        serving(Served(page(1))) as one,
        serving(Served(page(1))) as two,
        prometheus(folder, {"a": (one.url, ""), "b": (two.url, "")}) as url,
    ):
        scraped(url, "count(vllm:generation_tokens_total)", 2)
        (only,) = read(url, selector='job="b"')
        assert only.url == two.url.removeprefix("http://")
        with pytest.raises(EngineError, match=r"refuses the query: .*check --selector"):
            read(url, selector='job="b')
        with pytest.raises(EngineError, match=r'none of the metrics .* with job="c"'):
            read(url, selector='job="c"')


def matrix(points: list[tuple[float, str]]) -> str:
    series = {"metric": {"__name__": "vllm:num_requests_running", "job": "j"}, "values": points}
    return json.dumps({"status": "success", "data": {"resultType": "matrix", "result": [series]}})


def test_headers_are_sent_with_every_query() -> None:
    with serving(Served(matrix([(1.0, "1")]))) as stub:
        server = PrometheusServer(url=stub.url, headers={"Authorization": "Bearer t"})
        look_through(server, deadline_s=5)
    assert len(stub.headers) == 3
    assert {headers["Authorization"] for headers in stub.headers} == {"Bearer t"}


def test_queues_are_known_at_every_scrape_of_the_window() -> None:
    points = [(1.0, "1"), (2.0, "3"), (3.0, "0"), (4.0, "2")]
    with serving(Served(matrix(points))) as stub:
        (seen,) = look_through(PrometheusServer(url=stub.url), deadline_s=5)
    running = [signals_of(None, look).activity.running.value for look in seen.looks]
    assert running == [1.0, 3.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (401, "no", "POOLWISE_PROMETHEUS_AUTHORIZATION"),
        (200, "<html>", "not as Prometheus does"),
        (404, "{}", "not as Prometheus does"),
        (422, '{"status": "error", "error": "too many samples"}', "too many samples"),
    ],
)
def test_a_server_that_will_not_or_is_none_is_an_error(status, text, message) -> None:
    with (
        serving(Served(text, status=status)) as stub,
        pytest.raises(EngineError, match=message),
    ):
        look_through(PrometheusServer(url=stub.url), deadline_s=5)


def test_a_server_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(EngineError, match="does not answer"):
        look_through(PrometheusServer(url="http://127.0.0.1:9"), deadline_s=2)
