"""Timing answers token by token, against a server that streams on a known schedule."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import numpy as np
import pytest

from planner.domain.slo import Slo
from planner.domain.workload import Workload
from serving.traffic.load import Completion, LoadClient, Replay, Timing, replay
from serving.traffic.prompts import PromptWriter

WORDS = tuple(f"word{i}" for i in range(200))


def chunk(tokens: int, text: str = "x") -> bytes:
    body = (
        f'data: {{"choices":[{{"text":"{text}"}}],"usage":{{"prompt_tokens":3,'
        f'"completion_tokens":{tokens}}}}}\n\n'
    )
    return f"{len(body):x}\r\n{body}\r\n".encode()


@asynccontextmanager
async def server(steps: list[tuple[float, bytes]]) -> AsyncIterator[str]:
    """Serve the same steps (pause in seconds, bytes) to every request, then close."""

    handlers: list[asyncio.Task[None]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        try:
            header = await reader.readuntil(b"\r\n\r\n")
            length = int(header.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            for pause_s, data in steps:
                await asyncio.sleep(pause_s)
                writer.write(data)
                await writer.drain()
        except (asyncio.CancelledError, ConnectionError):
            pass
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers)


HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
)
END = b"0\r\n\r\n"


def ask(steps: list[tuple[float, bytes]], tokens: int, timeout_s: float = 5.0) -> Timing:
    async def run() -> Timing:
        async with server(steps) as url:
            client = LoadClient(url=url, model="tiny", timeout_s=timeout_s)
            try:
                return await client.send(Completion(prompt="a b c", output_tokens=tokens))
            finally:
                await client.close()

    return asyncio.run(run())


def test_every_token_is_timed() -> None:
    timing = ask([(0.0, HEAD), (0.2, chunk(1)), (0.1, chunk(2)), (0.1, chunk(3) + END)], 3)
    assert timing.error == ""
    assert (timing.input_tokens, timing.output_tokens, timing.text) == (3, 3, "xxx")
    assert timing.ttft_s >= 0.2
    assert timing.e2e_s >= 0.4
    assert timing.tpot_s == pytest.approx((timing.e2e_s - timing.ttft_s) / 2)
    assert len(timing.gaps_s()) == 2


def uncounted(text: str) -> bytes:
    return framed(f'data: {{"choices":[{{"text":"{text}"}}],"usage":null}}\n\n')


def total(tokens: int) -> bytes:
    usage = f'"usage":{{"prompt_tokens":3,"completion_tokens":{tokens}}}'
    return framed(f'data: {{"choices":[],{usage}}}\n\n')


def framed(body: str) -> bytes:
    return f"{len(body):x}\r\n{body}\r\n".encode()


def test_a_server_that_counts_at_the_end_is_timed_chunk_by_chunk() -> None:
    """A token without printable text is one: the first chunk says when the first token came."""
    steps = [(0.0, HEAD), (0.1, uncounted("")), (0.2, uncounted("x")), (0.0, total(2) + END)]
    timing = ask(steps, 2)
    assert (timing.error, timing.counted, timing.tokens) == ("", True, (1, 2))
    assert timing.input_tokens == 3
    assert 0.1 <= timing.ttft_s < timing.e2e_s - 0.15


def test_a_closing_chunk_without_a_token_is_none() -> None:
    steps = [(0.0, HEAD), (0.1, uncounted("x")), (0.1, uncounted("y")), (0.2, uncounted(""))]
    timing = ask([*steps, (0.0, total(2) + END)], 2)
    assert (timing.error, timing.counted, timing.tokens, timing.text) == ("", True, (1, 2), "xy")
    assert timing.e2e_s < 0.39


def test_a_total_that_no_chunks_add_up_to_is_spread_and_said_so() -> None:
    steps = [(0.0, HEAD), (0.0, uncounted("xyz")), (0.0, uncounted("u")), (0.0, total(6) + END)]
    timing = ask(steps, 6)
    assert (timing.error, timing.counted, timing.tokens) == ("", False, (3, 6))


def test_tokens_that_arrive_together_count_as_gaps_of_zero() -> None:
    timing = Timing(sent_at_s=0.0, token_at_s=(1.0, 2.0), tokens=(1, 4), input_tokens=1, error="")
    assert timing.gaps_s().tolist() == [1.0, 0.0, 0.0]
    assert timing.tpot_s == pytest.approx(1 / 3)


def test_request_refused_outright_is_summed_up_as_a_miss() -> None:
    refused = Timing(sent_at_s=0.0, token_at_s=(), tokens=(), input_tokens=0, error="HTTP 503")
    result = Replay(workload=requests([0.0], 1.0), timings=(refused,), began_at_s=0.0, late_s=0.0)
    assert result.gaps_s().tolist() == refused.gaps_s().tolist() == []
    assert result.summary(Slo(model="tiny", ttft_s=60, tpot_s=10)).attainment_ratio == 0.0


def test_answer_that_ends_early_is_a_failure() -> None:
    timing = ask([(0.0, HEAD), (0.0, chunk(1) + END)], 5)
    assert timing.error == "the answer ended after 1 of 5 tokens"
    assert np.isnan(timing.ttft_s)


def test_connection_cut_in_the_middle_is_a_failure() -> None:
    timing = ask([(0.0, HEAD), (0.0, chunk(1))], 5)
    assert "ClientPayloadError" in timing.error


WHOLE = 'data: {"choices":[{"text":"x"}],"usage":null}'


@pytest.mark.parametrize("kept", [25, len(WHOLE) - 1])
def test_stream_that_ends_in_the_middle_of_a_line_is_a_failure(kept: int) -> None:
    """Neither an exception nor a token: the line may lack its text or its end."""
    timing = ask([(0.0, HEAD), (0.0, uncounted("x")), (0.0, framed(WHOLE[:kept]) + END)], 2)
    assert timing.error in (
        "the stream was cut off in the middle of a line",
        "the answer ended after 1 of 2 tokens",
    )


def test_chunks_of_a_chat_are_said_to_be_none_of_a_completion() -> None:
    body = framed('data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
    timing = ask([(0.0, HEAD), (0.0, body + END)], 1)
    assert timing.error.startswith("the answer's chunks are none of /v1/completions")


def test_space_after_the_colon_is_optional() -> None:
    body = framed('data:{"choices":[{"text":"x"}],"usage":{"completion_tokens":1}}\n\n')
    timing = ask([(0.0, HEAD), (0.0, body + framed("data:[DONE]\n\n") + END)], 1)
    assert (timing.error, timing.text) == ("", "x")


def test_http_error_is_kept_with_its_text() -> None:
    body = b"HTTP/1.1 503 Busy\r\nContent-Length: 9\r\nConnection: close\r\n\r\nno worker"
    assert ask([(0.0, body)], 1).error == "HTTP 503: no worker"


def test_error_inside_the_stream_is_a_failure() -> None:
    event = b'data: {"error":{"message":"KV load failed"}}\n\n'
    framed = f"{len(event):x}\r\n".encode() + event + b"\r\n"
    assert "KV load failed" in ask([(0.0, HEAD), (0.0, framed + END)], 1).error


def test_silent_server_times_out() -> None:
    assert "no complete answer within" in ask([(0.0, HEAD), (3.0, END)], 1, timeout_s=0.3).error


def requests(offsets: list[float], duration_s: float) -> Workload:
    count = len(offsets)
    return Workload(
        start_at=datetime(2026, 1, 1, tzinfo=UTC),
        arrival_offset_s=np.array(offsets),
        input_tokens=np.full(count, 5),
        output_tokens=np.full(count, 2),
        cached_tokens=np.zeros(count, dtype=np.int64),
        request_class=np.full(count, "default"),
        duration_s=duration_s,
    )


def test_replay_is_open_loop_and_sums_up_all_arrivals() -> None:
    async def run():
        steps = [(0.0, HEAD), (0.3, chunk(1)), (0.05, chunk(2) + END)]
        async with server(steps) as url:
            client = LoadClient(url=url, model="tiny")
            try:
                workload = requests([0.0, 0.05, 0.1], 0.2)
                return await replay(client, workload, PromptWriter(words=WORDS, seed=1))
            finally:
                await client.close()

    result = asyncio.run(run())
    sent = np.array([t.sent_at_s for t in result.timings]) - result.began_at_s
    assert (sent >= np.array([0.0, 0.05, 0.1]) - 0.002).all()
    assert sent[2] < result.timings[0].token_at_s[0] - result.began_at_s
    summary = result.summary(Slo(model="tiny", ttft_s=60, tpot_s=10))
    assert summary.attainment_ratio == 1.0
    assert summary.ttft_p50_s >= 0.3
    assert result.summary(Slo(model="tiny", ttft_s=0.2, tpot_s=10)).attainment_ratio == 0.0


def test_stopped_replay_keeps_what_was_sent() -> None:
    async def run():
        async with server([(0.0, HEAD), (0.0, chunk(1)), (0.0, chunk(2) + END)]) as url:
            client = LoadClient(url=url, model="tiny")
            stop = asyncio.Event()
            asyncio.get_running_loop().call_later(0.2, stop.set)
            try:
                workload = requests([0.0, 0.0, 30.0], 60.0)
                writer = PromptWriter(words=WORDS, seed=1)
                return await replay(client, workload, writer, stop=stop)
            finally:
                await client.close()

    result = asyncio.run(run())
    assert len(result.timings) == len(result.workload) == 2
    assert not result.failures
