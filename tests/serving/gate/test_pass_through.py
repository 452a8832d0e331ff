"""Over real sockets: what the upstream says reaches the client byte for byte, and ends with it."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from planner.domain.slo import Slo
from serving.gate.app import GateSettings
from serving.gate.cells import Cells
from tests.fakes.upstream import STREAM_HEAD, Received, StubUpstream, event, piece, says, whole
from tests.serving.gate.running import running_gate

ASK = {"model": "tiny", "prompt": "a secret word", "max_tokens": 4, "stream": True}
USAGE = ',"usage":{"prompt_tokens":7,"completion_tokens":3}'
EVENTS = [
    event("one"),
    event(" tw\\u00f6"),
    event(' \\"completion_tokens\\": 99'),
    f'data: {{"choices":[]{USAGE}}}\n\n'.encode(),
    b"data: [DONE]\n\n",
]


def stream(parts: list[bytes]) -> bytes:
    return STREAM_HEAD + b"".join(piece(p) for p in parts) + piece(b"")


def wait_until(condition, *, seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_stream_passes_unchanged_whatever_its_pieces(path):
    whole_text = b"".join(EVENTS)
    cut = [whole_text[i : i + 7] for i in range(0, len(whole_text), 7)]
    with StubUpstream(says(stream(cut))) as upstream, running_gate(upstream.url) as gate:
        answer = httpx.post(f"{gate.url}{path}", json=ASK)
        assert answer.status_code == 200
        assert answer.content == whole_text
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-upstream"] == "yes"
        wait_until(lambda: gate.sink.records)
    (record,) = gate.sink.records
    assert (record.outcome, record.status) == ("complete", 200)
    assert (record.input_tokens, record.output_tokens, record.tokens_counted) == (7, 3, True)
    assert upstream.received[0].path == path


def test_the_body_goes_on_as_it_came_and_the_key_does_not():
    body = b'{ "model":"tiny",  "prompt":"caf\\u00e9 \xc3\xa9", "temperature":0.10 }'
    answer = whole(b'{"choices":[]}', headers=("Content-Type: application/json",))
    with StubUpstream(says(answer)) as upstream, running_gate(upstream.url) as gate:
        headers = {"Authorization": "Bearer sk-mine", "X-Request-Id": "abc"}
        httpx.post(f"{gate.url}/v1/completions", content=body, headers=headers)
    (received,) = upstream.received
    assert received.body == body
    assert received.header("x-request-id") == "abc"
    assert received.header("authorization") is None


def test_headers_of_one_connection_or_that_steer_the_router_do_not_go_on():
    answer = whole(b"{}", headers=("Connection: close, X-Hop-Back", "X-Hop-Back: 1", "X-Other: 2"))
    with StubUpstream(says(answer)) as upstream, running_gate(upstream.url) as gate:
        headers = {
            "Connection": "close, X-Hop",
            "X-Hop": "1",
            "X-Data-Parallel-Rank": "1",
            "X-SMG-Target-Worker": "0",
            "X-Request-Id": "abc",
        }
        answered = httpx.post(f"{gate.url}/v1/completions", json=ASK, headers=headers)
    (received,) = upstream.received
    assert received.header("x-request-id") == "abc"
    for name in ("x-hop", "x-data-parallel-rank", "x-smg-target-worker"):
        assert received.header(name) is None, name
    assert "x-hop-back" not in answered.headers
    assert answered.headers["x-other"] == "2"


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_of_http_1_0_gets_no_chunks(streams):
    text = b"".join(EVENTS) if streams else b'{"choices":[]}'
    says_it = stream(EVENTS) if streams else whole(text)
    body = json.dumps(ASK).encode()
    request = b"POST /v1/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(body)
    with StubUpstream(says(says_it)) as upstream, running_gate(upstream.url) as gate:
        with socket.create_connection(("127.0.0.1", gate.port), timeout=10) as client:
            client.sendall(request + body)
            said = b"".join(iter(lambda: client.recv(65_536), b""))
        wait_until(lambda: gate.sink.records)
    head, _, answer = said.partition(b"\r\n\r\n")
    assert b"200 OK" in head
    assert b"transfer-encoding" not in head.lower()
    assert answer == text
    assert gate.sink.records[0].outcome == "complete"


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "503 Service Unavailable"])
def test_errors_of_the_upstream_pass_unchanged(status):
    body = b'{"error": {"message": "no", "odd": 1.0}}'
    headers = ("Content-Type: application/json", "Retry-After: 7")
    with (
        StubUpstream(says(whole(body, status=status, headers=headers))) as upstream,
        running_gate(upstream.url) as gate,
    ):
        answer = httpx.post(f"{gate.url}/v1/completions", json=ASK)
    assert answer.status_code == int(status[:3])
    assert answer.content == body
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("status", "met"), [("400 Bad Request", None), ("500 Internal Server Error", False)]
)
def test_what_the_upstream_refuses_is_no_missed_promise_and_what_it_fails_is(status, met):
    slo = Slo(model="tiny", ttft_s=1.0, tpot_s=1.0, attainment_ratio=0.95)
    settings = GateSettings(models=("tiny",), slos={"default": slo}, anonymous=True)
    answer = whole(b"{}", status=status)
    with (
        StubUpstream(says(answer)) as upstream,
        running_gate(upstream.url, settings=settings) as gate,
    ):
        httpx.post(f"{gate.url}/v1/completions", json=ASK)
        wait_until(lambda: gate.sink.records)
    assert gate.sink.records[0].met is met


def test_pieces_are_not_held_back():
    first_came = threading.Event()

    async def slowly(writer: asyncio.StreamWriter, _request: Received) -> None:
        writer.write(STREAM_HEAD + piece(EVENTS[0]))
        await writer.drain()
        while not first_came.is_set():  # the rest comes only after the client has the first
            await asyncio.sleep(0.01)
        writer.write(piece(EVENTS[-1]) + piece(b""))

    with (
        StubUpstream(slowly) as upstream,
        running_gate(upstream.url) as gate,
        httpx.stream("POST", f"{gate.url}/v1/completions", json=ASK, timeout=60) as answer,
    ):
        pieces = answer.iter_raw()
        assert next(pieces) == EVENTS[0]
        first_came.set()
        assert b"".join(pieces) == EVENTS[-1]


def test_a_client_that_hangs_up_ends_the_request_at_the_upstream():
    async def endless(writer: asyncio.StreamWriter, _request: Received) -> None:
        writer.write(STREAM_HEAD)
        for _ in range(1000):
            writer.write(piece(event("more")))
            await writer.drain()
            await asyncio.sleep(0.01)

    with StubUpstream(endless) as upstream, running_gate(upstream.url) as gate:
        with httpx.stream("POST", f"{gate.url}/v1/completions", json=ASK) as answer:
            next(answer.iter_raw())
        assert upstream.dropped.wait(3)
        wait_until(lambda: gate.sink.records)
        assert gate.gate.cells.all[0].ledger.in_flight == 0
    (record,) = gate.sink.records
    assert record.outcome == "cancelled"
    assert record.output_tokens >= 1


def test_a_client_that_hangs_up_before_the_answer_begins_ends_it_too():
    async def silent(_writer: asyncio.StreamWriter, _request: Received) -> None:
        await asyncio.sleep(5)

    with StubUpstream(silent) as upstream, running_gate(upstream.url) as gate:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{gate.url}/v1/completions", json=ASK, timeout=0.3)
        assert upstream.dropped.wait(3)
        wait_until(lambda: gate.sink.records)
    assert gate.sink.records[0].outcome == "cancelled"


def test_an_answer_that_the_upstream_breaks_off_is_broken_off():
    async def broken(writer: asyncio.StreamWriter, _request: Received) -> None:
        writer.write(STREAM_HEAD + piece(EVENTS[0]))
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.transport.abort()

    with StubUpstream(broken) as upstream, running_gate(upstream.url) as gate:
        with (
            httpx.stream("POST", f"{gate.url}/v1/completions", json=ASK) as answer,
            pytest.raises(httpx.RemoteProtocolError),
        ):
            answer.read()
        wait_until(lambda: gate.sink.records)
    assert gate.sink.records[0].outcome == "failed"


def test_an_upstream_that_hangs_up_without_an_answer_is_told():
    async def nothing(writer: asyncio.StreamWriter, _request: Received) -> None:
        writer.transport.abort()

    with StubUpstream(nothing) as upstream, running_gate(upstream.url) as gate:
        answer = httpx.post(f"{gate.url}/v1/completions", json=ASK)
        assert len(upstream.received) == 1  # it may have been run: it is not sent again
    assert answer.status_code == 502
    assert "closed the connection" in answer.json()["error"]["message"]


def raw_answer(gate, *headers: bytes, body: bytes = json.dumps(ASK).encode()) -> tuple[int, bytes]:
    """Ask with headers as bytes; the status, and all that came."""
    head = [b"POST /v1/completions HTTP/1.1", b"Host: gate", b"Connection: close"]
    head += [b"Content-Length: %d" % len(body), *headers]
    with socket.create_connection(("127.0.0.1", gate.port), timeout=10) as client:
        client.sendall(b"\r\n".join(head) + b"\r\n\r\n" + body)
        came = b"".join(iter(lambda: client.recv(65536), b""))
    return int(came.split(b" ", 2)[1]), came


def test_headers_in_utf_8_go_on_byte_for_byte_and_other_bytes_are_refused_by_name():
    with StubUpstream(says(whole(b"{}"))) as upstream, running_gate(upstream.url) as gate:
        assert raw_answer(gate, b"X-Name: caf\xc3\xa9")[0] == 200
        status, came = raw_answer(gate, b"X-Name: caf\xe9")
        assert (status, b"x-name" in came) == (400, True)
        assert raw_answer(gate, b"X-Poolwise-Class: \xe9")[0] == 400  # the gate's own: no class
        assert raw_answer(gate, b"Authorization: Basic \xe9")[0] == 200  # goes no further
    first, second = upstream.received
    assert first.header("x-name").encode("latin-1") == b"caf\xc3\xa9"
    assert second.header("x-name") is None


@pytest.mark.parametrize(
    ("given", "told"), [("shop-7", "shop-7"), ("a b\tc", None), (None, None), ("x" * 500, None)]
)
def test_a_502_says_no_address_and_no_cause_but_an_id_that_the_log_has(given, told, caplog):
    impatient = GateSettings(models=("tiny",), anonymous=True, patience_s=0.1)
    port = free_port()
    with running_gate(f"http://127.0.0.1:{port}", settings=impatient) as gate:
        headers = {} if given is None else {"x-request-id": given}
        answer = httpx.post(f"{gate.url}/v1/completions", json=ASK, headers=headers)
    known = answer.headers["x-request-id"]
    assert (answer.status_code, known) == (502, told or known)
    assert known != given or told
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert known in error["message"]
    assert str(port) not in answer.text
    assert "127.0.0.1" not in answer.text
    (line,) = [r.getMessage() for r in caplog.records if known in r.getMessage()]
    assert str(port) in line


def test_without_a_known_router_nothing_is_said_of_files(tmp_path):
    nowhere = Cells(model="tiny", state_dir=tmp_path)
    with running_gate(cells=nowhere) as gate:
        answer = httpx.post(f"{gate.url}/v1/completions", json=ASK)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert str(tmp_path) not in answer.text
        assert str(tmp_path) in httpx.get(f"{gate.url}/readyz").text


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_of_two_cells_the_one_that_takes_connections_answers():
    dead = f"http://127.0.0.1:{free_port()}"
    with (
        StubUpstream(says(stream(EVENTS))) as upstream,
        running_gate(dead, upstream.url) as gate,
    ):
        answers = [httpx.post(f"{gate.url}/v1/completions", json=ASK) for _ in range(3)]
        assert [a.content for a in answers] == [b"".join(EVENTS)] * 3
        metrics = httpx.get(f"{gate.url}/metrics").text
        assert (
            f'poolwise_gate_upstream_errors_total{{cell="{dead}",error="no_connection"}} 3.0'
            in (metrics)
        )


def test_a_request_waits_for_a_router_that_is_started_again():
    port = free_port()
    with running_gate(f"http://127.0.0.1:{port}") as gate:
        answers = []
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{gate.url}/v1/completions", json=ASK))
        )
        asking.start()
        wait_until(
            lambda: 'error="no_connection"' in httpx.get(f"{gate.url}/metrics").text, seconds=20
        )
        with StubUpstream(says(stream(EVENTS)), port=port) as upstream:
            asking.join(20)
            assert len(upstream.received) == 1
        assert [a.content for a in answers] == [b"".join(EVENTS)]
        wait_until(lambda: gate.sink.records)
    assert [r.outcome for r in gate.sink.records] == ["complete"]


@pytest.mark.parametrize("says_when", [(), ("Retry-After: 1",)])
def test_a_router_that_has_nobody_to_ask_is_asked_again_unless_it_says_when(says_when):
    refusal = whole(b"nobody", status="503 Service Unavailable", headers=says_when)
    patient = GateSettings(models=("tiny",), anonymous=True, patience_s=0.5)
    with (
        StubUpstream(says(refusal)) as upstream,
        running_gate(upstream.url, settings=patient) as gate,
    ):
        answer = httpx.post(f"{gate.url}/v1/completions", json=ASK)
        assert (answer.status_code, answer.content) == (503, b"nobody")
        assert (len(upstream.received) == 1) == bool(says_when)


def test_without_any_upstream_requests_fail_and_the_gate_is_not_ready():
    impatient = GateSettings(models=("tiny",), anonymous=True, patience_s=0.3)
    with running_gate(f"http://127.0.0.1:{free_port()}", settings=impatient) as gate:
        answer = httpx.post(f"{gate.url}/v1/completions", json=ASK)
        assert answer.status_code == 502
        assert answer.json()["error"]["type"] == "UpstreamError"
        assert httpx.get(f"{gate.url}/healthz").status_code == 200
        assert httpx.get(f"{gate.url}/readyz").status_code == 503


@contextmanager
def hanging_router() -> Iterator[str]:
    """Takes connections, in the kernel, and answers nothing."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen(128)
        yield f"http://127.0.0.1:{one.getsockname()[1]}"


