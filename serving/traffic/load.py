"""Send a workload to an OpenAI-compatible server and time every token of every answer."""

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
import numpy as np
from numpy.typing import NDArray

from planner.domain.slo import Slo
from planner.domain.workload import Floats, LatencySummary, ObservedWindow, Workload
from serving.traffic.prompts import PromptWriter

REQUEST_TIMEOUT_S = 120.0
NO_COMPLETION = "the answer's chunks are none of /v1/completions: they have no text"
_TOKENS = re.compile(r'"completion_tokens":\s*(\d+)')
_PROMPT = re.compile(r'"prompt_tokens":\s*(\d+)')
_CHOICE = re.compile(r'"choices":\s*\[\s*\{')
_TEXT = re.compile(r'"text":\s*"[^"]')


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One request as its client saw it. Instants in seconds of `time.perf_counter`.

    Parameters
    ----------
    sent_at_s : float
    token_at_s : (chunks,) float
        Arrival of each chunk of the stream that carried tokens.
    tokens : (chunks,) int
        Tokens received up to and including the chunk.
    input_tokens : int
        As counted by the server; 0 when it failed before saying so.
    error : str
        Empty when the answer is complete.
    text : str
        The answer.
    status : int or None
        HTTP status; None when there was no answer at all.
    retry_after_s : float or None
        After which the server wants to be asked again, seconds, where it said so.
    counted : bool
        Whether it is known how many tokens came with each chunk; else the total is spread over
        them, or where the server told none, every chunk counts as one.
    """

    sent_at_s: float
    token_at_s: tuple[float, ...]
    tokens: tuple[int, ...]
    input_tokens: int
    error: str
    text: str = ""
    status: int | None = None
    retry_after_s: float | None = None
    counted: bool = True

    @property
    def output_tokens(self) -> int:
        """Tokens received."""
        return self.tokens[-1] if self.tokens else 0

    @property
    def ttft_s(self) -> float:
        """Time to first token, NaN without a complete answer."""
        return self.token_at_s[0] - self.sent_at_s if not self.error else float("nan")

    @property
    def e2e_s(self) -> float:
        """End-to-end time, NaN without a complete answer."""
        return self.token_at_s[-1] - self.sent_at_s if not self.error else float("nan")

    @property
    def tpot_s(self) -> float:
        """(e2e - ttft) / (output_tokens - 1), NaN with one token or no complete answer."""
        if self.error or self.output_tokens < 2:
            return float("nan")
        return (self.e2e_s - self.ttft_s) / (self.output_tokens - 1)

    def gaps_s(self) -> Floats:
        """Gaps between tokens; a chunk of n tokens counts as n gaps, n - 1 of them 0."""
        total = np.array([0, *self.tokens], dtype=np.int64)
        counts = total[1:] - total[:-1]
        at = np.repeat(np.array(self.token_at_s, dtype=np.float64), counts)
        return np.diff(at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """All requests of a replayed workload, in order of arrival.

    Parameters
    ----------
    began_at_s : float
        Instant of the workload's offset 0, seconds of `time.perf_counter`.
    late_s : float
        How late the client itself sent its latest request: large values mean that the client
        was too slow and that latencies are not the server's.
    """

    workload: Workload
    timings: tuple[Timing, ...]
    began_at_s: float
    late_s: float

    @property
    def failures(self) -> tuple[str, ...]:
        """Errors of requests without a complete answer."""
        return tuple(t.error for t in self.timings if t.error)

    def column(self, name: str) -> Floats:
        """(requests,) `ttft_s`, `tpot_s` or `e2e_s`, NaN where there is none."""
        return np.array([getattr(t, name) for t in self.timings], dtype=np.float64)

    def gaps_s(self) -> Floats:
        """All gaps between tokens of all complete answers, seconds."""
        gaps = [t.gaps_s() for t in self.timings if not t.error]
        return np.concatenate(gaps) if gaps else np.empty(0)

    def met(self, slo: Slo) -> NDArray[np.bool_]:
        """(requests,) which requests met every objective."""
        return slo.met(
            ttft_s=self.column("ttft_s"),
            tpot_s=self.column("tpot_s"),
            itl_p99_s=np.array(
                [
                    float(np.quantile(g, 0.99)) if len(g := t.gaps_s()) else np.nan
                    for t in self.timings
                ]
            ),
            e2e_s=self.column("e2e_s"),
        )

    def summary(self, slo: Slo) -> LatencySummary:
        """Percentiles and attainment, over all arrivals."""
        if not self.timings:
            return LatencySummary()
        gaps = self.gaps_s()
        return LatencySummary(
            ttft_p50_s=_quantile(self.column("ttft_s"), 0.5),
            ttft_p95_s=_quantile(self.column("ttft_s"), 0.95),
            tpot_p50_s=_quantile(self.column("tpot_s"), 0.5),
            tpot_p95_s=_quantile(self.column("tpot_s"), 0.95),
            itl_p50_s=_quantile(gaps, 0.5),
            itl_p95_s=_quantile(gaps, 0.95),
            e2e_p95_s=_quantile(self.column("e2e_s"), 0.95),
            attainment_ratio=float(self.met(slo).mean()),
        )


def _quantile(values: Floats, level: float) -> float | None:
    values = values[np.isfinite(values)]
    return float(np.quantile(values, level)) if len(values) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One completion request: greedy, of a fixed length.

    Parameters
    ----------
    kv_transfer_params : dict of str to object, or None
        Where another worker keeps the prompt's KV cache, as that worker named it.
    """

    prompt: str
    output_tokens: int
    kv_transfer_params: Mapping[str, object] | None = None


