"""What the gate does not pass on, and what it says then."""

import asyncio
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest

from planner.domain.fleet import Role
from planner.domain.slo import Slo
from serving.fleet.endpoints import Endpoints, RouterEndpoint, WorkerEndpoint, write_endpoints
from serving.gate.app import GateSettings
from serving.gate.asgi import read_body
from serving.gate.cells import Cells
from serving.gate.keys import ApiKey, Keys, add_key, hash_of, read_keys, revoke_key
from serving.gate.requests import Asked, Kind, read_request
from tests.fakes.profiles import linear_profile
from tests.fakes.upstream import StubUpstream, event, says, whole
from tests.serving.gate.running import running_gate, worker_page

OK = says(whole(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}'))
ASK = {"model": "tiny", "prompt": "hello", "max_tokens": 4}


@pytest.fixture
def upstream():
    with StubUpstream(OK) as stub:
        yield stub


KV = "kv_transfer_params"


def refused(body: object, kind: Kind = Kind.COMPLETION, *, disaggregated: bool = True):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = read_request(raw, kind, disaggregated=disaggregated)
    return None if isinstance(found, Asked) else found


@pytest.mark.parametrize(
    ("body", "reason", "param"),
    [
        (b"{not json", "invalid_json", None),
        (b"\xff\xfe", "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b"[1, 2]", "invalid_json", None),
        ({**ASK, KV: {"remote_host": "x"}}, KV, KV),
        ({**ASK, KV: None}, KV, KV),
        (b'{"prompt":"x","kv_transfer\\u005fparams":{},"a":1}', KV, KV),
        ({**ASK, "vllm_xargs": {KV: "x"}}, KV, "vllm_xargs"),
        ({**ASK, "bootstrap_host": "x"}, KV, "bootstrap_host"),
        ({**ASK, "prompt": ["one", "two"]}, "multi_prompt", "prompt"),
        ({**ASK, "prompt": [[1, 2], [3]]}, "multi_prompt", "prompt"),
        ({**ASK, "prompt_embeds": ["YQ==", "Yg=="]}, "multi_prompt", "prompt_embeds"),
        ({**ASK, "prompt": "a", "prompt_embeds": "QQ=="}, "multi_prompt", "prompt_embeds"),
        ({**ASK, "prompt": [None, "b", "c"]}, "multi_prompt", "prompt"),
        ({**ASK, "prompt": ["b", 1]}, "multi_prompt", "prompt"),
        ({**ASK, "model": 7}, "bad_request", "model"),
        (b'{"prompt":"x","max_tokens":9000,"max_tokens":1}', "repeated_key", None),
        (b'{"prompt":"x","stream":true,"str\\u0065am":false}', "repeated_key", None),
        (b'{"vllm_xargs":{"kv_transfer_params":1},"vllm_xargs":{}}', "repeated_key", None),
        (b'{"prompt":"x","stream_options":{"a":1,"a":2}}', "repeated_key", None),
        (b'{"messages":[{"content":"long","content":""}]}', "repeated_key", None),
    ],
)  # fmt: skip
def test_bad_bodies_are_refused_with_the_field(body, reason, param):
    found = refused(body)
    assert (found.status, found.reason, found.param) == (400, reason, param)


@pytest.mark.parametrize("prompt", ["one", ["one"], [1, 2, 3], [[1, 2, 3]], []])
def test_single_prompts_in_any_form_pass(prompt):
    assert refused({**ASK, "prompt": prompt}) is None


@pytest.mark.parametrize("prompt", [None, ""])
def test_a_prompt_given_as_numbers_alone_passes(prompt):
    assert refused({**ASK, "prompt": prompt, "prompt_embeds": "QQ=="}) is None


def test_a_limit_that_is_null_leaves_the_other_one():
    body = json.dumps({**ASK, "max_completion_tokens": None, "max_tokens": 16}).encode()
    found = read_request(body, Kind.CHAT, disaggregated=True)
    assert isinstance(found, Asked)
    assert found.max_tokens == 16


@pytest.mark.parametrize("stream", [True, 1, 1.0, "true", "Yes", "on", "1"])
@pytest.mark.parametrize("count", [3, 3.0, "3"])
def test_what_vllm_takes_for_true_or_for_a_count_is_so_to_the_gate(stream, count):
    body = {**ASK, "stream": stream, "n": count, "max_tokens": count}
    found = read_request(json.dumps(body).encode(), Kind.COMPLETION, disaggregated=True)
    assert (found.stream, found.answers, found.max_tokens) == (True, 3, 3)
    assert found.decode_computes


@pytest.mark.parametrize("stream", [False, None, 0, 2, "no", "false", "2", []])
@pytest.mark.parametrize("count", [None, True, 0, -1, 2.5, "", "many", "9" * 30, 1e300])
def test_what_vllm_refuses_or_takes_for_false_counts_nothing(stream, count):
    body = {**ASK, "stream": stream, "n": count, "max_tokens": count}
    found = read_request(json.dumps(body).encode(), Kind.COMPLETION, disaggregated=True)
    assert (found.stream, found.answers, found.max_tokens) == (False, 1, None)


def test_several_prompts_pass_where_one_worker_does_both():
    assert refused({**ASK, "prompt": ["one", "two"]}, disaggregated=False) is None


def test_lengths_are_read_without_keeping_text():
    messages = [
        {"role": "system", "content": "12345"},
        {"role": "user", "content": [{"type": "text", "text": "678"}, {"type": "image_url"}]},
        "junk",
    ]
    body = {"messages": messages, "max_completion_tokens": 9, "max_tokens": 3, "stream": True}
    found = read_request(json.dumps(body).encode(), Kind.CHAT, disaggregated=True)
    assert (found.characters, found.max_tokens, found.stream) == (8, 9, True)
    ids = read_request(b'{"prompt":[1,2,3],"max_tokens":true}', Kind.COMPLETION, disaggregated=True)
    assert (ids.prompt_tokens, ids.max_tokens) == (3, None)


def post(url: str, body: object = ASK, **headers: str) -> httpx.Response:
    path = f"{url}/v1/completions"
    return httpx.post(path, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


def test_another_model_is_unknown_in_vllms_words(upstream):
    with running_gate(upstream.url) as gate:
        answer = post(gate.url, {**ASK, "model": "gpt-9"})
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": "The model `gpt-9` does not exist.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }
    assert upstream.received == []


def test_a_body_that_is_too_large_is_refused_and_the_client_learns_why(upstream):
    settings = GateSettings(models=("tiny",), anonymous=True, max_body_bytes=1000)
    with running_gate(upstream.url, settings=settings) as gate:
        assert post(gate.url, {**ASK, "prompt": "x" * 100}).status_code == 200
        answer = post(gate.url, {**ASK, "prompt": "x" * 5000})
        assert answer.status_code == 413
        assert "1000 bytes" in answer.json()["error"]["message"]
        with httpx.Client() as client:  # told by nobody beforehand
            parts = (b"x" * 100 for _ in range(20))
            streamed = client.post(f"{gate.url}/v1/completions", content=parts)
            assert streamed.status_code == 413
    assert len(upstream.received) == 1


@pytest.mark.parametrize(("keep", "kept"), [(True, b"x" * 300), (False, b"")])
def test_of_a_client_that_is_refused_no_body_is_held(keep, kept):
    parts = [{"type": "http.request", "body": b"x" * 100, "more_body": left} for left in (2, 1, 0)]
    coming = iter(parts)

    async def receive():
        return next(coming)

    assert asyncio.run(read_body(receive, 1000, keep=keep)) == kept
    assert next(coming, None) is None  # read to its end all the same


def test_other_methods_and_paths_are_refused(upstream):
    with running_gate(upstream.url) as gate:
        assert httpx.get(f"{gate.url}/v1/completions").status_code == 405
        assert httpx.post(f"{gate.url}/v1/embeddings", json={}).status_code == 404
    assert upstream.received == []


def test_garbage_on_the_wire_harms_nobody(upstream):
    with running_gate(upstream.url) as gate:
        for junk in (b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\n"):
            with socket.create_connection(("127.0.0.1", gate.port), timeout=2) as one:
                one.sendall(junk)
        assert post(gate.url).status_code == 200


@pytest.mark.parametrize(
    "odd",
    [
        {"max_tokens": 10**300},
        {"n": 10**300, "max_tokens": -5},
        {"prompt": None},
        {"prompt": {"a": 1}},
        {"prompt": [None, 3]},
        {"stream": "yes"},
        {"max_tokens": "many"},
    ],
)
def test_odd_values_are_left_to_the_upstream(upstream, odd):
    with running_gate(upstream.url) as gate:
        assert post(gate.url, {**ASK, **odd}).status_code == 200
    assert json.loads(upstream.received[0].body) == {**ASK, **odd}


SHOP = ApiKey(name="shop", key_hash=hash_of("pwk_shop"), request_class="chat", priority=5)


def keyed(**changes: float) -> tuple[GateSettings, Keys]:
    slo = Slo(model="tiny", request_class="chat", ttft_s=1.0, tpot_s=0.1)
    return GateSettings(models=("tiny",), slos={"chat": slo}), Keys(
        keys=(replace(SHOP, **changes),)
    )


def test_only_known_keys_pass_and_bring_their_class(upstream):
    settings, keys = keyed()
    with running_gate(upstream.url, settings=settings, keys=keys) as gate:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
            answer = post(gate.url, **headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
        assert httpx.get(f"{gate.url}/v1/models").status_code == 401
        assert upstream.received == []
        assert (
            post(gate.url, Authorization="Bearer pwk_shop", x_poolwise_class="vip").status_code
            == 200
        )
    (record,) = gate.sink.records
    assert (record.client, record.request_class, record.priority) == ("shop", "chat", 5)
    assert "pwk_shop" not in repr(gate.gate.__dict__)


def test_requests_beyond_a_keys_rate_are_told_when_to_come_again(upstream):
    settings, keys = keyed(requests_per_s=0.02)
    with running_gate(upstream.url, settings=settings, keys=keys) as gate:
        answers = [post(gate.url, Authorization="Bearer pwk_shop") for _ in range(2)]
    assert [a.status_code for a in answers] == [200, 429]
    assert 1 <= int(answers[1].headers["retry-after"]) <= 50


def test_tokens_beyond_a_keys_rate_are_refused_once_answers_were_counted(upstream):
    settings, keys = keyed(tokens_per_s=1.0)
    with running_gate(upstream.url, settings=settings, keys=keys) as gate:
        answers = [post(gate.url, Authorization="Bearer pwk_shop") for _ in range(2)]
    assert [a.status_code for a in answers] == [200, 429]
    assert "tokens" in answers[1].json()["error"]["message"]


def test_what_no_engine_computed_is_not_charged_for(upstream):
    """Bodies that the router refuses: a limit of 100 tokens lets all of them through."""
    settings, keys = keyed(tokens_per_s=20.0)
    no = b'{"error":{"message":"no","code":400}}'
    with (
        StubUpstream(says(whole(no, status=400))) as refusing,
        running_gate(refusing.url, settings=settings, keys=keys) as gate,
    ):
        body = {**ASK, "prompt": [1] * 100}
        answers = [post(gate.url, body, Authorization="Bearer pwk_shop") for _ in range(4)]
        metrics = httpx.get(f"{gate.url}/metrics").text
    assert [a.status_code for a in answers] == [400] * 4
    assert [r.cost_usd for r in gate.sink.records] == [None] * 4
    assert "poolwise_gate_tokens_total{" not in metrics


def test_a_key_of_a_class_without_objectives_is_told(upstream, caplog):
    settings, keys = keyed()
    other = replace(SHOP, name="typo", key_hash=hash_of("pwk_typo"), request_class="chta")
    with running_gate(upstream.url, settings=settings, keys=Keys(keys=(*keys.keys, other))):
        pass
    (told,) = [r.getMessage() for r in caplog.records if "typo" in r.getMessage()]
    assert "key typo is of class chta" in told
    assert "Classes with objectives: chat, default" in told


def test_anonymous_clients_choose_a_known_class(upstream):
    settings, _ = keyed()
    settings = GateSettings(models=("tiny",), slos=settings.slos, anonymous=True)
    with running_gate(upstream.url, settings=settings) as gate:
        assert post(gate.url, x_poolwise_class="chat").status_code == 200
        assert post(gate.url, x_poolwise_class="nonsense").status_code == 400
    assert [r.request_class for r in gate.sink.records] == ["chat"]


def test_a_key_is_shown_once_and_a_running_gate_follows_its_file(upstream, tmp_path):
    path = tmp_path / "deep" / "keys.json"
    settings, _ = keyed()
    _, secret = add_key(path, ApiKey(name="shop", key_hash=""))
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    with running_gate(
        upstream.url, settings=settings, keys=read_keys(path), keys_file=path
    ) as gate:
        assert post(gate.url, Authorization=f"Bearer {secret}").status_code == 200
        revoke_key(path, "shop")
        until = time.monotonic() + 5
        while post(gate.url, Authorization=f"Bearer {secret}").status_code != 401:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_an_overloaded_deployment_sheds_with_a_time_to_come_again(tmp_path):
    """Prompts of half a second each against a promise of one: the third in line is shed."""
    hold = 1.5

    async def slow(writer, _request):
        await asyncio.sleep(hold)
        writer.write(whole(event("x")))

    profile = linear_profile(prefill_base_s=0.01, prefill_token_s=5e-3)
    slo = Slo(model="tiny", ttft_s=1.2, tpot_s=0.1)
    with StubUpstream(slow) as router, StubUpstream(says(whole(worker_page()))) as worker:
        write_endpoints(tmp_path, endpoints(router.url, worker.url))
        settings = GateSettings(
            models=("tiny",), slos={"default": slo}, anonymous=True, direct=False
        )
        cells = Cells(model="tiny", profiles=(profile,), state_dir=tmp_path)
        with running_gate(settings=settings, cells=cells) as gate:
            time.sleep(0.3)
            body = {**ASK, "prompt": [1] * 100, "stream": True}
            with httpx.Client() as client:
                answers = send_together(client, f"{gate.url}/v1/completions", body, 5)
            metrics = httpx.get(f"{gate.url}/metrics").text
    statuses = sorted(a.status_code for a in answers)
    assert statuses == [200, 200, 503, 503, 503]
    shed = next(a for a in answers if a.status_code == 503)
    assert int(shed.headers["retry-after"]) >= 1
    assert "first token" in shed.json()["error"]["message"]
    assert 'way="shed",why="ttft"} 3.0' in metrics
    assert [r.outcome for r in gate.sink.records].count("shed") == 3
    assert all(r.predicted_ttft_s > 1.0 for r in gate.sink.records if r.outcome == "shed")


def test_what_is_shed_takes_nothing_of_a_keys_rate(tmp_path):
    """Two of five are let in; a limit of three at once refuses none of the others."""

    async def slow(writer, _request):
        await asyncio.sleep(1.5)
        writer.write(whole(event("x")))

    profile = linear_profile(prefill_base_s=0.01, prefill_token_s=5e-3)
    _, keys = keyed(requests_per_s=0.6)
    slo = Slo(model="tiny", request_class="chat", ttft_s=1.2, tpot_s=0.1)
    with StubUpstream(slow) as router, StubUpstream(says(whole(worker_page()))) as worker:
        write_endpoints(tmp_path, endpoints(router.url, worker.url))
        settings = GateSettings(models=("tiny",), slos={"chat": slo}, direct=False)
        cells = Cells(model="tiny", profiles=(profile,), state_dir=tmp_path)
        with running_gate(settings=settings, cells=cells, keys=keys) as gate:
            time.sleep(0.3)
            body = {**ASK, "prompt": [1] * 100, "stream": True}
            with httpx.Client(headers={"Authorization": "Bearer pwk_shop"}) as client:
                answers = send_together(client, f"{gate.url}/v1/completions", body, 5)
    assert sorted(a.status_code for a in answers) == [200, 200, 503, 503, 503]


def test_without_readings_of_the_workers_everybody_is_let_in_and_that_is_counted(tmp_path):
    """With fresh ones three of these five would be shed, as above."""

    async def slow(writer, _request):
        await asyncio.sleep(1.5)
        writer.write(whole(event("x")))

    profile = linear_profile(prefill_base_s=0.01, prefill_token_s=5e-3)
    slo = Slo(model="tiny", ttft_s=1.2, tpot_s=0.1)
    with StubUpstream(slow) as router:
        write_endpoints(tmp_path, endpoints(router.url, "http://127.0.0.1:9"))
        cells = Cells(model="tiny", profiles=(profile,), state_dir=tmp_path)
        settings = GateSettings(models=("tiny",), slos={"default": slo}, anonymous=True)
        with running_gate(settings=settings, cells=cells) as gate:
            body = {**ASK, "prompt": [1] * 100, "stream": True}
            with httpx.Client() as client:
                answers = send_together(client, f"{gate.url}/v1/completions", body, 5)
            metrics = httpx.get(f"{gate.url}/metrics").text
    assert [a.status_code for a in answers] == [200] * 5
    assert 'poolwise_gate_stale_total{cell="a"} 5.0' in metrics


def test_a_short_prompt_goes_straight_to_the_decode_worker(tmp_path):
    slo = Slo(model="tiny", ttft_s=1.0, tpot_s=0.1)
    with StubUpstream(OK) as router, StubUpstream(worker_answer) as worker:
        write_endpoints(tmp_path, endpoints(router.url, worker.url))
        cells = Cells(model="tiny", profiles=(linear_profile(),), state_dir=tmp_path)
        settings = GateSettings(models=("tiny",), slos={"default": slo}, anonymous=True)
        with running_gate(settings=settings, cells=cells) as gate:
            time.sleep(0.5)
            assert post(gate.url).content == b'{"choices":[]}'
            long = post(gate.url, {**ASK, "prompt": [1] * 4000})
            assert long.content != b'{"choices":[]}'
    assert [r.decision for r in gate.sink.records] == ["direct", "admit"]
    assert [len(json.loads(r.body)["prompt"]) for r in router.received] == [4000]


@pytest.mark.parametrize(
    "more", [{"n": 2}, {"prompt_logprobs": 1}, {"echo": True, "logprobs": 1}, {}]
)
def test_a_prompt_that_decode_computes_anyway_goes_there_however_long(tmp_path, more):
    slo = Slo(model="tiny", ttft_s=60.0, tpot_s=5.0)
    profile = linear_profile(prefill_base_s=0.01, prefill_token_s=5e-3)
    with StubUpstream(OK) as router, StubUpstream(worker_answer) as worker:
        write_endpoints(tmp_path, endpoints(router.url, worker.url))
        cells = Cells(model="tiny", profiles=(profile,), state_dir=tmp_path)
        settings = GateSettings(models=("tiny",), slos={"default": slo}, anonymous=True)
        with running_gate(settings=settings, cells=cells) as gate:
            time.sleep(0.5)
            assert post(gate.url, {**ASK, "prompt": [1] * 4000, **more}).status_code == 200
    (record,) = gate.sink.records
    told = ("direct", "decode_computes") if more else ("admit", "idle")
    assert (record.decision, record.reason) == told


def test_a_worker_that_drains_is_sent_nothing_from_then_on(tmp_path):
    """The gate hears of it with the next request, not with its next look in two seconds."""
    slo = Slo(model="tiny", ttft_s=1.0, tpot_s=0.1)
    with StubUpstream(OK) as router, StubUpstream(worker_answer) as worker:
        there = endpoints(router.url, worker.url)
        write_endpoints(tmp_path, there)
        cells = Cells(model="tiny", profiles=(linear_profile(),), state_dir=tmp_path)
        settings = GateSettings(models=("tiny",), slos={"default": slo}, anonymous=True)
        with running_gate(settings=settings, cells=cells) as gate:
            time.sleep(0.5)
            assert post(gate.url).content == b'{"choices":[]}'
            leaving = tuple(replace(w, draining=w.role is Role.DECODE) for w in there.workers)
            write_endpoints(tmp_path, replace(there, workers=leaving))
            assert post(gate.url).content != b'{"choices":[]}'
    assert [r.decision for r in gate.sink.records] == ["direct", "admit"]


async def worker_answer(writer, request):
    writer.write(whole(worker_page() if request.method == "GET" else b'{"choices":[]}'))


def endpoints(router: str, worker: str) -> Endpoints:
    return Endpoints(
        pid=1,
        model="tiny",
        routers=(RouterEndpoint(cell="a", url=router, metrics_url=router),),
        workers=(
            WorkerEndpoint(name="p0", role=Role.PREFILL, cell="a", url=worker),
            WorkerEndpoint(name="d0", role=Role.DECODE, cell="a", url=worker),
        ),
    )


def send_together(client, url, body, count):
    with ThreadPoolExecutor(count) as pool:
        jobs = []
        for _ in range(count):
            jobs.append(pool.submit(client.post, url, json=body, timeout=20))
            time.sleep(0.02)
        return [job.result() for job in jobs]