def test_a_router_that_hangs_gets_nothing_new_until_it_answers_again():
    with ExitStack() as later:
        with hanging_router() as url:
            gate = later.enter_context(running_gate(url))
            wait_until(lambda: gate.gate.cells.all[0].hangs, seconds=20)
            # httpx gives up after 5 s: these come at once.
            answer = httpx.post(f"{gate.url}/v1/completions", json=ASK)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            ready = httpx.get(f"{gate.url}/readyz")
            assert (ready.status_code, "answers none" in ready.text) == (503, True)
            assert httpx.get(f"{gate.url}/v1/models").status_code == 503
        port = int(url.rpartition(":")[2])
        later.enter_context(StubUpstream(says(stream(EVENTS)), port=port))
        wait_until(lambda: not gate.gate.cells.all[0].hangs, seconds=20)
        answer = httpx.post(f"{gate.url}/v1/completions", json=ASK)
        assert answer.content == b"".join(EVENTS)


def test_requests_go_past_a_router_that_hangs_to_another_cell():
    with (
        hanging_router() as url,
        StubUpstream(says(stream(EVENTS))) as upstream,
        running_gate(url, upstream.url) as gate,
    ):
        wait_until(lambda: gate.gate.cells.all[0].hangs, seconds=20)
        answers = [httpx.post(f"{gate.url}/v1/completions", json=ASK) for _ in range(3)]
        assert [a.content for a in answers] == [b"".join(EVENTS)] * 3
        assert httpx.get(f"{gate.url}/readyz").status_code == 200


