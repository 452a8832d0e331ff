"""What a vLLM worker says of itself on `/metrics`, in seconds, tokens and bytes."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from planner.domain.errors import EngineError

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
    blocks = samples.label("vllm:cache_config_info", "num_gpu_blocks")
    block_tokens = samples.label("vllm:cache_config_info", "block_size")
    by_source = "vllm:prompt_tokens_by_source_total"
    return EngineReading(
        running=int(samples.total("vllm:num_requests_running")),
        waiting=int(samples.total("vllm:num_requests_waiting")),
        kv_usage_ratio=samples.total("vllm:kv_cache_usage_perc"),
        kv_capacity_tokens=int(blocks) * int(block_tokens),
        kv_block_tokens=int(block_tokens),
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

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        self._by_name: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._by_name.setdefault(sample.name, []).append((sample.labels, sample.value))

    def _of(self, name: str) -> Iterable[tuple[dict[str, str], float]]:
        found = self._by_name.get(name)
        if found is None:
            raise EngineError(
                f"{self._source} has no metric {name}: is it a vLLM 0.32 or newer with "
                "NixlConnector?"
            )
        return found

    def total(self, name: str, **labels: str) -> float:
        """Sum over engines of the samples that carry these labels."""
        return sum(
            value
            for have, value in self._of(name)
            if all(have.get(k) == v for k, v in labels.items())
        )

    def label(self, name: str, label: str) -> str:
        """A label of the first sample."""
        for have, _value in self._of(name):
            if label in have:
                return have[label]
        raise EngineError(f"{self._source}: metric {name} has no label {label}")
