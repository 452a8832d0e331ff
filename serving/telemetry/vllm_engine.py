"""What a vLLM worker says of itself on `/metrics`, in seconds, tokens and bytes."""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from planner.domain.errors import EngineError
from serving.telemetry.histogram import Histogram

SCRAPE_TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCounters:
    """Counters of one worker since its start. Subtract two readings to get an interval.

    Parameters
    ----------
    prompt_tokens_computed, prompt_tokens_cached, prompt_tokens_transferred : float
        Prompt tokens by where their KV cache came from: computed here, found in the local
        prefix cache, moved from another worker.
    generation_tokens : float
    transfers, transfer_bytes, transfer_s : float
        KV transfers received over NIXL: how many, bytes, seconds spent.
    failed_transfers, expired_transfers : float
        Failed ones, and caches that nobody fetched before their lease ended.
    preemptions : float
    requests_finished : float
    """

    prompt_tokens_computed: float
    prompt_tokens_cached: float
    prompt_tokens_transferred: float
    generation_tokens: float
    transfers: float
    transfer_bytes: float
    transfer_s: float
    failed_transfers: float
    expired_transfers: float
    preemptions: float
    requests_finished: float

    def __sub__(self, earlier: Self) -> Self:
        return type(self)(
            **{f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)}
        )

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReading:
    """One scrape of one worker.

    Parameters
    ----------
    running, waiting : int
        Requests in the batch, and in the queue.
    kv_usage_ratio : float
        Share of the KV cache in use, 0..1.
    kv_capacity_tokens : int
        Tokens whose KV cache fits.
    kv_block_tokens : int
        Tokens in one block of it.
    """

    running: int
    waiting: int
    kv_usage_ratio: float
    kv_capacity_tokens: int
    kv_block_tokens: int
    counters: EngineCounters


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What one engine served since its start, or over an interval; any vLLM tells it.

    Parameters
    ----------
    prompt_tokens, computed_tokens : float
        Of prompts that were begun, and those of them that this engine computed itself.
    generation_tokens, requests_finished : float
    ttft_s, itl_s, prefill_s : Histogram
        Time to first token, gaps between tokens, and from scheduled to first token of finished
        requests, seconds.
    prompt_lengths : Histogram
        Tokens of the prompts of finished requests.
    """

    prompt_tokens: float
    computed_tokens: float
    generation_tokens: float
    requests_finished: float
    ttft_s: Histogram
    itl_s: Histogram
    prefill_s: Histogram
    prompt_lengths: Histogram

    def __sub__(self, earlier: Self) -> Self:
        return type(self)(
            **{f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)}
        )

    @property
    def went_back(self) -> bool:
        """Whether an interval holds less than nothing: the engine was started anew in it."""
        histograms = (self.ttft_s, self.itl_s, self.prefill_s, self.prompt_lengths)
        plain = (self.prompt_tokens, self.generation_tokens, self.requests_finished)
        return min(*plain, *(h.count for h in histograms)) < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficReading:
    """One scrape of one engine's traffic.

    Parameters
    ----------
    model : str or None
        The name it serves.
    running, waiting : float
        Requests in the batch, and in the queue, at this moment.
    started_at_s : float or None
        When the process was started, seconds since 1970, where it says so.
    """

    model: str | None
    running: float
    waiting: float
    started_at_s: float | None
    total: Traffic


def read_traffic(client: httpx.Client, url: str) -> TrafficReading:
    """Scrape the traffic of one worker.

    Parameters
    ----------
    url : str
        Of the worker, with or without `/metrics`.

    Raises
    ------
    EngineError
        When it does not answer, or is no vLLM: no data is never zero.
    """
    page = f"{url.rstrip('/').removesuffix('/metrics')}/metrics"
    try:
        answer = client.get(page)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise EngineError(f"{page} does not answer: {error}") from error
    return parse_traffic(answer.text, source=page)


def parse_traffic(text: str, *, source: str) -> TrafficReading:
    """Bring a scrape into our units; see `read_traffic`."""
    samples = _Samples(text, source, needs="is it a vLLM worker (and not a router)?")
    by_source = "vllm:prompt_tokens_by_source_total"
    prompts = samples.total("vllm:prompt_tokens_total")
    # Named anew in vLLM 0.12; the older name means the same.
    itl = "vllm:inter_token_latency_seconds"
    if not samples.has(f"{itl}_count"):
        itl = "vllm:time_per_output_token_seconds"
    return TrafficReading(
        model=samples.label_or_none("vllm:num_requests_running", "model_name"),
        running=samples.total("vllm:num_requests_running"),
        waiting=samples.total("vllm:num_requests_waiting"),
        started_at_s=(
            samples.total("process_start_time_seconds")
            if samples.has("process_start_time_seconds")
            else None
        ),
        total=Traffic(
            prompt_tokens=prompts,
            computed_tokens=(
                samples.total(by_source, source="local_compute")
                if samples.has(by_source)
                else prompts
            ),
            generation_tokens=samples.total("vllm:generation_tokens_total"),
            requests_finished=samples.total("vllm:request_success_total"),
            ttft_s=samples.histogram("vllm:time_to_first_token_seconds"),
            itl_s=samples.histogram(itl),
            prefill_s=samples.histogram("vllm:request_prefill_time_seconds"),
            prompt_lengths=samples.histogram("vllm:request_prompt_tokens"),
        ),
    )


def read_engine(client: httpx.Client, url: str) -> EngineReading:
    """Scrape one worker.

    Raises
    ------
    EngineError
        When it does not answer, or lacks a metric: no data is never zero.
    """
    try:
        answer = client.get(f"{url}/metrics")
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise EngineError(f"worker {url} does not answer on /metrics: {error}") from error
    return parse_engine(answer.text, source=url)


async def read_engine_async(url: str) -> EngineReading:
    """Scrape one worker without holding up an event loop.

    Raises
    ------
    EngineError
        As `read_engine` does.
    """
    with httpx.Client(timeout=SCRAPE_TIMEOUT_S) as client:
        return await asyncio.to_thread(read_engine, client, url)


def parse_engine(text: str, *, source: str) -> EngineReading:
    """Bring a scrape into our units."""
    samples = _Samples(text, source)
    blocks = samples.whole_number("vllm:cache_config_info", "num_gpu_blocks")
    block_tokens = samples.whole_number("vllm:cache_config_info", "block_size")
    by_source = "vllm:prompt_tokens_by_source_total"
    return EngineReading(
        running=samples.count("vllm:num_requests_running"),
        waiting=samples.count("vllm:num_requests_waiting"),
        kv_usage_ratio=samples.total("vllm:kv_cache_usage_perc"),
        kv_capacity_tokens=blocks * block_tokens,
        kv_block_tokens=block_tokens,
        counters=EngineCounters(
            prompt_tokens_computed=samples.total(by_source, source="local_compute"),
            prompt_tokens_cached=samples.total(by_source, source="local_cache_hit"),
            prompt_tokens_transferred=samples.total(by_source, source="external_kv_transfer"),
            generation_tokens=samples.total("vllm:generation_tokens_total"),
            transfers=samples.total("vllm:nixl_xfer_time_seconds_count"),
            transfer_bytes=samples.total("vllm:nixl_bytes_transferred_sum"),
            transfer_s=samples.total("vllm:nixl_xfer_time_seconds_sum"),
            failed_transfers=samples.total("vllm:nixl_num_failed_transfers_total"),
            expired_transfers=samples.total("vllm:nixl_num_kv_expired_reqs_total"),
            preemptions=samples.total("vllm:num_preemptions_total"),
            requests_finished=samples.total("vllm:request_success_total"),
        ),
    )


class _Samples:
    """Samples of one scrape by name. vLLM's own exporter spells names with a colon."""

    def __init__(
        self,
        text: str,
        source: str,
        *,
        needs: str = "is it a vLLM 0.32 or newer with NixlConnector?",
    ) -> None:
        self._source = source
        self._needs = needs
        self._by_name: dict[str, list[tuple[dict[str, str], float]]] = {}
        try:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    self._by_name.setdefault(sample.name, []).append((sample.labels, sample.value))
        except (ValueError, IndexError, KeyError, TypeError) as error:
            raise EngineError(
                f"{source} does not answer with metrics in Prometheus' format: {needs}"
            ) from error

    def has(self, name: str) -> bool:
        """Whether there is any sample of this name."""
        return name in self._by_name

    def _of(self, name: str) -> Iterable[tuple[dict[str, str], float]]:
        found = self._by_name.get(name)
        if found is None:
            raise EngineError(f"{self._source} has no metric {name}: {self._needs}")
        return found

    def histogram(self, name: str) -> Histogram:
        """Sum over engines of a histogram."""
        cumulative: dict[float, float] = {}
        for labels, value in self._of(f"{name}_bucket"):
            end = self._number(f"{name}_bucket", "le", labels.get("le", ""))
            cumulative[end] = cumulative.get(end, 0.0) + value
        return Histogram.of(
            cumulative, count=self.total(f"{name}_count"), total=self.total(f"{name}_sum")
        )

    def label_or_none(self, name: str, label: str) -> str | None:
        """A label of the first sample, where it has one."""
        return next((have[label] for have, _ in self._of(name) if label in have), None)

    def total(self, name: str, **labels: str) -> float:
        """Sum over engines of the samples that carry these labels."""
        return sum(
            value
            for have, value in self._of(name)
            if all(have.get(k) == v for k, v in labels.items())
        )

    def count(self, name: str) -> int:
        """`total`, as what can be counted."""
        total = self.total(name)
        if not math.isfinite(total):
            raise EngineError(f"{self._source}: {name} is {total}, not a count")
        return int(total)

    def whole_number(self, name: str, label: str) -> int:
        """A label of the first sample that has it, where it is a whole number."""
        for have, _value in self._of(name):
            if label in have:
                number = self._number(name, label, have[label])
                if number.is_integer():
                    return int(number)
                raise EngineError(f"{self._source}: {name} has {label}={have[label]!r}")
        raise EngineError(f"{self._source}: metric {name} has no label {label}")

    def _number(self, name: str, label: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise EngineError(
                f"{self._source}: metric {name} has {label}={text!r}, which is no number"
            ) from None