def test_models_are_the_upstreams_and_nothing_else_of_it_is_reached():
    listing = whole(b'{"data": [{"id": "tiny"}]}')
    with StubUpstream(says(listing)) as upstream, running_gate(upstream.url) as gate:
        assert httpx.get(f"{gate.url}/v1/models").content == b'{"data": [{"id": "tiny"}]}'
        assert httpx.get(f"{gate.url}/readyz").status_code == 200
        for method, path in (("GET", "/workers"), ("POST", "/workers"), ("DELETE", "/workers/1")):
            assert httpx.request(method, f"{gate.url}{path}").status_code == 404
        assert {r.path for r in upstream.received} == {"/v1/models"}


def test_no_word_of_a_prompt_or_an_answer_is_kept(caplog):
    with (
        caplog.at_level("DEBUG"),
        StubUpstream(says(stream(EVENTS))) as upstream,
        running_gate(upstream.url) as gate,
    ):
        httpx.post(f"{gate.url}/v1/completions", json=ASK)
        wait_until(lambda: gate.sink.records)
        metrics = httpx.get(f"{gate.url}/metrics").text
    kept = (
        metrics
        + repr(gate.sink.records)
        + "".join(
            r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))
        )
    )
    assert "secret" not in kept
    assert "one" not in json.dumps([r.reason for r in gate.sink.records])


