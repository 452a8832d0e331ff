"""Heads of requests: how large, how late, and what clients offer in them."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import serving.gate.asgi as bodies
import serving.gate.connections as heads
from serving.gate.refusals import Refusal
from serving.gate.requests import Kind, read_request
from tests.fakes.upstream import StubUpstream, says, whole
from tests.serving.gate.running import RunningGate, running_gate

BODY = b'{"model":"tiny","prompt":"hello"}'
CHUNKED = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n"
START = b"POST /v1/completions HTTP/1.1\r\nHost: gate\r\n"
OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
LENGTH = f"Content-Length: {len(BODY)}\r\n".encode()
LAST = b"GET /healthz HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n"


@contextmanager
def gate_before_a_stub() -> Iterator[tuple[StubUpstream, RunningGate]]:
    answer = says(whole(b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5}}'))
    with StubUpstream(answer) as upstream, running_gate(upstream.url) as gate:
        yield upstream, gate


def answers_to(gate: RunningGate, *pieces: bytes) -> bytes:
    """All that comes back until the gate closes the connection."""
    with socket.create_connection(("127.0.0.1", gate.port), timeout=60) as client:
        for piece in pieces:
            client.sendall(piece)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


@pytest.mark.parametrize("rest", [LENGTH + b"\r\n" + BODY, b"Transfer-Encoding: chunked\r\n\r\n"])
@pytest.mark.parametrize("apart", [False, True])
def test_a_client_that_offers_http_2_is_answered_in_http_1_1(rest: bytes, apart: bool) -> None:
    """Java's HttpClient and `curl --http2` offer it with every request."""
    if b"chunked" in rest:
        rest += CHUNKED + b"\r\n"
    head, _, body = (START + OFFER + rest).partition(b"\r\n\r\n")
    pieces = (head + b"\r\n\r\n", body + LAST) if apart else (head + b"\r\n\r\n" + body + LAST,)
    with gate_before_a_stub() as (upstream, gate):
        said = answers_to(gate, *pieces)
    assert said.count(b"HTTP/1.1 200 OK") == 2  # the connection is used on
    (received,) = upstream.received
    assert received.body == BODY
    assert not {"upgrade", "http2-settings"} & {name.lower() for name, _ in received.headers}


def test_a_tunnel_is_refused() -> None:
    with gate_before_a_stub() as (_, gate):
        said = answers_to(gate, b"CONNECT other:80 HTTP/1.1\r\nHost: other\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"GET /healthz HTTP/1.1\r\nx: ", b"a" * 4096),
        (b"GET /", b"a" * 4096),
        (b"GET /healthz HTTP/1.1\r\n", b"a: b\r\n" * 500),
        (START + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED, b"a: b\r\n" * 500),
        (START + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a" * 4096),
    ],
    ids=["one header", "the path", "many headers", "trailers", "a chunk's extension"],
)
def test_a_head_without_end_is_cut_off(start: bytes, more: bytes) -> None:
    with gate_before_a_stub() as (upstream, gate):
        with socket.create_connection(("127.0.0.1", gate.port), timeout=60) as client:
            client.sendall(start)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):
                _send_over_and_over(client, more, size_bytes=64 << 20)
        assert answers_to(gate, LAST).startswith(b"HTTP/1.1 200 OK")  # others are served on
    assert upstream.received == []


def _send_over_and_over(client: socket.socket, piece: bytes, *, size_bytes: int) -> None:
    for _ in range(size_bytes // len(piece)):
        client.sendall(piece)


def test_a_head_that_is_too_large_is_told_so() -> None:
    """Sent piece by piece until an answer is there: what nobody reads would make the end abrupt."""
    with (
        gate_before_a_stub() as (_, gate),
        socket.create_connection(("127.0.0.1", gate.port), timeout=60) as client,
    ):
        client.sendall(b"GET /healthz HTTP/1.1\r\nx: ")
        while not _readable(client):
            client.sendall(b"a" * 4096)
        said = client.recv(1 << 16)
    assert said.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    told = json.loads(said.partition(b"\r\n\r\n")[2])["error"]
    assert told["code"] == 431
    assert "65536 bytes" in told["message"]


def _readable(client: socket.socket) -> bool:
    client.settimeout(0.05)
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        client.settimeout(60)


def test_lines_behind_a_body_are_not_passed_on_as_headers() -> None:
    body = CHUNKED + b"x-behind: 1\r\nx-bad: \xff\r\n\r\n"
    with gate_before_a_stub() as (upstream, gate):
        said = answers_to(gate, START + b"Transfer-Encoding: chunked\r\n\r\n" + body + LAST)
    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert upstream.received[0].header("x-behind") is None


@pytest.mark.parametrize("sent", [b"", b"POST /v1/comp", START + b"x: "])
def test_a_head_that_does_not_come_is_given_up(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "HEAD_TIMEOUT_S", 0.2)
    with gate_before_a_stub() as (_, gate):
        said = answers_to(gate, sent)
    assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


@pytest.mark.parametrize("sent", [b"", BODY[:5]])
def test_a_body_that_does_not_come_is_given_up(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_S", 0.2)
    with gate_before_a_stub() as (upstream, gate):
        said = answers_to(gate, START + LENGTH + b"\r\n" + sent)
    assert said.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert upstream.received == []


def test_a_key_that_stands_twice_is_found_among_very_many() -> None:
    """A walk through all keys for each of them would take hours."""
    keys = b",".join(b'"%d":0' % i for i in range(300_000))
    found = read_request(b"{" + keys + b',"z":1,"z":2}', Kind.COMPLETION, disaggregated=True)
    assert isinstance(found, Refusal)
    assert "'z'" in found.message