@dataclass(slots=True)
class LoadClient:
    """Streams completions from one server.

    Parameters
    ----------
    url : str
        Base URL, without `/v1`.
    model : str
        Served model name.
    api_key : str or None
        Sent as a bearer token.
    """

    url: str
    model: str
    timeout_s: float = REQUEST_TIMEOUT_S
    api_key: str | None = field(default=None, repr=False)
    _session: aiohttp.ClientSession | None = field(init=False, default=None, repr=False)

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()

    def _http(self) -> aiohttp.ClientSession:
        """Its connections, as many as there are requests; they belong to the running loop.

        Of two clients the one with the parser in C: at 200 streams the other took 0.4 cores and
        added 9 % to the first token (docs/accuracy.md).
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None),
                headers={} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"},
                trust_env=True,
            )
        return self._session

    async def send(
        self, completion: Completion, *, on_first: Callable[[], None] = lambda: None
    ) -> Timing:
        """Send one request; errors come back inside the Timing.

        Parameters
        ----------
        on_first : callable
            Called when the first token has come.
        """
        body: dict[str, object] = {
            "model": self.model,
            "prompt": completion.prompt,
            "max_tokens": completion.output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            # Counting in every chunk would cost the server 4 % of every step (docs/accuracy.md).
            "stream_options": {"include_usage": True},
        }
        if completion.kv_transfer_params is not None:
            body["kv_transfer_params"] = completion.kv_transfer_params
        answer = _Answer(sent_at_s=time.perf_counter(), on_first=on_first)
        try:
            async with asyncio.timeout(self.timeout_s):
                async with self._http().post(
                    f"{self.url.rstrip('/')}/v1/completions", json=body, allow_redirects=False
                ) as response:
                    answer.status = response.status
                    kind = response.headers.get("content-type", "")
                    if response.status != 200:
                        text = (await response.read()).decode(errors="replace")
                        answer.error = f"HTTP {response.status}: {text[:400]}"
                        answer.retry_after_s = _seconds(response.headers.get("retry-after"))
                    elif not kind.startswith("text/event-stream"):
                        answer.error = (
                            f"the server does not stream: it answered {kind or 'something'} where "
                            "an event stream was asked for"
                        )
                    else:
                        async for line in response.content:
                            now_s = time.perf_counter()
                            answer.take(line.decode(errors="replace").rstrip("\r\n"), now_s)
        except TimeoutError:
            answer.error = f"no complete answer within {self.timeout_s:.0f} s"
        except (
            aiohttp.ClientError,
            ValueError,
        ) as error:  # a line beyond all bounds is a ValueError
            answer.error = f"{type(error).__name__}: {error}"
        return answer.timing(completion.output_tokens)


def _seconds(header: str | None) -> float | None:
    """A Retry-After header in seconds; dates, which are rare there, are not read."""
    try:
        seconds = math.nan if header is None else float(header)
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


@dataclass(slots=True)
class _Answer:
    """A stream while it arrives."""

    sent_at_s: float
    on_first: Callable[[], None]
    token_at_s: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    input_tokens: int = 0
    error: str = ""
    status: int | None = None
    retry_after_s: float | None = None
    counted: bool = False

    def take(self, line: str, now_s: float) -> None:
        """Note one line of the event stream."""
        if not line.startswith("data:"):
            return
        line = line[5:].lstrip()  # the space after the colon is optional in event streams
        if line == "[DONE]":
            return
        if line.startswith('{"error"'):
            self.error = line[:200]
            return
        counted = _TOKENS.search(line)
        so_far = self.tokens[-1] if self.tokens else 0
        if _CHOICE.search(line):
            running = int(counted.group(1)) if counted and (self.counted or not so_far) else None
            self.counted = running is not None
            if (count := so_far + 1 if running is None else running) > so_far:
                self.token_at_s.append(now_s)
                self.tokens.append(count)
                self.parts.append(line)
                if len(self.parts) == 1:
                    self.on_first()
        if counted and not self.counted and self.tokens:
            self._reconcile(int(counted.group(1)))
        if not self.input_tokens and (prompt := _PROMPT.search(line)):
            self.input_tokens = int(prompt.group(1))

    def _reconcile(self, total: int) -> None:
        """Take the total of a server that counts at the end only.

        As a rule each chunk is a token, one whose text is not yet printable too; some servers
        end with a chunk that is none. Else the total is spread over the chunks.
        """
        told = [i for i, part in enumerate(self.parts) if _TEXT.search(part)]
        if len(self.tokens) != total and len(told) == total:
            self.token_at_s = [self.token_at_s[i] for i in told]
            self.parts = [self.parts[i] for i in told]
            self.tokens = list(range(1, total + 1))
        chunks = len(self.tokens)
        self.counted = chunks == total
        if not self.counted:
            self.tokens = [max(round((i + 1) * total / chunks), 1) for i in range(chunks)]

    def timing(self, wanted_tokens: int) -> Timing:
        """Close the record; an answer that ended early is an error."""
        got = self.tokens[-1] if self.tokens else 0
        text = ""
        try:
            text = _join_text(self.parts)
        except ValueError as error:
            self.error = self.error or str(error)
        if not self.error and got < wanted_tokens:
            self.error = f"the answer ended after {got} of {wanted_tokens} tokens"
        return Timing(
            sent_at_s=self.sent_at_s,
            token_at_s=tuple(self.token_at_s),
            tokens=tuple(self.tokens),
            input_tokens=self.input_tokens,
            error=self.error,
            text=text,
            status=self.status,
            retry_after_s=self.retry_after_s,
            counted=self.counted,
        )


def _join_text(parts: list[str]) -> str:
    """The texts of an answer's chunks, one after the other.

    Raises
    ------
    ValueError
        When one is cut off, or something else than a chunk of a completion.
    """
    import json

    texts: list[str] = []
    for part in parts:
        try:
            texts += [c["text"] or "" for c in json.loads(part)["choices"] if "text" in c]
        except ValueError:
            raise ValueError("the stream was cut off in the middle of a line") from None
        except (KeyError, TypeError):
            raise ValueError(f"{NO_COMPLETION}: {part[:80]}") from None
    if parts and not texts:
        raise ValueError(f"{NO_COMPLETION}: {parts[0][:80]}")
    return "".join(texts)


Tick = Callable[[int, int], None]
"""Called with (requests sent, requests answered)."""


async def replay(
    client: LoadClient,
    workload: Workload,
    writer: PromptWriter,
    *,
    stop: asyncio.Event | None = None,
    tick: Tick = lambda _sent, _answered: None,
) -> Replay:
    """Send every request at its offset, open loop, and wait for all answers.

    Parameters
    ----------
    stop : asyncio.Event or None
        When set, nothing more is sent; what is under way is awaited.
    """
    prompts = [writer.of_request(workload, i) for i in range(len(workload))]
    tasks: list[asyncio.Task[Timing]] = []
    answered = 0
    late_s = 0.0
    began = time.perf_counter() + 0.05

    def count(_task: "asyncio.Task[Timing]") -> None:
        nonlocal answered
        answered += 1
        tick(len(tasks), answered)

    for i, offset_s in enumerate(workload.arrival_offset_s):
        if not await _wait_until(began + float(offset_s), stop):
            break
        late_s = max(late_s, time.perf_counter() - began - float(offset_s))
        completion = Completion(prompt=prompts[i], output_tokens=int(workload.output_tokens[i]))
        task = asyncio.create_task(client.send(completion))
        task.add_done_callback(count)
        tasks.append(task)
        tick(len(tasks), answered)
    else:
        await _wait_until(began + workload.duration_s, stop)
    timings = await asyncio.gather(*tasks)
    cut_s = workload.duration_s
    if len(timings) < len(workload):
        cut_s = float(workload.arrival_offset_s[len(timings)])
    return Replay(
        workload=workload.head(len(timings), duration_s=cut_s),
        timings=tuple(timings),
        began_at_s=began,
        late_s=late_s,
    )


async def _wait_until(instant_s: float, stop: asyncio.Event | None) -> bool:
    """Sleep; False when `stop` was set before."""
    delay = instant_s - time.perf_counter()
    if stop is None:
        await asyncio.sleep(max(delay, 0.0))
        return True
    if delay > 0 and not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), timeout=delay)
        except TimeoutError:
            return True
    return not stop.is_set()


def observed_window(replayed: Replay, slo: Slo) -> ObservedWindow:
    """Totals and latencies of a replayed window, as the forecaster takes them."""
    workload = replayed.workload
    return ObservedWindow(
        start_at=workload.start_at,
        window_s=workload.duration_s,
        requests=len(workload),
        input_tokens=int(workload.input_tokens.sum()),
        output_tokens=int(workload.output_tokens.sum()),
        cached_tokens=int(workload.cached_tokens.sum()),
        request_class=slo.request_class,
        latency=replayed.summary(slo),
    )