@contextmanager
def refusing_early() -> Iterator[str]:
    """A server that answers at a request's head, and closes with the body still coming."""
    answer = whole(b'{"error":"too large"}', status="413 Payload Too Large")

    def serve(connection: socket.socket) -> None:
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1024)
            connection.sendall(whole(b"") if b" /health " in head else answer)

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@pytest.mark.parametrize("megabytes", [0.2, 2, 12])
def test_a_refusal_that_comes_before_the_whole_body_went_passes(megabytes: float):
    """Without care, a write that fails takes an answer with it that has come: one in four here."""
    ask = {**ASK, "prompt": "x" * int(megabytes * 1e6)}
    with refusing_early() as url, running_gate(url) as gate:
        answers = [httpx.post(f"{gate.url}/v1/completions", json=ask) for _ in range(25)]
        wait_until(lambda: len(gate.sink.records) == 25)
    assert {(a.status_code, a.content) for a in answers} == {(413, b'{"error":"too large"}')}
    assert {r.outcome for r in gate.sink.records} == {"refused"}


def test_answers_get_the_time_to_drain_that_was_given_and_no_more():
    """One that ends within it is whole; one that does not is broken off, told as such."""
    ends, over = threading.Event(), threading.Event()

    async def at_once_or_never(writer: asyncio.StreamWriter, request: Received) -> None:
        writer.write(STREAM_HEAD + piece(EVENTS[0]))
        await writer.drain()
        until = over if b"endless" in request.body else ends
        while not until.is_set():
            await asyncio.sleep(0.01)
        writer.write(piece(EVENTS[-1]) + piece(b""))

    def ask(prompt: str, url: str) -> None:
        asked = {**ASK, "prompt": prompt}
        try:
            with httpx.stream("POST", f"{url}/v1/completions", json=asked, timeout=60) as answer:
                pieces = answer.iter_raw()
                got[prompt] = [next(pieces)]
                got[prompt] += pieces
        except httpx.HTTPError as error:
            broken[prompt] = error

    got: dict[str, list[bytes]] = {}
    broken: dict[str, Exception] = {}
    with StubUpstream(at_once_or_never) as upstream:
        with running_gate(upstream.url, drain_s=3.0) as gate:
            asking = [
                threading.Thread(target=ask, args=(prompt, gate.url))
                for prompt in ("short", "endless")
            ]
            for one in asking:
                one.start()
            wait_until(lambda: len(got) == 2)
            threading.Timer(0.5, ends.set).start()
        over.set()
        for one in asking:
            one.join(30)
    assert b"".join(got["short"]) == EVENTS[0] + EVENTS[-1]
    assert set(broken) == {"endless"}
    outcomes = [r.outcome for r in gate.sink.records]
    assert (len(outcomes), outcomes.count("complete")) == (2, 1)
